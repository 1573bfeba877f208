"""SVHN's digitStruct.mat, which lists the photographs with their digits and boxes, in MATLAB's versions 5 and 7.3."""

import hashlib
import io
import json
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
from h5py import h5o, h5r, h5s  # type: ignore[attr-defined]  # h5o is compiled

from handwriting.data.cache import cached
from handwriting.data.files import read_bytes
from handwriting.utils.errors import UserError

KEYS = ("height", "label", "left", "top", "width")
VERSION = 1  # of what is cached

log = logging.getLogger(__name__)


def read_digit_struct(file: Path) -> dict[str, dict[str, list[float]]]:
    """Return the contents of a digitStruct.mat as the contest's JSON has them: image name to a list for each of KEYS.

    The published files take minutes to read, so what they contain is kept in the user's cache. Raises UserError if the
    file is missing or is another one.
    """
    try:
        now = file.stat()
    except OSError as error:
        raise UserError(
            f"{file} cannot be read ({error.strerror}); SVHN's digitStruct.mat is expected there."
        ) from error
    digest = hashlib.sha256(repr((VERSION, str(file.absolute()), now.st_size, now.st_mtime_ns)).encode()).hexdigest()
    return cached(
        f"digit_struct/{digest[:32]}.json",
        make=partial(_read, file),
        save=lambda draft, made: draft.write(json.dumps(made).encode()),
        load=lambda stored: json.loads(stored.read_bytes()),
    )


def _read(file: Path) -> dict[str, dict[str, list[float]]]:
    try:
        return _read_hdf5(file) if h5py.is_hdf5(file) else _read_mat5(file)
    except UserError:
        raise
    except Exception as error:  # scipy and h5py raise many kinds of errors for damaged and other files
        raise UserError(
            f"{file} is truncated or not SVHN's digitStruct.mat ({type(error).__name__}); download it again."
        ) from error


def _read_mat5(file: Path) -> dict[str, dict[str, list[float]]]:
    content = io.BytesIO(read_bytes(file, "MATLAB file"))
    listed = scipy.io.loadmat(content, simplify_cells=True)["digitStruct"]
    found = {}
    for image in _as_list(listed):
        digits = _as_list(image["bbox"])
        found[str(image["name"])] = {key: [float(digit[key]) for digit in digits] for key in KEYS}
    return found


def _as_list(structs: Any) -> list[Any]:
    """Return a struct array as a list: scipy simplifies one with a single element to a dict."""
    return [structs] if isinstance(structs, Mapping) else list(structs)


def _read_hdf5(file: Path) -> dict[str, dict[str, list[float]]]:
    # h5py's low level: the 33,402 images of SVHN's train take 2 minutes instead of 4 or 5.
    found = {}
    with h5py.File(file, "r") as opened:
        names, boxes = (_values(h5o.open(opened.id, f"digitStruct/{key}".encode())) for key in ("name", "bbox"))
        log.info(f"Reading the boxes of {len(names):,} images from {file}")
        for name, box in zip(names, boxes, strict=True):
            text = "".join(map(chr, _values(h5r.dereference(name, opened.id))))
            digits = h5r.dereference(box, opened.id)
            found[text] = {key: _numbers(h5o.open(digits, key.encode()), opened.id) for key in KEYS}
    return found


def _numbers(dataset: Any, file: Any) -> list[float]:
    """Return the values of the digits of an image: that of a single one is inline, those of several are references."""
    values = _values(dataset)
    if values.dtype != object:
        return [float(value) for value in values]
    return [float(value) for one in values for value in _values(h5r.dereference(one, file))]


def _values(dataset: Any) -> np.ndarray:
    values = np.empty(dataset.shape, dataset.dtype)
    dataset.read(h5s.ALL, h5s.ALL, values)
    return values.ravel()
