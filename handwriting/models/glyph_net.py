"""GlyphNet: a network for many classes with few examples each."""

from collections.abc import Sequence

from torch import Tensor, autocast, cat, float32, nn, outer, promote_types, stack, tensor
from torch.nn import functional as F

from handwriting.models.layers import activation_and_pooling, make_activation
from handwriting.models.net import Crop
from handwriting.utils.errors import UserError, check_whole


class GlyphNet(nn.Module):
    """Stages of 3×3 convolutions with batch norm, pooling between them; then mean and maximum over the image.

    ``widths`` are the channels of the stages, ``depths`` their numbers of convolutions; all but the first of a stage
    are residual (K. He et al., 2015, arXiv:1512.03385). No linear layer depends on positions, which makes the network
    less sensitive to shifts and limits overfitting. ``pooling`` between stages is ``max`` (2×2) or ``blur`` (a blurred
    maximum, see Blur). ``margin`` pixels are cropped from each side.

    After the first ``shared`` stages the network divides into ``branches`` heads, each with its own copy of the other
    stages; the output is the mean of their logits. In training each head has its own loss, and the losses are averaged,
    which keeps the heads different (S. Lee et al., 2015, arXiv:1511.06314). Raises UserError if the image is too small
    for the number of stages.
    """

    def __init__(
        self,
        num_classes: int = 200,
        image_size: tuple[int, int] = (28, 28),
        channels: int = 1,
        branches: int = 1,
        shared: int = 0,
        widths: Sequence[int] = (32, 64, 128),
        depths: Sequence[int] = (1, 3, 3),
        activation: str = "relu",
        dropout: float = 0.0,
        pooling: str = "max",
        margin: int = 0,
    ):
        super().__init__()
        _check_stages(widths, depths, image_size, margin)
        check_whole("model.shared", shared, at_least=0, at_most=len(widths) - 1)
        counts = [channels, *widths]

        def stages(first: int, end: int) -> list[nn.Module]:
            last = len(widths) - 1
            return [
                _stage(counts[i], counts[i + 1], depths[i], activation, pooling if i < last else None)
                for i in range(first, end)
            ]

        self.crop = Crop(margin)
        self.trunk = nn.Sequential(*stages(0, shared))
        self.branches = nn.ModuleList(
            Branch(nn.Sequential(*stages(shared, len(widths))), widths[-1], num_classes, dropout)
            for _ in range(branches)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, classes) of images (N, channels, H, W); of heads in training (branches, N, classes)."""
        maps = self.trunk(self.crop(images))
        logits = stack([branch(maps) for branch in self.branches])
        return logits if self.training and len(logits) > 1 else logits.mean(0)


class Branch(nn.Module):
    """A head: stages that end in ``channels`` maps, and logits from their mean and maximum over the image."""

    def __init__(self, stages: nn.Module, channels: int, num_classes: int, dropout: float):
        super().__init__()
        self.stages = stages
        self.norm = nn.BatchNorm1d(2 * channels)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(2 * channels, num_classes)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the logits (N, classes) of maps (N, C, h, w)."""
        maps = self.stages(maps)
        pooled = cat([maps.mean((2, 3)), maps.amax((2, 3))], 1)
        return self.classifier(self.dropout(self.norm(pooled)))


class Residual(nn.Module):
    """A residual block: a convolution with batch norm, added to its input, then the activation."""

    def __init__(self, channels: int, activation: nn.Module):
        super().__init__()
        self.convolution = nn.Sequential(*_convolution(channels, channels))
        self.activation = activation

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps (N, channels, h, w) of the same shape, or half as high and wide where the activation pools."""
        return self.activation(maps + self.convolution(maps))


class Blur(nn.Module):
    """Blur pooling: a 3×3 binomial filter, then every second pixel along both axes.

    The filter makes the result less sensitive to shifts by one pixel (R. Zhang, 2019, arXiv:1904.11486).
    """

    kernel: Tensor

    def __init__(self, channels: int):
        super().__init__()
        line = tensor([0.25, 0.5, 0.25])
        self.register_buffer("kernel", outer(line, line).repeat(channels, 1, 1, 1), persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps (N, channels, h, w) as (N, channels, (h + 1)//2, (w + 1)//2); padded with zeros."""
        full = promote_types(maps.dtype, float32)  # in bf16 a CPU takes 3 to 8 times as long, forward and backward
        with autocast(maps.device.type, enabled=False):
            blurred = F.conv2d(maps.to(full), self.kernel.to(full), stride=2, padding=1, groups=len(self.kernel))
        return blurred.to(maps.dtype)


def _stage(channels: int, width: int, depth: int, activation: str, pooling: str | None) -> nn.Sequential:
    """Return a stage: (N, channels, h, w) → (N, width, h, w), or (N, width, h//2, w//2) if it ends in a pooling."""
    activations = [make_activation(activation) for _ in range(depth)]
    if pooling == "max":
        activations[-1] = nn.Sequential(*activation_and_pooling(activation))
    elif pooling == "blur":  # 28×28 → 27×27 → 14×14
        activations[-1] = nn.Sequential(*activation_and_pooling(activation, stride=1), Blur(width))
    first, *others = activations
    return nn.Sequential(*_convolution(channels, width), first, *(Residual(width, other) for other in others))


def _convolution(channels: int, out_channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(channels, out_channels, 3, padding=1, bias=False), nn.BatchNorm2d(out_channels)


def _check_stages(widths: Sequence[int], depths: Sequence[int], image_size: tuple[int, int], margin: int) -> None:
    if len(widths) != len(depths):
        raise UserError(
            f"model.widths has {len(widths)} stages and model.depths {len(depths)}; both need the same length."
        )
    if (min(image_size) - 2 * margin) >> (len(widths) - 1) < 1:
        without, or_less = (f" without its margin of {margin}", " or make the margin smaller") if margin else ("", "")
        raise UserError(
            f"model.widths has {len(widths)} stages, but an image of {image_size[0]}×{image_size[1]}{without} is too "
            f"small for the last: leave it out{or_less}."
        )
