"""LabelledImages and HandwritingSet in grey and in colour."""

import numpy as np
import pytest
import torch

from handwriting.data import DataModule
from handwriting.data.dataset import END, HandwritingSet, LabelledImages, pictures
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


def two_classes(labels: object = None, images: object = None, **more: object) -> HandwritingSet:
    numbers = torch.arange(20) % 2
    right = LabelledImages(torch.zeros(20, 1, 8, 8, dtype=torch.uint8), numbers)
    pixels = right.images if images is None else images
    split = LabelledImages(pixels, numbers if labels is None else labels)  # type: ignore[arg-type]
    return HandwritingSet(**{"train": right, "test": split, "class_names": ("a", "b"), **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"labels": torch.arange(20) % 3}, "test: labels from 0 to 1 expected, got 2"),
        ({"labels": -(torch.arange(20) % 2)}, "test: labels from 0 to 1 expected, got -1"),
        ({"labels": np.arange(20) % 2}, "labels: torch.Tensor expected, got numpy.ndarray"),
        ({"labels": torch.zeros(20)}, "labels: int64 (N,) or (N, L) expected, got torch.float32"),
        ({"images": np.zeros((20, 1, 8, 8), np.uint8)}, "images: torch.Tensor expected, got numpy.ndarray"),
        ({"images": torch.zeros(20, 1, 9, 8, dtype=torch.uint8)}, "test: images (1, 9, 8) are not of the form of the"),
        ({"train": (1, 2)}, "train: LabelledImages expected, got tuple"),
        ({"val": (1, 2)}, "val: LabelledImages expected, got tuple"),
    ],
)
def test_an_own_loader_with_wrong_arrays_is_told_what_is_expected(given: dict[str, object], said: str):
    with pytest.raises((TypeError, ValueError)) as caught:
        two_classes(**given)  # type: ignore[arg-type]
    assert said in str(caught.value)


def test_the_end_of_a_sequence_is_no_wrong_label():
    images, labels = torch.zeros(20, 1, 8, 8, dtype=torch.uint8), torch.tensor([[0, 1, END]] * 20)
    split = LabelledImages(images, labels)
    assert HandwritingSet(split, split, ("a", "b")).test is split
    with pytest.raises(ValueError, match="train: labels from -1 to 1 expected, got 2"):
        HandwritingSet(LabelledImages(images, labels + 1), split, ("a", "b"))


def test_an_own_loader_that_returns_something_else_is_named(complaint):
    def read_pair():
        return torch.zeros(2), torch.zeros(2)

    with complaint("read_pair returns a tuple, but a HandwritingSet is expected"):
        DataModule("pair", read_pair)  # type: ignore[arg-type]
    with complaint("data.read is a HandwritingSet, but a function", "add _partial_: true"):
        DataModule("made", two_classes())  # type: ignore[arg-type]
