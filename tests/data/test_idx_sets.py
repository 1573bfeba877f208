"""Fashion-MNIST, KMNIST, EMNIST, QMNIST, USPS and other idx files: as torchvision loads them."""

import bz2
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from sklearn.datasets import load_digits

from handwriting.data.dataset import HandwritingSet
from handwriting.data.idx_sets import (
    EMNIST,
    QMNIST,
    read_emnist,
    read_fashion_mnist,
    read_idx_files,
    read_kmnist,
    read_qmnist,
)
from handwriting.data.mnist import FILES
from handwriting.data.usps import read_usps

SIZES = {"train": 30, "test": 20}


def images_of(split: str, height: int = 28, width: int = 28) -> np.ndarray:
    return np.random.default_rng(SIZES[split]).integers(0, 256, (SIZES[split], height, width), np.uint8)


def write_qmnist_labels(path: Path, classes: np.ndarray) -> None:
    rows = np.zeros((len(classes), 8), ">i4")
    rows[:, 0], rows[:, 1:] = classes, 70_000
    path.write_bytes(b"".join(word.to_bytes(4, "big") for word in (0xC02, *rows.shape)) + rows.tobytes())


@pytest.fixture
def write(write_idx: Callable[..., Path]) -> Callable[..., Path]:
    def write_files(folder: Path, files: dict[str, tuple[str, str]], first: int = 0, classes: int = 10) -> Path:
        for split, (images, labels) in files.items():
            write_idx(folder / images, images_of(split))
            numbers = first + np.arange(SIZES[split]) % classes
            write_qmnist_labels(folder / labels, numbers) if "idx2" in labels else write_idx(folder / labels, numbers)
        return folder

    return write_files


def emnist_files(name: str) -> dict[str, tuple[str, str]]:
    start = f"emnist-{name}"
    return {s: (f"{start}-{s}-images-idx3-ubyte", f"{start}-{s}-labels-idx1-ubyte") for s in ("train", "test")}


# The loader, torchvision's class with its arguments for the two splits, and the files.
SETS: list[tuple[Callable[..., HandwritingSet], str, list[dict[str, Any]], dict[str, tuple[str, str]]]] = [
    (read_fashion_mnist, "FashionMNIST", [{"train": True}, {"train": False}], FILES),
    (read_kmnist, "KMNIST", [{"train": True}, {"train": False}], FILES),
    (read_qmnist, "QMNIST", [{"what": "train"}, {"what": "test"}], QMNIST),
]


@pytest.mark.parametrize(("read", "name", "splits", "files"), SETS, ids=[one[1] for one in SETS])
def test_images_and_labels_are_those_of_torchvision(
    data_root: Path, write: Any, read: Any, name: str, splits: Any, files: Any
):
    write(data_root / name / "raw", files)
    loaded = read()
    for split, arguments in zip((loaded.train, loaded.test), splits, strict=True):
        theirs = getattr(torchvision.datasets, name)(str(data_root), **arguments)
        assert torch.equal(split.images[:, 0], theirs.data)
        assert split.labels.tolist() == [theirs[number][1] for number in range(len(theirs))]
    if name != "QMNIST":
        assert list(loaded.class_names) == getattr(torchvision.datasets, name).classes


@pytest.mark.parametrize("name", EMNIST)
def test_emnist_is_that_of_torchvision_upright_and_its_labels_count_from_0(data_root: Path, write: Any, name: str):
    letters = int(name == "letters")
    write(data_root / "EMNIST" / "raw", emnist_files(name), letters, len(EMNIST[name]))
    loaded = read_emnist(emnist_split=name)
    for split, train in ((loaded.train, True), (loaded.test, False)):
        theirs = torchvision.datasets.EMNIST(str(data_root), name, train=train)
        assert torch.equal(split.images[:, 0], theirs.data.transpose(1, 2))
        assert split.images.is_contiguous()
        assert torch.equal(split.labels, theirs.targets - letters)
        assert list(loaded.class_names) == theirs.classes[letters:]


def test_a_path_is_loaded_packed_or_not_and_nothing_is_downloaded(tmp_path: Path, write: Any, complaint: Any):
    write(tmp_path, FILES)
    for file in tmp_path.iterdir():
        (tmp_path / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    assert len(read_fashion_mnist(tmp_path).test) == 20
    (tmp_path / f"{FILES['test'][1]}.gz").unlink()
    for read, name in ((read_fashion_mnist, "Fashion-MNIST"), (read_kmnist, "KMNIST"), (read_emnist, "EMNIST")):
        with complaint(f"{name} is not in {tmp_path}", "leave out data.path"):
            read(tmp_path)


def test_what_is_absent_is_downloaded_into_the_data_root(data_root: Path, write: Any, monkeypatch: Any, capsys: Any):
    def download(root: str, download: bool, what: str) -> None:
        assert download
        files = write(Path(root) / "QMNIST" / "raw", {what: QMNIST[what]})
        (files / "packed-idx3-ubyte.gz").write_bytes(b"")

    monkeypatch.setattr("torchvision.datasets.QMNIST", download)
    assert len(read_qmnist().test) == 20
    assert capsys.readouterr().out == f"QMNIST is not in {data_root / 'QMNIST'}: downloading it there\n"
    found = sorted(path.name for path in (data_root / "QMNIST" / "raw").iterdir())
    assert found == sorted(name for names in QMNIST.values() for name in names)


@pytest.mark.parametrize(
    ("read", "name", "called"),
    [
        (read_fashion_mnist, "FashionMNIST", "Fashion-MNIST"),
        (read_kmnist, "KMNIST", "KMNIST"),
        (read_emnist, "EMNIST", "EMNIST"),
        (read_qmnist, "QMNIST", "QMNIST"),
        (read_usps, "USPS", "USPS"),
    ],
)
def test_a_download_that_fails_names_the_folder(
    data_root: Path, monkeypatch: Any, complaint: Any, read: Any, name: str, called: str
):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no network")

    monkeypatch.setattr(f"torchvision.datasets.{name}", fail)
    with complaint(f"{called} is not in {data_root / name} and could not be downloaded (no network)", "data=digits"):
        read()


def test_hiragana_have_romaji_names(tmp_path: Path, write: Any):
    loaded = read_kmnist(write(tmp_path, FILES))
    assert dict(zip(loaded.glyphs, loaded.class_names, strict=True))["つ"] == "tsu"
    assert len(set(loaded.glyphs)) == 10


@pytest.mark.parametrize(
    ("first", "classes", "words"),
    [(0, 27, "label 1: the label is 0, but the classes are 1 to 26"), (1, 27, "label 27: the label is 27, but")],
)
def test_labels_of_other_letters_are_refused(
    tmp_path: Path, write: Any, complaint: Any, first: int, classes: int, words
):
    write(tmp_path, emnist_files("letters"), first, classes)
    with complaint(tmp_path, words):
        read_emnist(tmp_path, emnist_split="letters")


def test_an_unknown_split_is_refused(tmp_path: Path, complaint: Any):
    with complaint("data.emnist_split=half must be one of byclass, bymerge"):
        read_emnist(tmp_path, emnist_split="half")


@pytest.mark.parametrize("cut", [3, 11, 50, -1])
def test_truncated_labels_of_qmnist_are_refused(tmp_path: Path, write: Any, complaint: Any, cut: int):
    file = write(tmp_path, QMNIST) / QMNIST["train"][1]
    file.write_bytes(file.read_bytes()[:cut])
    with complaint(file):
        read_qmnist(tmp_path)


def test_other_idx_files_have_their_own_classes(tmp_path: Path, write_idx: Any, complaint: Any):
    bunch: Any = load_digits()
    images, labels = bunch["images"].astype(np.uint8), bunch["target"]
    for split, rows in (("train", slice(0, 1500)), ("test", slice(1500, None))):
        write_idx(tmp_path / FILES[split][0], images[rows].transpose(0, 2, 1))
        write_idx(tmp_path / FILES[split][1], labels[rows] + 5)
    loaded = read_idx_files(tmp_path, transpose=True)
    assert np.array_equal(torch.cat([loaded.train.images, loaded.test.images])[:, 0].numpy(), images)
    assert torch.cat([loaded.train.labels, loaded.test.labels]).tolist() == labels.tolist()
    assert loaded.class_names == tuple(str(number) for number in range(5, 15))
    assert read_idx_files(tmp_path, class_names="abcdefghij").class_names == tuple("abcdefghij")
    with complaint("data.class_names has 2 names, but", "10 classes"):
        read_idx_files(tmp_path, class_names=["a", "b"])
    (tmp_path / FILES["test"][0]).unlink()
    with complaint(tmp_path, "lacks some of the four files"):
        read_idx_files(tmp_path)


def usps_lines(split: str) -> bytes:
    images = images_of(split, 16, 16) / 255 * 2 - 1
    rows = (
        " ".join([str(number % 10 + 1), *(f"{place}:{value:.6f}" for place, value in enumerate(image.ravel(), 1))])
        for number, image in enumerate(images)
    )
    return ("\n".join(rows) + "\n").encode()


@pytest.fixture
def usps(tmp_path: Path) -> Path:
    for name, split in (("usps.bz2", "train"), ("usps.t.bz2", "test")):
        (tmp_path / name).write_bytes(bz2.compress(usps_lines(split)))
    return tmp_path


def test_usps_is_that_of_torchvision(usps: Path):
    loaded = read_usps(usps)
    for split, train in ((loaded.train, True), (loaded.test, False)):
        theirs = torchvision.datasets.USPS(str(usps), train)
        assert np.array_equal(split.images[:, 0].numpy(), theirs.data)
        assert split.labels.tolist() == theirs.targets


def test_usps_is_downloaded_into_the_data_root(data_root: Path, monkeypatch: Any):
    def download(root: str, train: bool, download: bool) -> None:
        name, split = ("usps.bz2", "train") if train else ("usps.t.bz2", "test")
        (Path(root) / name).write_bytes(bz2.compress(usps_lines(split)))

    monkeypatch.setattr("torchvision.datasets.USPS", download)
    assert len(read_usps().train) == 30
    assert sorted(path.name for path in (data_root / "USPS").iterdir()) == ["usps.bz2", "usps.t.bz2"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda _: b"", "is empty"),
        (lambda packed: packed[:200], "is a truncated bz2 file"),
        (lambda packed: packed[:100] + b"xx" + packed[102:], "is a damaged bz2 file"),
        (lambda _: b"1 1:0.5 257:0.5\n", "row 1 is not a label"),
        (lambda _: b"1 1:0.5\n11 1:0.5\n", "row 2 is not a label"),
        (lambda _: b"1 1:1.5\n", "row 1 is not a label"),
        (lambda _: b"1 1:nan\n", "row 1 is not a label"),
        (lambda _: b"<html>", "is an HTML page"),
        (lambda _: b"\n", "has no images"),
    ],
)
def test_a_damaged_usps_is_one_sentence(usps: Path, complaint: Any, change: Any, words: str):
    file = usps / "usps.bz2"
    file.write_bytes(change(file.read_bytes()))
    with complaint(file, words):
        read_usps(usps)
    (usps / "usps.t.bz2").unlink()
    with complaint(f"USPS is not in {usps}"):
        read_usps(usps)


def test_a_usps_that_would_be_too_large_is_refused(usps: Path, complaint: Any, monkeypatch: pytest.MonkeyPatch):
    packed = bz2.compress(usps_lines("train") * 50)
    monkeypatch.setattr("handwriting.data.files.MAX_BYTES", len(packed) + 10)
    (usps / "usps.bz2").write_bytes(packed)
    with complaint("would unpack to more than"):
        read_usps(usps)
