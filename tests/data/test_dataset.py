"""LabelledImages and HandwritingSet in grey and in colour."""

import numpy as np
import pytest
import torch

from handwriting.data import DataModule
from handwriting.data.dataset import HandwritingSet, LabelledImages, pictures
from handwriting.utils.errors import UserError


@pytest.mark.parametrize(("channels", "shape"), [(1, (5, 4, 6)), (3, (5, 4, 6, 3))])
def test_pictures_images_have_their_pixels_in_place(channels: int, shape: tuple[int, ...]):
    images = torch.randint(256, (5, channels, 4, 6), dtype=torch.uint8)
    shown = pictures(images)
    assert shown.shape == shape
    for row, column in ((0, 0), (3, 1), (2, 5)):
        assert np.array_equal(shown[:, row, column].reshape(5, channels), images[:, :, row, column].numpy())


def bright(channels: int, photographs: bool) -> HandwritingSet:
    images = torch.full((20, channels, 8, 8), 200, dtype=torch.uint8)
    images[:, -1] += 20
    images[:, :, 3:5, 3:5] = 20
    split = LabelledImages(images, torch.arange(20) % 2)
    return HandwritingSet(split, split, ("a", "b"), photographs=photographs)


@pytest.mark.parametrize(("channels", "photographs"), [(1, True), (3, False), (3, True)])
def test_photographs_and_colour_images_are_never_inverted(channels: int, photographs: bool):
    whole = bright(channels, photographs)
    for invert in ("auto", False):
        data = DataModule("bright", lambda: whole, invert=invert, val_fraction=0)
        assert torch.equal(data.train.images, whole.train.images)
        assert (data.channels, data.photographs) == (channels, True)
    with pytest.raises(UserError, match=r"data\.invert=true is for grey images of writing, and bright has others"):
        DataModule("bright", lambda: whole, invert=True)


def test_grey_writing_is_inverted_and_stays_grey_writing():
    whole = bright(1, photographs=False)
    data = DataModule("bright", lambda: whole, val_fraction=0)
    assert torch.equal(data.train.images, 255 - whole.train.images)
    assert (data.channels, data.photographs) == (1, False)


def test_mean_and_deviation_are_those_of_all_channels():
    data = DataModule("bright", lambda: bright(3, True), val_fraction=0.2)
    pixels = data.train.images.double() / 255
    assert data.mean_and_std() == pytest.approx((pixels.mean().item(), pixels.std(correction=0).item()))
