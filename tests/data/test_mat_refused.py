"""Errors of read_mat: one sentence that names the file."""

import h5py
import numpy as np
import pytest
import scipy.io

from handwriting.data import files
from handwriting.data.mat import read_mat

of_both_versions = pytest.mark.parametrize("version", ["5", "7.3"])
of_both_keys = pytest.mark.parametrize("key", ["train", "test"])


@of_both_versions
@of_both_keys
@pytest.mark.parametrize(
    ("value", "words"),
    [(np.nan, "NaN"), (np.inf, "infinite"), (-1, "a negative value"), (-0.01, "negative"), (255.5, "above 255")],
)
def test_a_value_that_is_no_grey_level_is_found(write_mat, pages, complaint, version, key, value, words):
    page = pages[key].astype(np.float64)
    page[4, 1, 20, 3] = value
    path = write_mat(version, **{key: page})
    with complaint(path, f"key {key!r}", "image 2 of class 4 ", words):
        read_mat(path)


@pytest.mark.parametrize("largest", [1.02, 1.4])
def test_values_a_little_above_one_are_not_taken_for_almost_black(write_mat, pages, complaint, largest):
    path = write_mat(**{key: page / 255 * largest for key, page in pages.items()})  # as resizing overshoots
    with complaint(path, "0…1"):
        read_mat(path)


@of_both_keys
def test_values_from_0_to_1_beside_grey_levels_are_refused(write_mat, pages, complaint, key):
    path = write_mat(**{key: pages[key] / 255})
    with complaint(path, f"{key!r}", "0…1"):
        read_mat(path)


@of_both_versions
@of_both_keys
@pytest.mark.parametrize("paper", [0, 255])
def test_a_class_of_blank_images_is_named(write_mat, pages, complaint, version, key, paper):
    page = pages[key].copy()
    page[3] = paper
    path = write_mat(version, **{key: page})
    with complaint(path, f"key {key!r}", "class 3 is empty", "blank"):
        read_mat(path)


def test_a_blank_image_among_others_is_no_empty_class(write_mat, pages):
    pages["train"][3, 0] = 255
    arrays, _ = read_mat(write_mat())
    assert (arrays["train"][3, 0] == 255).all()


@of_both_versions
@of_both_keys
@pytest.mark.parametrize("shape", [(6, 0, 28, 28), (0, 3, 28, 28), (6, 3, 0, 28)])
def test_no_images_at_all_are_refused(write_mat, complaint, version, key, shape):
    path = write_mat(version, **{key: np.zeros(shape, np.uint8)})
    with complaint(path, f"key {key!r} is empty", shape):
        read_mat(path)


@of_both_versions
@pytest.mark.parametrize(("key", "other"), [("train", "test"), ("test", "train")])
def test_a_missing_key_is_named(write_mat, complaint, version, key, other):
    path = write_mat(version, **{key: None}, extra=np.zeros(2))
    with complaint(f"{path} has no key {key!r}", f"only {', '.join(sorted(['extra', other]))}"):
        read_mat(path)


@of_both_versions
def test_unequal_class_counts_are_refused(write_mat, pages, complaint, version):
    path = write_mat(version, test=pages["test"][:5])
    with complaint(path, "'train' has 6 classes", "'test' 5"):
        read_mat(path)


@of_both_versions
def test_unequal_sizes_are_refused(write_mat, pages, complaint, version):
    path = write_mat(version, test=pages["test"][..., 1:-2])
    with complaint(path, "28×28", "28×25"):
        read_mat(path)


@of_both_versions
@of_both_keys
@pytest.mark.parametrize("value", ["text", {"field": 1.0}, np.array(["a", 1], object), 1j * np.ones((6, 3, 28, 28))])
def test_what_are_no_numbers_is_refused(write_mat, complaint, version, key, value):
    path = write_mat(version, **{key: value})
    with complaint(path, f"key {key!r}"):
        read_mat(path)


@of_both_versions
@of_both_keys
@pytest.mark.parametrize("shape", [(6, 784), (6, 28, 28), (6, 1, 3, 28, 28)])
def test_another_number_of_dimensions_is_named(write_mat, complaint, version, key, shape):
    path = write_mat(version, **{key: np.ones(shape, np.uint8)})
    with complaint(path, f"key {key!r}", "(classes, examples, height, width)", f"uint8 {shape}"):
        read_mat(path)


@of_both_versions
def test_images_of_thousands_of_pixels_are_refused(write_mat, complaint, version):
    path = write_mat(version, train=np.ones((1, 1, 3, 2001), np.uint8))
    with complaint(path, "3×2001", "2000"):
        read_mat(path)


@of_both_versions
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("share", [0.001, 0.007, 0.01, 0.03, 0.1, 0.3, 0.6, 0.62, 0.9, 0.9999])
def test_a_truncated_file_is_refused(write_mat, complaint, version, compressed, share):
    path = write_mat(version, compressed)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with complaint(path, "truncated"):
        read_mat(path)


@of_both_versions
def test_a_small_file_that_would_unpack_to_too_much_is_not_unpacked(write_mat, monkeypatch, complaint, version):
    path = write_mat(version, compressed=True, train=np.zeros((60, 15, 28, 28), np.uint8))
    monkeypatch.setattr(files, "MAX_BYTES", 200_000)
    assert path.stat().st_size < 200_000

    def unpack(*_args: object, **_kwargs: object) -> None:
        pytest.fail("the file was unpacked")

    monkeypatch.setattr(scipy.io, "loadmat", unpack)
    monkeypatch.setattr(h5py.Dataset, "__array__", unpack)
    with complaint(path, "unpack to more than 200,000 bytes"):
        read_mat(path)


@pytest.mark.parametrize("name", ["names", "glyphs"])
def test_names_that_would_unpack_to_too_much_are_not_unpacked(write_mat, monkeypatch, complaint, name):
    path = write_mat(compressed=True, **{name: np.zeros((200, 200), np.uint8)})
    monkeypatch.setattr(files, "MAX_BYTES", 300_000)
    with complaint(path, "unpack to more than 300,000 bytes"):
        read_mat(path)


def test_a_file_over_the_maximum_size_is_refused(write_mat, monkeypatch, complaint):
    path = write_mat()
    monkeypatch.setattr(files, "MAX_BYTES", path.stat().st_size - 1)
    with complaint(path, "MATLAB file", "check the path"):
        read_mat(path)


@pytest.mark.parametrize(
    "content",
    [b"no MATLAB file at all\n" * 50, bytes(500), bytes(range(256)) * 4, b"MATLAB 7.3 MAT-file".ljust(600)],
    ids=["text", "zeros", "bytes", "only the header of 7.3"],
)
def test_a_file_of_something_else_is_refused(tmp_path, complaint, content):
    (tmp_path / "set.mat").write_bytes(content)
    with complaint(tmp_path / "set.mat"):
        read_mat(tmp_path / "set.mat")


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>\n<title>Moved</title>"])
def test_an_empty_file_or_a_web_page_is_refused(tmp_path, complaint, content):
    (tmp_path / "set.mat").write_bytes(content)
    with complaint(tmp_path / "set.mat", "HTML page" if content else "is empty", "MATLAB file"):
        read_mat(tmp_path / "set.mat")


@pytest.mark.parametrize("path", ["missing.mat", "."])
def test_a_file_that_is_not_there_is_named(tmp_path, complaint, path):
    with complaint(tmp_path / path, "MATLAB file"):
        read_mat(tmp_path / path)
