"""Data sets in MNIST's idx files: Fashion-MNIST, KMNIST, EMNIST, QMNIST, and a user's own.

Fashion-MNIST: H. Xiao et al., 2017. KMNIST: T. Clanuwat et al., 2018. EMNIST: G. Cohen et al., 2017. QMNIST: C. Yadav,
L. Bottou, 2019.
"""

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from handwriting.data import mnist
from handwriting.data.assemble import number_classes, own_path
from handwriting.data.dataset import HandwritingSet, LabelledImages
from handwriting.data.downloads import download_once
from handwriting.data.files import data_root
from handwriting.data.mnist import DIGITS, check_sizes, find_idx_files, read_idx
from handwriting.utils.errors import UserError

CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
SYLLABLES = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
HIRAGANA = tuple("おきすつなはまやれを")
MERGED = (*string.digits, *string.ascii_uppercase, *"abdefghnqrt")  # letters whose two cases look alike are one class
EMNIST = {
    "byclass": (*string.digits, *string.ascii_uppercase, *string.ascii_lowercase),
    "bymerge": MERGED,
    "balanced": MERGED,
    "letters": tuple(string.ascii_lowercase),  # of both cases
    "digits": DIGITS,
    "mnist": DIGITS,
}
QMNIST = {
    "train": ("qmnist-train-images-idx3-ubyte", "qmnist-train-labels-idx2-int"),
    "test": ("qmnist-test-images-idx3-ubyte", "qmnist-test-labels-idx2-int"),
}


@dataclass(frozen=True)
class IdxSet:
    """What differs between the data sets: their files, their classes, and their class in torchvision.datasets."""

    name: str  # for messages
    torchvision: str  # the class, and the folder of its files
    names: tuple[str, ...]
    files: dict[str, tuple[str, str]]
    glyphs: tuple[str, ...] = ()
    first: int = 0  # the smallest label in the files
    transposed: bool = False
    arguments: tuple[dict[str, Any], ...] = ({},)  # of the class, for each download


def read_fashion_mnist(path: str | Path | None = None) -> HandwritingSet:
    """Return Fashion-MNIST: 60,000 training and 10,000 test images of ten kinds of clothes, 28×28.

    ``path`` is as for read_mnist; without it, it is ``HANDWRITING_DATA/FashionMNIST``, downloaded if absent.
    """
    return _read(IdxSet("Fashion-MNIST", "FashionMNIST", CLOTHES, mnist.FILES), path)


def read_kmnist(path: str | Path | None = None) -> HandwritingSet:
    """Return KMNIST: 60,000 training and 10,000 test images of ten cursive hiragana, 28×28.

    ``path`` is as for read_mnist; without it, it is ``HANDWRITING_DATA/KMNIST``, downloaded if absent.
    """
    return _read(IdxSet("KMNIST", "KMNIST", SYLLABLES, mnist.FILES, HIRAGANA), path)


def read_emnist(path: str | Path | None = None, emnist_split: str = "balanced") -> HandwritingSet:
    """Return one of EMNIST's six splits: letters and digits, 28×28, upright (the files have them transposed).

    ``path`` is as for read_mnist; without it, it is ``HANDWRITING_DATA/EMNIST``, downloaded if absent. The download has
    all splits. Raises UserError for an unknown split.
    """
    if emnist_split not in EMNIST:
        raise UserError(f"data.emnist_split={emnist_split} must be one of {', '.join(EMNIST)}.")
    files = {
        split: (f"emnist-{emnist_split}-{split}-images-idx3-ubyte", f"emnist-{emnist_split}-{split}-labels-idx1-ubyte")
        for split in ("train", "test")
    }
    first = 1 if emnist_split == "letters" else 0
    arguments = ({"split": emnist_split},)
    names = EMNIST[emnist_split]
    emnist = IdxSet("EMNIST", "EMNIST", names, files, first=first, transposed=True, arguments=arguments)
    return _read(emnist, path)


def read_qmnist(path: str | Path | None = None) -> HandwritingSet:
    """Return QMNIST: MNIST's 60,000 training images, rebuilt, and 60,000 test images, 28×28.

    ``path`` is as for read_mnist; without it, it is ``HANDWRITING_DATA/QMNIST``, downloaded if absent.
    """
    arguments = ({"what": "train"}, {"what": "test"})
    return _read(IdxSet("QMNIST", "QMNIST", DIGITS, QMNIST, arguments=arguments), path)


def read_idx_files(
    path: str | Path | None = None, class_names: Sequence[object] | None = None, transpose: bool = False
) -> HandwritingSet:
    """Return the images of four idx files with MNIST's names and other classes, in the folder ``path``.

    ``transpose`` exchanges rows and columns; ``class_names`` are those of number_classes.
    """
    root = own_path("idx", path, "DIR, a folder with four idx files")
    found = find_idx_files(root, mnist.FILES, "raw")
    if not found:
        names = ", ".join(name for names in mnist.FILES.values() for name in names)
        raise UserError(f"{root} lacks some of the four files {names}: give them these names, with or without .gz.")
    pairs = {"train": found[:2], "test": found[2:]}
    images = {split: read_idx(pair[0], 3) for split, pair in pairs.items()}
    numbers = {split: read_idx(pair[1], 1).long().numpy() for split, pair in pairs.items()}
    labels, names = number_classes(root, numbers, class_names)
    train, test = (
        _paired(pairs[split], images[split], torch.from_numpy(labels[split]), transpose) for split in ("train", "test")
    )
    check_sizes(train, test, root)
    return HandwritingSet(train, test, names)


def _read(one: IdxSet, path: str | Path | None) -> HandwritingSet:
    root = Path(path).expanduser() if path is not None else data_root() / one.torchvision
    find = partial(find_idx_files, root, one.files, f"{one.torchvision}/raw")
    if not find() and path is None:
        _download(one, root, find)
    found = find()
    if not found:
        raise UserError(
            f"{one.name} is not in {root}: put its four idx files there ({one.files['train'][0]}, …), "
            "leave out data.path to download it, or use data=digits, which needs no files."
        )
    train, test = (_read_split(one, pair) for pair in (found[:2], found[2:]))
    check_sizes(train, test, root)
    return HandwritingSet(train, test, one.names, one.glyphs)


def _download(one: IdxSet, root: Path, find: Callable[[], list[Path]]) -> None:
    import torchvision.datasets  # slow to import, and most runs find the files

    make = getattr(torchvision.datasets, one.torchvision)
    reason = download_once(
        root.parent,
        one.torchvision,
        wanted=f"{one.torchvision}/raw/*-idx?-*[!z]",
        is_there=lambda: bool(find()),
        fetch=lambda folder: [make(folder, download=True, **arguments) for arguments in one.arguments],
        missing=f"{one.name} is not in {root}: downloading it there",
    )
    if reason:
        raise UserError(
            f"{one.name} is not in {root} and could not be downloaded ({reason}): put its four idx files into "
            f"{root / 'raw'}, or use data=digits, which needs no files."
        )


def _read_split(one: IdxSet, pair: Sequence[Path]) -> LabelledImages:
    images = read_idx(pair[0], 3)
    # QMNIST has eight numbers an image: the class, and where the image comes from.
    labels = read_idx(pair[1], 2)[:, 0] if "idx2" in pair[1].name else read_idx(pair[1], 1)
    last = one.first + len(one.names) - 1
    wrong = (labels < one.first) | (labels > last)
    if wrong.any():
        row = int(wrong.nonzero()[0, 0])
        raise UserError(
            f"{pair[1]}, label {row + 1}: the label is {int(labels[row])}, but the classes are {one.first} to {last}; "
            "fix the file or download it again."
        )
    return _paired(pair, images, labels.long() - one.first, one.transposed)


def _paired(pair: Sequence[Path], images: torch.Tensor, labels: torch.Tensor, transpose: bool) -> LabelledImages:
    if len(images) != len(labels):
        raise UserError(
            f"{pair[0]} has {len(images):,} images but {pair[1].name} {len(labels):,} labels: they do not match; "
            "download both again."
        )
    return LabelledImages((images.mT.contiguous() if transpose else images)[:, None], labels)
