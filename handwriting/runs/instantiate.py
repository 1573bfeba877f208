"""Instantiation of config nodes as objects."""

import contextlib
import inspect
import sys
from collections.abc import Mapping
from pkgutil import resolve_name
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from handwriting.runs.constraints import Constraint, Number, Numbers, Whole, constraints_of
from handwriting.runs.source import FRAMEWORKS, targets_of
from handwriting.utils.errors import UserError, describe, is_number, place_of

PARTIAL = {"optim": "parameters of the network", "scheduler": "optimizer"}  # and what completes them


def build(kind: str, config: Any, **arguments: Any) -> Any:
    """Instantiate a config node; errors of its class become a UserError that names the node, and the user's line.

    ``arguments`` are those from the package, which the config must not set.
    """
    if not config:
        return None
    check_part(kind, config)
    if kind in PARTIAL and not config.get("_partial_"):
        raise UserError(
            f"{kind}._target_={config.get('_target_')} needs _partial_: true in its config file: the package gives it "
            f"the {PARTIAL[kind]}."
        )
    if ours := arguments.keys() & set(config):
        raise UserError(f"{kind}.{min(ours)} is set by the package itself: leave it out.")
    if kind == "data":
        _check_is_no_datamodule(str(config.get("_target_")))
    try:
        return instantiate(config, _convert_="all", **arguments)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, UserError):
            raise cause from None
        # MisconfigurationException by its name: to import Lightning takes seconds, too long for predict.
        known = isinstance(cause, (TypeError, ValueError)) or type(cause).__name__ == "MisconfigurationException"
        foreign = not str(config.get("_target_")).startswith("handwriting.")
        own = {target.partition(".")[0] for target in targets_of(config)} - FRAMEWORKS
        if cause is None or known or foreign or place_of(cause, own):
            raise UserError(f"{kind}: {describe(cause or error, own)}.") from error
        raise


def build_model(config: Any, num_classes: int, image_size: tuple[int, int], channels: int) -> Any:
    """Instantiate a model for images of a size (height, width) with 1 (grey) or 3 channels.

    Raises UserError as build does, and if the images are in colour and the model takes no argument ``channels``.
    """
    arguments: dict[str, Any] = {"num_classes": num_classes, "image_size": image_size}
    target = str(config.get("_target_"))
    parameters = _parameters(_find("model", target))
    any_name = parameters is None or any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    parameters = parameters or {}
    lacking = [name for name in arguments if name not in parameters]
    if lacking and not any_name:
        raise UserError(
            f"{target} takes no argument {lacking[0]!r}: write num_classes: int, image_size: tuple[int, int] among its "
            "arguments; they are the number of classes, and height and width of the images."
        )
    if "channels" in parameters or (any_name and channels > 1):
        arguments["channels"] = channels
    elif channels > 1:
        raise UserError(
            f"{target} takes no argument 'channels', and the images are in colour: write channels: int = 1 among its "
            "arguments and nn.Conv2d(channels, …) as its first layer."
        )
    net = build("model", config, **arguments)
    _give_lazy_layers_their_shapes(net, (channels, *image_size))
    return net


def _give_lazy_layers_their_shapes(net: Any, shape: tuple[int, ...]) -> None:
    import torch  # the model has imported it already
    from torch.nn.parameter import is_lazy

    if not isinstance(net, torch.nn.Module) or not any(map(is_lazy, (*net.parameters(), *net.buffers()))):
        return
    net.eval()  # so that no random number is drawn for dropout
    with torch.no_grad(), contextlib.suppress(Exception):  # check_network reports it
        net(torch.zeros(2, *shape))
    net.train()


def check_part(kind: str, config: Any) -> None:
    """Raise UserError for a target that does not exist, and for a value that does not fit its constraint.

    Constraints are those of the table in handwriting.runs.constraints. Classes of torch and others also need a number
    where their own default is one: torch reports a wrong value late or unclearly.
    """
    target = str(config.get("_target_"))
    maker = _find(kind, target)
    constraints = constraints_of(maker)
    loader = config.get("read")
    if kind == "data" and isinstance(loader, Mapping) and "_target_" in loader:  # it gets the other settings
        constraints = {**constraints_of(_find("data.read", str(loader["_target_"]))), **constraints}
    if not target.startswith("handwriting."):
        constraints = {**_constraints_by_defaults(maker), **constraints}
    _check_values(kind, config, constraints)
    _check_inside(kind, config)


def _check_is_no_datamodule(target: str) -> None:
    """Raise UserError if ``target`` is a LightningDataModule that does not derive from this package's."""
    bases = getattr(_find("data", target), "__mro__", ())
    ours = any(base.__module__.startswith("handwriting.") for base in bases)
    if not ours and any(base.__name__ == "LightningDataModule" for base in bases):
        raise UserError(
            f"data._target_={target} is a LightningDataModule of your own: write defaults: [_lightning, _self_], "
            f"name: NAME and read: {{datamodule: {{_target_: {target}}}}} instead."
        )


def _check_inside(place: str, config: Any) -> None:
    for name, inner in config.items():
        if isinstance(inner, Mapping):
            if "_target_" in inner:
                maker = _find(f"{place}.{name}", str(inner["_target_"]))
                _check_values(f"{place}.{name}", inner, constraints_of(maker))
            _check_inside(f"{place}.{name}", inner)


def _check_values(place: str, config: Any, constraints: Mapping[str, Constraint]) -> None:
    for name, constraint in constraints.items():
        if name in config:
            constraint.check(f"{place}.{name}", config[name])


def _find(place: str, target: str) -> Any:
    try:
        maker = resolve_name(target)
        if not callable(maker):
            raise TypeError(f"{maker!r} cannot be called")
    except Exception as error:  # also of the user's code while it is imported
        reason = describe(error, {target.partition(".")[0]} - FRAMEWORKS)
        raise UserError(f"{place}._target_={target} is not an importable class or function: {reason}.") from error
    return maker


def _constraints_by_defaults(maker: Any) -> dict[str, Constraint]:
    found: dict[str, Constraint] = {}
    for name, parameter in (_parameters(maker) or {}).items():
        default = parameter.default  # annotations are written differently by each version of torch
        if isinstance(default, tuple) and default and all(map(is_number, default)):
            found[name] = Numbers(default)
        elif is_number(default):
            found[name] = Number()
        elif default is parameter.empty and parameter.annotation in (int, "int"):  # a length, as StepLR's step_size
            found[name] = Whole(1)
    return found


def _parameters(maker: Any) -> Mapping[str, inspect.Parameter] | None:
    """Return the parameters of a class or function by their names; None if they are not known."""
    if "torch" in sys.modules and getattr(maker, "__init__", None) is sys.modules["torch"].nn.Module.__init__:
        return {}  # a module without __init__, whose **kwargs are refused
    try:
        return inspect.signature(maker).parameters
    except ValueError:  # of a function in C, which tells nothing
        return None
