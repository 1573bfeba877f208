"""Stages of strided and residual convolutions, the first layers of the networks for several characters."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from handwriting.models.glyph_net import Residual
from handwriting.models.layers import make_activation
from handwriting.utils.errors import UserError


def residual_stages(
    channels: int,
    widths: Sequence[int],
    depths: Sequence[int],
    strides: Sequence[int | tuple[int, int]],
    activation: str,
) -> nn.Sequential:
    """Return stages of 3×3 convolutions with batch norm, (N, channels, H, W) → (N, widths[-1], h, w).

    ``widths`` are the channels of the stages, ``depths`` their numbers of convolutions: the first has the stride, the
    others are residual (K. He et al., 2015, arXiv:1512.03385). h and w are H and W divided by each stride in turn, each
    rounded up. Raises UserError if ``widths`` and ``depths`` differ in length.
    """
    if len(widths) != len(depths):
        raise UserError(
            f"model.widths has {len(widths)} stages and model.depths {len(depths)}; both need the same length."
        )
    stages = []
    for (before, after), depth, stride in zip(pairwise([channels, *widths]), depths, strides, strict=True):
        first = [nn.Conv2d(before, after, 3, stride, padding=1, bias=False), nn.BatchNorm2d(after)]
        others = [Residual(after, make_activation(activation)) for _ in range(depth - 1)]
        stages.append(nn.Sequential(*first, make_activation(activation), *others))
    return nn.Sequential(*stages)
