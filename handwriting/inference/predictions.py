"""The predictions for images, and what is made of them: a printed table, CSV, JSON, figures."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from handwriting.data.photographs import fit_to, letterbox
from handwriting.inference.preprocess import WORK_SIZE, Preprocessed
from handwriting.utils.errors import UserError
from handwriting.utils.files import write_bytes, write_text

if TYPE_CHECKING:
    import pandas as pd

    from handwriting.plots.images import Boxes

NOTHING = "no character"  # in place of an empty text
LISTS = ("likeliest", "characters")  # in JSON only
MOST_DRAWN = 64  # images in a figure

Box = tuple[float, float, float, float]  # left, top, right and bottom in pixels


class Character(NamedTuple):
    """One of several predicted characters: its class, its probability, and its box in the photograph if it is known."""

    name: str
    probability: float
    box: Box | None = None


@dataclass(frozen=True)
class Prediction:
    """The prediction for an image, or in ``error`` why the image could not be read.

    Of several characters, ``name`` is their text, ``probability`` is that of the whole text, and ``label`` is -1.
    """

    label: int = -1
    name: str = ""
    glyph: str = ""
    probability: float = 0.0
    likeliest: tuple[tuple[str, float], ...] = ()  # the five most probable classes and their probabilities
    preprocessed: Preprocessed | None = None  # the model's input, and its preprocessing steps if they are kept
    characters: tuple[Character, ...] | None = None  # in reading order; None from a model of single characters
    error: str = ""


def report(
    names: Sequence[str],
    predictions: Sequence[Prediction],
    csv: Path | None = None,
    json_file: Path | None = None,
    figure: Path | None = None,
    steps: Path | None = None,
    submission: Path | None = None,
) -> None:
    """Print the predictions for images by their names, and write the files that are given.

    Raises UserError if there is something to draw and no image could be read; the table is printed all the same.
    """
    import pandas as pd

    rows = [_row(name, prediction) for name, prediction in zip(names, predictions, strict=True)]
    if json_file:
        write_text(json_file, json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    if csv:
        table = pd.DataFrame([{key: value for key, value in row.items() if key not in LISTS} for row in rows])
        write_text(csv, table.to_csv(index=False))
    if submission:
        write_text(submission, _submission(names, predictions).to_csv(index=False))
    try:
        if figure or steps:
            _draw(names, predictions, figure, steps)
    finally:
        _print(names, predictions)


def _row(name: str, prediction: Prediction) -> dict[str, Any]:
    known = None if prediction.error else round(prediction.probability, 6)
    row = {"file": name, "prediction": prediction.name, "glyph": prediction.glyph, "probability": known}
    if prediction.characters is None:
        likeliest = [{"prediction": called, "probability": round(value, 6)} for called, value in prediction.likeliest]
        return row | {"likeliest": likeliest, "error": prediction.error}
    characters = [
        {
            "prediction": one.name,
            "probability": round(one.probability, 6),
            "box": one.box and [round(side, 2) for side in one.box],
        }
        for one in prediction.characters
    ]
    return row | {"characters": characters, "error": prediction.error}


def _submission(names: Sequence[str], predictions: Sequence[Prediction]) -> "pd.DataFrame":
    """Return a row for each image in order of its file name; print the images that have an empty code, and why."""
    import pandas as pd

    for name, prediction in zip(names, predictions, strict=True):
        if not prediction.name:
            why = prediction.error or f"{name}: no character was found."
            print(f"{why} Its code in the submission is empty.", file=sys.stderr)
    codes = {Path(name).name: prediction.name for name, prediction in zip(names, predictions, strict=True)}
    return pd.DataFrame(sorted(codes.items()), columns=["file_name", "file_code"])


def _print(names: Sequence[str], predictions: Sequence[Prediction]) -> None:
    several = any(prediction.characters is not None for prediction in predictions)
    table = Table(box=None)
    table.add_column("file", overflow="fold")
    for head in ("prediction", "probability", "characters" if several else "next"):
        table.add_column(head, justify="right" if head == "probability" else "left")
    for name, prediction in zip(names, predictions, strict=True):
        if prediction.error:
            table.add_row(name, f"error: {prediction.error.removeprefix(name).strip()}", "", "")
        elif prediction.characters is None:
            (first, sure), *others = prediction.likeliest
            after = ", ".join(f"{called} {value:.1%}" for called, value in others[:2] if value >= 0.001)
            table.add_row(name, first, f"{sure:.1%}", after)
        else:
            each = ", ".join(f"{one.name} {one.probability:.1%}" for one in prediction.characters)
            table.add_row(name, _shown(prediction), f"{prediction.probability:.1%}", each)
    Console(highlight=False, markup=False, emoji=False).print(table)


def _shown(prediction: Prediction) -> str:
    return prediction.glyph or prediction.name or NOTHING


def _draw(names: Sequence[str], predictions: Sequence[Prediction], figure: Path | None, steps: Path | None) -> None:
    from handwriting.plots.images import draw_predictions, draw_steps  # matplotlib, where there is something to draw
    from handwriting.plots.style import as_file

    read = [
        (Path(name).name, one, one.preprocessed)
        for name, one in zip(names, predictions, strict=True)
        if one.preprocessed
    ]
    read = read[:MOST_DRAWN]
    if not read:
        raise UserError("No image could be read: there is nothing to draw.")
    if figure:
        drawn = [_picture(one, preprocessed) for _, one, preprocessed in read]
        images, boxes = np.stack([image for image, _ in drawn]), [some for _, some in drawn]
        texts, sure = [_shown(one) for _, one, _ in read], [one.probability for _, one, _ in read]
        title = "Photographs and predictions" if read[0][2].photograph else "Preprocessed images and predictions"
        drawing = draw_predictions(images, [""] * len(read), texts, sure, title, boxes)
        write_bytes(figure, as_file(drawing, figure.suffix[1:]))
    if steps:
        titles = [f"{name}: {_shown(one)} {one.probability:.1%}" for name, one, _ in read]
        rows, boxes = {}, {}
        for title, (_, one, preprocessed) in zip(titles, read, strict=True):
            rows[title] = {**preprocessed.steps, "input of the model": preprocessed.image}
            height, width = preprocessed.image.shape[:2]
            boxes[title] = boxes_in(one, preprocessed, (height, width))
        write_bytes(steps, as_file(draw_steps(rows, boxes), steps.suffix[1:]))


def _picture(prediction: Prediction, preprocessed: Preprocessed) -> "tuple[np.ndarray, Boxes]":
    """Return the model's input, or a photograph fitted to a larger picture of the same aspect; and the boxes there."""
    height, width = preprocessed.image.shape[:2]
    if preprocessed.photograph is None or preprocessed.image.ndim == 2:
        return preprocessed.image, boxes_in(prediction, preprocessed, (height, width))
    size = height * WORK_SIZE // max(height, width), width * WORK_SIZE // max(height, width)
    return letterbox(preprocessed.steps["original"], size)[0], boxes_in(prediction, preprocessed, size)


def boxes_in(prediction: Prediction, preprocessed: Preprocessed, size: tuple[int, int]) -> "Boxes":
    """Return the boxes of the characters in a picture of a photograph that is fitted to a size."""
    boxes = [one.box for one in prediction.characters or () if one.box]
    return fit_to(preprocessed.photograph, size).to_input(boxes) if preprocessed.photograph else boxes
