"""Every model takes small and large images, grey and in colour, or says before training that it cannot."""

from functools import cache
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir

from handwriting.data import LabelledImages
from handwriting.models.baselines import Baseline
from handwriting.models.sequence_model import SequenceModel
from handwriting.runs.config import CONF, choices_of
from handwriting.runs.instantiate import build, build_model
from handwriting.utils.errors import UserError

CLASSES = 7
# The smallest side of an image that a model takes, where it is above 8.
SMALLEST = {"net": 10, "net_sigmoid": 10, "net_deep": 22, "quick_net": 12, "lenet": 12, "char_net_v1": 16, "vgg": 16}


@cache
def composed(override: str) -> Any:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", [override])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(8, 8), (9, 21), (128, 128)], ids=str)
@pytest.mark.parametrize("name", choices_of("model"))
def test_a_model_takes_images_of_a_size_or_says_that_it_cannot(name: str, size: tuple[int, int], channels: int):
    config = composed(f"model={name}").model
    if min(size) < SMALLEST.get(name, 8):
        with pytest.raises(UserError, match=f"{size[0]}×{size[1]}"):
            build_model(config, CLASSES, size, channels)
        return
    net = build_model(config, CLASSES, size, channels)
    images = torch.zeros(2, channels, *size)
    if isinstance(net, Baseline):
        some = torch.randint(256, (4 * CLASSES, channels, *size), dtype=torch.uint8)
        net.fit(LabelledImages(some, torch.arange(4 * CLASSES) % CLASSES))
        assert net.predict_proba(images.byte()).shape == (2, CLASSES)
        return
    with torch.inference_mode():
        outputs = net.eval()(images)
    assert len(net.decode(outputs)) == 2 if isinstance(net, SequenceModel) else outputs.shape == (2, CLASSES)


@pytest.mark.parametrize("name", SMALLEST)
def test_the_smallest_size_is_known(name: str):
    config, side = composed(f"model={name}").model, SMALLEST[name]
    with torch.inference_mode():
        assert build_model(config, CLASSES, (side, side), 1).eval()(torch.zeros(2, 1, side, side)).shape == (2, CLASSES)
    with pytest.raises(UserError):
        build_model(config, CLASSES, (side - 1, side), 1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", choices_of("augment"))
def test_every_augmentation_takes_small_images(name: str, channels: int):
    augmentation = build("augment", composed(f"augment={name}").augment)
    images = torch.randint(0, 256, (16, channels, 8, 8), dtype=torch.uint8)
    some = augmentation.expand(LabelledImages(images, torch.arange(16)))
    varied, _ = augmentation.vary(some.images, some.labels, 16, augmentation.generator(0, torch.device("cpu")))
    assert varied.shape[1:] == (channels, 8, 8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["knn", "linear"])
def test_features_of_baselines_take_small_images(name: str, channels: int):
    config = composed(f"model={name}").model
    config.features = "hog"
    net = build_model(config, CLASSES, (8, 8), channels)
    some = torch.randint(256, (4 * CLASSES, channels, 8, 8), dtype=torch.uint8)
    net.fit(LabelledImages(some, torch.arange(4 * CLASSES) % CLASSES))
    assert net.predict_proba(some).shape == (4 * CLASSES, CLASSES)
