"""Fine-tuning: training that starts from the weights of another run, and layers that stay as they are."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from handwriting.inference.checkpoints import find_checkpoint, read_weights
from handwriting.utils.errors import UserError

MOST_NAMED = 6  # tensors or layers in a sentence


def start_from(model: nn.Module, place: Path) -> str:
    """Copy the weights of a run, or of a checkpoint, where name and shape are equal; return what was copied.

    The model has the keys ``net.…``, ``mean`` and ``std``: the network gets its images as it did in the other run.
    Raises UserError if nothing of the network is equal, or if the checkpoint cannot be read.
    """
    path = find_checkpoint(place)
    weights, own = read_weights(path), model.state_dict()
    equal = {name: weights[name] for name, now in own.items() if _fits(weights.get(name), now)}
    new = [name for name in own if name.startswith("net.") and name not in equal]
    tensors = sum(name.startswith("net.") for name in own)
    if len(new) == tensors:
        raise UserError(
            f"init_from={place} has no tensor of the same name and shape as one of this network: choose a run of the "
            "same model, or leave init_from out."
        )
    model.load_state_dict(own | equal)
    return f"init_from: {tensors - len(new)} of {tensors} tensors were copied; new: {_few(new) if new else 'none'}"


def freeze(net: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    """Let the layers of these names keep their weights, and return their modules, which belong in eval mode.

    A name is that of a module: ``features`` freezes also ``features.0``. Raises UserError for another name, and if no
    parameter is left to train.
    """
    frozen = []
    for name in names:
        found = list(_modules_in(net, name)) if isinstance(name, str) and name else []
        if not found:
            known = [known for known, _ in net.named_children()]
            raise UserError(f"freeze={_listed(names)}: this network has no layer {name}. Known: {_few(known)}.")
        frozen += found
    for module in frozen:
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad = False
    if not any(parameter.requires_grad for parameter in net.parameters()):
        raise UserError(f"freeze={_listed(names)} leaves no parameter to train: freeze fewer layers.")
    return frozen


def _modules_in(net: nn.Module, name: str) -> Iterator[nn.Module]:
    return (module for path, module in net.named_modules() if path == name or path.startswith(f"{name}."))


def _fits(other: Any, own: Tensor) -> bool:
    return isinstance(other, Tensor) and other.shape == own.shape and other.dtype == own.dtype


def _few(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(islice(names, MOST_NAMED)) + (f" and {more} more" if more > 0 else "")


def _listed(names: Sequence[str]) -> str:
    return f"[{','.join(map(str, names))}]"
