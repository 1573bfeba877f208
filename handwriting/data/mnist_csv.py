"""MNIST as CSV files: a row for each image with label and pixels, as Kaggle, OpenML and pandas write them."""

import csv
import io
import re
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from handwriting.data.dataset import HandwritingSet, LabelledImages, check_labels
from handwriting.data.files import data_root, find_file, in_utf8, read_bytes
from handwriting.data.mnist import DIGITS
from handwriting.utils.errors import UserError

SIDE = 28
PIXELS = SIDE * SIDE
FILES = {"train": "mnist_train.csv", "test": "mnist_test.csv"}
SEPARATORS = (",", ";", "\t", " ")
LABEL_NAMES = {"label", "labels", "class", "target", "digit"}
INDEX_NAME = re.compile(r"|index|id|unnamed: ?\d+(_level_\d+|(\.\d+)*)")  # names of the row numbers of pandas and R


class Layout(NamedTuple):
    """The columns of a row; ``names`` are those of the header, empty without a header."""

    separator: str
    names: list[str]
    header_row: int  # counted from 1
    label: int | None  # column, counted from 0; None without labels
    skipped: list[int]  # columns that hold neither the label nor a pixel

    @property
    def columns(self) -> int:
        """Return how many values a row has."""
        return (self.label is not None) + PIXELS + len(self.skipped)


def read_mnist_csv(path: str | Path | None = None) -> HandwritingSet:
    """Return the digits of ``mnist_train.csv`` and ``mnist_test.csv`` in a folder, 28×28.

    They may be compressed (``.gz``). Without ``path`` the folder is ``HANDWRITING_DATA/mnist_csv``.
    """
    folder = Path(path).expanduser() if path is not None else data_root() / "mnist_csv"
    found = [find_file(folder, name) for name in FILES.values()]
    missing = [name for name, file in zip(FILES.values(), found, strict=True) if file is None]
    if missing:
        raise UserError(
            f"{folder} has no {' and no '.join(missing)}: download both from Kaggle into it, "
            "or give another folder with data.path=."
        )
    train, test = (read_csv_images(file) for file in found if file)
    return HandwritingSet(train, test, DIGITS)


def read_csv_images(path: Path) -> LabelledImages:
    """Return the rows of one CSV file as images (N, 1, 28, 28).

    The label is the column that the header names (one of LABEL_NAMES), or the first column if there is no header; a
    first row of numbers is an image, not a header. A column of row numbers is skipped. The separator may be a comma, a
    semicolon, a tab or spaces, the encoding UTF-8 or UTF-16. Raises UserError for another layout, and for a wrong
    length or value; it names the row, counted from 1 with the header.
    """
    content, layout, frame = _read_table(path, labelled=True)
    labels = torch.from_numpy(frame.pop(layout.label).to_numpy(np.int64))
    images = _as_images(frame, layout)
    _check_label_column(path, layout, labels.numpy(), images.flatten(1).numpy())
    if int(labels.max()) >= len(DIGITS):
        check_labels(labels, len(DIGITS), path, "row", [number for number, _ in _rows(content, layout)])
    return LabelledImages(images, labels)


def read_csv_pixels(path: Path) -> torch.Tensor:
    """Return the rows of one CSV file, with or without labels, as images uint8 (N, 1, 28, 28).

    The file is as for read_csv_images. Without labels and without a header, a row has 784 values.
    """
    _, layout, frame = _read_table(path, labelled=False)
    return _as_images(frame.drop(columns=[] if layout.label is None else [layout.label]), layout)


def _as_images(frame: pd.DataFrame, layout: Layout) -> torch.Tensor:
    table = frame.drop(columns=layout.skipped).to_numpy(np.uint8)
    return torch.from_numpy(table).reshape(-1, 1, SIDE, SIDE).contiguous()


def _read_table(path: Path, labelled: bool) -> tuple[bytes, Layout, pd.DataFrame]:
    """Return the content of a file, its layout, and its columns by their numbers."""
    content = in_utf8(read_bytes(path, "CSV of MNIST images"))
    if b"\0" in content[:4096]:
        raise UserError(
            f"{path} is not a UTF-8 text: it contains zero bytes; save it as CSV in UTF-8, or download it again."
        )
    layout, begin = _find_layout(path, content, labelled)
    if labelled and layout.label is None:
        raise _no_labels(path, layout.names)
    text = io.BytesIO(content)
    text.seek(begin)
    spaces = layout.separator == " "
    kinds: Any = np.uint8
    if layout.skipped:
        kinds = {i: object if i in layout.skipped else np.uint8 for i in range(layout.columns)}
    try:
        with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # for 1e400, which is refused
            frame = pd.read_csv(
                text,
                sep=r"\s+" if spaces else layout.separator,
                header=None,
                index_col=False,
                dtype=kinds,
                na_filter=False,
                encoding_errors="replace",
            )
        if frame.shape[1] != layout.columns:
            raise ValueError(f"{frame.shape[1]} columns")
    except pd.errors.EmptyDataError as error:
        raise UserError(f"{path} has no images; download it again.") from error
    except (ValueError, OverflowError) as error:
        raise _first_fault(path, content, layout) or UserError(
            f"{path} is not a CSV of MNIST images ({' '.join(str(error).split())}); download it again."
        ) from error
    return content, layout, frame


def _find_layout(path: Path, content: bytes, labelled: bool) -> tuple[Layout, int]:
    """Return the layout from the first row, and the offset of the first image in the content."""
    first = next((line for line in re.finditer(rb"[^\r\n]+", content) if line[0].strip()), None)
    if first is None:
        raise UserError(f"{path} has no images; download it again.")
    line = first[0].decode("utf-8", "replace")
    separator = max(SEPARATORS, key=line.strip(" ").count)
    values = [value.strip(" '\"") for value in _split(line, separator)]
    if not _is_header(values):
        return Layout(separator, [], 0, 0 if labelled or len(values) != PIXELS else None, []), first.start()
    row = len(content[: first.end()].splitlines())
    return _layout_of_header(path, values, separator, row), first.end()


def _is_header(values: list[str]) -> bool:
    # A row with names and numbers is a damaged image and is refused: to skip it silently would be worse.
    if any(value.lower() in LABEL_NAMES for value in values) or not any(map(_is_number, values)):
        return True
    numbered = [value for value in values if not INDEX_NAME.fullmatch(value.lower())]  # pandas names columns 0, 1, 2, …
    return len(numbered) > 256 and numbered in ([str(i + begin) for i in range(len(numbered))] for begin in (0, 1))


def _layout_of_header(path: Path, names: list[str], separator: str, row: int) -> Layout:
    labels = [i for i, name in enumerate(names) if name.lower() in LABEL_NAMES]
    if len(labels) > 1:
        first, second = labels[:2]
        raise UserError(
            f"{path}: its header names two label columns, {names[first]!r} (column {first + 1}) and "
            f"{names[second]!r} (column {second + 1}); remove or rename one."
        )
    skipped = [i for i, name in enumerate(names) if INDEX_NAME.fullmatch(name.lower())]
    pixels = [name for i, name in enumerate(names) if i not in (*labels, *skipped)]
    if len(pixels) != PIXELS:
        if not labels:
            raise _no_labels(path, names)
        raise UserError(
            f"{path}: its header names {len(pixels)} columns of pixels beside {names[labels[0]]!r}, not {PIXELS} "
            f"({SIDE}×{SIDE}); give a file of that form."
        )
    numbers = [tuple(map(int, re.findall(r"\d+", name))) for name in pixels]
    for before, after, *names_of_both in zip(numbers, numbers[1:], pixels, pixels[1:], strict=False):
        if before and after and not before < after:
            raise UserError(
                f"{path}: its header has {names_of_both[0]!r} before {names_of_both[1]!r}, but the pixels must run row "
                "by row; sort its columns."
            )
    return Layout(separator, names, row, labels[0] if labels else None, skipped)


def _no_labels(path: Path, names: list[str]) -> UserError:
    some = ", ".join(map(repr, [*names[:2], *["…"] * (len(names) > 3), *names[2:][-1:]])).replace("'…'", "…")
    return UserError(
        f"{path}: its header names no label column, only {some[:200]}; call the labels 'label' in it, or give "
        "a file that has them."
    )


def _check_label_column(path: Path, layout: Layout, labels: np.ndarray, pixels: np.ndarray) -> None:
    """Raise UserError if the values show that a pixel column was taken for the label."""
    label = layout.label or 0
    ends = [0, -1] if layout.names else [-1]
    found = [end for end in ends if _seem_labels(pixels[:, end])]
    if not found or (layout.names and _seem_labels(labels)):
        return
    column = [i for i in range(layout.columns) if i not in (layout.label, *layout.skipped)][found[0]] + 1
    if layout.names:
        raise UserError(
            f"{path}: its header calls column {label + 1} {layout.names[label]!r}, but the labels seem "
            f"to be in column {column}; fix the header."
        )
    raise UserError(
        f"{path} has no header, so the label would be the first column, but the labels seem to be in the last column; "
        "add a header that names the column 'label'."
    )


def _seem_labels(column: np.ndarray) -> bool:
    """Return whether a column has digits only, without one that dominates as in pixels at the border."""
    counts = np.bincount(column)
    return len(counts) <= len(DIGITS) and bool(counts.max() <= 0.6 * len(column))


def _rows(content: bytes, layout: Layout) -> list[tuple[int, bytes]]:
    """Return the number and the line of each image."""
    lines = enumerate(content.splitlines(), start=1)
    return [(number, line) for number, line in lines if number > layout.header_row and line.strip()]


def _first_fault(path: Path, content: bytes, layout: Layout) -> UserError | None:
    """Return the error for the first wrong row; slow, and used only for a file that failed to parse."""
    label = "" if layout.label is None else "the label, "
    for number, line in _rows(content, layout):
        values = [value.strip(' "') for value in _split(line.decode("utf-8", "replace"), layout.separator)]
        if len(values) != layout.columns:
            skipped = f" and {len(layout.skipped)} skipped column(s)" if layout.skipped else ""
            return UserError(
                f"{path}, row {number}: {len(values)} values instead of {layout.columns} ({label}{PIXELS} pixels"
                f"{skipped}); fix or remove that row."
            )
        for column, value in enumerate(values, start=1):
            if column - 1 not in layout.skipped and not _is_grey_level(value):
                return UserError(
                    f"{path}, row {number}, column {column}: {value[:40]!r} is not a whole number from 0 to 255; "
                    "fix or remove that row."
                )
    return None


def _split(line: str, separator: str) -> list[str]:
    return line.split() if separator == " " else next(csv.reader([line], delimiter=separator))


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return value.isascii() and "_" not in value


def _is_grey_level(value: str) -> bool:
    return _is_number(value) and float(value) in range(256)
