"""python -m handwriting.evaluate RUN …: accuracy, confusion, calibration and speed of trained models."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from handwriting.runs.trust import add_options, trust_of
from handwriting.utils.errors import UserError, check_whole, did_you_mean, exit_on_bad_input
from handwriting.utils.hardware import use_machine

SPLITS = ("test", "val", "train")
WAYS = ("mean", "logits", "vote", "stack")
DEFAULTS = {
    "split": "test",
    "format": "png",
    "dpi": 110,
    "out": None,
    "ensemble": "mean",
    "tta.views": 1,
    "tta.augment": "",
}


def main(arguments: list[str] | None = None) -> None:
    """Evaluate checkpoints; exit code 1 if some of a folder could not be loaded, 2 for other bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m handwriting.evaluate",
        description="Evaluate trained models, each on its own data: accuracy, confusion, calibration, mistakes, speed. "
        "Models with the same test set are also combined. Tables and figures go to evaluation/ in the run's folder.",
        epilog="Settings: split=test|val|train; data=… and data.path=… for other data than in training; "
        "ensemble=mean|logits|vote|stack for several models (those of several characters: mean or vote); tta.views=8 "
        "for test-time augmentation with 8 views, made as in the run or by tta.augment=affine; format=png|pdf; "
        "dpi=110; out=FOLDER.",
    )
    parser.add_argument(
        "arguments", nargs="+", metavar="RUN|CHECKPOINT|setting=value", help="such as outputs/mnist/optim=adam"
    )
    add_options(parser)
    with exit_on_bad_input():
        parsed = parser.parse_intermixed_args(arguments)
        places, options, data_settings = _sort(parsed.arguments)
        trust = trust_of(parsed)
        use_machine()
        from handwriting.inference.evaluation_report import evaluate

        failed = evaluate(places, options, data_settings, trust)
    if failed:
        sys.exit(1)


def _sort(arguments: Sequence[str]) -> tuple[list[Path], dict[str, Any], list[str]]:
    """Split the arguments into places, options and data settings. Raises UserError for an unknown option."""
    places, options, data_settings = [], dict(DEFAULTS), []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or Path(argument).exists() or "/" in key:  # a run's folder is called optim=adam,seed=1
            places.append(Path(argument))
        elif key == "data" or key.startswith("data."):
            data_settings.append(argument)
        elif key in options:
            options[key] = int(value) if isinstance(DEFAULTS[key], int) and value.isdigit() else value
        else:
            raise UserError(f"There is no setting {key!r}.{did_you_mean(key, [*options, 'data'])}")
    check_whole("dpi", options["dpi"], at_least=20, at_most=1200)
    check_whole("tta.views", options["tta.views"], at_least=1, at_most=1000)
    for key, known in (("split", SPLITS), ("format", ("png", "pdf")), ("ensemble", WAYS)):
        if options[key] not in known:
            raise UserError(f"{key}={options[key]} must be one of {', '.join(known)}.")
    if not places:
        raise UserError("Give a run's folder or a checkpoint, such as outputs/mnist/optim=adam.")
    return places, options, data_settings


if __name__ == "__main__":
    main()
