"""The Net family of the optimizer study: conv(3)-activation-pool blocks, then linear layers."""

from collections.abc import Sequence

from torch import Tensor, nn

from handwriting.models.layers import activation_and_pooling, make_activation
from handwriting.utils.errors import UserError


class Net(nn.Module):
    """Blocks of unpadded 3×3 convolution, activation and 2×2 max pooling, then linear layers.

    ``widths`` are the channels of the blocks, ``hidden`` the sizes of the linear layers before the last. The study's
    Net is widths [32, 64], hidden [128], ReLU: 225,034 parameters at 28×28 and 10 classes. Raises UserError if the
    image is too small for the number of blocks.
    """

    def __init__(
        self,
        num_classes: int = 10,
        image_size: tuple[int, int] = (28, 28),
        channels: int = 1,
        widths: Sequence[int] = (32, 64),
        hidden: Sequence[int] = (128,),
        activation: str = "relu",
        dropout: float = 0.0,
        batch_norm: bool = False,
    ):
        super().__init__()
        height, width = image_size
        blocks: list[nn.Module] = []
        for out_channels in widths:
            height, width = (height - 2) // 2, (width - 2) // 2
            if min(height, width) < 1:
                raise UserError(
                    f"model.widths has {len(widths)} blocks, but an image of {image_size[0]}×{image_size[1]} is "
                    f"too small after {len(blocks)}: leave out the last."
                )
            norm = [nn.BatchNorm2d(out_channels)] if batch_norm else []
            convolution = nn.Conv2d(channels, out_channels, 3)
            blocks.append(nn.Sequential(convolution, *norm, *activation_and_pooling(activation)))
            channels = out_channels
        self.features = nn.Sequential(*blocks)  # (N, channels, H, W) → (N, widths[-1], h, w)
        self.classifier = linear_layers(channels * height * width, hidden, num_classes, activation, dropout)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, classes) of images (N, channels, H, W)."""
        return self.classifier(self.features(images).flatten(1))


class MLP(nn.Module):
    """Linear layers on the pixels; 784-512-512-10 is what the optimizer study called LeNet."""

    def __init__(
        self,
        num_classes: int = 10,
        image_size: tuple[int, int] = (28, 28),
        channels: int = 1,
        hidden: Sequence[int] = (512, 512),
        activation: str = "relu",
        dropout: float = 0.0,
    ):
        super().__init__()
        features = channels * image_size[0] * image_size[1]
        self.classifier = linear_layers(features, hidden, num_classes, activation, dropout)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, classes) of images (N, channels, H, W)."""
        return self.classifier(images.flatten(1))


class Crop(nn.Module):
    """Crops ``margin`` pixels on each side; by slicing, since some exporters fail with negative padding."""

    def __init__(self, margin: int):
        super().__init__()
        self.margin = margin

    def forward(self, images: Tensor) -> Tensor:
        """Return the middle of images (N, C, H, W), (N, C, H - 2 margin, W - 2 margin)."""
        height, width = images.shape[2:]
        return images[:, :, self.margin : height - self.margin, self.margin : width - self.margin]


def linear_layers(
    features: int, hidden: Sequence[int], num_classes: int, activation: str, dropout: float
) -> nn.Sequential:
    """Return linear layers, (N, features) → (N, num_classes), with activation and dropout after each hidden one."""
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [nn.Linear(features, size), make_activation(activation)]
        if dropout:
            layers.append(nn.Dropout(dropout))
        features = size
    return nn.Sequential(*layers, nn.Linear(features, num_classes))
