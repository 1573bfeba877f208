import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import mnist as torchvision_mnist

from handwriting.data.mnist import FILES, read_idx, read_mnist

IMAGES, LABELS = FILES["train"]


@pytest.fixture
def arrays() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    sizes = {"train": 30, "test": 20}
    return {
        part: (rng.integers(0, 256, (size, 7, 5), np.uint8), rng.permutation(size).astype(np.uint8) % 10)
        for part, size in sizes.items()
    }


@pytest.fixture
def folder(tmp_path, arrays, write_idx) -> Path:
    for part, names in FILES.items():
        for name, array in zip(names, arrays[part], strict=True):
            write_idx(tmp_path / "idx" / name, array)
    return tmp_path / "idx"


@pytest.fixture
def no_download(monkeypatch):
    def fail(*_args: object, **_kwargs: object) -> None:
        pytest.fail("a download was tried")

    monkeypatch.setattr("torchvision.datasets.MNIST", fail)


@pytest.mark.parametrize("shape", [(1, 28, 28), (13, 28, 28), (3, 5, 9)])
def test_images_are_loaded_as_by_torchvision(tmp_path, write_idx, shape):
    path = write_idx(tmp_path / "images", np.random.default_rng(1).integers(0, 256, shape, np.uint8))
    images = read_idx(path, 3)
    assert images.dtype == torch.uint8
    assert torch.equal(images, torchvision_mnist.read_image_file(str(path)))


@pytest.mark.parametrize("count", [1, 257])
def test_labels_are_loaded_as_by_torchvision(tmp_path, write_idx, count):
    path = write_idx(tmp_path / "labels", np.random.default_rng(2).integers(0, 10, count, np.uint8))
    assert torch.equal(read_idx(path, 1).long(), torchvision_mnist.read_label_file(str(path)))


def test_images_are_a_copy_that_may_be_written_to(monkeypatch):
    content = bytes([0, 0, 8, 1, 0, 0, 0, 3, 5, 6, 7])
    monkeypatch.setattr("handwriting.data.mnist.read_bytes", lambda *_: content)
    labels = read_idx(Path("labels"), 1)
    labels += 1
    assert labels.tolist() == [6, 7, 8]
    assert list(content[8:]) == [5, 6, 7]  # torch would write into Python's constant bytes, and say so only once


@pytest.mark.parametrize("layout", [".", "raw", "MNIST/raw"])
def test_each_layout_is_found_and_loaded_completely(folder, arrays, tmp_path, layout, no_download):
    root = tmp_path / "root"
    (root / layout).parent.mkdir(parents=True, exist_ok=True)
    folder.rename(root / layout)
    mnist = read_mnist(root)
    for part, name in ((mnist.train, "train"), (mnist.test, "test")):
        images, labels = arrays[name]
        assert np.array_equal(part.images.numpy(), images[:, None])
        assert np.array_equal(part.labels.numpy(), labels)
        assert part.labels.dtype == torch.int64
    assert mnist.image_size == (7, 5)
    assert mnist.class_names == tuple("0123456789")


def test_without_a_path_the_data_root_is_used(folder, data_root, no_download):
    folder.rename(data_root / "raw")
    assert len(read_mnist().train) == 30


def test_without_a_path_what_is_absent_is_downloaded_there(folder, data_root, monkeypatch, capsys):
    def download(root: str, download: bool) -> None:
        print("noise")
        assert download
        raw = Path(root) / "MNIST" / "raw"
        raw.parent.mkdir()
        folder.rename(raw)

    monkeypatch.setattr("torchvision.datasets.MNIST", download)
    assert len(read_mnist().test) == 20
    assert capsys.readouterr().out == f"MNIST is not in {data_root}: downloading it there\n"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("Error downloading a.gz:\nTried https://mirror, got:\n<no network>\n"), "got: <no network>)"),
        (RuntimeError(), "(RuntimeError)"),
        (ConnectionResetError(104, "Connection reset by peer"), "Connection reset by peer"),
    ],
)
def test_a_download_that_fails_names_the_folder_and_both_ways_out(data_root, monkeypatch, complaint, error, reason):
    def fail(*_args: object, **_kwargs: object) -> None:
        raise error

    monkeypatch.setattr("torchvision.datasets.MNIST", fail)
    ways_out = (data_root / "MNIST" / "raw", "put its four idx files", "HANDWRITING_DATA", "data=digits")
    with complaint(f"MNIST is not in {data_root} and could not be downloaded", reason, *ways_out):
        read_mnist()


def test_a_path_that_was_given_is_never_downloaded_into(tmp_path, complaint, no_download):
    with complaint(f"MNIST is not in {tmp_path}", "four idx files", "data=digits"):
        read_mnist(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [*FILES["train"], *FILES["test"]])
def test_three_files_of_four_are_not_mnist(folder, name, complaint, no_download):
    (folder / name).unlink()
    with complaint(f"MNIST is not in {folder}"):
        read_mnist(folder)


@pytest.mark.parametrize("length", [4, 6, 15, 16, 17, 16 + 30 * 35 - 1])
def test_images_that_are_cut_off_are_refused(folder, length, complaint):
    content = (folder / IMAGES).read_bytes()
    (folder / IMAGES).write_bytes(content[:length])
    with complaint(folder / IMAGES, f"{length:,} bytes", "truncated"):
        read_mnist(folder)


def test_labels_that_are_cut_off_are_refused(folder, complaint):
    (folder / LABELS).write_bytes((folder / LABELS).read_bytes()[:-1])
    with complaint(folder / LABELS, "37 bytes", "promises 38 (30)", "truncated"):
        read_mnist(folder)


def test_bytes_too_many_are_refused(folder, complaint):
    (folder / IMAGES).write_bytes((folder / IMAGES).read_bytes() + b"\0")
    with complaint(folder / IMAGES, "1,067 bytes", "promises 1,066 (30 × 7 × 5)", "damaged"):
        read_mnist(folder)


def test_an_impossibly_large_header_is_refused(tmp_path, complaint):
    (tmp_path / IMAGES).write_bytes(b"\0\0\x08\x03" + b"\xff" * 12)
    with complaint(tmp_path / IMAGES, "16 bytes", "4294967295 × 4294967295 × 4294967295"):
        read_idx(tmp_path / IMAGES, 3)


@pytest.mark.parametrize("magic", [0, 0x801, 0x802, 0xD03, 0x504B0304])
def test_another_magic_number_is_refused(tmp_path, write_idx, magic, complaint):
    path = write_idx(tmp_path / IMAGES, np.zeros((2, 4, 4)), magic=magic)
    with complaint(path, f"magic number {magic}, not 2051", "not an idx file of images"):
        read_idx(path, 3)


def test_images_in_the_place_of_labels_are_refused(folder, complaint):
    (folder / IMAGES).replace(folder / LABELS)
    with complaint(folder / LABELS, "magic number 2051, not 2049", "not an idx file of labels"):
        read_idx(folder / LABELS, 1)


@pytest.mark.parametrize("layout", [".", "raw", "MNIST/raw"])
@pytest.mark.parametrize("spelling", ["-idx", ".idx"])
@pytest.mark.parametrize("packed", ["", ".gz"])
def test_gz_files_and_both_spellings_are_loaded(folder, arrays, tmp_path, layout, spelling, packed, no_download):
    for name in (*FILES["train"], *FILES["test"]):
        content = (folder / name).read_bytes()
        path = tmp_path / "root" / layout / (name.replace("-idx", spelling) + packed)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(content) if packed else content)
    mnist = read_mnist(tmp_path / "root")
    for part, name in ((mnist.train, "train"), (mnist.test, "test")):
        assert np.array_equal(part.images.numpy()[:, 0], arrays[name][0])
        assert np.array_equal(part.labels.numpy(), arrays[name][1])


def test_a_compressed_file_without_gz_in_its_name_is_loaded(folder, arrays):
    (folder / IMAGES).write_bytes(gzip.compress((folder / IMAGES).read_bytes()))
    assert np.array_equal(read_mnist(folder).train.images.numpy()[:, 0], arrays["train"][0])


def test_a_plain_file_is_preferred_to_a_compressed_one(folder):
    (folder / f"{IMAGES}.gz").write_bytes(b"\x1f\x8bhalf")
    assert len(read_mnist(folder).train) == 30


def test_a_gz_file_that_is_cut_off_is_named(folder, complaint):
    packed = gzip.compress((folder / IMAGES).read_bytes())
    (folder / IMAGES).unlink()
    (folder / f"{IMAGES}.gz").write_bytes(packed[: len(packed) // 2])
    with complaint(folder / f"{IMAGES}.gz", "truncated or damaged gzip file"):
        read_mnist(folder)


@pytest.mark.parametrize("shape", [(0, 28, 28), (5, 0, 28)])
def test_a_file_without_images_is_refused(tmp_path, write_idx, shape, complaint):
    path = write_idx(tmp_path / IMAGES, np.zeros(shape))
    with complaint(path, "has no images"):
        read_idx(path, 3)


def test_a_file_without_labels_is_refused(tmp_path, write_idx, complaint):
    path = write_idx(tmp_path / LABELS, np.zeros(0))
    with complaint(path, "has no labels"):
        read_idx(path, 1)


@pytest.mark.parametrize("content", [b"", b"<!doctype html><title>404</title>"])
def test_an_empty_file_or_a_web_page_is_refused(folder, content, complaint):
    (folder / IMAGES).write_bytes(content)
    with complaint(folder / IMAGES, "HTML page" if content else "is empty", "MNIST idx file"):
        read_mnist(folder)


def test_images_and_labels_of_different_count_are_refused(folder, write_idx, complaint):
    write_idx(folder / LABELS, np.zeros(29))
    with complaint(folder / IMAGES, "30 images", LABELS, "29 labels"):
        read_mnist(folder)


@pytest.mark.parametrize("row", [1, 17, 30])
def test_a_label_that_is_no_digit_is_named_with_its_row(folder, arrays, write_idx, row, complaint):
    labels = arrays["train"][1]
    labels[row - 1] = 10
    write_idx(folder / LABELS, labels)
    with complaint(folder / LABELS, f"label {row}:", "the label is 10", "0 to 9"):
        read_mnist(folder)


def test_training_and_test_images_of_different_size_are_refused(folder, write_idx, complaint):
    write_idx(folder / FILES["test"][0], np.zeros((20, 8, 5)))
    with complaint(folder, "7×5", "8×5"):
        read_mnist(folder)
