import logging

import numpy as np
import pytest
import scipy.io
from PIL import Image

from handwriting.data.mat import read_mat

KEYS = ("train", "test")

of_both_versions = pytest.mark.parametrize("version", ["5", "7.3"])


@of_both_versions
@pytest.mark.parametrize("compressed", [False, True])
def test_images_are_those_of_the_file_whatever_the_version(write_mat, pages, version, compressed):
    arrays, texts = read_mat(write_mat(version, compressed))
    for key in KEYS:
        assert arrays[key].dtype == np.uint8
        assert np.array_equal(arrays[key], pages[key])
    assert (list(arrays), texts) == (list(KEYS), {})


def test_our_file_of_7_3_is_one_that_scipy_refuses(write_mat):
    with pytest.raises(NotImplementedError):
        scipy.io.loadmat(write_mat("7.3"))


@of_both_versions
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "int64", "float32", "float64"])
def test_grey_levels_may_be_of_any_type(write_mat, pages, version, dtype):
    arrays, _ = read_mat(write_mat(version, **{key: page.astype(dtype) for key, page in pages.items()}))
    for key in KEYS:
        assert arrays[key].dtype == np.uint8
        assert np.array_equal(arrays[key], pages[key])


@of_both_versions
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_from_0_to_1_are_grey_levels(write_mat, pages, version, dtype):
    arrays, _ = read_mat(write_mat(version, **{key: (page / 255).astype(dtype) for key, page in pages.items()}))
    for key in KEYS:
        assert np.array_equal(arrays[key], pages[key])


@pytest.mark.parametrize("unit", [1, 255])
def test_what_lies_between_two_grey_levels_is_rounded(write_mat, pages, unit):
    between = {key: np.maximum(page - 0.4, 0) / unit for key, page in pages.items()}
    arrays, _ = read_mat(write_mat(**between))
    for key in KEYS:
        assert np.array_equal(arrays[key], pages[key])


@of_both_versions
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int8, np.float64])
def test_ones_and_zeros_are_background_and_foreground(write_mat, pages, version, dtype):
    paper = {key: page > 100 for key, page in pages.items()}
    arrays, _ = read_mat(write_mat(version, **{key: page.astype(dtype) for key, page in paper.items()}))
    for key in KEYS:
        assert np.array_equal(arrays[key], np.where(paper[key], 255, 0))


@of_both_versions
@pytest.mark.parametrize(("classes", "train", "test"), [(1, 1, 1), (2, 7, 1), (30, 1, 4)])
def test_any_number_of_classes_and_any_split_will_do(write_mat, version, classes, train, test):
    pages = np.full((classes, train + test, 28, 28), 255, np.uint8)
    pages[..., 5:9, 5:9] = np.arange(classes * (train + test) * 16).reshape(classes, -1, 4, 4) % 250
    arrays, _ = read_mat(write_mat(version, train=pages[:, :train], test=pages[:, train:]))
    assert np.array_equal(np.concatenate([arrays["train"], arrays["test"]], 1), pages)
    assert arrays["train"].shape[1] == train


@of_both_versions
@pytest.mark.parametrize(("height", "width"), [(105, 105), (14, 14), (28, 40)])
def test_another_size_is_brought_to_28_by_pillow_and_said_once(write_mat, caplog, version, height, width):
    images = np.zeros((2, 3, height, width), np.uint8)
    inner = np.s_[..., 2:-2, 2:-2]
    images[inner] = np.random.default_rng(1).integers(0, 256, images[inner].shape, np.uint8)
    path = write_mat(version, train=images, test=images[:, :1])
    with caplog.at_level(logging.INFO):
        arrays, _ = read_mat(path)
        read_mat(path)
    for index in np.ndindex(2, 3):
        wanted = Image.fromarray(images[index]).resize((28, 28), Image.Resampling.BILINEAR)
        assert np.array_equal(arrays["train"][index], np.asarray(wanted))
    assert np.array_equal(arrays["test"], arrays["train"][:, :1])
    assert [message for message in caplog.messages if str(path) in message] == [
        f"{path}: its images of {height}×{width} are resized to 28×28."
    ]


def test_nothing_is_said_of_28(write_mat, caplog):
    with caplog.at_level(logging.INFO):
        read_mat(write_mat())
    assert not caplog.messages
