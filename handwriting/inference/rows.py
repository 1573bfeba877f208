"""Predictions for the rows of a CSV file of pixels, as Kaggle's test.csv, and the submission for it."""

from pathlib import Path

import pandas as pd

from handwriting.data.checks import as_trained
from handwriting.data.mnist_csv import SIDE, read_csv_pixels
from handwriting.inference.checkpoints import Trained, predict_proba
from handwriting.utils.errors import UserError
from handwriting.utils.files import write_text


def predict_rows(
    trained: Trained,
    file: Path,
    views: int = 1,
    augment: str = "",
    csv: Path | None = None,
    submission: Path | None = None,
) -> None:
    """Predict each row of a CSV file, an image of 28×28 pixels, print a summary, and write the files that are given.

    ``submission`` has the columns ImageId, counted from 1, and Label; ``csv`` has also the probability. Images are
    inverted as those of training were. Raises UserError if the model is not for such images, or the file is damaged.
    """
    if trained.is_sequence or trained.channels != 1 or trained.image_size != (SIDE, SIDE):
        height, width = trained.image_size
        what = "several characters" if trained.is_sequence else "grey" if trained.channels == 1 else "colour"
        raise UserError(
            f"{file} has grey images of {SIDE}×{SIDE}, one character each, and {trained.name} is for images of "
            f"{height}×{width} ({what}): give another model."
        )
    data = trained.settings.get("data")
    invert = data.get("invert", "auto") if isinstance(data, dict) else "auto"
    images = as_trained(read_csv_pixels(file), False if trained.photographs else invert)
    probabilities, labels = predict_proba(trained, images, views, augment).max(1)
    table = pd.DataFrame({"ImageId": range(1, len(labels) + 1), "Label": [trained.class_names[one] for one in labels]})
    if submission:
        write_text(submission, table.to_csv(index=False))
    if csv:
        write_text(csv, table.assign(probability=probabilities.numpy().round(6)).to_csv(index=False))
    written = " and ".join(str(one) for one in (submission, csv) if one)
    print(f"{file}: {len(labels):,} images predicted" + (f", written to {written}." if written else "."))
    counts = table["Label"].value_counts().reindex(list(trained.class_names), fill_value=0)
    print("Predicted: " + "; ".join(f"{count:,} × {name}" for name, count in counts.items() if count))
