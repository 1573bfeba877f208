"""Activations by the name that torch.nn gives them."""

from torch import nn
from torch.nn.modules import activation as torch_activations

from handwriting.errors import UserError, did_you_mean

NEED_MORE = {"MultiheadAttention", "Threshold"}  # not made without arguments
BY_NAME = {
    name.lower(): getattr(nn, name)
    for name in torch_activations.__all__
    if name not in NEED_MORE and not name.startswith("Softm") and name not in ("LogSoftmax", "GLU")
}


def make_activation(name: str) -> nn.Module:
    """Return a new activation of torch.nn, named in any case: ``relu``, ``GELU``, ``LeakyReLU`` …

    Raises UserError for an unknown name. Those that mix channels (GLU, softmax) are not offered.
    """
    try:
        return BY_NAME[str(name).lower()]()
    except KeyError:
        known = [module.__name__ for module in BY_NAME.values()]
        raise UserError(
            f"model.activation={name} is not an element-wise activation of torch.nn."
            f"{did_you_mean(str(name), known)} Known: {', '.join(sorted(known))}."
        ) from None
