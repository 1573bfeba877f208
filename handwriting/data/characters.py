"""The set of 200 handwritten characters: a MATLAB file with fifteen and five examples of each."""

import io
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import torch

from handwriting.data import files
from handwriting.data.files import data_root, has_file, read_bytes
from handwriting.data.sets import HandwritingSet, LabelledImages
from handwriting.errors import UserError

KEYS = ("train", "test")
SIDE = 28
LARGEST_VALUE = 8  # bytes of MATLAB's default, double; the values wanted have one


def read_characters(path: str | Path | None = None) -> HandwritingSet:
    """Return the characters of a .mat file whose ``train`` and ``test`` are uint8 (classes, examples, 28, 28).

    The file is dark ink on white and is inverted here, once. Without ``path`` it is
    ``HANDWRITING_DATA/characters/characters.mat``. The published one: 200 classes of Omniglot
    (B. Lake, R. Salakhutdinov, J. Tenenbaum, 2015), 15 training and 5 test images each.
    """
    file = Path(path).expanduser() if path is not None else data_root() / "characters" / "characters.mat"
    if not has_file(file):
        raise UserError(
            f"{file} does not exist: put the character set there, give another file with data.path=, "
            "or use data=digits, which needs no files."
        )
    arrays = _load(file)
    for key in KEYS:
        array = arrays[key]
        if array.ndim != 4 or array.shape[2:] != (SIDE, SIDE) or array.dtype != np.uint8 or not array.size:
            raise UserError(
                f"{file}, key {key!r}: uint8 (classes, examples, {SIDE}, {SIDE}) is expected, "
                f"but it is {array.dtype} {array.shape}; give a file of that form with data.path=."
            )
    classes = len(arrays["train"])
    if len(arrays["test"]) != classes:
        raise UserError(
            f"{file}: 'train' has {classes} classes and 'test' {len(arrays['test'])}; both must have the same."
        )
    train, test = (_flatten(arrays[key]) for key in KEYS)
    return HandwritingSet(train, test, tuple(str(label) for label in range(classes)))


def _load(file: Path) -> dict[str, np.ndarray]:
    content = read_bytes(file, "MATLAB file")
    try:
        listed = scipy.io.whosmat(io.BytesIO(content))
        shapes = {name: shape for name, shape, _ in listed}
        missing = [key for key in KEYS if key not in shapes]
        if missing:
            raise UserError(
                f"{file} has no key {missing[0]!r}, only {', '.join(sorted(shapes)) or 'none at all'}: "
                "it is cut off or another file; 'train' and 'test' are needed."
            )
        if logical := [name for name, _, kind in listed if name in KEYS and kind == "logical"]:
            raise UserError(f"{file}, key {logical[0]!r} is logical, ones and zeros; save it as uint8(255 * …).")
        # What is small when compressed may be huge when unpacked: look at the promised sizes first.
        if sum(prod(shapes[key]) for key in KEYS) * LARGEST_VALUE > files.MAX_BYTES:
            raise UserError(f"{file} would unpack to more than {files.MAX_BYTES:,} bytes; this is no character set.")
        loaded: dict[str, Any] = scipy.io.loadmat(io.BytesIO(content), variable_names=KEYS)
    except NotImplementedError as error:
        raise UserError(f"{file} is a MATLAB 7.3 file; save it with the option -v7.") from error
    except UserError:
        raise
    except Exception as error:  # scipy meets a damaged file with a dozen kinds of error
        raise UserError(f"{file} is cut off or is no MATLAB file ({type(error).__name__}); fetch it again.") from error
    return {key: np.asarray(loaded[key]) for key in KEYS}


def _flatten(array: np.ndarray) -> LabelledImages:
    """(classes, examples, 28, 28), dark on white → (classes × examples, 1, 28, 28), bright on black."""
    classes, examples = array.shape[:2]
    images = torch.from_numpy(255 - array.reshape(-1, 1, SIDE, SIDE))
    return LabelledImages(images, torch.arange(classes).repeat_interleave(examples))
