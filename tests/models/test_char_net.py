"""The two networks of the notebook, compared with an independent list of their layers."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from handwriting.models.char_net import CharNet, CharNetV1
from handwriting.utils.errors import UserError

NETS = [CharNetV1, CharNet]


def kinds(layers: nn.Module) -> list[str]:
    return [type(layer).__name__ for layer in layers.children()]


@pytest.mark.parametrize(("family", "classes", "parameters"), [(CharNetV1, 200, 111_208), (CharNet, 200, 3_974_376)])
def test_the_size_is_that_of_the_notebook(family, classes, parameters):
    assert sum(weight.numel() for weight in family(classes).parameters()) == parameters
    fewer = sum(weight.numel() for weight in family(194).parameters())
    last = family(classes).classifier
    width = [layer for layer in last if isinstance(layer, nn.Linear)][-1].in_features
    assert parameters - fewer == 6 * (width + 1)


def test_v1_computes_what_the_notebook_says():
    torch.manual_seed(0)
    net = CharNetV1(200).eval()
    weights = list(net.parameters())
    x = images = torch.randn(3, 1, 28, 28)
    for block in range(4):
        weight, bias, gain, shift = weights[4 * block : 4 * block + 4]
        x = F.conv2d(x, weight, bias, padding=1)
        x = F.batch_norm(x, torch.zeros(len(bias)), torch.ones(len(bias)), gain, shift)
        x = F.max_pool2d(F.relu(x), 2)
    x = x.flatten(1)
    for layer in range(3):
        weight, bias = weights[16 + 2 * layer : 18 + 2 * layer]
        x = F.linear(x, weight, bias)
        x = F.relu(x) if layer < 2 else x
    torch.testing.assert_close(net(images), x)


def test_the_final_net_computes_what_the_notebook_says():
    torch.manual_seed(0)
    net = CharNet(200).eval()
    weights = list(net.parameters())
    x = images = torch.randn(3, 1, 28, 28)
    for layer in range(6):
        weight, bias, gain, shift = weights[4 * layer : 4 * layer + 4]
        if layer == 4:
            x = F.interpolate(x, scale_factor=2, mode="bilinear")
        x = F.conv2d(x, weight, bias, padding=1)
        x = F.relu(F.batch_norm(x, torch.zeros(len(bias)), torch.ones(len(bias)), gain, shift))
        x = F.max_pool2d(x, 2) if layer % 2 else x
    x = x.flatten(1)
    for layer in range(3):
        weight, bias = weights[24 + 2 * layer : 26 + 2 * layer]
        x = F.linear(x, weight, bias)
        x = F.relu(x) if layer < 2 else x
    torch.testing.assert_close(net(images), x)


@pytest.mark.parametrize("family", NETS)
@pytest.mark.parametrize(
    ("position", "order"), [("before", "Conv2d Dropout BatchNorm2d"), ("after", "Conv2d BatchNorm2d")]
)
def test_dropout_is_at_the_configured_position(family, position, order):
    layers = " ".join(kinds(family(200, dropout_position=position).features))
    assert layers.startswith(order)
    assert layers.count(order) == layers.count("Conv2d")
    assert layers.count("Dropout") == layers.count("Conv2d")


def test_v1_has_the_notebooks_dropout_after_pooling():
    features = CharNetV1().features
    assert kinds(features) == ["Conv2d", "BatchNorm2d", "MaxPool2d", "ReLU", "Dropout"] * 4
    assert [layer.p for layer in features if isinstance(layer, nn.Dropout)] == [0.2, 0.2, 0.25, 0.25]


def test_the_final_net_drops_out_everywhere_even_after_the_last_layer():
    net = CharNet(dropout=0.3)
    shares = [layer.p for layer in net.modules() if isinstance(layer, nn.Dropout)]
    assert shares == [0.3] * 9
    assert kinds(net.classifier)[-1] == "Dropout"


@pytest.mark.parametrize("family", NETS)
@pytest.mark.parametrize("size", [(28, 28), (32, 32), (48, 17)])
def test_images_of_other_sizes_are_accepted(family, size):
    assert family(7, size)(torch.randn(2, 1, *size)).shape == (2, 7)


@pytest.mark.parametrize("family", NETS)
def test_images_that_are_too_small_are_refused(family):
    with pytest.raises(UserError, match=r"needs images of at least"):
        family(7, (28, 3))
