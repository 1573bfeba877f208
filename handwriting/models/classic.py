"""AlexNet, VGG, GoogLeNet and ResNet, adapted to small images.

The papers use images of 224×224 pixels. Here the first strides and poolings are left out, and each layer has ``width``
times the channels of the paper (default 0.25). Results are not comparable with those on ImageNet.
"""

from torch import Tensor, nn
from torchvision.models.googlenet import BasicConv2d, Inception
from torchvision.models.resnet import BasicBlock

from handwriting.models.layers import activation_and_pooling
from handwriting.utils.errors import UserError

# Channels of VGG's convolutions (table 1 of the paper); 0 is pooling. The fifth pooling is omitted.
VGG_LAYERS = {
    11: [64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512],
    13: [64, 64, 0, 128, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512],
    16: [64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512],
}
RESNET_BLOCKS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
# Channels in GoogLeNet (table 1 of the paper): 1×1, reduction to 3×3, 3×3, reduction to 5×5, 5×5, after pooling. A
# pooling is between the lists.
INCEPTIONS = [
    [(64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)],
    [
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ],
    [(256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)],
]


class Classic(nn.Module):
    """Features, averaged over the image where the paper does so, and linear layers."""

    def __init__(self, features: nn.Sequential, classifier: nn.Module):
        super().__init__()
        self.features, self.classifier = features, classifier

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, classes) of images (N, channels, H, W)."""
        return self.classifier(self.features(images).flatten(1))


def alexnet(
    num_classes: int = 10,
    image_size: tuple[int, int] = (28, 28),
    channels: int = 1,
    width: float = 0.25,
    dropout: float = 0.5,
) -> Classic:
    """Make AlexNet: five convolutions, all 3×3 here, three poolings, two hidden layers.

    A. Krizhevsky, 2014, arXiv:1404.5997, as in torchvision.
    """
    _check(image_size, halvings=3)
    counts = [channels, *(_scale(count, width) for count in (64, 192, 384, 256, 256))]
    layers: list[nn.Module] = []
    for number in range(5):
        layers.append(nn.Conv2d(counts[number], counts[number + 1], 3, padding=1))
        layers += activation_and_pooling("relu") if number in (0, 1, 4) else [nn.ReLU()]
    places = (image_size[0] // 8) * (image_size[1] // 8)
    return Classic(nn.Sequential(*layers), _hidden(counts[-1] * places, _scale(4096, width), num_classes, dropout))


def vgg(
    num_classes: int = 10,
    image_size: tuple[int, int] = (28, 28),
    channels: int = 1,
    depth: int = 11,
    width: float = 0.25,
    dropout: float = 0.5,
) -> Classic:
    """Make VGG of 11, 13 or 16 layers with batch norm, without the last pooling.

    K. Simonyan, A. Zisserman, 2014, arXiv:1409.1556.
    """
    _check(image_size, halvings=4)
    layers: list[nn.Module] = []
    for count in VGG_LAYERS[depth]:
        if count:
            wide = _scale(count, width)
            layers += [nn.Conv2d(channels, wide, 3, padding=1), nn.BatchNorm2d(wide), nn.ReLU()]
            channels = wide
        else:
            layers[-1:] = activation_and_pooling("relu")
    places = (image_size[0] // 16) * (image_size[1] // 16)
    return Classic(nn.Sequential(*layers), _hidden(channels * places, _scale(4096, width), num_classes, dropout))


def googlenet(
    num_classes: int = 10,
    image_size: tuple[int, int] = (28, 28),
    channels: int = 1,
    width: float = 0.25,
    dropout: float = 0.2,
) -> Classic:
    """Make GoogLeNet: one convolution and nine of torchvision's inception modules, without auxiliary classifiers.

    C. Szegedy et al., 2014, arXiv:1409.4842.
    """
    _check(image_size, halvings=2)
    layers: list[nn.Module] = [BasicConv2d(channels, _scale(192, width), kernel_size=3, padding=1)]
    channels = _scale(192, width)
    for number, modules in enumerate(INCEPTIONS):
        layers += [nn.MaxPool2d(2)] if number else []
        for counts in modules:
            wide = [_scale(count, width) for count in counts]
            layers.append(Inception(channels, *wide, conv_block=BasicConv2d))
            channels = wide[0] + wide[2] + wide[4] + wide[5]
    layers.append(nn.AdaptiveAvgPool2d(1))
    return Classic(nn.Sequential(*layers), nn.Sequential(nn.Dropout(dropout), nn.Linear(channels, num_classes)))


def resnet(
    num_classes: int = 10,
    image_size: tuple[int, int] = (28, 28),
    channels: int = 1,
    depth: int = 18,
    width: float = 0.25,
) -> Classic:
    """Make a ResNet of 10, 18 or 34 layers: one convolution and torchvision's basic blocks.

    K. He et al., 2015, arXiv:1512.03385.
    """
    _check(image_size, halvings=3)
    wide = _scale(64, width)
    layers: list[nn.Module] = [nn.Conv2d(channels, wide, 3, padding=1, bias=False), nn.BatchNorm2d(wide), nn.ReLU()]
    channels = wide
    for stage, blocks in enumerate(RESNET_BLOCKS[depth]):
        wide = _scale(64 * 2**stage, width)
        for number in range(blocks):
            stride = 2 if stage and not number else 1
            shortcut = None
            if stride > 1:
                shortcut = nn.Sequential(nn.Conv2d(channels, wide, 1, stride, bias=False), nn.BatchNorm2d(wide))
            layers.append(BasicBlock(channels, wide, stride, shortcut))
            channels = wide
    layers.append(nn.AdaptiveAvgPool2d(1))
    return Classic(nn.Sequential(*layers), nn.Linear(channels, num_classes))


def _scale(count: int, width: float) -> int:
    return max(round(count * width), 1)


def _hidden(features: int, hidden: int, num_classes: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(features, hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, num_classes),
    )


def _check(image_size: tuple[int, int], halvings: int) -> None:
    if min(image_size) >> halvings < 1:
        raise UserError(
            f"This network halves an image {halvings} times, and {image_size[0]}×{image_size[1]} is too small for "
            "that: choose another model or larger images."
        )
