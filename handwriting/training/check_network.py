"""The check of a network before anything is written: two images of the data set go through it."""

import traceback
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from handwriting.data import DataModule
from handwriting.data.dataset import Sequences
from handwriting.models.sequence_model import SequenceModel
from handwriting.utils.errors import UserError

FORWARD = "forward(images) returns the logits, float (N, num_classes)"


def check_network(net: Any, target: str, data: DataModule, loss: nn.Module) -> None:
    """Raise UserError unless ``net``, made by ``target``, takes images of ``data`` and returns what is expected.

    The network is in eval mode, so that no random number is drawn.
    """
    if isinstance(net, lightning.LightningModule):
        raise UserError(
            f"{target} is a LightningModule, but training is this package's: give its network alone, a torch.nn.Module "
            f"whose {FORWARD}."
        )
    if not isinstance(net, nn.Module):
        raise UserError(f"{target} makes a {type(net).__name__}, but a torch.nn.Module is expected whose {FORWARD}.")
    two = data.train[torch.arange(min(2, len(data.train)))]
    images = two.images.float() / 255
    was_training = net.training
    net.eval()
    try:
        with torch.no_grad():
            if isinstance(net, SequenceModel):
                found: Any = net.loss(images, Sequences(two.labels, two.boxes), loss)
            else:
                found = net(images)
    except UserError:
        raise
    except Exception as error:
        shape, reason = " × ".join(map(str, images.shape)), " ".join(str(error).split())
        raise UserError(
            f"{target} fails on images of {data.name} ({shape}): {type(error).__name__}: {reason} ({_place(error)})."
        ) from error
    net.train(was_training)
    if isinstance(net, SequenceModel):
        _check_sequence(found, target)
    else:
        _check_logits(found, target, len(images), len(data.class_names))
    if not any(parameter.requires_grad for parameter in net.parameters()):
        raise UserError(f"{target} has no parameter to train: give it a layer with weights.")


def _place(error: Exception) -> str:
    """Return the last line of the user's code, or else of torch's, in the traceback of an error."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    own = [frame for frame in frames if "site-packages" not in Path(frame.filename).parts] or frames
    return f"{Path(own[-1].filename).name}, line {own[-1].lineno}" if own else "in C"


def _check_logits(found: Any, target: str, images: int, classes: int) -> None:
    if not isinstance(found, Tensor):
        raise UserError(f"{target}: forward returns a {type(found).__name__}, but {FORWARD}.")
    if found.shape == (images, classes) and found.is_floating_point():
        return
    came = f"{target}: forward returns {found.dtype} {tuple(found.shape)} for {images} images"
    if found.ndim == 2 and len(found) == images and found.is_floating_point():
        raise UserError(
            f"{came}, but there are {classes} classes: end with nn.Linear(…, num_classes), whose number is given."
        )
    raise UserError(f"{came}, but {FORWARD}: here {(images, classes)}.")


def _check_sequence(found: Any, target: str) -> None:
    pair = isinstance(found, tuple) and len(found) == 2
    if not pair or not isinstance(found[0], Tensor) or found[0].ndim or not isinstance(found[1], dict):
        raise UserError(
            f"{target}: loss(images, targets, criterion) must return the mean loss, a tensor without dimensions, and "
            "the named outputs, a dict of tensors."
        )
