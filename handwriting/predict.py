"""python -m handwriting.predict CHECKPOINT IMAGE …: classify image files."""

import argparse
import glob
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from handwriting.utils.errors import UserError, check_whole, exit_on_bad_input
from handwriting.utils.files import write_bytes, write_text
from handwriting.utils.hardware import use_machine

if TYPE_CHECKING:
    from handwriting.reader import Reading

ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm"}
MOST_FILES = 100_000
MOST_BYTES = 200 << 20  # of standard input
MOST_DRAWN = 64


def main(arguments: list[str] | None = None) -> None:
    """Classify image files; exit code 1 if some of them could not be read, 2 for other bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m handwriting.predict",
        description="Classify image files with one character each: scans, or photographs of paper.",
    )
    parser.add_argument(
        "checkpoint", type=Path, help="a run's folder, such as outputs/mnist/optim=adam, or a checkpoint"
    )
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE", help="a file, a folder, a pattern ('*.png'), or - for stdin"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the predictions")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the five most probable classes of each image")
    parser.add_argument(
        "--figure", type=Path, metavar="FILE", help="draw the preprocessed images and predictions (.png or .pdf)"
    )
    parser.add_argument("--steps", type=Path, metavar="FILE", help="draw the steps of the preprocessing (.png or .pdf)")
    parser.add_argument(
        "--views", type=int, default=1, metavar="N", help="test-time augmentation: average N views of each image"
    )
    parser.add_argument(
        "--augment", default="", metavar="NAME", help="augmentation of the views (affine, nudge …; default: the run's)"
    )
    with exit_on_bad_input():
        failed = predict(parser.parse_args(arguments))
    sys.exit(1 if failed else 0)


def predict(options: argparse.Namespace) -> int:
    """Classify the images, write and print the predictions, and return how many images could not be read."""
    for figure in (options.figure, options.steps):
        if figure and figure.suffix not in (".png", ".pdf"):
            raise UserError(f"{figure} must end in .png or .pdf.")
    check_whole("--views", options.views, at_least=1, at_most=1000)
    names, sources = _collect(options.images)
    use_machine()
    from handwriting.reader import Reader

    drawn = MOST_DRAWN if options.steps else 0
    readings = Reader.load(options.checkpoint).read(sources, options.views, options.augment, steps=drawn)
    rows = [_row(name, reading) for name, reading in zip(names, readings, strict=True)]
    if options.json:
        write_text(options.json, json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    if options.csv:
        import pandas as pd

        table = pd.DataFrame([{key: value for key, value in row.items() if key != "likeliest"} for row in rows])
        write_text(options.csv, table.to_csv(index=False))
    try:
        _draw(options, names, readings)
    finally:
        _print(names, readings)
    return sum(bool(reading.error) for reading in readings)


def _collect(places: Sequence[str]) -> tuple[list[str], list[Path | bytes]]:
    """Return the names and the sources of all images. Raises UserError if there are none or too many."""
    names: list[str] = []
    sources: list[Path | bytes] = []
    for place in places:
        if place == "-":
            content = sys.stdin.buffer.read(MOST_BYTES + 1)
            if len(content) > MOST_BYTES:
                raise UserError(f"standard input is larger than {MOST_BYTES >> 20} MiB.")
            found: list[Any] = [content]
        elif Path(place).is_dir():
            found = sorted(path for path in Path(place).iterdir() if path.suffix.lower() in ENDINGS)
            if not found:
                raise UserError(f"{place} holds no images ({', '.join(sorted(ENDINGS))}).")
        elif not Path(place).exists() and glob.has_magic(place):
            found = sorted(Path(path) for path in glob.glob(place, recursive=True))  # noqa: PTH207
            if not found:
                raise UserError(f"No file matches {place}.")
        else:
            found = [Path(place)]
        sources += found
        names += ["standard input" if isinstance(one, bytes) else str(one) for one in found]
    if len(sources) > MOST_FILES:
        raise UserError(f"{len(sources):,} images are more than the maximum of {MOST_FILES:,} per call: give fewer.")
    return names, sources


def _row(name: str, reading: "Reading") -> dict[str, Any]:
    if reading.error:
        return {"file": name, "reading": "", "glyph": "", "probability": None, "likeliest": [], "error": reading.error}
    likeliest = [{"reading": called, "probability": round(value, 6)} for called, value in reading.likeliest]
    said = {"reading": reading.name, "glyph": reading.glyph, "probability": round(reading.probability, 6)}
    return {"file": name, **said, "likeliest": likeliest, "error": ""}


def _print(names: Sequence[str], readings: "Sequence[Reading]") -> None:
    table = Table(box=None)
    table.add_column("file", overflow="fold")
    for head in ("prediction", "probability", "next"):
        table.add_column(head, justify="right" if head == "probability" else "left")
    for name, reading in zip(names, readings, strict=True):
        if reading.error:
            table.add_row(name, f"error: {reading.error.removeprefix(name).strip()}", "", "")
        else:
            (first, sure), *others = reading.likeliest
            after = ", ".join(f"{called} {value:.1%}" for called, value in others[:2] if value >= 0.001)
            table.add_row(name, first, f"{sure:.1%}", after)
    Console(highlight=False).print(table)


def _draw(options: argparse.Namespace, names: Sequence[str], readings: "Sequence[Reading]") -> None:
    if not (options.figure or options.steps):
        return
    from handwriting.plots.images import draw_readings, draw_steps
    from handwriting.plots.style import as_file

    read = [
        (Path(name).name, one, one.preprocessed) for name, one in zip(names, readings, strict=True) if one.preprocessed
    ]
    read = read[:MOST_DRAWN]
    if not read:
        raise UserError("No image could be read: there is nothing to draw.")
    if options.figure:
        import numpy as np

        shown = [reading.glyph or reading.name for _, reading, _ in read]
        images = np.stack([preprocessed.image for *_, preprocessed in read])
        sure = [reading.probability for _, reading, _ in read]
        figure = draw_readings(images, [""] * len(read), shown, sure, "Preprocessed images and predictions")
        write_bytes(options.figure, as_file(figure, options.figure.suffix[1:]))
    if options.steps:
        rows = {
            f"{name}: {reading.glyph or reading.name} {reading.probability:.1%}": {
                **preprocessed.steps,
                "input of the model": preprocessed.image,
            }
            for name, reading, preprocessed in read
        }
        write_bytes(options.steps, as_file(draw_steps(rows), options.steps.suffix[1:]))


if __name__ == "__main__":
    main()
