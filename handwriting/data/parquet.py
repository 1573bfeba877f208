"""Encoded images and labels in parquet files, as Hugging Face's datasets write them; needs pyarrow."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from handwriting.data import files
from handwriting.utils.errors import UserError

IMAGE, LABEL = ("image", "img", "images"), ("label", "labels", "fine_label", "class")  # names of columns
SPLITS = {"train": "train", "test": "test", "validation": "val", "valid": "val", "val": "val"}  # how names begin


class Rows(NamedTuple):
    """The rows of a split: names and contents of images, and their labels (N,), numbers or texts."""

    images: list[tuple[str, bytes]]
    labels: np.ndarray


def read_parquet(path: Path) -> tuple[dict[str, Rows], tuple[str, ...] | None]:
    """Return the rows of each split, and the names of the classes if the files have them.

    ``path`` is a file, or a folder with files such as train-00000-of-00001.parquet and test-00000-of-00001.parquet, or
    with a folder ``data`` of them. Raises UserError if a file has no images or no labels, or if pyarrow is missing.
    """
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise UserError(f"{path} needs pyarrow to be read: pip install 'handwriting[parquet]'.") from error
    found: dict[str, list[Path]] = {}
    for file in parquet_files(path):
        start = file.name.replace(".", "-").split("-")[0].lower()
        found.setdefault("train" if path.is_file() else SPLITS.get(start, "train"), []).append(file)
    if "train" not in found:
        raise UserError(f"{path} has no training set: the name of its file must begin with 'train'.")
    rows, names = {}, None
    opened = {file: _open(pq, file) for parts in found.values() for file in parts}
    if sum(map(_size, opened.values())) > files.MAX_BYTES:
        raise UserError(f"{path} would unpack to more than {files.MAX_BYTES:,} bytes; use fewer images.")
    for split, parts in found.items():
        tables = [_read(file, opened[file]) for file in parts]
        names = names or tables[0][1]
        images = [image for table, _ in tables for image in table.images]
        rows[split] = Rows(images, np.concatenate([table.labels for table, _ in tables]))
    return rows, names


def parquet_files(path: Path) -> list[Path]:
    """Return a parquet file, or those in a folder and in its folder ``data``, in the order of their names."""
    if path.is_file():
        return [path]
    return sorted(path.glob("*.parquet")) or sorted(path.glob("data/*.parquet"))


def _open(pq: Any, file: Path) -> Any:
    with _naming_damage(file):
        return pq.ParquetFile(file)


def _size(opened: Any) -> int:
    groups = [opened.metadata.row_group(number) for number in range(opened.metadata.num_row_groups)]
    return sum(group.total_byte_size for group in groups)


def _read(file: Path, opened: Any) -> tuple[Rows, tuple[str, ...] | None]:
    columns = opened.schema_arrow.names
    image, label = (next((name for name in known if name in columns), None) for known in (IMAGE, LABEL))
    if image is None or label is None:
        lacking = "'image'" if image is None else "'label'"
        raise UserError(f"{file} has no column {lacking}, only {', '.join(columns)}; rename its columns.")
    names = _class_names(opened.schema_arrow.metadata, label)
    with _naming_damage(file):
        table = opened.read([image, label])
        contents, labels = table.column(image).to_pylist(), table.column(label).to_pylist()
    images = [_content(file, row, content) for row, content in enumerate(contents, start=1)]
    return Rows(images, _as_labels(file, labels)), names


@contextlib.contextmanager
def _naming_damage(file: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # pyarrow raises many kinds of errors for damaged files
        raise UserError(
            f"{file} is damaged or not a parquet file ({type(error).__name__}); download it again."
        ) from error


def _content(file: Path, row: int, content: Any) -> tuple[str, bytes]:
    content = content.get("bytes") if isinstance(content, dict) else content
    if not isinstance(content, bytes):
        raise UserError(f"{file}, row {row} has no image bytes: save the images themselves, not their paths.")
    return f"{file}, row {row}", content


def _as_labels(file: Path, labels: Sequence[Any]) -> np.ndarray:
    for row, label in enumerate(labels, start=1):
        if type(label) is not type(labels[0]) or not isinstance(label, (int, str)):
            raise UserError(f"{file}, row {row}: the label is {label!r}, but a whole number or a text is expected.")
    if not labels:
        raise UserError(f"{file} has no rows.")
    return np.array(labels)


def _class_names(metadata: dict[bytes, bytes] | None, label: str) -> tuple[str, ...] | None:
    """Return the names that datasets writes into the metadata; None without them."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(map(str, features[label]["names"]))
    except (KeyError, TypeError, ValueError):
        return None
