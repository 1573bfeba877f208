"""USPS: digits of postal codes from its libsvm files (J. Hull, 1994), as torchvision loads and downloads them."""

import bz2
from pathlib import Path

import numpy as np
import torch

from handwriting.data import files
from handwriting.data.dataset import HandwritingSet, LabelledImages
from handwriting.data.downloads import download_once
from handwriting.data.files import data_root, find_file, read_bytes
from handwriting.data.mnist import DIGITS
from handwriting.utils.errors import UserError

FILES = (("usps.bz2", "usps"), ("usps.t.bz2", "usps.t"))  # of the training and the test set
SIDE = 16


def read_usps(path: str | Path | None = None) -> HandwritingSet:
    """Return USPS: 7,291 training and 2,007 test images of the digits 0-9, 16×16.

    ``path`` is a folder with ``usps.bz2`` and ``usps.t.bz2``; without it, it is ``HANDWRITING_DATA/USPS``, and they are
    downloaded there if absent. Raises UserError if they are missing, damaged or something else.
    """
    root = Path(path).expanduser() if path is not None else data_root() / "USPS"
    if path is None and not _find(root):
        _download(root)
    found = _find(root)
    if not found:
        raise UserError(
            f"USPS is not in {root}: put usps.bz2 and usps.t.bz2 there, leave out data.path to download them, or use "
            "data=digits, which needs no files."
        )
    train, test = map(_read_split, found)
    return HandwritingSet(train, test, DIGITS)


def _find(root: Path) -> list[Path]:
    found = [file for names in FILES if (file := find_file(root, *names))]
    return found if len(found) == len(FILES) else []


def _download(root: Path) -> None:
    from torchvision.datasets import USPS  # slow to import, and most runs find the files

    def fetch(folder: str) -> None:
        draft = Path(folder) / root.name
        draft.mkdir()
        for train in (True, False):
            USPS(str(draft), train, download=True)

    reason = download_once(
        root.parent,
        root.name,
        wanted=f"{root.name}/*.bz2",
        is_there=lambda: bool(_find(root)),
        fetch=fetch,
        missing=f"USPS is not in {root}: downloading it there",
    )
    if reason:
        raise UserError(
            f"USPS is not in {root} and could not be downloaded ({reason}): put usps.bz2 and usps.t.bz2 there, or use "
            "data=digits, which needs no files."
        )


def _read_split(file: Path) -> LabelledImages:
    """Return the rows ``label 1:value … 256:value``: labels 1…10 for 0…9, values -1…1 for the grey levels 0…255."""
    content = read_bytes(file, "libsvm file")
    if content.startswith(b"BZh"):
        content = _unpack(file, content)
    labels, rows = [], []
    for number, line in enumerate(content.splitlines(), start=1):
        if line.strip():
            label, values = _row(file, number, line)
            labels.append(label - 1)
            rows.append(values)
    if not rows:
        raise UserError(f"{file} has no images; download it again.")
    levels = ((np.stack(rows) + 1) / 2 * 255).astype(np.uint8)  # rounded down in single precision, as torchvision does
    return LabelledImages(torch.from_numpy(levels).reshape(-1, 1, SIDE, SIDE), torch.tensor(labels))


def _unpack(file: Path, content: bytes) -> bytes:
    try:
        unpacker = bz2.BZ2Decompressor()
        unpacked = unpacker.decompress(content, files.MAX_BYTES)
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"{file} is a damaged bz2 file; download it again.") from error
    if not unpacker.eof:
        full = len(unpacked) >= files.MAX_BYTES
        what = f"would unpack to more than {files.MAX_BYTES:,} bytes" if full else "is a truncated bz2 file"
        raise UserError(f"{file} {what}; download it again.")
    return unpacked


def _row(file: Path, number: int, line: bytes) -> tuple[int, np.ndarray]:
    values = np.full(SIDE * SIDE, -1, np.float32)  # of pixels that are not in the row
    try:
        label, *pairs = map(float, line.replace(b":", b" ").split())
        places = np.array(pairs[::2])
        values[places.astype(np.int64) - 1] = pairs[1::2]
        fits = places.min() >= 1 and 1 <= label <= len(DIGITS) and bool((np.abs(values) <= 1).all())
    except (ValueError, IndexError):
        fits, label = False, 0
    if not fits:
        raise UserError(
            f"{file}, row {number} is not a label from 1 to 10 and pixels 1:value to 256:value from -1 to 1; "
            "download it again."
        )
    return int(label), values
