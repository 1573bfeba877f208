"""A network of the user's: with and without the argument channels, for grey and for colour images."""

import sys
from types import ModuleType
from typing import Any

import pytest
from torch import nn

from handwriting.runs.instantiate import build_model
from handwriting.utils.errors import UserError


class Plain(nn.Module):
    def __init__(self, num_classes: int, image_size: tuple[int, int]):
        super().__init__()
        self.made_for = num_classes, *image_size


class Named(nn.Module):
    def __init__(self, num_classes: int, image_size: tuple[int, int], channels: int):
        super().__init__()
        self.made_for = num_classes, *image_size, channels


class Forwarding(Named):
    def __init__(self, num_classes: int, image_size: tuple[int, int], **settings: Any):
        super().__init__(num_classes, image_size, settings.get("channels", 1))


@pytest.fixture(autouse=True)
def mynet(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("mynet")
    vars(module).update(Plain=Plain, Named=Named, Forwarding=Forwarding)
    monkeypatch.setitem(sys.modules, "mynet", module)


def made_for(name: str, channels: int) -> tuple[int, ...]:
    return build_model({"_target_": f"mynet.{name}"}, 5, (8, 9), channels).made_for


def test_a_network_gets_the_channels_if_it_takes_them():
    for channels in (1, 3):
        assert made_for("Named", channels) == (5, 8, 9, channels)
        assert made_for("Forwarding", channels) == (5, 8, 9, channels)
    assert made_for("Plain", 1) == (5, 8, 9)


def test_a_network_without_channels_is_refused_for_colour_images():
    with pytest.raises(UserError) as caught:
        made_for("Plain", 3)
    assert str(caught.value) == (
        "mynet.Plain takes no argument 'channels', and the images are in colour: write channels: int = 1 among its "
        "arguments and nn.Conv2d(channels, …) as its first layer."
    )


def test_channels_are_not_a_setting():
    with pytest.raises(UserError, match=r"model.channels is set by the package itself: leave it out"):
        build_model({"_target_": "mynet.Named", "channels": 16}, 5, (8, 9), 1)


def test_a_network_that_does_not_exist_is_named():
    with pytest.raises(UserError, match=r"model._target_=mynet.Absent is not an importable class"):
        made_for("Absent", 3)
