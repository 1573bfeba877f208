"""MNIST from its idx files: http://yann.lecun.com/exdb/mnist (Y. LeCun, C. Cortes, C. Burges)."""

from collections.abc import Mapping
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from handwriting.data.dataset import HandwritingSet, LabelledImages, check_labels
from handwriting.data.downloads import download_once
from handwriting.data.files import data_root, find_file, read_bytes
from handwriting.utils.errors import UserError

DIGITS = tuple("0123456789")
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
# 0x08: unsigned bytes, 0x0C: 32-bit integers; the last digit is the number of dimensions.
MAGIC = {1: 0x801, 2: 0xC02, 3: 0x803}
WIDTH = {1: 1, 2: 4, 3: 1}  # bytes of a number


def read_idx(path: Path, dimensions: int) -> Tensor:
    """Return an idx file as a uint8 tensor of 1 (labels) or 3 (images, rows, columns) dimensions.

    With 2 dimensions (images, numbers) it is int32, as QMNIST's labels are.

    Raises UserError if the magic number is wrong, or the size of the file contradicts its header.
    """
    content = read_bytes(path, "MNIST idx file")
    words = [int.from_bytes(content[i : i + 4], "big") for i in range(0, 4 * (1 + dimensions), 4)]
    if words[0] != MAGIC[dimensions]:
        raise UserError(
            f"{path} begins with the magic number {words[0]}, not {MAGIC[dimensions]}: "
            f"it is not an idx file of {'images' if dimensions == 3 else 'labels'}; download it again."
        )
    header, shape = 4 * (1 + dimensions), words[1:]
    promised = header + prod(shape) * WIDTH[dimensions]
    if len(content) != promised:
        raise UserError(
            f"{path} has {len(content):,} bytes, but its header promises {promised:,} "
            f"({' × '.join(map(str, shape))}): it is truncated or damaged; download it again."
        )
    if not prod(shape):
        raise UserError(f"{path} has no {'images' if dimensions == 3 else 'labels'}; download it again.")
    if dimensions == 2:
        return torch.from_numpy(np.frombuffer(content, ">i4", offset=header).astype(np.int32)).reshape(shape)
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=header).reshape(shape)


def read_mnist(path: str | Path | None = None) -> HandwritingSet:
    """Return MNIST: 60,000 training and 10,000 test images of the digits 0-9, 28×28.

    ``path`` is a folder with the four idx files, or one in torchvision's layout (``MNIST/raw`` in it). They may be
    compressed (``.gz``), and be called ``train-images.idx3-ubyte`` as well. Without ``path`` the
    folder is ``HANDWRITING_DATA``, and MNIST is downloaded there if it is absent.
    """
    root = Path(path).expanduser() if path is not None else data_root()
    found = find_idx_files(root, FILES, "MNIST/raw")
    if not found and path is None:
        _download(root)
        found = find_idx_files(root, FILES, "MNIST/raw")
    if not found:
        raise UserError(
            f"MNIST is not in {root}: put its four idx files there ({FILES['train'][0]}, …), "
            "leave out data.path to download it, or use data=digits, which needs no files."
        )
    train, test = _read_split(*found[:2]), _read_split(*found[2:])
    check_sizes(train, test, root)
    return HandwritingSet(train, test, DIGITS)


def find_idx_files(root: Path, files: Mapping[str, tuple[str, str]], inner: str) -> list[Path]:
    """Return the four files, in the order of ``files``, of the first folder that has them all; [] where none has.

    The folders are ``root``, ``raw`` in it, and ``inner`` in it.
    """
    names = [name for names in files.values() for name in names]
    for folder in (root, root / "raw", root / inner):
        found = [path for name in names if (path := find_file(folder, name, name.replace("-idx", ".idx")))]
        if len(found) == len(names):
            return found
    return []


def check_sizes(train: LabelledImages, test: LabelledImages, root: Path) -> None:
    """Raise UserError if training and test images differ in size."""
    if train.images.shape[1:] != test.images.shape[1:]:
        sizes = ("×".join(map(str, split.images.shape[2:])) for split in (train, test))
        raise UserError(f"{root}: its training images are {' but its test images '.join(sizes)}; download all again.")


def _download(root: Path) -> None:
    from torchvision.datasets import MNIST  # slow to import, and most runs find the files

    reason = download_once(
        root,
        "MNIST",
        wanted="MNIST/raw/*-ubyte",
        is_there=lambda: bool(find_idx_files(root, FILES, "MNIST/raw")),
        fetch=lambda folder: MNIST(folder, download=True),
        missing=f"MNIST is not in {root}: downloading it there",
    )
    if reason:
        raise UserError(
            f"MNIST is not in {root} and could not be downloaded ({reason}): "
            f"put its four idx files into {root / 'MNIST' / 'raw'} or set HANDWRITING_DATA to their folder, "
            "or use data=digits, which needs no files."
        )


def _read_split(images_path: Path, labels_path: Path) -> LabelledImages:
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1).long()
    if len(images) != len(labels):
        raise UserError(
            f"{images_path} has {len(images):,} images but {labels_path.name} {len(labels):,} labels: "
            "they do not match; download both again."
        )
    check_labels(labels, len(DIGITS), labels_path, "label")
    return LabelledImages(images.unsqueeze(1), labels)
