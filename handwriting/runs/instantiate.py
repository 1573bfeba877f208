"""The one place where a part of the config becomes an object."""

import inspect
from collections.abc import Sequence
from pkgutil import resolve_name
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from handwriting.utils.errors import UserError, check_number, check_whole, is_number


def build(kind: str, config: Any, **more: Any) -> Any:
    """Instantiate a part of the config; what its maker finds wrong becomes a UserError that names the part.

    ``more`` is what the package passes itself, which the config may not set.
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
        # Lightning's MisconfigurationException by its name: to import it takes seconds, which predict does not have.
        known = isinstance(cause, (TypeError, ValueError)) or type(cause).__name__ == "MisconfigurationException"
        if cause is None or known:
            raise UserError(f"{kind}: {' '.join(str(cause or error).split())}") from error
        raise


def _check_settings(kind: str, config: Any) -> None:
    """Raise UserError for a maker that is not there and for what should be a number and is none.

    The package's own parts look at their numbers themselves; torch finds them late, or in other words.
    """
    target = str(config.get("_target_"))
    try:
        parameters = inspect.signature(resolve_name(target)).parameters
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise UserError(f"{kind}._target_={target} is no class or function to be imported: {error}.") from error
    if target.startswith("handwriting."):
        return
    for name, parameter in parameters.items():
        if name in config:
            _check_number(f"{kind}.{name}", config[name], parameter)


def _check_number(setting: str, value: Any, parameter: inspect.Parameter) -> None:
    default = parameter.default  # annotations are written differently by each version of torch
    if isinstance(default, tuple) and default and all(map(is_number, default)):
        if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != len(default):
            raise UserError(f"{setting}={value} must be {len(default)} numbers, as in {list(default)}.")
        for one in value:
            check_number(setting, one)
    elif is_number(default):
        check_number(setting, value)
    elif default is parameter.empty and parameter.annotation in (int, "int"):  # a length, such as StepLR's step_size
        check_whole(setting, value, at_least=1)
