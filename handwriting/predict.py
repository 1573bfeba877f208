"""python -m handwriting.predict CHECKPOINT IMAGE …: the character, or all characters, in image files."""

import argparse
import sys
from pathlib import Path

from handwriting.inference.image_files import check_names, find_images
from handwriting.runs.trust import Trust, add_options, trust_of
from handwriting.utils.errors import UserError, check_whole, exit_on_bad_input
from handwriting.utils.hardware import use_machine


def main(arguments: list[str] | None = None) -> None:
    """Predict image files; exit code 1 if some of them could not be read, 2 for other bad input."""
    with exit_on_bad_input():
        options = _parser().parse_intermixed_args(arguments)
        for figure in (options.figure, options.steps):
            if figure and figure.suffix not in (".png", ".pdf"):
                raise UserError(f"{figure} must end in .png or .pdf.")
        check_whole("--views", options.views, at_least=1, at_most=1000)
        trust = trust_of(options)
        if any(place.lower().endswith(".csv") for place in options.images):
            _predict_table(options, trust)
            sys.exit(0)
        names, sources = find_images(options.images)
        if options.submission:
            check_names(names)
        use_machine()
        from handwriting.inference.predictions import MOST_DRAWN, report
        from handwriting.reader import Reader

        kept = MOST_DRAWN if options.steps or options.figure else 0
        reader = Reader.load(options.checkpoint, trust)
        predictions = reader.read(sources, options.views, options.augment, steps=kept)
        files = (options.csv, options.json, options.figure, options.steps, options.submission)
        report(names, predictions, *files)
    sys.exit(1 if any(prediction.error for prediction in predictions) else 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m handwriting.predict",
        description="Predict the character in image files: scans and photographs of paper, or photographs like those "
        "that the model was trained on. A model of several characters predicts all of them, such as a house number.",
    )
    parser.add_argument(
        "checkpoint", type=Path, help="a run's folder, such as outputs/mnist/optim=adam, or a checkpoint"
    )
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="a file, a folder, a pattern ('*.png'), or - for stdin; or a .csv with 784 pixels a row, as Kaggle's",
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the predictions")
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write the five most probable classes of each image, or its characters with their boxes",
    )
    parser.add_argument(
        "--figure", type=Path, metavar="FILE", help="draw the images and predictions, with boxes (.png or .pdf)"
    )
    parser.add_argument("--steps", type=Path, metavar="FILE", help="draw the steps of the preprocessing (.png or .pdf)")
    parser.add_argument(
        "--submission",
        type=Path,
        metavar="FILE",
        help="write file_name,file_code for a contest: a row for each image in order of its name; of a .csv "
        "ImageId,Label",
    )
    parser.add_argument(
        "--views", type=int, default=1, metavar="N", help="test-time augmentation: average N views of each image"
    )
    parser.add_argument(
        "--augment", default="", metavar="NAME", help="augmentation of the views (affine, nudge …; default: the run's)"
    )
    add_options(parser)
    return parser


def _predict_table(options: argparse.Namespace, trust: Trust) -> None:
    """Predict the rows of one .csv file. Raises UserError for what only image files have."""
    file, *others = options.images
    if others:
        raise UserError(f"Give one .csv and nothing else: {len(others) + 1} files are given.")
    for option in ("json", "figure", "steps"):
        if getattr(options, option):
            raise UserError(f"--{option} is for image files, not for the rows of a .csv: use --csv or --submission.")
    use_machine()
    from handwriting.inference.checkpoints import find_checkpoint, load_trained
    from handwriting.inference.rows import predict_rows

    trained = load_trained(find_checkpoint(options.checkpoint), trust)
    predict_rows(trained, Path(file), options.views, options.augment, options.csv, options.submission)


if __name__ == "__main__":
    main()
