"""The check of a network before anything is written: two images of the data set go through it."""

import contextlib
from collections.abc import Iterator
from typing import Any

import lightning
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from handwriting.data import DataModule
from handwriting.data.dataset import Sequences
from handwriting.models.sequence_model import SequenceModel
from handwriting.utils.errors import UserError, place_of

FORWARD = "forward(images) returns the logits, float (N, num_classes)"


def check_network(net: Any, target: str, data: DataModule, loss: nn.Module) -> None:
    """Raise UserError unless ``net``, made by ``target``, takes images of ``data`` and returns what is expected.

    It is tried in train mode and in eval mode, and left as it was, random numbers too.
    """
    if isinstance(net, lightning.LightningModule):
        raise UserError(
            f"{target} is a LightningModule, but training is this package's: give its network alone, a torch.nn.Module "
            f"whose {FORWARD}."
        )
    if not isinstance(net, nn.Module):
        raise UserError(f"{target} makes a {type(net).__name__}, but a torch.nn.Module is expected whose {FORWARD}.")
    with _left_as_it_was(net):
        for training in (False, True):
            _check_forward(net.train(training), target, data, loss)
    if not any(parameter.requires_grad for parameter in net.parameters()):
        raise UserError(f"{target} has no parameter to train: give it a layer with weights.")


@contextlib.contextmanager
def _left_as_it_was(net: nn.Module) -> Iterator[None]:
    """Restore afterwards a network's modes and buffers, such as the statistics of batch norm, and random states."""
    modes = {module: module.training for module in net.modules()}
    buffers = {name: buffer.clone() for name, buffer in net.named_buffers() if not is_lazy(buffer)}
    with isolate_rng(include_cuda=False), torch.no_grad():
        yield
        for name, buffer in net.named_buffers():
            if name in buffers:
                buffer.copy_(buffers[name])
    for module, training in modes.items():
        module.training = training


def _check_forward(net: nn.Module, target: str, data: DataModule, loss: nn.Module) -> None:
    two = data.train[torch.arange(min(2, len(data.train)))]
    images, mode = two.images.float() / 255, " in train mode" if net.training else ""
    try:
        if isinstance(net, SequenceModel):
            found: Any = net.loss(images, Sequences(two.labels, two.boxes), loss)
        else:
            found = net(images)
    except UserError:
        raise
    except Exception as error:
        shape, reason = " × ".join(map(str, images.shape)), " ".join(str(error).split())
        place = place_of(error, {target.partition(".")[0]})
        where = f" ({place})" if place else ""
        raise UserError(
            f"{target} fails{mode} on images of {data.name} ({shape}): {type(error).__name__}: {reason}{where}."
        ) from error
    if isinstance(net, SequenceModel):
        _check_sequence(found, target)
    else:
        _check_logits(found, target, mode, len(images), len(data.class_names))


def _check_logits(found: Any, target: str, mode: str, images: int, classes: int) -> None:
    if not isinstance(found, Tensor):
        raise UserError(f"{target}: forward returns a {type(found).__name__}{mode}, but {FORWARD}.")
    if found.shape == (images, classes) and found.is_floating_point():
        return
    came = f"{target}: forward returns {found.dtype} {tuple(found.shape)}{mode} for {images} images"
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
