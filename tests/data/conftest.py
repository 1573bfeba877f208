import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from handwriting.errors import UserError


@pytest.fixture(autouse=True)
def data_root(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder stands where the user's data would be, so that no test depends on them."""
    root = tmp_path_factory.mktemp("root")
    monkeypatch.setenv("HANDWRITING_DATA", str(root))
    return root


@pytest.fixture
def complaint():
    """Expect a UserError of one sentence that holds all of the words given."""

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
    """``deny(folder)``: what lies in the folder can no longer be looked at, as in a folder of somebody else."""

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
