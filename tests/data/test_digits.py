import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn import functional as F

from handwriting.data.dataset import HandwritingSet
from handwriting.data.digits import read_digits


@pytest.fixture(scope="module")
def digits() -> HandwritingSet:
    return read_digits()


@pytest.fixture(scope="module")
def published() -> dict:
    bunch: dict = load_digits()  # type: ignore[assignment]  # a Bunch, which is a dict
    return bunch


def test_there_are_1297_and_500_images_of_28_by_28(digits):
    assert digits.train.images.shape == (1297, 1, 28, 28)
    assert digits.test.images.shape == (500, 1, 28, 28)
    assert digits.train.images.dtype == digits.test.images.dtype == torch.uint8
    assert digits.class_names == tuple("0123456789")


def test_labels_keep_the_published_order(digits, published):
    assert digits.train.labels.tolist() == published["target"][:1297].tolist()
    assert digits.test.labels.tolist() == published["target"][1297:].tolist()


def test_each_image_is_the_published_one_enlarged_by_torch(digits, published):
    small = torch.from_numpy(published["images"] / 16 * 255).unsqueeze(1)
    large = F.pad(F.interpolate(small, size=(20, 20), mode="bilinear", align_corners=False), (4, 4, 4, 4))
    images = torch.cat([digits.train.images, digits.test.images])
    assert (images.double() - large).abs().max() <= 1.5  # grey levels of 255: both round


def test_the_foreground_is_bright_on_black_with_a_margin_of_four_pixels(digits):
    inside = F.pad(torch.zeros(20, 20, dtype=torch.bool), (4, 4, 4, 4), value=True)
    assert not digits.train.images[:, 0, inside].any()
    assert digits.train.images.flatten(1).amax(dim=1).min() > 150
    assert digits.train.images.double().mean() < 80


def test_loading_twice_gives_the_same(digits):
    changed = read_digits()
    for part in (changed.train, changed.test):
        part.images.zero_()  # what a caller does to its copy concerns nobody else
        part.labels.zero_()
    again = read_digits()
    assert torch.equal(again.train.images, digits.train.images)
    assert torch.equal(again.test.images, digits.test.images)
    assert torch.equal(again.train.labels, digits.train.labels)
    assert torch.equal(again.test.labels, digits.test.labels)


def test_every_class_is_in_both_sets(digits):
    for part in (digits.train, digits.test):
        assert np.unique(part.labels.numpy()).tolist() == list(range(10))
