"""Image files in a folder for each class, with or without folders train, val and test."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from handwriting.data.assemble import assemble, own_path, renamed
from handwriting.data.dataset import HandwritingSet, LabelledImages
from handwriting.data.encoded import decode_images
from handwriting.data.photographs import ENDINGS
from handwriting.utils.errors import UserError

SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
MOST_IMAGES = 2_000_000


def read_folder(
    path: str | Path | None = None,
    image_size: Sequence[int] | None = None,
    channels: int | None = None,
    test_fraction: float = 0.2,
    test_seed: int = 0,
    class_names: Sequence[object] | None = None,
    photographs: bool = False,
) -> HandwritingSet:
    """Return the images of ``path``/CLASS/*.png, or of ``path``/train/CLASS/*.png and so for val and test.

    The classes are the names of the folders, in alphabetical order, or by their value if all are whole numbers;
    ``class_names`` replaces them. Images may lie in folders inside. ``image_size`` and ``channels`` are those of
    decode_images, ``test_fraction``, ``test_seed`` and ``photographs`` those of assemble. Raises UserError if there are
    no images, a class has none, or one is damaged.
    """
    root = own_path("folder", path, "DIR, a folder with a folder of images for each class")
    if not root.is_dir():
        raise UserError(f"{root} is a file: give its folder, or read .npz, .mat and .parquet with data=file.")
    folders = _split_folders(root)
    names = _sorted({one.name for folder in folders.values() for one in _folders_in(folder)})
    if not names:
        raise UserError(f"{root} has no folder for each class: put images into {root / 'CLASS'}, one folder a class.")
    found = {split: _files_of(folder, names) for split, folder in folders.items()}
    sources = [file for files, _ in found.values() for file in files]
    _check_numbers(root, found, names)
    images = decode_images(root, sources, image_size, channels)
    splits, begin = {}, 0
    for split, (files, labels) in found.items():
        splits[split] = LabelledImages(images[begin : begin + len(files)], torch.tensor(labels, dtype=torch.int64))
        begin += len(files)
    return renamed(assemble(root, splits, names, test_fraction, test_seed, photographs), class_names, root)


def _split_folders(root: Path) -> dict[str, Path]:
    """Return the folder of each split; without a folder train that holds folders, all is the training set."""
    by_name = {folder.name.lower(): folder for folder in _folders_in(root)}
    found = {split: by_name[name] for split, names in SPLITS.items() for name in names if name in by_name}
    if "train" in found and _folders_in(found["train"]):  # without any it is a class, such as of vehicles
        return found
    if found and "train" not in found and len(found) == len(by_name):
        raise UserError(f"{root} has no folder train beside {', '.join(sorted(by_name))}: the training set is missing.")
    return {"train": root}


def _folders_in(folder: Path) -> list[Path]:
    try:
        inner = [one for one in folder.iterdir() if one.is_dir()]
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error.strerror}); check its permissions.") from error
    return [one for one in inner if not _is_hidden(one.name)]


def _sorted(names: set[str]) -> list[str]:
    whole = all(name.isascii() and name.isdigit() for name in names)
    return sorted(names, key=lambda name: (int(name) if whole else 0, name))


def _files_of(folder: Path, names: Sequence[str]) -> tuple[list[Path], list[int]]:
    """Return the image files of a split, sorted within each class, and their labels."""
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        own = sorted(_images_in(folder / name))
        files += own
        labels += [label] * len(own)
    return files, labels


def _images_in(folder: Path) -> Iterator[Path]:
    """Yield the image files in a folder and in those inside, without hidden ones."""
    for place, inner, names in os.walk(folder):
        inner[:] = [name for name in inner if not _is_hidden(name)]
        for name in names:
            if os.path.splitext(name)[1].lower() in ENDINGS and not _is_hidden(name):  # noqa: PTH122 faster than Path
                yield Path(place, name)


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "__"))


def _check_numbers(root: Path, found: dict[str, tuple[list[Path], list[int]]], names: Sequence[str]) -> None:
    endings = ", ".join(sorted(ENDINGS))
    for split, (files, _) in found.items():
        if not files:
            raise UserError(f"{root} has no images of the {split} split ({endings}).")
    number = sum(len(files) for files, _ in found.values())
    if number > MOST_IMAGES:
        raise UserError(f"{root} has {number:,} images, more than {MOST_IMAGES:,}; check data.path.")
    present = {label for _, labels in found.values() for label in labels}
    if lacking := [name for label, name in enumerate(names) if label not in present]:
        raise UserError(f"{root}: the class {lacking[0]} has no images ({endings}); remove its folder or fill it.")
