"""MNIST as Kaggle hands it out: one image a row, its label first, then its pixels."""

import warnings
from pathlib import Path

import numpy as np
import torch

from handwriting.data.files import BOM, data_root, has_file, read_bytes
from handwriting.data.mnist import DIGITS
from handwriting.data.sets import HandwritingSet, LabelledImages, check_labels
from handwriting.errors import UserError

SIDE = 28
COLUMNS = 1 + SIDE * SIDE
GREY_LEVELS = {str(level) for level in range(256)}
FILES = {"train": "mnist_train.csv", "test": "mnist_test.csv"}


def read_mnist_csv(path: str | Path | None = None) -> HandwritingSet:
    """Return the digits of ``mnist_train.csv`` and ``mnist_test.csv`` in a folder, 28×28.

    A first row that begins with ``label`` or has no number is a header; any other is the first image, and counts.
    Without ``path`` the folder is ``HANDWRITING_DATA/mnist_csv``.
    """
    folder = Path(path).expanduser() if path is not None else data_root() / "mnist_csv"
    missing = [name for name in FILES.values() if not has_file(folder / name)]
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
    content = read_bytes(path, "CSV of MNIST images").removeprefix(BOM)
    rows = {number: line for number, line in enumerate(content.splitlines(), start=1) if line.strip()}
    if rows and _is_header(next(iter(rows.values())).split(b",")):
        del rows[next(iter(rows))]
    if not rows:
        raise UserError(f"{path} holds no images; fetch it again.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # numpy 2.2 reads -1 as 255, nan as 0 and 1e2 as 100, and only warns
            table = torch.from_numpy(np.loadtxt(list(rows.values()), np.uint8, comments=None, delimiter=",", ndmin=2))
        if table.shape[1] != COLUMNS:
            raise ValueError(f"{table.shape[1]} columns")
    except (ValueError, OverflowError) as error:
        raise _first_fault(path, rows) or UserError(
            f"{path} is not a CSV of MNIST images ({error}); fetch it again."
        ) from error
    labels = table[:, 0].long()
    check_labels(labels, len(DIGITS), path, "row", tuple(rows))
    return LabelledImages(table[:, 1:].reshape(-1, 1, SIDE, SIDE).contiguous(), labels)


def _is_header(values: list[bytes]) -> bool:
    # A row that is half names, half numbers is a damaged image, and is refused: a lost row is worse than an error.
    return values[0].strip(b' "').lower() == b"label" or not any(map(_is_number, values))


def _is_number(value: bytes) -> bool:
    try:
        float(value.strip(b'" '))
    except ValueError:
        return False
    return True


def _first_fault(path: Path, rows: dict[int, bytes]) -> UserError | None:
    """Return a sentence about the first row that is wrong; only a file that failed to parse is read so slowly."""
    for number, line in rows.items():
        values = [value.strip() for value in line.decode("utf-8", errors="replace").split(",")]
        if len(values) != COLUMNS:
            return UserError(
                f"{path}, row {number}: {len(values)} values instead of {COLUMNS} (the label and 784 pixels); "
                "mend or remove that row."
            )
        for column, value in enumerate(values, start=1):
            if value not in GREY_LEVELS:
                return UserError(
                    f"{path}, row {number}, column {column}: {value[:40]!r} is not a whole number from 0 to 255; "
                    "mend or remove that row."
                )
    return None
