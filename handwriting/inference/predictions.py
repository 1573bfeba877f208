"""The predictions for images, and what is made of them: a printed table, CSV, JSON, figures."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from handwriting.inference.preprocess import Preprocessed
from handwriting.utils.errors import UserError
from handwriting.utils.files import write_bytes, write_text

MOST_DRAWN = 64  # images in a figure


@dataclass(frozen=True)
class Prediction:
    """The prediction for an image, or in ``error`` why the image could not be read."""

    label: int = -1
    name: str = ""
    glyph: str = ""
    probability: float = 0.0
    likeliest: tuple[tuple[str, float], ...] = ()  # the five most probable classes and their probabilities
    preprocessed: Preprocessed | None = None  # the model's input, and its preprocessing steps if they are kept
    error: str = ""


def report(
    names: Sequence[str],
    predictions: Sequence[Prediction],
    csv: Path | None = None,
    json_file: Path | None = None,
    figure: Path | None = None,
    steps: Path | None = None,
) -> None:
    """Print the predictions for images by their names, and write the files that are given.

    Raises UserError if there is something to draw and no image could be read; the table is printed all the same.
    """
    rows = [_row(name, prediction) for name, prediction in zip(names, predictions, strict=True)]
    if json_file:
        write_text(json_file, json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    if csv:
        import pandas as pd

        table = pd.DataFrame([{key: value for key, value in row.items() if key != "likeliest"} for row in rows])
        write_text(csv, table.to_csv(index=False))
    try:
        if figure or steps:
            _draw(names, predictions, figure, steps)
    finally:
        _print(names, predictions)


def _row(name: str, prediction: Prediction) -> dict[str, Any]:
    if prediction.error:
        nothing = {"prediction": "", "glyph": "", "probability": None, "likeliest": []}
        return {"file": name, **nothing, "error": prediction.error}
    likeliest = [{"prediction": called, "probability": round(value, 6)} for called, value in prediction.likeliest]
    said = {"prediction": prediction.name, "glyph": prediction.glyph, "probability": round(prediction.probability, 6)}
    return {"file": name, **said, "likeliest": likeliest, "error": ""}


def _print(names: Sequence[str], predictions: Sequence[Prediction]) -> None:
    table = Table(box=None)
    table.add_column("file", overflow="fold")
    for head in ("prediction", "probability", "next"):
        table.add_column(head, justify="right" if head == "probability" else "left")
    for name, prediction in zip(names, predictions, strict=True):
        if prediction.error:
            table.add_row(name, f"error: {prediction.error.removeprefix(name).strip()}", "", "")
        else:
            (first, sure), *others = prediction.likeliest
            after = ", ".join(f"{called} {value:.1%}" for called, value in others[:2] if value >= 0.001)
            table.add_row(name, first, f"{sure:.1%}", after)
    Console(highlight=False).print(table)


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
        shown = [prediction.glyph or prediction.name for _, prediction, _ in read]
        images = np.stack([preprocessed.image for *_, preprocessed in read])
        sure = [prediction.probability for _, prediction, _ in read]
        drawn = draw_predictions(images, [""] * len(read), shown, sure, "Preprocessed images and predictions")
        write_bytes(figure, as_file(drawn, figure.suffix[1:]))
    if steps:
        rows = {
            f"{name}: {prediction.glyph or prediction.name} {prediction.probability:.1%}": {
                **preprocessed.steps,
                "input of the model": preprocessed.image,
            }
            for name, prediction, preprocessed in read
        }
        write_bytes(steps, as_file(draw_steps(rows), steps.suffix[1:]))
