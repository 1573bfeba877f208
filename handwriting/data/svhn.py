"""SVHN's cropped digits, 32×32 in colour: http://ufldl.stanford.edu/housenumbers (Y. Netzer et al., 2011)."""

import io
from math import prod
from pathlib import Path

import numpy as np
import scipy.io
import torch

from handwriting.data import files
from handwriting.data.dataset import HandwritingSet, LabelledImages
from handwriting.data.downloads import download_once
from handwriting.data.files import data_root, has_file, read_bytes
from handwriting.data.mnist import DIGITS
from handwriting.utils.errors import UserError

FILES = ("train_32x32.mat", "test_32x32.mat")


def read_svhn(path: str | Path | None = None) -> HandwritingSet:
    """Return SVHN's cropped digits: 73,257 training and 26,032 test images of 0 to 9, 32×32 in colour.

    The digit in the middle counts; parts of others are beside it. ``path`` is a folder with ``train_32x32.mat`` and
    ``test_32x32.mat``. Without ``path`` it is ``HANDWRITING_DATA/SVHN``, and they are downloaded there if absent.
    Raises UserError if they are missing, damaged or something else.
    """
    root = Path(path).expanduser() if path is not None else data_root() / "SVHN"
    if path is None and not _are_in(root):
        _download(root)
    if not _are_in(root):
        raise UserError(
            f"SVHN is not in {root}: put {' and '.join(FILES)} there (http://ufldl.stanford.edu/housenumbers), "
            "leave out data.path to download them, or use data=digits, which needs no files."
        )
    train, test = (_read_split(root / name) for name in FILES)
    return HandwritingSet(train, test, DIGITS, photographs=True)


def _are_in(root: Path) -> bool:
    return all(has_file(root / name) for name in FILES)


def _download(root: Path) -> None:
    from torchvision.datasets import SVHN  # slow to import, and most runs find the files

    reason = download_once(
        root.parent,
        root.name,
        wanted=f"{root.name}/*.mat",
        is_there=lambda: _are_in(root),
        fetch=lambda folder: [SVHN(str(Path(folder) / root.name), split, download=True) for split in ("train", "test")],
        missing=f"SVHN is not in {root}: downloading it there",
    )
    if reason:
        raise UserError(
            f"SVHN is not in {root} and could not be downloaded ({reason}): "
            f"put {' and '.join(FILES)} there, or use data=digits, which needs no files."
        )


def _read_split(file: Path) -> LabelledImages:
    content = read_bytes(file, "MATLAB file")
    try:
        listed = {name: (shape, kind) for name, shape, kind in scipy.io.whosmat(io.BytesIO(content))}
        _check_promises(file, listed)
        loaded = scipy.io.loadmat(io.BytesIO(content), variable_names=["X", "y"])
    except UserError:
        raise
    except Exception as error:  # scipy raises many kinds of errors for damaged and other files
        raise UserError(f"{file} is truncated or not SVHN's ({type(error).__name__}); download it again.") from error
    images, labels = loaded["X"], np.ravel(loaded["y"])
    if len(labels) != images.shape[3]:
        raise UserError(f"{file} has {images.shape[3]:,} images but {len(labels):,} labels; download it again.")
    if (bad := np.flatnonzero(~np.isin(labels, range(11)))).size:
        raise UserError(
            f"{file}, label {bad[0] + 1}: the label is {labels[bad[0]]}, but the digits are 0 to 9, and 10 for 0."
        )
    pixels = np.ascontiguousarray(images.transpose(3, 2, 0, 1))
    return LabelledImages(torch.from_numpy(pixels), torch.from_numpy(labels.astype(np.int64) % 10))


def _check_promises(file: Path, listed: dict[str, tuple[tuple[int, ...], str]]) -> None:
    """Check what the header of a file says: a small compressed file may be huge when decompressed."""
    if lacking := {"X", "y"} - listed.keys():
        raise UserError(f"{file} has no key {min(lacking)!r}, only {', '.join(sorted(listed))}; download it again.")
    shape, kind = listed["X"]
    if kind != "uint8" or len(shape) != 4 or shape[2] != 3 or not prod(shape):
        raise UserError(f"{file}: 'X' is {kind} {shape}, but uint8 (height, width, 3, images) is expected.")
    if prod(shape) + 8 * prod(listed["y"][0]) > files.MAX_BYTES:
        raise UserError(f"{file} would unpack to more than {files.MAX_BYTES:,} bytes; this is not SVHN.")
