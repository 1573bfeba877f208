"""GlyphNet: a net for many classes with few examples each."""

from collections.abc import Sequence

from torch import Tensor, cat, nn, stack

from handwriting.errors import UserError, check_whole
from handwriting.models.activations import make_activation
from handwriting.models.net import check_dropout, check_sizes


class GlyphNet(nn.Module):
    """Branches of convolutions, each of which reads the image; the net's answer is the mean of their logits.

    In training each branch has a loss of its own, so that they stay different (the classifier takes its mean); one
    branch is an ordinary net. See Branch for ``widths``, ``depths`` and the errors.
    """

    def __init__(
        self,
        num_classes: int = 200,
        image_size: tuple[int, int] = (28, 28),
        branches: int = 1,
        widths: Sequence[int] = (32, 64, 128),
        depths: Sequence[int] = (1, 3, 3),
        activation: str = "relu",
        dropout: float = 0.0,
    ):
        super().__init__()
        check_whole("model.branches", branches, at_least=1)
        self.branches = nn.ModuleList(
            Branch(num_classes, image_size, widths, depths, activation, dropout) for _ in range(branches)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, classes) of images (N, 1, H, W); in training those of several branches one by one.

        They are then (branches, N, classes).
        """
        logits = stack([branch(images) for branch in self.branches])
        return logits if self.training and len(logits) > 1 else logits.mean(0)


class Branch(nn.Module):
    """Stages of 3×3 convolutions with batch norm, pooling between them; then mean and maximum over the image.

    ``widths`` are the channels of the stages, ``depths`` how many convolutions each has; all but the first of a stage
    add to their input (K. He et al., 2015, arXiv:1512.03385). No linear layer sees places, so that a sign may stand
    anywhere, and there is little to learn by heart. Raises UserError when the image is too small for so many stages.
    """

    def __init__(
        self,
        num_classes: int,
        image_size: tuple[int, int],
        widths: Sequence[int],
        depths: Sequence[int],
        activation: str,
        dropout: float,
    ):
        super().__init__()
        check_sizes("model.widths", widths, at_least_one=True)
        check_sizes("model.depths", depths, at_least_one=True)
        check_dropout(dropout)
        if len(widths) != len(depths):
            raise UserError(
                f"model.widths has {len(widths)} stages and model.depths {len(depths)}; both need as many numbers."
            )
        if min(image_size) >> (len(widths) - 1) < 1:
            raise UserError(
                f"model.widths has {len(widths)} stages, but an image of {image_size[0]}×{image_size[1]} is used up "
                "before the last: leave it out."
            )
        stages: list[nn.Module] = []
        channels = 1
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            pool = [nn.MaxPool2d(2)] if stage else []
            first = nn.Sequential(*_convolution(channels, width), make_activation(activation))
            stages += [*pool, first, *(Residual(width, activation) for _ in range(depth - 1))]
            channels = width
        self.features = nn.Sequential(*stages)  # (N, 1, H, W) → (N, widths[-1], h, w)
        self.norm = nn.BatchNorm1d(2 * channels)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(2 * channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, classes) of images (N, 1, H, W)."""
        maps = self.features(images)
        pooled = cat([maps.mean((2, 3)), maps.amax((2, 3))], 1)
        return self.classifier(self.dropout(self.norm(pooled)))


class Residual(nn.Module):
    """A convolution with batch norm whose result is added to what it saw, then the activation."""

    def __init__(self, channels: int, activation: str):
        super().__init__()
        self.convolution = nn.Sequential(*_convolution(channels, channels))
        self.activation = make_activation(activation)

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps of the same shape (N, channels, h, w)."""
        return self.activation(maps + self.convolution(maps))


def _convolution(channels: int, out_channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(channels, out_channels, 3, padding=1, bias=False), nn.BatchNorm2d(out_channels)
