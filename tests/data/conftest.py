import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from handwriting.utils.errors import UserError


@pytest.fixture(autouse=True)
def data_root(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in place of the user's data, so that no test depends on them."""
    root = tmp_path_factory.mktemp("root")
    monkeypatch.setenv("HANDWRITING_DATA", str(root))
    return root


@pytest.fixture
def complaint():
    """Expect a UserError of one sentence that contains all given words."""

    @contextmanager
    def expect(*words: object) -> Iterator[None]:
        with pytest.raises(UserError) as caught:
            yield
        message = str(caught.value)
        assert "\n" not in message
        assert message.endswith(".")
        assert not re.search(r"[.!?] [A-Z]", message), message
        for word in words:
            assert str(word) in message

    return expect


@pytest.fixture
def deny(monkeypatch: pytest.MonkeyPatch):
    """``deny(folder)``: the content of the folder is no longer accessible, as without permission."""

    def deny_folder(folder: Path) -> None:
        look = Path.stat

        def stat(self: Path, *, follow_symlinks: bool = True) -> os.stat_result:
            if folder in self.parents:
                raise PermissionError(13, "Permission denied", str(self))
            return look(self, follow_symlinks=follow_symlinks)

        monkeypatch.setattr(Path, "stat", stat)

    return deny_folder


@pytest.fixture
def write_idx() -> Callable[..., Path]:
    """Write a uint8 array as an idx file, as the page of MNIST describes the format."""

    def write(path: Path, array: np.ndarray, magic: int | None = None) -> Path:
        words = [0x800 + array.ndim if magic is None else magic, *array.shape]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(word.to_bytes(4, "big") for word in words) + array.astype(np.uint8).tobytes())
        return path

    return write


@pytest.fixture
def pages() -> dict[str, np.ndarray]:
    """Six made-up classes as the notebook's file has them: foreground of every grey level on white background."""
    rng = np.random.default_rng(0)
    arrays = {key: np.full((6, examples, 28, 28), 255, np.uint8) for key, examples in (("train", 3), ("test", 2))}
    for array in arrays.values():
        array[..., 8:20, 6:21] = rng.integers(0, 256, (*array.shape[:2], 12, 15), np.uint8)
        array[..., 9, 9:11] = (0, 255)  # each has the whole range
    return arrays


@pytest.fixture
def write_mat(tmp_path: Path, pages: dict[str, np.ndarray]) -> Callable[..., Path]:
    """Write the pages as set.mat, some keys changed, added or (None) left out, as MATLAB's -v7 or -v7.3 does."""

    def write(version: str = "5", compressed: bool = False, **changed: object) -> Path:
        kept = {key: value for key, value in (pages | changed).items() if value is not None}
        path = tmp_path / "set.mat"
        if version == "5":
            scipy.io.savemat(path, kept, do_compression=compressed)
        else:
            _write_hdf5(path, kept, compressed)
        return path

    return write


def _write_hdf5(path: Path, values: dict[str, object], compressed: bool) -> None:
    with h5py.File(path, "w", userblock_size=512) as file:
        for key, value in values.items():
            array = np.asarray(value)
            if isinstance(value, dict):
                file.create_group(key)  # a struct
            elif array.dtype == object:  # cells are references into a group of their own
                cell = file.create_dataset(f"#refs#/{key}", data=[[1.0]])
                file.create_dataset(key, data=[[cell.ref]], dtype=h5py.ref_dtype)
            elif array.dtype.kind == "U":
                file.create_dataset(key, data=np.array([[ord(sign)] for sign in str(value)], np.uint16))
            else:
                numbers = array.view(np.uint8) if array.dtype == bool else array  # MATLAB's logical is uint8 there
                file.create_dataset(key, data=numbers.T, compression="gzip" if compressed else None)
    with path.open("r+b") as content:
        header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Mon Jan  1 00:00:00 2024 HDF5 schema 1.00 ."
        content.write(header.ljust(124) + b"\x00\x02IM")
