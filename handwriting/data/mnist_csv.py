"""MNIST as Kaggle hands it out: one image a row, its label first, then its pixels."""

import io
from pathlib import Path

import numpy as np
import torch

from handwriting.data.files import data_root, read_bytes
from handwriting.data.mnist import DIGITS
from handwriting.data.sets import HandwritingSet, LabelledImages, check_labels
from handwriting.errors import UserError

SIDE = 28
COLUMNS = 1 + SIDE * SIDE
FILES = {"train": "mnist_train.csv", "test": "mnist_test.csv"}


def read_mnist_csv(path: str | Path | None = None) -> HandwritingSet:
    """Return the digits of ``mnist_train.csv`` and ``mnist_test.csv`` in a folder, 28×28.

    A first row that is no image (``label,pixel0,…``) is a header; any other is the first image, and counts. Without
    ``path`` the folder is ``HANDWRITING_DATA/mnist_csv``.
    """
    folder = Path(path).expanduser() if path is not None else data_root() / "mnist_csv"
    missing = [name for name in FILES.values() if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"{folder} holds no {' and no '.join(missing)}: download both from Kaggle into it, "
            "or give another folder with data.path=."
        )
    train, test = (read_csv_images(folder / FILES[part]) for part in ("train", "test"))
    return HandwritingSet(train, test, DIGITS)


def read_csv_images(path: Path) -> LabelledImages:
    """Return the rows of one CSV file as images (N, 1, 28, 28).

    Raises UserError that names the row (counted from 1, the header included) whose length or value is wrong.
    """
    content = read_bytes(path, "CSV of MNIST images")
    first_line = content.split(b"\n", 1)[0]
    has_header = not first_line.split(b",", 1)[0].strip().strip(b'"').isdigit()
    try:
        rows = np.loadtxt(io.BytesIO(content), dtype=np.uint8, delimiter=",", skiprows=has_header, ndmin=2)
    except (ValueError, OverflowError) as error:
        raise _first_fault(path, content, has_header) or UserError(
            f"{path} is not a CSV of MNIST images ({error}); fetch it again."
        ) from error
    if rows.size == 0 or rows.shape[1] != COLUMNS:
        raise _first_fault(path, content, has_header) or UserError(f"{path} holds no images; fetch it again.")
    table = torch.from_numpy(rows)
    labels = table[:, 0].long()
    check_labels(labels, len(DIGITS), path, "row", first_row=1 + has_header)
    return LabelledImages(table[:, 1:].reshape(-1, 1, SIDE, SIDE).contiguous(), labels)


def _first_fault(path: Path, content: bytes, has_header: bool) -> UserError | None:
    """Return a sentence about the first row that is wrong; only a file that failed to parse is read so slowly."""
    lines = content.decode("utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines[has_header:], start=1 + has_header):
        values = line.split(",")
        if not line.strip():
            continue
        if len(values) != COLUMNS:
            return UserError(
                f"{path}, row {number}: {len(values)} values instead of {COLUMNS} (the label and 784 pixels); "
                "mend or remove that row."
            )
        for column, value in enumerate(values, start=1):
            if not (value.strip().isdigit() and int(value) <= 255):
                return UserError(
                    f"{path}, row {number}, column {column}: {value.strip()!r} is not a whole number from 0 to 255; "
                    "mend or remove that row."
                )
    return None
