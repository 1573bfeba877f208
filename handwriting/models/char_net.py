"""The two networks of the characters notebook: the first, and the final one (95.05 % there)."""

from torch import Tensor, nn

from handwriting.models.layers import activation_and_pooling
from handwriting.utils.errors import UserError

FIRST = ((16, 0.2), (32, 0.2), (64, 0.25), (64, 0.25))  # channels and dropout of each block


class CharNetV1(nn.Module):
    """Four blocks of convolution, batch norm, ReLU, pooling and dropout, then 64-128-128-classes.

    111,208 parameters for 200 classes. ``dropout_position`` ``before`` puts the dropout between convolution and batch
    norm, which the notebook tried. Raises UserError for images under 16×16.
    """

    def __init__(
        self,
        num_classes: int = 200,
        image_size: tuple[int, int] = (28, 28),
        channels: int = 1,
        dropout_position: str = "after",
    ):
        super().__init__()
        height, width = (side // 16 for side in image_size)
        if min(height, width) < 1:
            raise UserError(f"CharNetV1 needs images of at least 16×16, not {image_size[0]}×{image_size[1]}.")
        blocks: list[nn.Module] = []
        for out_channels, dropout in FIRST:
            late = [nn.Dropout(dropout)] if dropout_position == "after" else []
            early = [nn.Dropout(dropout)] if dropout_position == "before" else []
            blocks += [nn.Conv2d(channels, out_channels, 3, padding=1), *early, nn.BatchNorm2d(out_channels)]
            blocks += [*activation_and_pooling("relu"), *late]
            channels = out_channels
        self.features = nn.Sequential(*blocks)  # (N, channels, 28, 28) → (N, 64, 1, 1)
        self.classifier = nn.Sequential(
            nn.Linear(channels * height * width, 128),
            nn.ReLU(),
            nn.Linear(128, 128),
            nn.ReLU(),
            nn.Linear(128, num_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, classes) of images (N, channels, H, W)."""
        return self.classifier(self.features(images).flatten(1))


class CharNet(nn.Module):
    """Three pairs of convolutions (16, 32), (64, 64), (64, 64), with an upsampling before the last; then 1024-512.

    3,974,376 parameters for 200 classes at 28×28. As in the notebook, dropout follows the last linear layer too: in
    training some logits are zero. ``dropout_position`` ``before`` puts the dropouts of the convolutions between
    convolution and batch norm. Raises UserError for images under 4×4.
    """

    def __init__(
        self,
        num_classes: int = 200,
        image_size: tuple[int, int] = (28, 28),
        channels: int = 1,
        dropout: float = 0.2,
        dropout_position: str = "after",
    ):
        super().__init__()
        height, width = (side // 4 for side in image_size)
        if min(height, width) < 1:
            raise UserError(f"CharNet needs images of at least 4×4, not {image_size[0]}×{image_size[1]}.")

        def convolution(in_channels: int, out_channels: int) -> list[nn.Module]:
            norm: list[nn.Module] = [nn.BatchNorm2d(out_channels), nn.ReLU()]
            norm.insert(0 if dropout_position == "before" else 2, nn.Dropout(dropout))
            return [nn.Conv2d(in_channels, out_channels, 3, padding=1), *norm]

        self.features = nn.Sequential(  # (N, channels, 28, 28) → (N, 64, 7, 7)
            *convolution(channels, 16),
            *convolution(16, 32),
            nn.MaxPool2d(2),
            *convolution(32, 64),
            *convolution(64, 64),
            nn.MaxPool2d(2),
            nn.Upsample(scale_factor=2, mode="bilinear"),  # 7×7 → 14×14
            *convolution(64, 64),
            *convolution(64, 64),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Linear(64 * height * width, 1024),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(1024, 512),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(512, num_classes),
            nn.Dropout(dropout),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, classes) of images (N, channels, H, W)."""
        return self.classifier(self.features(images).flatten(1))
