"""Pretrained weights of torchvision's networks, from a local file."""

import pickle
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from handwriting.utils.errors import UserError

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
            content = torch.load(file, map_location="cpu", weights_only=True)
        damaged = zipfile.is_zipfile(path) and zipfile.ZipFile(path).testzip()  # torch does not compare checksums
    except OSError as error:
        raise UserError(f"model.weights: {path} cannot be read: {error.strerror or error}.") from error
    except pickle.UnpicklingError as error:
        reason = "is not a state dict, or contains more than tensors and plain data: it is not loaded."
        raise UserError(f"model.weights: {path} {reason}") from error
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError, AttributeError, TypeError, zlib.error) as error:
        raise UserError(f"model.weights: {path} is damaged or truncated.") from error
    if damaged:
        raise UserError(f"model.weights: {path} is damaged or truncated.")
    return content
