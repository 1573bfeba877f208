"""LeNet-5 (Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, 1998, doi:10.1109/5.726791)."""

from torch import Tensor, nn

from handwriting.models.layers import make_activation
from handwriting.utils.errors import UserError


class LeNet(nn.Module):
    """Two 5×5 convolutions of 6 and 16 channels with average pooling, then 120-84-classes; 61,706 parameters.

    As is usual today, the second convolution is connected to all six channels, and a linear layer replaces the paper's
    radial basis functions. Raises UserError for images under 12×12.
    """

    def __init__(
        self,
        num_classes: int = 10,
        image_size: tuple[int, int] = (28, 28),
        channels: int = 1,
        activation: str = "tanh",
    ):
        super().__init__()
        height, width = ((side // 2 - 4) // 2 for side in image_size)
        if min(height, width) < 1:
            raise UserError(f"LeNet needs images of at least 12×12, not {image_size[0]}×{image_size[1]}.")
        self.features = nn.Sequential(
            nn.Conv2d(channels, 6, 5, padding=2),  # the paper's 32×32 is MNIST's 28×28 with a margin of 2
            make_activation(activation),
            nn.AvgPool2d(2),  # → (N, 6, 14, 14)
            nn.Conv2d(6, 16, 5),
            make_activation(activation),
            nn.AvgPool2d(2),  # → (N, 16, 5, 5)
        )
        self.classifier = nn.Sequential(
            nn.Linear(16 * height * width, 120),
            make_activation(activation),
            nn.Linear(120, 84),
            make_activation(activation),
            nn.Linear(84, num_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, classes) of images (N, channels, H, W)."""
        return self.classifier(self.features(images).flatten(1))
