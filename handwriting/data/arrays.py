"""Arrays of images and labels as others save them: NumPy's .npz with Keras' names, and .mat with X and y."""

import io
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from handwriting.data import files
from handwriting.data.checks import say_once
from handwriting.data.files import read_bytes
from handwriting.data.mat import load_mat
from handwriting.utils.errors import UserError

# The keys of images and labels of each split, in lower case: those of Keras and of MedMNIST; and of a file without.
SPLITS = {
    "train": [("x_train", "y_train"), ("train_images", "train_labels"), ("x", "y"), ("images", "labels")],
    "val": [("x_val", "y_val"), ("val_images", "val_labels")],
    "test": [("x_test", "y_test"), ("test_images", "test_labels")],
}
LARGEST_IMAGE = 1024  # pixels per side

Splits = dict[str, tuple[Tensor, np.ndarray]]  # images uint8 (N, C, H, W) and labels (N,), whole numbers or texts


def read_npz(file: Path) -> Splits:
    """Return the splits of a .npz file with x_train, y_train and, if it has them, x_val, y_val, x_test and y_test.

    Images are (N, H, W), (N, H, W, C) or (N, C, H, W), with numbers 0…255 or 0…1. Raises UserError for other files.
    """
    arrays = _load_npz(file)
    names = {name.lower(): name for name in arrays}
    splits = {}
    for split, known in SPLITS.items():
        pair = next((pair for pair in known if pair[0] in names and pair[1] in names), None)
        if pair:
            images, labels = (names[key] for key in pair)
            splits[split] = _split(file, images, arrays[images], labels, arrays[labels])
        elif alone := next((names[pair[0]] for pair in known if pair[0] in names), None):
            say_once(f"{file}: its array {alone} has no labels and is not used.")
    if "train" not in splits:
        raise UserError(
            f"{file} has the arrays {', '.join(sorted(arrays)) or 'none at all'}, but x_train and y_train (or x and y) "
            "are needed: rename them."
        )
    return splits


def read_xy_mat(file: Path) -> Splits:
    """Return the images X and labels y of a .mat file as the training set.

    X is (H, W, 3, N) as SVHN's, (H, W, N), or has its N images along the first axis.
    """
    loaded = load_mat(file, ("X", "y"))
    images, labels = np.asarray(loaded["X"]), np.ravel(loaded["y"])
    if images.ndim in (3, 4) and images.shape[-1] == len(labels) and images.shape[0] != len(labels):
        images = np.moveaxis(images, -1, 0)
    return {"train": _split(file, "X", images, "y", labels)}


def _load_npz(file: Path) -> dict[str, np.ndarray]:
    content = read_bytes(file, "NumPy archive")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            size = sum(member.file_size for member in packed.infolist())
        if size > files.MAX_BYTES:
            raise UserError(f"{file} would unpack to {size:,} bytes, more than {files.MAX_BYTES:,}; use fewer images.")
        with np.load(io.BytesIO(content), allow_pickle=False) as loaded:
            return {name: loaded[name] for name in loaded.files}
    except UserError:
        raise
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise UserError(
                f"{file} has an array of Python objects, which could run code: save numbers and texts only."
            ) from error
        raise UserError(f"{file} is damaged ({error}); save it again with numpy.savez.") from error
    except Exception as error:  # zipfile, zlib and NumPy raise many kinds of errors for damaged files
        raise UserError(
            f"{file} is damaged or not a NumPy archive ({type(error).__name__}); save it again with numpy.savez."
        ) from error


def _split(file: Path, images_key: str, images: np.ndarray, labels_key: str, labels: Any) -> tuple[Tensor, np.ndarray]:
    pixels = as_images(f"{file}, {images_key!r}", images)
    numbers = _as_labels(f"{file}, {labels_key!r}", labels)
    if len(pixels) != len(numbers):
        raise UserError(
            f"{file} has {len(pixels):,} images in {images_key!r} but {len(numbers):,} labels in {labels_key!r}; "
            "they must be as many."
        )
    return pixels, numbers


def as_images(name: str, array: np.ndarray) -> Tensor:
    """Return an array of images of any of the usual shapes and types as uint8 (N, C, H, W).

    If no value is above 1, floating-point numbers are scaled by 255. Raises UserError, which calls the array ``name``.
    """
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[1] not in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    side = math.isqrt(array.shape[1]) if array.ndim == 2 else 0
    if side > 1 and side**2 == array.shape[1]:
        raise UserError(
            f"{name} is {array.dtype} {array.shape}, a row for each image: save .reshape(-1, {side}, {side}), which "
            "after MATLAB needs .transpose(0, 2, 1) too."
        )
    if array.ndim != 4 or array.shape[1] not in (1, 3) or not array.size or array.dtype.kind not in "buif":
        raise UserError(
            f"{name} is {array.dtype} {array.shape}: numbers (images, height, width), or with 1 or 3 channels, are "
            "expected."
        )
    if max(array.shape[2:]) > LARGEST_IMAGE:
        raise UserError(f"{name}: images of {array.shape[2]}×{array.shape[3]} are larger than {LARGEST_IMAGE} pixels.")
    if array.dtype == np.uint8:
        return torch.from_numpy(np.ascontiguousarray(array))
    lowest, highest = float(array.min()), float(array.max())
    if not (lowest >= 0 and highest <= 255) or 1 < highest < 2:  # the first is false for NaN
        raise UserError(f"{name} has values from {lowest:g} to {highest:g}; grey levels are 0…255 or 0…1.")
    scale = 255 if array.dtype.kind in "bf" and highest <= 1 else 1
    levels = np.rint(array * float(scale)) if array.dtype.kind in "bf" else array
    return torch.from_numpy(np.ascontiguousarray(levels.astype(np.uint8)))


def _as_labels(name: str, array: Any) -> np.ndarray:
    """Return labels (N,) as int64 or texts."""
    labels = np.asarray(array)
    if labels.ndim == 2 and 1 in labels.shape:
        labels = labels.ravel()
    if labels.ndim == 2:
        raise UserError(
            f"{name} has the shape {labels.shape}: one label for each image is expected (of one-hot rows: argmax(1))."
        )
    if labels.dtype.kind == "S":
        labels = np.char.decode(labels, "utf-8", "replace")
    if labels.dtype.kind == "f" and np.isfinite(labels).all() and (labels == np.rint(labels)).all():
        labels = labels.astype(np.int64)
    if labels.ndim != 1 or labels.dtype.kind not in "buiU" or not labels.size:
        raise UserError(f"{name} is {labels.dtype} {labels.shape}: whole numbers or texts, one an image, are expected.")
    return labels if labels.dtype.kind == "U" else labels.astype(np.int64)
