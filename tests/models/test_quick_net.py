from math import prod

import pytest
import torch
from torch.nn import functional as F

from handwriting.models.quick_net import QuickNet
from handwriting.utils.errors import UserError


def norm(maps: torch.Tensor, gain: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    return F.batch_norm(maps, torch.zeros(len(gain)), torch.ones(len(gain)), gain, shift)


def test_its_size_is_that_of_its_layers():
    net = QuickNet()
    convolutions = 25 * 24 + 2 * 24 + 9 * 24 * 32 + 2 * 32
    assert sum(weight.numel() for weight in net.parameters()) == convolutions + 801 * 256 + 257 * 10 == 215_250


@pytest.mark.parametrize(("size", "left"), [((28, 28), (5, 5)), ((20, 33), (3, 6))])
def test_it_pools_before_norm_and_activation(size, left):
    torch.manual_seed(0)
    net = QuickNet(7, size, widths=[4, 6], kernels=[5, 3], hidden=[9]).eval()
    first, gain1, shift1, second, gain2, shift2, *linear = net.parameters()
    images = torch.randn(3, 1, *size)
    maps = F.relu(norm(F.max_pool2d(F.conv2d(images, first), 2), gain1, shift1))
    maps = F.relu(norm(F.max_pool2d(F.conv2d(maps, second), 2), gain2, shift2))
    assert linear[0].shape == (9, 6 * prod(left))
    hidden = F.relu(F.linear(maps.flatten(1), *linear[:2]))
    torch.testing.assert_close(net(images), F.linear(hidden, *linear[2:]))


def test_a_stride_replaces_a_pooling_and_the_margin_is_ignored():
    torch.manual_seed(0)
    net = QuickNet(7, widths=[4, 6], kernels=[6, 3], strides=[2, 1], hidden=[9], margin=2).eval()
    first, gain1, shift1, second, gain2, shift2, *linear = net.parameters()
    images = torch.randn(3, 1, 28, 28)
    maps = F.relu(norm(F.conv2d(images[:, :, 2:-2, 2:-2], first, stride=2), gain1, shift1))
    maps = F.relu(norm(F.max_pool2d(F.conv2d(maps, second), 2), gain2, shift2))
    hidden = F.relu(F.linear(maps.flatten(1), *linear[:2]))
    torch.testing.assert_close(net(images), F.linear(hidden, *linear[2:]))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"kernels": [5]}, "model.widths has 2 blocks, model.kernels 1 and model.strides 2"),
        ({"margin": 12}, "28×28 without its margin of 12 is too small after 0"),
        ({"widths": [4, 8, 16], "kernels": [5, 5, 5], "strides": [1, 1, 1]}, "an image of 28×28 is too small after 2"),
    ],
)
def test_impossible_settings_are_named(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        QuickNet(**settings)
