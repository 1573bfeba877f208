from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch

from handwriting.data import files
from handwriting.data.characters import read_characters

GOOD = {"train": (6, 3, 28, 28), "test": (6, 2, 28, 28)}


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {key: rng.integers(0, 256, shape, np.uint8) for key, shape in GOOD.items()}


@pytest.fixture
def write(tmp_path, arrays) -> Callable[..., Path]:
    def write_mat(compressed: bool = False, **changed: object) -> Path:
        kept = {key: value for key, value in (arrays | changed).items() if value is not None}
        scipy.io.savemat(tmp_path / "set.mat", kept, do_compression=compressed)
        return tmp_path / "set.mat"

    return write_mat


@pytest.mark.parametrize("compressed", [False, True])
def test_images_are_those_of_scipy_inverted_once(write, compressed):
    path = write(compressed)
    characters, loaded = read_characters(path), scipy.io.loadmat(path)
    for part, key in ((characters.train, "train"), (characters.test, "test")):
        assert np.array_equal(part.images.numpy(), 255 - loaded[key].reshape(-1, 1, 28, 28))
        assert part.images.dtype == torch.uint8


def test_dark_on_white_becomes_bright_on_black(write):
    page = np.full(GOOD["train"], 255, np.uint8)
    page[:, :, 10:12, 10:12] = 0
    image = read_characters(write(train=page)).train.images[0, 0]
    assert image[10, 10] == 255
    assert image.sum() == 4 * 255


def test_each_image_keeps_the_label_of_its_class(write, arrays):
    characters = read_characters(write())
    for label in range(6):
        for part, key in ((characters.train, "train"), (characters.test, "test")):
            of_class = part.images[part.labels == label].squeeze(1).numpy()
            assert np.array_equal(of_class, 255 - arrays[key][label])
    assert characters.class_names == ("0", "1", "2", "3", "4", "5")
    assert characters.image_size == (28, 28)


def test_without_a_path_the_data_root_is_read(write, data_root):
    (data_root / "characters").mkdir()
    write().rename(data_root / "characters" / "characters.mat")
    assert len(read_characters().test) == 12


def test_what_else_the_file_holds_does_not_matter(write):
    assert len(read_characters(write(names=["a", "b"], made_by="nobody")).train) == 18


def test_a_missing_file_is_named_with_both_ways_out(tmp_path, complaint):
    with complaint(f"{tmp_path / 'set.mat'} does not exist", "data.path=", "data=digits"):
        read_characters(tmp_path / "set.mat")


@pytest.mark.parametrize(("key", "other"), [("train", "test"), ("test", "train")])
def test_a_missing_key_is_named(write, key, other, complaint):
    path = write(**{key: None}, extra=np.zeros(2))
    with complaint(f"{path} has no key {key!r}", f"only {', '.join(sorted(['extra', other]))}"):
        read_characters(path)


def test_a_file_without_keys_is_refused(tmp_path, complaint):
    scipy.io.savemat(tmp_path / "set.mat", {})
    with complaint(tmp_path / "set.mat", "no key 'train'", "none at all"):
        read_characters(tmp_path / "set.mat")


@pytest.mark.parametrize("key", ["train", "test"])
@pytest.mark.parametrize(
    "shape", [(6, 784), (6, 3, 28), (6, 3, 105, 105), (28, 28, 3, 6), (6, 3, 28, 27), (0, 3, 28, 28)]
)
def test_another_shape_is_named_with_its_key(write, key, shape, complaint):
    path = write(**{key: np.zeros(shape, np.uint8)})
    with complaint(path, f"key {key!r}", "uint8 (classes, examples, 28, 28)", f"uint8 {shape}"):
        read_characters(path)


@pytest.mark.parametrize("dtype", [np.float64, np.int16, np.int8])
def test_another_type_is_named(write, dtype, complaint):
    path = write(test=np.zeros(GOOD["test"], dtype))
    with complaint(path, "key 'test'", f"but it is {np.dtype(dtype)} {GOOD['test']}"):
        read_characters(path)


def test_ones_and_zeros_are_no_grey_levels(write, complaint):
    path = write(test=np.ones(GOOD["test"], bool))
    assert scipy.io.loadmat(path)["test"].dtype == np.uint8  # so that the type does not tell
    with complaint(path, "key 'test' is logical", "uint8(255"):
        read_characters(path)


@pytest.mark.parametrize("value", ["text", {"field": 1}, np.array(["a", 1], object), 3.0])
def test_a_value_that_is_no_array_of_images_is_refused(write, value, complaint):
    path = write(train=value)
    with complaint(path, "key 'train'"):
        read_characters(path)


def test_unequal_class_counts_are_refused(write, complaint):
    path = write(test=np.zeros((5, 2, 28, 28), np.uint8))
    with complaint(path, "'train' has 6 classes and 'test' 5"):
        read_characters(path)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("share", [0.001, 0.007, 0.01, 0.012, 0.02, 0.3, 0.6, 0.62, 0.9, 0.9999])
def test_a_file_that_is_cut_off_is_refused(write, compressed, share, complaint):
    path = write(compressed)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with complaint(path):
        read_characters(path)


@pytest.mark.parametrize("content", [b"no MATLAB file at all\n" * 50, bytes(500), bytes(range(256)) * 4])
def test_a_file_of_something_else_is_refused(tmp_path, content, complaint):
    (tmp_path / "set.mat").write_bytes(content)
    with complaint(tmp_path / "set.mat"):
        read_characters(tmp_path / "set.mat")


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>\n<title>Moved</title>"])
def test_an_empty_file_or_a_web_page_is_refused(tmp_path, content, complaint):
    (tmp_path / "set.mat").write_bytes(content)
    with complaint(tmp_path / "set.mat", "HTML page" if content else "is empty", "MATLAB file"):
        read_characters(tmp_path / "set.mat")


def test_a_file_of_matlab_7_3_is_to_be_saved_otherwise(tmp_path, complaint):
    text = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Mon Jan  1 00:00:00 2024 HDF5 schema 1.00 ."
    (tmp_path / "set.mat").write_bytes(text.ljust(116) + bytes(8) + b"\x00\x02IM" + bytes(384) + b"\x89HDF\r\n\x1a\n")
    with complaint(tmp_path / "set.mat", "MATLAB 7.3", "-v7"):
        read_characters(tmp_path / "set.mat")


def test_a_small_file_that_would_unpack_to_too_much_is_not_unpacked(write, monkeypatch, complaint):
    path = write(compressed=True, train=np.zeros((60, 15, 28, 28), np.uint8), test=np.zeros((60, 5, 28, 28), np.uint8))
    monkeypatch.setattr(files, "MAX_BYTES", 100_000)
    assert path.stat().st_size < 100_000

    def unpack(*_args: object, **_kwargs: object) -> None:
        pytest.fail("the file was unpacked")

    monkeypatch.setattr(scipy.io, "loadmat", unpack)
    with complaint(path, "unpack to more than 100,000 bytes"):
        read_characters(path)


def test_a_file_over_the_largest_size_is_not_read(write, monkeypatch, complaint):
    path = write()
    monkeypatch.setattr(files, "MAX_BYTES", path.stat().st_size - 1)
    with complaint(path, "MATLAB file", "check the path"):
        read_characters(path)
