"""QuickNet: a net that reads well after a few hundred steps."""

from collections.abc import Sequence

from torch import Tensor, nn

from handwriting.errors import UserError
from handwriting.models.activations import make_activation
from handwriting.models.net import check_dropout, check_sizes, linear_layers


class QuickNet(nn.Module):
    """Blocks of unpadded convolution, 2×2 max pooling, batch norm and activation, then linear layers.

    Pooling comes first, so that norm and activation work on a quarter of the pixels; the norm lets the learning rate
    be high. ``kernels`` are the sides of the convolutions, ``widths`` their channels. Raises UserError when the two
    differ in length or the image is too small.
    """

    def __init__(
        self,
        num_classes: int = 10,
        image_size: tuple[int, int] = (28, 28),
        widths: Sequence[int] = (24, 32),
        kernels: Sequence[int] = (5, 3),
        hidden: Sequence[int] = (256,),
        activation: str = "relu",
        dropout: float = 0.0,
    ):
        super().__init__()
        check_sizes("model.widths", widths, at_least_one=True)
        check_sizes("model.kernels", kernels, at_least_one=True)
        check_sizes("model.hidden", hidden)
        check_dropout(dropout)
        if len(widths) != len(kernels):
            raise UserError(
                f"model.widths has {len(widths)} blocks and model.kernels {len(kernels)}; both need as many numbers."
            )
        (height, width), channels = image_size, 1
        blocks: list[nn.Module] = []
        for out_channels, kernel in zip(widths, kernels, strict=True):
            height, width = (height - kernel + 1) // 2, (width - kernel + 1) // 2
            if min(height, width) < 1:
                raise UserError(
                    f"model.widths has {len(widths)} blocks, but an image of {image_size[0]}×{image_size[1]} is "
                    f"used up after {len(blocks) // 4}: leave out the last."
                )
            convolution = nn.Conv2d(channels, out_channels, kernel, bias=False)  # the norm has a bias
            blocks += [convolution, nn.MaxPool2d(2), nn.BatchNorm2d(out_channels), make_activation(activation)]
            channels = out_channels
        self.features = nn.Sequential(*blocks)  # (N, 1, H, W) → (N, widths[-1], h, w)
        self.classifier = linear_layers(channels * height * width, hidden, num_classes, activation, dropout)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, classes) of images (N, 1, H, W)."""
        return self.classifier(self.features(images).flatten(1))
