"""Atomic writing of files. Imports no torch."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    import pandas as pd


def as_csv(table: "pd.DataFrame") -> str:
    """Return a table of predictions as CSV; six digits of a probability are enough."""
    return table.to_csv(index=False, float_format="%.6g")


def write_text(path: Path, text: str) -> None:
    """Write a text atomically in UTF-8."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically: neither another process nor a crash ever leaves half of it visible."""
    with atomic(path) as file:
        file.write(content)


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[BinaryIO]:
    """Open a draft to write to, which becomes the file as a whole at the end, or is removed after an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def digest_of_file(path: Path) -> str:
    """Return a hash of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
