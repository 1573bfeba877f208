"""The classic networks equal those of torchvision, except for their first and linear layers."""

import pytest
import torch
import torchvision
from torch import nn

from handwriting.models.classic import alexnet, googlenet, resnet, vgg
from handwriting.utils.errors import UserError


def count(part: nn.Module | list[nn.Module]) -> int:
    modules = part if isinstance(part, list) else [part]
    return sum(weight.numel() for module in modules for weight in module.parameters())


@pytest.mark.parametrize(("depth", "theirs"), [(18, torchvision.models.resnet18), (34, torchvision.models.resnet34)])
def test_resnet_at_full_width_has_torchvisions_blocks(depth: int, theirs):
    ours, other = resnet(1000, depth=depth, width=1), theirs(weights=None)
    assert count(ours) - 9 * 64 == count(other) - 3 * 49 * 64


@pytest.mark.parametrize(
    ("depth", "theirs"),
    [(11, torchvision.models.vgg11_bn), (13, torchvision.models.vgg13_bn), (16, torchvision.models.vgg16_bn)],
)
def test_vgg_at_full_width_has_torchvisions_convolutions(depth: int, theirs):
    with torch.device("meta"):
        ours, other = vgg(1000, depth=depth, width=1), theirs(weights=None)
    assert count(ours.features) - 9 * 64 == count(other.features) - 27 * 64
    assert count(ours.classifier) - 512 * 4096 == count(other.classifier) - 512 * 49 * 4096  # one place left of 49


def test_googlenet_at_full_width_has_torchvisions_modules():
    other = torchvision.models.GoogLeNet(aux_logits=False, init_weights=False)
    stem = [other.conv1, other.conv2, other.conv3]
    ours = googlenet(1000, width=1)
    assert count(ours) - (9 * 192 + 2 * 192) == count(other) - count(stem)


def test_alexnet_at_full_width_has_torchvisions_last_convolutions():
    with torch.device("meta"):
        ours, other = alexnet(1000, width=1), torchvision.models.alexnet(weights=None)
    assert [layer.out_channels for layer in ours.features if isinstance(layer, nn.Conv2d)] == [64, 192, 384, 256, 256]
    assert count(list(ours.features)[6:]) == count(list(other.features)[6:])
    assert count(list(ours.classifier.children())[3]) == count(other.classifier[4])


@pytest.mark.parametrize("make", [alexnet, vgg, googlenet, resnet])
@pytest.mark.parametrize("size", [(28, 28), (40, 33), (16, 16)])
def test_a_quarter_of_the_width_accepts_images_of_any_size(make, size: tuple[int, int]):
    net = make(7, size)
    assert net(torch.zeros(2, 1, *size)).shape == (2, 7)
    assert count(net) < count(make(7, size, width=0.5)) / 2.5


@pytest.mark.parametrize(
    ("make", "settings", "said"),
    [
        (vgg, {"image_size": (15, 28)}, "halves an image 4 times, and 15×28 is too small for that"),
    ],
)
def test_impossible_settings_are_refused(make, settings: dict, said: str):
    with pytest.raises(UserError, match=said.replace("(", r"\(")):
        make(**settings)
