"""Stages of strided and residual convolutions, and a feature pyramid: the trunks of networks for several characters."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

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


class Pyramid(nn.Module):
    """A feature pyramid: the maps of all stages, added from the smallest to the largest (T.-Y. Lin et al., 2016).

    arXiv:1612.03144. ``widths`` are the channels of the maps (N, width, h, w), the largest map first; the result is
    (N, features, h, w) at the size of the largest. Each cell then knows its details and the whole image.
    """

    def __init__(self, widths: Sequence[int], features: int, activation: str):
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(width, features, 1) for width in widths)
        self.smooth = nn.Sequential(*convolution(features, activation))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the features (N, features, h, w)."""
        values = self.lateral[-1](maps[-1])
        for lateral, larger in zip(reversed(self.lateral[:-1]), reversed(maps[:-1]), strict=True):  # type: ignore[arg-type]
            values = lateral(larger) + F.interpolate(values, size=larger.shape[2:], mode="nearest")
        return self.smooth(values)


def convolution(channels: int, activation: str) -> list[nn.Module]:
    """Return a 3×3 convolution that keeps channels and size, its batch norm and its activation."""
    same = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
    return [same, nn.BatchNorm2d(channels), make_activation(activation)]


def all_maps(stages: Iterable[nn.Module], images: Tensor) -> list[Tensor]:
    """Return the maps after each stage."""
    maps, values = [], images
    for stage in stages:
        values = stage(values)
        maps.append(values)
    return maps
