import numpy as np
import pytest
import torch
from torch.nn import functional as F

from handwriting.data import street_demo
from handwriting.data.dataset import END, HandwritingSet, LabelledImages
from handwriting.data.digits import read_digits
from handwriting.data.street_demo import CONTRAST, LENGTHS, read_street_demo

SIZE = (32, 80)


@pytest.fixture(scope="module")
def street() -> HandwritingSet:
    return read_street_demo(SIZE, images=600, test_images=60)


def boxes_in(split: LabelledImages) -> torch.Tensor:
    assert split.boxes is not None
    return split.boxes


def test_there_are_as_many_colour_images_of_the_size_as_are_set(street: HandwritingSet):
    assert street.train.images.shape == (600, 3, *SIZE)
    assert street.test.images.shape == (60, 3, *SIZE)
    assert street.image_size == SIZE
    assert street.photographs
    assert street.class_names == tuple("0123456789")
    assert (street.train.images.float().std(1) > 5).float().mean() > 0.3  # not grey
    assert read_street_demo([20, 30], images=2, test_images=1).train.images.shape == (2, 3, 20, 30)  # any size


def test_numbers_have_1_to_6_digits_with_the_lengths_of_street_numbers(street: HandwritingSet):
    present = street.train.labels != END
    assert street.train.labels.shape == (600, 6)
    assert torch.equal(present, present.cummin(1).values)  # END only after the last digit
    assert street.train.labels[present].bincount().min() > 80
    shares = present.sum(1).bincount(minlength=7)[1:] / 600
    np.testing.assert_allclose(shares, LENGTHS, atol=0.06)
    assert shares.min() > 0, "numbers of 6 digits are missing, which do not fit a fixed length of 5"


def test_boxes_are_in_the_image_from_left_to_right_and_do_not_hide_one_another(street: HandwritingSet):
    for split in (street.train, street.test):
        boxes, present = boxes_in(split), split.labels != END
        assert boxes.dtype == torch.float32
        assert not boxes[~present].any()
        left, top, right, bottom = boxes[present].T
        assert min(left.min(), top.min()) >= 0
        assert right.max() <= SIZE[1]
        assert bottom.max() <= SIZE[0]
        assert (right - left).min() > 1
        assert 5 < (bottom - top).min() < (bottom - top).max() < 30
        middles = (boxes[..., 0] + boxes[..., 2]) / 2
        assert (middles.diff(dim=1)[present[:, 1:]] > 2).all()


@pytest.mark.parametrize("size", [(32, 80), (64, 160)])
def test_digits_fill_their_boxes(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch):
    """Without walls, light and grain only the digits are not black."""
    monkeypatch.setattr(street_demo, "_wall", lambda along, *_: (torch.zeros(len(along), 3, *size), torch.zeros(60, 3)))
    monkeypatch.setattr(street_demo, "_photograph", lambda pixels, _: (pixels * 255).byte())
    images, labels, boxes = street_demo._draw("train", size, 60, street_demo._Random(0))
    rest = images.amax(1) > 255 * CONTRAST / 2
    for image, number, some in zip(rest, labels, boxes, strict=True):
        for left, top, right, bottom in some[number != END].tolist():
            crop = image[max(round(top) - 1, 0) : round(bottom) + 1, max(round(left) - 1, 0) : round(right) + 1]
            rows, columns = crop.any(1).nonzero(), crop.any(0).nonzero()
            assert rows.max() - rows.min() >= 0.6 * (bottom - top), "the box is much too high"
            assert columns.max() - columns.min() >= 0.2 * (right - left), "the box is much too wide"  # a slanted 1
            crop.zero_()
    assert not rest.any(), "digits reach over their boxes"


def test_training_and_test_images_are_of_the_digits_of_their_sets():
    digits = read_digits()
    for name, split in (("train", digits.train), ("test", digits.test)):
        labels, aspects, covers = street_demo._glyphs(name)
        assert torch.equal(labels, split.labels)
        for image, aspect, cover in zip(split.images[::20, 0].float(), aspects[::20], covers[::20], strict=True):
            rows, columns = ((image > 64).any(axis).nonzero() for axis in (1, 0))
            tight = image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            assert aspect == pytest.approx(tight.shape[1] / tight.shape[0], rel=1e-6)
            whole = F.interpolate(tight[None, None], size=(20, 20), mode="bilinear")
            assert F.cosine_similarity(whole.flatten(), cover.flatten(), dim=0) > 0.9


def test_digits_stand_out_from_what_is_behind_them(street: HandwritingSet):
    """The brightest and the darkest pixel of a box differ more than those of a wall with grain."""
    contrasts = []
    for image, number, boxes in zip(
        street.train.images.float(), street.train.labels, boxes_in(street.train), strict=True
    ):
        for left, top, right, bottom in boxes[number != END].int().tolist():
            grey = image[:, top : bottom + 1, left : right + 1].mean(0).flatten()
            contrasts.append((grey.quantile(0.95) - grey.quantile(0.05)).item())
    assert np.quantile(contrasts, 0.05) > 255 * CONTRAST / 2


def test_the_seed_alone_decides():
    torch.manual_seed(1)
    first = read_street_demo(SIZE, 40, 10)
    street_demo._compose.cache_clear()
    again, other = (read_street_demo(SIZE, 40, 10, seed) for seed in (0, 1))
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(1)))
    for split, same in ((first.train, again.train), (first.test, again.test)):
        assert torch.equal(split.images, same.images)
        assert torch.equal(split.labels, same.labels)
        assert torch.equal(boxes_in(split), boxes_in(same))
    assert not torch.equal(other.train.labels, again.train.labels)
    assert not torch.equal(first.train.labels[:10], first.test.labels)
    assert len(again.train.images.unique(dim=0)) == 40


def test_a_second_reading_is_a_copy_of_the_first():
    first = read_street_demo(SIZE, images=5, test_images=2)
    first.train.images.zero_()
    boxes_in(first.train).zero_()
    again = read_street_demo(SIZE, images=5, test_images=2)
    assert again.train.images.any()
    assert boxes_in(again.train).any()
