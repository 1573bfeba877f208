"""What DataModule checks of every data set: foreground and background, and the classes of each split."""

import logging

import numpy as np
import pytest
import torch

from handwriting.data import DataModule
from handwriting.data.characters import read_characters
from handwriting.data.dataset import END, HandwritingSet, LabelledImages
from handwriting.data.mnist import FILES, read_mnist
from handwriting.data.mnist_csv import read_mnist_csv


def strokes(count: int, seed: int, background: int = 0, foreground: int = 255) -> torch.Tensor:
    """Images whose border is background except for one stroke."""
    images = np.full((count, 1, 28, 28), background, np.uint8)
    for image, column in zip(images, np.random.default_rng(seed).integers(1, 24, count), strict=True):
        image[0, :, column : column + 4] = foreground
    return torch.from_numpy(images)


def whole_of(train: torch.Tensor, test: torch.Tensor, classes: int = 10) -> HandwritingSet:
    parts = (LabelledImages(images, torch.arange(len(images)) % classes) for images in (train, test))
    return HandwritingSet(*parts, class_names=tuple("0123456789"[:classes]))


def load(whole: HandwritingSet, name: str = "made up", **settings) -> DataModule:
    return DataModule(name, lambda: whole, val_fraction=0, **settings)


@pytest.mark.parametrize(("background", "foreground"), [(255, 0), (230, 20), (120, 10), (200, 170)])
@pytest.mark.parametrize(
    ("invert", "dark", "inverted"),
    [
        ("auto", True, True),
        ("auto", False, False),
        (True, True, True),
        (True, False, True),
        (False, True, False),
        (False, False, False),
    ],
)
def test_invert_follows_the_setting_and_auto_the_borders(background, foreground, invert, dark, inverted):
    levels = (background, foreground) if dark else (foreground, background)
    train, test = strokes(30, 0, *levels), strokes(20, 1, *levels)
    data = load(whole_of(train, test), invert=invert)
    assert torch.equal(data.train.images, 255 - train if inverted else train)
    assert torch.equal(data.test.images, 255 - test if inverted else test)


@pytest.mark.parametrize("background", [0, 255])
def test_invert_auto_depends_on_the_borders_and_not_on_the_amount_of_foreground(background):
    images = torch.full((20, 1, 28, 28), background, dtype=torch.uint8)
    images[..., 1:27, 1:27] = 255 - background
    data = load(whole_of(images, images))
    assert data.train.images[0, 0, 0, 0] == 0
    assert data.train.images[0, 0, 14, 14] == 255


def test_invert_auto_is_decided_for_both_splits_together():
    train, test = strokes(40, 0, 255, 0), strokes(10, 1, 255, 0)
    test[:4] = 255 - test[:4]
    data = load(whole_of(train, test))
    assert torch.equal(data.train.images, 255 - train)
    assert torch.equal(data.test.images, 255 - test)


def test_inverted_images_are_said_once(caplog):
    whole = whole_of(strokes(30, 0, 255, 0), strokes(20, 1, 255, 0))
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            load(whole, "inverted set")
        load(whole_of(strokes(30, 0), strokes(20, 1)), "bright set")
    (said,) = (message for message in caplog.messages if "are inverted" in message)
    assert said.startswith("inverted set: its images are dark on bright and are inverted")


@pytest.mark.parametrize(("train", "test"), [(0, 255), (255, 0)])
def test_inverted_images_in_one_split_only_are_refused(complaint, train, test):
    whole = whole_of(strokes(30, 0, train, 255 - train), strokes(20, 1, test, 255 - test))
    one, other = ("training", "test") if train else ("test", "training")
    with complaint("mixed files", f"its {one} images are dark on bright", f"its {other} images bright", "data.invert="):
        load(whole, "mixed files")
    for invert in (True, False):
        assert len(load(whole, "mixed files", invert=invert).train) == 30


def test_inverted_images_among_others_are_said_and_left_as_they_are(caplog):
    train = strokes(30, 0)
    train[::2] = 255 - train[::2]
    whole = whole_of(train, strokes(20, 1))
    with caplog.at_level(logging.WARNING):
        assert torch.equal(load(whole, "two sources").train.images, train)
    (said,) = caplog.messages
    assert said.startswith("two sources: 30% of the images seem dark on bright")


def test_zeros_and_ones_become_grey_levels():
    train, test = strokes(30, 0), strokes(20, 1)
    data = load(whole_of(train // 255, test // 255))
    assert torch.equal(data.train.images, train)
    assert torch.equal(data.test.images, test)


def test_zeros_and_ones_beside_grey_levels_are_refused(complaint):
    with complaint("the largest value of its training images is 1, of its test images 255"):
        load(whole_of(strokes(30, 0) // 255, strokes(20, 1)))


@pytest.fixture
def inverted_files(tmp_path, write_idx, write_mat):
    """One inverted data set in each of the formats."""
    for (images, labels), count in zip(FILES.values(), (30, 20), strict=True):
        table = 255 - strokes(count, count).numpy()[:, 0]
        write_idx(tmp_path / images, table)
        write_idx(tmp_path / labels, np.arange(count) % 10)
        rows = np.hstack([np.arange(count)[:, None] % 10, table.reshape(count, -1)])
        np.savetxt(tmp_path / f"mnist_{'train' if count == 30 else 'test'}.csv", rows, "%d", ",")
    return {read_mnist: tmp_path, read_mnist_csv: tmp_path, read_characters: write_mat()}


@pytest.mark.parametrize("read", [read_mnist, read_mnist_csv, read_characters])
def test_inverted_files_of_every_format_are_inverted(inverted_files, read):
    path = inverted_files[read]
    stored = read(path).train.images
    assert stored[0, 0, 0, 0] == 255
    data = DataModule("inverted", read, path=str(path), val_fraction=0)
    assert torch.equal(data.train.images, 255 - stored)


def classes_of(*labels: list[int]) -> HandwritingSet:
    parts = (LabelledImages(strokes(len(of), 0), torch.tensor(of)) for of in labels)
    return HandwritingSet(*parts, class_names=tuple("abcdefghij"))


@pytest.mark.parametrize(
    ("train", "test", "words"),
    [
        ([3] * 10, [3] * 5, ["all training images are of class d"]),
        ([3] * 10, [3, 4], ["all training images are of class d", "training set has no image of class e,"]),
        ([1, 2] * 5, [1, 2, 7], ["training set has no image of class h,"]),
        ([1, 2] * 5, [2, 2], ["test set has no image of class b,"]),
        ([0, 1] * 5, list(range(10)), ["training set has no image of classes c, d, e, f, g and 3 more,"]),
        ([1, 2] * 5, [2, 1], []),
    ],
)
def test_classes_that_a_split_lacks_are_said_once(caplog, request, train, test, words):
    name = request.node.name
    with caplog.at_level(logging.WARNING):
        for seed in (0, 1):
            load(classes_of(train, test), name, shuffle_seed=seed)
    assert len(caplog.messages) == len(words)
    for message, word in zip(caplog.messages, words, strict=True):
        assert message.startswith(f"{name}: ")
        assert word in message


def test_classes_are_those_that_a_limit_leaves(caplog):
    with caplog.at_level(logging.WARNING):
        load(classes_of([0, 1, 2] * 20, [0, 1, 2]), "limited set", limit=9)
    assert not caplog.messages


def numbers_of(*labels: list[list[int]], level: int = 255) -> HandwritingSet:
    """Bright photographs of numbers, with boxes."""
    parts = (torch.tensor(of) for of in labels)
    made = (
        LabelledImages(torch.full((len(of), 3, 8, 20), level, dtype=torch.uint8), of, torch.rand(*of.shape, 4))
        for of in parts
    )
    return HandwritingSet(*made, class_names=tuple("abcdefghij"), photographs=True)


def test_photographs_and_colour_images_are_never_inverted(complaint):
    whole = numbers_of([[1, 2], [2, END]] * 5, [[2, 1]])
    colours = HandwritingSet(LabelledImages(whole.train.images, torch.arange(10)), whole.test, tuple("abcdefghij"))
    train, test = (LabelledImages(one.images[:, :1], one.labels, one.boxes) for one in (whole.train, whole.test))
    grey = HandwritingSet(train, test, whole.class_names, photographs=True)
    for one in (whole, colours, grey):
        for invert in ("auto", False):
            assert load(one, "photographs", invert=invert).train.images.eq(255).all()
        with complaint("data.invert=true is for grey images of writing, and photographs has others"):
            load(one, "photographs", invert=True)


def test_zeros_and_ones_become_grey_levels_beside_their_boxes():
    whole = numbers_of([[1, 2], [2, END]] * 5, [[2, 1]], level=1)
    data = load(whole)
    assert data.train.images.eq(255).all()
    assert data.photographs
    assert data.train.boxes is not None
    assert whole.train.boxes is not None
    assert torch.equal(data.train.boxes, whole.train.boxes)


def test_the_classes_of_sequences_are_the_characters_that_occur(caplog):
    with caplog.at_level(logging.WARNING):
        load(numbers_of([[1, 2], [2, END]] * 5, [[2, 1]]), "complete numbers")
        assert not caplog.messages
        load(numbers_of([[1, 2], [2, END]] * 5, [[7, 1]]), "other numbers")
    assert [message.split(",")[0] for message in caplog.messages] == [
        "other numbers: the training set has no image of class h",
        "other numbers: the test set has no image of class c",
    ]


def test_grey_levels_of_another_scale_are_refused(complaint):
    for largest in (2, 16, 64):
        with complaint("sixteen has grey levels only up to", f"{largest} of 255: multiply the images by 255/{largest}"):
            load(whole_of(strokes(30, 0, 0, largest), strokes(20, 1, 0, 1)), "sixteen")
    dark_training = whole_of(strokes(30, 0, 0, 16), strokes(20, 1))
    assert int(load(dark_training).train.images.max()) == 16  # the test set tells the scale
    assert int(load(whole_of(strokes(30, 0, 0, 65), strokes(20, 1, 0, 65))).train.images.max()) == 65


def test_test_images_that_are_training_images_are_counted_once(caplog):
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (50, 1, 8, 8), np.uint8))
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            load(whole_of(images[:40], images[28:]), "repeated set", invert=False)
        load(whole_of(images[:40], images[40:]), "other set", invert=False)
    (said,) = (message for message in caplog.messages if "training images too" in message)
    assert said.startswith("repeated set: 12 of 22 test images are training images too")
