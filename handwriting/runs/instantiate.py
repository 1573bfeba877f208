"""Instantiation of config nodes as objects."""

import inspect
from collections.abc import Sequence
from pkgutil import resolve_name
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from handwriting.utils.errors import UserError, check_number, check_whole, is_number


def build(kind: str, config: Any, **more: Any) -> Any:
    """Instantiate a config node; errors of its class become a UserError that names the node.

    ``more`` are arguments from the package, which the config must not set.
    """
    if not config:
        return None
    _check_settings(kind, config)
    if ours := more.keys() & set(config):
        raise UserError(f"{kind}.{min(ours)} is set by the package itself: leave it out.")
    try:
        return instantiate(config, _convert_="all", **more)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, UserError):
            raise cause from None
        # MisconfigurationException by its name: to import Lightning takes seconds, too long for predict.
        known = isinstance(cause, (TypeError, ValueError)) or type(cause).__name__ == "MisconfigurationException"
        if cause is None or known:
            raise UserError(f"{kind}: {' '.join(str(cause or error).split())}") from error
        raise


def _check_settings(kind: str, config: Any) -> None:
    """Raise UserError for a target that does not exist, and for a value that should be a number and is not.

    The package's own classes check their numbers themselves; torch reports them late or unclearly.
    """
    target = str(config.get("_target_"))
    try:
        parameters = inspect.signature(resolve_name(target)).parameters
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise UserError(f"{kind}._target_={target} is not an importable class or function: {error}.") from error
    if target.startswith("handwriting."):
        return
    for name, parameter in parameters.items():
        if name in config:
            _check_number(f"{kind}.{name}", config[name], parameter)


def _check_number(setting: str, value: Any, parameter: inspect.Parameter) -> None:
    default = parameter.default  # annotations differ between versions of torch
    if isinstance(default, tuple) and default and all(map(is_number, default)):
        if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != len(default):
            raise UserError(f"{setting}={value} must be {len(default)} numbers, such as {list(default)}.")
        for one in value:
            check_number(setting, one)
    elif is_number(default):
        check_number(setting, value)
    elif default is parameter.empty and parameter.annotation in (int, "int"):  # a length, such as StepLR's step_size
        check_whole(setting, value, at_least=1)
