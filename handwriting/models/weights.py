"""Pretrained weights of torchvision's networks, from a local file."""

import pickle
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import torch
from torch import Tensor, nn

from handwriting.utils.errors import UserError

DAMAGE = (OSError, RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError)
DAMAGE += (zipfile.BadZipFile, zlib.error)  # what a damaged file raises, by where it is damaged
LARGEST_FILE = 1 << 30  # bytes; those of resnet18 have 47 million


def load_weights(net: nn.Module, file: str, last: str) -> None:
    """Load a state dict into a network of torchvision, except the layers whose names begin with ``last``.

    These are the last ones, for other classes. The file is the one that torchvision downloads, or any state dict saved
    by torch with the same names and shapes; code in it is not executed. Raises UserError if it is anything else.
    """
    path, name = Path(file), type(net).__name__
    content = _read(path)
    if not (isinstance(content, Mapping) and content and all(isinstance(one, Tensor) for one in content.values())):
        raise UserError(f"model.weights: {path} is not a state dict, which maps the names of a network to tensors.")
    weights = {key: value for key, value in content.items() if not str(key).startswith(last)}
    expected = {key: value for key, value in net.state_dict().items() if not key.startswith(last)}
    for key in weights.keys() | expected.keys():
        if key not in weights or key not in expected or weights[key].shape != expected[key].shape:
            raise UserError(
                f"model.weights: {path} does not fit torchvision's {name}: {key} is missing or has another shape."
            )
    net.load_state_dict(weights, strict=False)


def _read(path: Path) -> object:
    try:
        with path.open("rb") as file:
            if path.stat().st_size > LARGEST_FILE:
                raise UserError(f"model.weights: {path} is larger than {LARGEST_FILE >> 30} GiB, the maximum.")
            return _load(file, path)
    except OSError as error:
        raise UserError(f"model.weights: {path} cannot be read: {error.strerror or error}.") from error


def _load(file: IO[bytes], path: Path) -> object:
    damaged = f"model.weights: {path} is damaged or truncated."
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
        changed = zipfile.is_zipfile(file) and zipfile.ZipFile(file).testzip()  # torch does not compare checksums
    except pickle.UnpicklingError as error:
        reason = "is not a state dict, or contains more than tensors and plain data: it is not loaded."
        raise UserError(f"model.weights: {path} {reason}") from error
    except DAMAGE as error:
        raise UserError(damaged) from error
    if changed:
        raise UserError(damaged)
    return content
