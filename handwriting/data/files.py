"""Where data files lie, and the checks that every one of them passes before it is parsed."""

import os
import stat
from pathlib import Path

from handwriting.errors import UserError

MAX_BYTES = 1 << 30  # 1 GiB: ten times the largest file we know of; more is a mistake or an attack
BOM = b"\xef\xbb\xbf"  # Windows programs put it before a text in UTF-8


def data_root() -> Path:
    """Return the folder of the data sets: ``HANDWRITING_DATA``, else a cache in the user's home."""
    root = os.environ.get("HANDWRITING_DATA")
    return Path(root).expanduser() if root else Path.home() / ".cache" / "handwriting"


def has_file(path: Path) -> bool:
    """Return whether a file is there; raise UserError when it cannot be known, as in a folder of somebody else."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check its path and its permissions.") from error


def read_bytes(path: Path, kind: str) -> bytes:
    """Return the content of a data file.

    Raises UserError when the file is missing, unreadable, empty, over MAX_BYTES, or an HTML page: what a browser
    saves under the name of a file when a download needed a login or had moved.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise UserError(f"{path} has {size:,} bytes, more than any {kind} we know ({MAX_BYTES:,}); check the path.")
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); a {kind} is expected there.") from error
    if not content:
        raise UserError(f"{path} is empty; a {kind} is expected there.")
    head = content[:512].removeprefix(BOM).lstrip().lower()
    if head.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise UserError(f"{path} is an HTML page, not a {kind}: the download saved a web page; fetch the file again.")
    return content
