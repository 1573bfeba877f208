"""QuickNet: a network with a high accuracy after a few hundred steps."""

from collections.abc import Sequence

from torch import Tensor, nn

from handwriting.models.layers import make_activation
from handwriting.models.net import Crop, linear_layers
from handwriting.utils.errors import UserError


class QuickNet(nn.Module):
    """Blocks of unpadded convolution, 2×2 max pooling, batch norm and activation, then linear layers.

    Pooling comes first, so that norm and activation are computed for a quarter of the pixels. The norm allows a high
    learning rate. ``widths``, ``kernels`` and ``strides`` are the channels, kernel sizes and strides of the
    convolutions. Each block halves the image: with stride 1 by its pooling, with stride 2 by the convolution, which
    then needs a quarter of the operations. ``margin`` pixels are cropped from each side. Raises UserError if the lists
    differ in length or the image is too small.
    """

    def __init__(
        self,
        num_classes: int = 10,
        image_size: tuple[int, int] = (28, 28),
        channels: int = 1,
        widths: Sequence[int] = (24, 32),
        kernels: Sequence[int] = (5, 3),
        strides: Sequence[int] = (1, 1),
        hidden: Sequence[int] = (256,),
        activation: str = "relu",
        dropout: float = 0.0,
        margin: int = 0,
    ):
        super().__init__()
        if not len(widths) == len(kernels) == len(strides):
            raise UserError(
                f"model.widths has {len(widths)} blocks, model.kernels {len(kernels)} and model.strides "
                f"{len(strides)}; all need the same length."
            )
        height, width = (side - 2 * margin for side in image_size)
        blocks: list[nn.Module] = [Crop(margin)] if margin else []
        for number, (out_channels, kernel, stride) in enumerate(zip(widths, kernels, strides, strict=True)):
            height, width = (((side - kernel) // stride + 1) // (2 // stride) for side in (height, width))
            if min(height, width) < 1:
                left_out = f" without its margin of {margin}" if margin else ""
                raise UserError(
                    f"model.widths has {len(widths)} blocks, but an image of {image_size[0]}×{image_size[1]}{left_out} "
                    f"is too small after {number}: leave out the last."
                )
            convolution = nn.Conv2d(channels, out_channels, kernel, stride, bias=False)  # the norm has a bias
            pooling = [nn.MaxPool2d(2)] if stride == 1 else []
            blocks += [convolution, *pooling, nn.BatchNorm2d(out_channels), make_activation(activation)]
            channels = out_channels
        self.features = nn.Sequential(*blocks)  # (N, channels, H, W) → (N, widths[-1], h, w)
        self.classifier = linear_layers(channels * height * width, hidden, num_classes, activation, dropout)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, classes) of images (N, channels, H, W)."""
        return self.classifier(self.features(images).flatten(1))
