"""The one place where a part of the config becomes an object."""

from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException

from handwriting.errors import UserError


def build(kind: str, config: Any, **more: Any) -> Any:
    """Instantiate a part of the config; what its maker finds wrong becomes a UserError that names the part."""
    if not config:
        return None
    try:
        return instantiate(config, _convert_="all", **more)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, UserError):
            raise cause from None
        if cause is None or isinstance(cause, (TypeError, ValueError, MisconfigurationException)):
            raise UserError(f"{kind}: {' '.join(str(cause or error).split())}") from error
        raise
