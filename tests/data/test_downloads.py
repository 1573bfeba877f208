"""Downloads by several processes, killed ones, and folders that cannot be written to."""

import errno
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from handwriting.data import characters, omniglot
from handwriting.data.characters import read_characters
from handwriting.data.mnist import FILES, read_mnist

fork = multiprocessing.get_context("fork")  # torch is imported already
ROWS = {"train": 30, "test": 20}


@pytest.fixture
def mirror(tmp_path, write_idx) -> Callable[[Path], None]:
    """Write the four files of MNIST as torchvision's download leaves them, slowly."""

    def fill(raw: Path, files: int = 4) -> None:
        names = [(name, ROWS[split]) for split in FILES for name in FILES[split]]
        for name, count in names[:files]:
            shape = (count, 4, 4) if "images" in name else (count,)
            write_idx(raw / name, np.arange(np.prod(shape)).reshape(shape) % 10)
            (raw / f"{name}.gz").write_bytes(b"\x1f\x8bpacked")

    return fill


@pytest.fixture
def downloads(monkeypatch, mirror, tmp_path) -> Callable[[], int]:
    """Replace torchvision's MNIST by one that takes a third of a second, and count its calls."""
    log = tmp_path / "log"
    log.mkdir()

    def download(root: str, download: bool) -> None:
        (log / str(time.monotonic_ns())).touch()
        time.sleep(0.3)
        mirror(Path(root) / "MNIST" / "raw")

    monkeypatch.setattr("torchvision.datasets.MNIST", download)
    return lambda: len(list(log.iterdir()))


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_three_processes_download_mnist_once(downloads, data_root):
    def job() -> None:
        os._exit(0 if len(read_mnist().train) == 30 else 1)

    jobs = [fork.Process(target=job) for _ in range(3)]
    for each in jobs:
        each.start()
    for each in jobs:
        each.join(20)
    assert [each.exitcode for each in jobs] == [0, 0, 0]
    assert downloads() == 1
    assert visible(data_root) == ["MNIST"]
    assert visible(data_root / "MNIST" / "raw") == sorted(name for pair in FILES.values() for name in pair)


def test_a_download_that_was_killed_is_not_taken_for_the_data_set(monkeypatch, mirror, data_root):
    def half(root: str, download: bool) -> None:
        mirror(Path(root) / "MNIST" / "raw", files=4)
        last = Path(root) / "MNIST" / "raw" / FILES["test"][0]
        last.write_bytes(last.read_bytes()[:50])
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr("torchvision.datasets.MNIST", half)
    killed = fork.Process(target=read_mnist)
    killed.start()
    killed.join(20)
    assert killed.exitcode == -signal.SIGKILL
    assert not (data_root / "MNIST").exists()
    monkeypatch.setattr("torchvision.datasets.MNIST", lambda root, download: mirror(Path(root) / "MNIST" / "raw"))
    assert len(read_mnist().test) == 20
    assert visible(data_root) == ["MNIST"]


def test_a_download_completes_what_an_earlier_one_left(mirror, downloads, data_root):
    mirror(data_root / "MNIST" / "raw", files=3)
    for packed in data_root.rglob("*.gz"):
        packed.unlink()
    assert len(read_mnist().test) == 20
    assert downloads() == 1


def test_an_alphabet_that_was_cut_off_is_not_taken_for_omniglot(monkeypatch, data_root):
    def download(root: str, background: bool, download: bool) -> None:
        alphabet = Path(root) / "omniglot-py" / "images_background" / "Greek"
        (alphabet / "character01").mkdir(parents=True)
        raise OSError("connection lost")

    monkeypatch.setattr("torchvision.datasets.Omniglot", download)
    with pytest.raises(omniglot.UserError, match="connection lost"):
        omniglot.fetch(["Greek"], data_root)
    assert visible(data_root) == []


def test_an_alphabet_that_is_there_stays_as_it_is(monkeypatch, data_root):
    mine = data_root / "omniglot-py" / "images_background" / "Latin" / "mine"
    mine.mkdir(parents=True)

    def download(root: str, background: bool, download: bool) -> None:
        for alphabet in ("Latin", "Greek"):
            (Path(root) / "omniglot-py" / "images_background" / alphabet / "character01").mkdir(parents=True)

    monkeypatch.setattr("torchvision.datasets.Omniglot", download)
    omniglot.fetch(["Greek", "Latin"], data_root)
    assert visible(mine.parent) == ["mine"]
    assert visible(mine.parent.parent / "Greek") == ["character01"]


def test_two_processes_build_the_characters_once(monkeypatch, data_root, tmp_path, write_mat):
    content = write_mat().read_bytes()

    def write(file: Path, *_: object) -> None:
        (tmp_path / f"{time.monotonic_ns()}.built").touch()
        time.sleep(0.3)
        file.parent.mkdir()
        file.write_bytes(content)

    monkeypatch.setattr(omniglot, "fetch", lambda *_: None)
    monkeypatch.setattr(characters, "write_characters", write)
    jobs = [fork.Process(target=read_characters) for _ in range(2)]
    for each in jobs:
        each.start()
    for each in jobs:
        each.join(20)
    assert [each.exitcode for each in jobs] == [0, 0]
    assert len(list(tmp_path.glob("*.built"))) == 1


FAULTS = [(errno.ENOSPC, "No space left on device"), (errno.EROFS, "Read-only file system"), (errno.EACCES, "denied")]


@pytest.mark.parametrize(("number", "words"), FAULTS)
def test_a_download_onto_a_full_or_read_only_disk_names_the_folder(monkeypatch, data_root, complaint, number, words):
    def fail(*_args: object, **_kwargs: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("torchvision.datasets.MNIST", fail)
    monkeypatch.setattr("torchvision.datasets.Omniglot", fail)
    with complaint(f"{data_root / 'MNIST'} cannot be written", words, "HANDWRITING_DATA", "data=digits"):
        read_mnist()
    with complaint(f"{data_root / 'omniglot-py'} cannot be written", words, "HANDWRITING_DATA", "data=digits"):
        omniglot.fetch(["Greek"], data_root)
    assert visible(data_root) == []


def test_a_root_that_cannot_be_made_is_named(monkeypatch, tmp_path, complaint):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HANDWRITING_DATA", str(tmp_path / "file" / "root"))
    with complaint(tmp_path / "file" / "root" / "MNIST", "cannot be written", "Not a directory"):
        read_mnist()
    with complaint(tmp_path / "file" / "root", "characters cannot be written", "Not a directory"):
        read_characters()


@pytest.mark.parametrize(("number", "words"), FAULTS)
def test_a_character_set_that_cannot_be_written_is_named(monkeypatch, tmp_path, complaint, number, words):
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(characters, "write_bytes", fail)
    monkeypatch.setattr(omniglot, "build_arrays", lambda *_: {"train": np.zeros(1), "test": np.zeros(1)})
    with complaint(f"{tmp_path / 'set.mat'} cannot be written", words):
        characters.write_characters(tmp_path / "set.mat", [], 15)
