"""SVHN's cropped digits, from MATLAB's files as torchvision loads and downloads them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
from torchvision.datasets import SVHN

from handwriting.data.svhn import FILES, read_svhn


def arrays(count: int, **changed: Any) -> dict[str, Any]:
    """A published file's content, smaller: images (32, 32, 3, N), labels 1 to 10."""
    rng = np.random.default_rng(count)
    content = {"X": rng.integers(0, 256, (32, 32, 3, count), np.uint8), "y": np.arange(count)[:, None] % 10 + 1}
    return {key: value for key, value in (content | changed).items() if value is not None}


@pytest.fixture
def write(data_root: Path) -> Callable[..., Path]:
    def write_files(root: Path = data_root / "SVHN", **changed: Any) -> Path:
        root.mkdir(parents=True, exist_ok=True)
        for name, content in zip(FILES, (arrays(25, **changed), arrays(13)), strict=True):
            scipy.io.savemat(root / name, content)
        return root

    return write_files


@pytest.fixture
def no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchvision.datasets.SVHN", lambda *_, **__: pytest.fail("a download was tried"))


@pytest.mark.usefixtures("no_download")
def test_images_and_labels_are_those_of_torchvision(write, monkeypatch):
    root = write()
    monkeypatch.setattr(SVHN, "_check_integrity", lambda _: True)  # these are not the published files
    svhn = read_svhn()
    for split, name in ((svhn.train, "train"), (svhn.test, "test")):
        theirs = SVHN(str(root), name)
        assert np.array_equal(split.images.numpy(), theirs.data)
        assert split.labels.tolist() == theirs.labels.tolist()
        assert split.labels.dtype == torch.int64
        assert split.images.is_contiguous()
    assert svhn.train.labels[:11].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert svhn.photographs
    assert svhn.class_names == tuple("0123456789")


@pytest.mark.usefixtures("no_download")
def test_a_path_is_loaded_and_nothing_is_downloaded_there(write, tmp_path, complaint):
    assert len(read_svhn(write(tmp_path / "mine")).test) == 13
    (tmp_path / "mine" / FILES[1]).unlink()
    with complaint(f"SVHN is not in {tmp_path / 'mine'}", *FILES, "leave out data.path"):
        read_svhn(tmp_path / "mine")


def test_without_a_path_what_is_absent_is_downloaded_there(write, data_root, monkeypatch, capsys):
    def download(root: str, split: str, download: bool) -> None:
        print("noise")
        assert download
        Path(root).mkdir(exist_ok=True)
        scipy.io.savemat(Path(root) / f"{split}_32x32.mat", arrays(25 if split == "train" else 13))

    monkeypatch.setattr("torchvision.datasets.SVHN", download)
    svhn = read_svhn()
    assert (len(svhn.train), len(svhn.test)) == (25, 13)
    assert capsys.readouterr().out == f"SVHN is not in {data_root / 'SVHN'}: downloading it there\n"
    assert sorted(path.name for path in data_root.iterdir() if path.suffix != ".lock") == ["SVHN"]


def test_a_download_that_fails_names_the_folder(data_root, monkeypatch, complaint):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no network")

    monkeypatch.setattr("torchvision.datasets.SVHN", fail)
    with complaint(f"SVHN is not in {data_root / 'SVHN'} and could not be downloaded (no network)", "data=digits"):
        read_svhn()
    assert not (data_root / "SVHN").exists()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"X": None}, "has no key 'X', only y"),
        ({"y": None}, "has no key 'y', only X"),
        ({"X": np.zeros((32, 32, 3, 25))}, "'X' is double (32, 32, 3, 25), but uint8"),
        ({"X": np.zeros((32, 32, 25), np.uint8)}, "'X' is uint8 (32, 32, 25)"),
        ({"X": np.zeros((25, 3, 32, 32), np.uint8)}, "'X' is uint8 (25, 3, 32, 32)"),
        ({"X": np.zeros((32, 32, 3, 24), np.uint8)}, "has 24 images but 25 labels"),
        ({"y": np.arange(25)[:, None]}, "label 12: the label is 11, but the digits are"),
        ({"y": np.full((25, 1), 1.5)}, "label 1: the label is 1.5"),
        ({"y": np.full((25, 1), -1)}, "label 1: the label is -1"),
    ],
)
def test_a_file_of_another_content_is_one_sentence(write, complaint, changed: dict[str, Any], words: str):
    root = write(**changed)
    with complaint(root / FILES[0], words):
        read_svhn()


@pytest.mark.parametrize("size", [0, 100, -300])
def test_a_truncated_file_is_one_sentence(write, complaint, size: int):
    file = write() / FILES[0]
    file.write_bytes(file.read_bytes()[:size])
    with complaint(file):
        read_svhn()


def test_a_file_that_would_be_too_large_is_refused(write, complaint, monkeypatch):
    monkeypatch.setattr("handwriting.data.files.MAX_BYTES", 200_000)
    file = write(X=np.zeros((32, 32, 3, 100), np.uint8)) / FILES[0]
    scipy.io.savemat(file, {"X": np.zeros((32, 32, 3, 100), np.uint8), "y": np.ones((100, 1))}, do_compression=True)
    with complaint(file, "would unpack to more than 200,000 bytes"):
        read_svhn()
