"""CCNet, the AlexNet-like network of the CCNet report (Chandery, 2024)."""

from torch import Tensor, nn


class CCNet(nn.Module):
    """Five 3×3 convolutions 32-64-64-32-18 with three overlapping poolings, one linear layer; 82,300 parameters.

    ``as_published`` adds ReLU and softmax to the output, as in the report, whose cross-entropy applies softmax again;
    the default returns logits. ``xavier`` initialises the weights with Xavier normal, as in the report, instead of
    torch's default.
    """

    def __init__(
        self,
        num_classes: int = 10,
        image_size: tuple[int, int] = (28, 28),
        channels: int = 1,
        dropout: float = 0.5,
        as_published: bool = False,
        xavier: bool = False,
    ):
        super().__init__()
        height, width = (-(-side // 8) for side in image_size)  # three poolings that round up
        self.features = nn.Sequential(
            nn.Conv2d(channels, 32, 3, padding=1),
            nn.MaxPool2d(3, stride=2, padding=1),
            nn.ReLU(),  # → (N, 32, 14, 14)
            nn.Conv2d(32, 64, 3, padding=1),
            nn.MaxPool2d(3, stride=2, padding=1),
            nn.ReLU(),  # → (N, 64, 7, 7)
            nn.Conv2d(64, 64, 3, padding=1),  # the report has no activation between these three
            nn.Conv2d(64, 32, 3, padding=1),
            nn.Conv2d(32, 18, 3, padding=1),
            nn.MaxPool2d(3, stride=2, padding=1),
            nn.ReLU(),  # → (N, 18, 4, 4)
        )
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(18 * height * width, num_classes))
        self.head = nn.Sequential(nn.ReLU(), nn.Softmax(dim=1)) if as_published else nn.Identity()
        if xavier:
            for module in self.modules():
                if isinstance(module, (nn.Conv2d, nn.Linear)):
                    nn.init.xavier_normal_(module.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, classes) of images (N, channels, H, W); probabilities when ``as_published``."""
        return self.head(self.classifier(self.features(images).flatten(1)))
