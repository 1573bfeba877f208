"""MATLAB files of versions 5 to 7 (scipy) and 7.3 (HDF5), read as uint8 arrays of images."""

import io
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
from PIL import Image

from handwriting.data import files
from handwriting.data.checks import say_once
from handwriting.data.files import read_bytes
from handwriting.utils.errors import UserError

KEYS = ("train", "test")
NAMES = ("names", "glyphs")  # also in our own files: a text for each class
SIDE = 28
LARGEST_VALUE = 8  # bytes of MATLAB's default type, double; grey levels need one
LARGEST_IMAGE = 2000  # pixels per side
# What a file may contain instead of numbers, by NumPy's kind.
OTHERS = {"U": "text", "S": "text", "O": "a cell array, a struct or a sparse matrix", "V": "a struct"}


def read_mat(file: Path) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
    """Return ``train`` and ``test`` as uint8 (classes, examples, 28, 28), and the texts of NAMES.

    Numbers may be 0…1 or 0…255 of any type. Images of another size are resized. Raises UserError for other files, and
    for values and shapes that cannot be images.
    """
    loaded = load_mat(file, KEYS, NAMES)
    arrays = {key: _check(file, key, np.asarray(loaded[key])) for key in KEYS}
    _check_pair(file, arrays)
    arrays = _in_grey_levels(file, arrays)
    for key, array in arrays.items():
        _check_blank(file, key, array)
    texts = {name: [_text(cell) for cell in np.ravel(loaded[name])] for name in NAMES if name in loaded}
    return {key: _resize(file, array) for key, array in arrays.items()}, texts


def load_mat(file: Path, keys: Sequence[str], others: Sequence[str] = ()) -> dict[str, Any]:
    """Return the variables ``keys`` of a MATLAB file of version 5 to 7.3, and of ``others`` those that scipy can read.

    Raises UserError if one of ``keys`` is missing, or if the file is damaged, another one, or unpacks to more than
    MAX_BYTES.
    """
    content = read_bytes(file, "MATLAB file")
    read = _read_hdf5 if content[:512].startswith(b"MATLAB 7.3") or content[512:516] == b"\x89HDF" else _read_mat5
    try:
        return read(file, content, keys, others)
    except UserError:
        raise
    except Exception as error:  # scipy and h5py raise many kinds of errors for damaged files
        raise UserError(
            f"{file} is truncated or not a MATLAB file ({type(error).__name__}); download it again."
        ) from error


def _read_mat5(file: Path, content: bytes, keys: Sequence[str], others: Sequence[str]) -> dict[str, Any]:
    listed = scipy.io.whosmat(io.BytesIO(content))
    _check_promises(file, {name: shape for name, shape, _ in listed}, keys, others)
    return scipy.io.loadmat(io.BytesIO(content), variable_names=(*keys, *others))


def _read_hdf5(file: Path, content: bytes, keys: Sequence[str], others: Sequence[str]) -> dict[str, Any]:
    with h5py.File(io.BytesIO(content), "r") as opened:
        found = {name: item for name, item in opened.items() if isinstance(item, h5py.Dataset)}
        _check_promises(file, {name: item.shape for name, item in found.items()}, keys, others)
        # MATLAB's first axis is HDF5's last.
        return {key: np.asarray(found[key]).transpose() for key in keys}


def _check_promises(file: Path, shapes: dict[str, tuple[int, ...]], keys: Sequence[str], others: Sequence[str]) -> None:
    if missing := [key for key in keys if key not in shapes]:
        raise UserError(
            f"{file} has no key {missing[0]!r}, only {', '.join(sorted(shapes)) or 'none at all'}: "
            f"it is truncated or another file; {' and '.join(map(repr, keys))} are needed."
        )
    # A small compressed file may be huge when decompressed: check the sizes in its header first.
    if sum(prod(shapes.get(key, ())) for key in (*keys, *others)) * LARGEST_VALUE > files.MAX_BYTES:
        raise UserError(f"{file} would unpack to more than {files.MAX_BYTES:,} bytes; this is not a character set.")


def _check(file: Path, key: str, array: np.ndarray) -> np.ndarray:
    if array.ndim != 4 or array.dtype.kind not in "buif":
        found = OTHERS.get(array.dtype.kind, array.dtype)
        raise UserError(
            f"{file}, key {key!r}: numbers (classes, examples, height, width) are expected, "
            f"but it is {found} {array.shape}; give a file of that form with data.path=."
        )
    classes, examples, height, width = array.shape
    if not array.size:
        raise UserError(f"{file}, key {key!r} is empty: its shape is {array.shape}; each class needs an image.")
    if max(height, width) > LARGEST_IMAGE:
        raise UserError(
            f"{file}, key {key!r}: images of {height}×{width} are larger than {LARGEST_IMAGE} pixels per side."
        )
    tests: list[tuple[Callable[[np.ndarray], np.ndarray], str]] = [
        (lambda values: ~np.isfinite(values), "a NaN or infinite value"),
        (lambda values: values < 0, "a negative value"),
        (lambda values: values > 255, "a value above 255"),
    ]
    for is_wrong, what in tests:
        wrong = is_wrong(array).reshape(classes, examples, -1).any(-1)
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise UserError(
                f"{file}, key {key!r}: image {column + 1} of class {row} has {what}; grey levels are 0…1 or 0…255."
            )
    return array


def _check_pair(file: Path, arrays: dict[str, np.ndarray]) -> None:
    train, test = arrays["train"].shape, arrays["test"].shape
    if train[0] != test[0]:
        raise UserError(f"{file}: 'train' has {train[0]} classes and 'test' {test[0]}; both must have the same.")
    if train[2:] != test[2:]:
        raise UserError(
            f"{file}: the images of 'train' are {train[2]}×{train[3]}, those of 'test' {test[2]}×{test[3]}; "
            "both must have the same size."
        )


def _in_grey_levels(file: Path, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return uint8 arrays of 0…255; if no value exceeds 1, they are scaled by 255."""
    largest = {key: float(array.max()) for key, array in arrays.items()}
    scale = 255 if max(largest.values()) <= 1 else 1
    for key, value in largest.items():
        if scale == 1 and 0 < value < 2:
            raise UserError(
                f"{file}, key {key!r}: its largest value is {value:g}; all grey levels must be 0…1, or all 0…255."
            )
    if all(array.dtype == np.uint8 for array in arrays.values()) and scale == 1:
        return arrays
    return {key: np.rint(array * float(scale)).astype(np.uint8) for key, array in arrays.items()}


def _check_blank(file: Path, key: str, array: np.ndarray) -> None:
    pixels = array.reshape(len(array), -1, array.shape[2] * array.shape[3])
    blank = (pixels.max(-1) == pixels.min(-1)).all(-1)
    if blank.any():
        raise UserError(
            f"{file}, key {key!r}: class {int(blank.argmax())} is empty, all its images are blank; "
            "leave it out of both keys."
        )


def _resize(file: Path, array: np.ndarray) -> np.ndarray:
    classes, examples, height, width = array.shape
    if (height, width) == (SIDE, SIDE):
        return np.ascontiguousarray(array)
    say_once(f"{file}: its images of {height}×{width} are resized to {SIDE}×{SIDE}.")
    resized = [shrink(Image.fromarray(image)) for image in np.ascontiguousarray(array).reshape(-1, height, width)]
    return np.stack(resized).reshape(classes, examples, SIDE, SIDE)


def shrink(image: Image.Image) -> np.ndarray:
    """Return a grey image resized to 28×28 as in the published set: bilinear with antialiasing."""
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def _text(cell: Any) -> str:
    """Return the text of a cell, which scipy returns as an array of one text, or an empty array for ''."""
    return "".join(map(str, np.ravel(cell))).strip()
