"""The location of data files, and the checks before they are parsed."""

import codecs
import gzip
import io
import os
import stat
import zlib
from pathlib import Path

from handwriting.utils.errors import UserError

MAX_BYTES = 1 << 30  # 1 GiB, compressed or not: ten times the largest known file; more is a mistake or an attack
GZIP, LFS_POINTER = b"\x1f\x8b", b"version https://git-lfs.github.com/spec"
ENCODINGS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}


def data_root() -> Path:
    """Return the folder of the data sets: ``HANDWRITING_DATA``, else a cache in the user's home."""
    root = os.environ.get("HANDWRITING_DATA")
    return Path(root).expanduser() if root else Path.home() / ".cache" / "handwriting"


def has_file(path: Path) -> bool:
    """Return whether a file exists. Raises UserError if this cannot be determined, as without permission."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check its path and its permissions.") from error


def find_file(folder: Path, *names: str) -> Path | None:
    """Return the first file of these names in a folder, plain or compressed (``.gz``); None if there is none."""
    candidates = [folder / (name + packed) for packed in ("", ".gz") for name in names]
    return next((path for path in candidates if has_file(path)), None)


def read_bytes(path: Path, kind: str) -> bytes:
    """Return the content of a data file, decompressed if it is a gzip file, whatever its name.

    Raises UserError if the file is missing, unreadable, empty, over MAX_BYTES or damaged, or if it is not the data but
    a Git LFS pointer or an HTML page, as browsers save one if a download needs a login.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise UserError(f"{path} has {size:,} bytes, more than any known {kind} ({MAX_BYTES:,}); check the path.")
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); a {kind} is expected there.") from error
    if content.startswith(GZIP):
        content = _unpack(path, content, kind)
    if not content:
        raise UserError(f"{path} is empty; a {kind} is expected there.")
    if content.startswith(LFS_POINTER):
        raise UserError(
            f"{path} is a Git LFS pointer, not a {kind}: run 'git lfs pull' where it was cloned, or download the file."
        )
    head = content[:512].removeprefix(codecs.BOM_UTF8).lstrip().lower()
    if head.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise UserError(
            f"{path} is an HTML page, not a {kind}: the download saved a web page; download the file again."
        )
    return content


def _unpack(path: Path, content: bytes, kind: str) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as packed:
            unpacked = packed.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is a truncated or damaged gzip file ({error}); download it again.") from error
    if len(unpacked) > MAX_BYTES:
        raise UserError(f"{path} decompresses to more than {MAX_BYTES:,} bytes; this is not a {kind}.")
    return unpacked


def in_utf8(content: bytes) -> bytes:
    """Return the content of a text file in UTF-8 without byte order mark; UTF-16 is recognised by its mark."""
    for mark, encoding in ENCODINGS.items():
        if content.startswith(mark):
            text = content.removeprefix(mark)
            return text if encoding == "utf-8" else text.decode(encoding, "replace").encode()
    return content
