"""Image files in a folder for each class, with or without folders train, val and test."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from handwriting.data.assemble import assemble, own_path, renamed
from handwriting.data.checks import say_once
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


class Split(NamedTuple):
    """The image files of a split, their labels, and the files that are not used."""

    files: list[Path]
    labels: list[int]
    others: list[Path]


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
    _check_numbers(root, found, names)
    _say_unused(root, found)
    images = decode_images(root, [file for split in found.values() for file in split.files], image_size, channels)
    parts = images.split([len(split.files) for split in found.values()])
    splits = {
        name: LabelledImages(some, torch.tensor(found[name].labels, dtype=torch.int64))
        for name, some in zip(found, parts, strict=True)
    }
    return renamed(assemble(root, splits, names, test_fraction, test_seed, photographs), class_names, root)


def _split_folders(root: Path) -> dict[str, Path]:
    """Return the folder of each split; without a folder train that holds folders, all is the training set."""
    every = _folders_in(root)
    found = {split: [folder for folder in every if folder.name.lower() in names] for split, names in SPLITS.items()}
    found = {split: folders for split, folders in found.items() if folders}
    only_splits = bool(every) and sum(map(len, found.values())) == len(every)
    listed = ", ".join(sorted(folder.name for folder in every))
    if only_splits and "train" not in found:
        raise UserError(f"{root} has no folder train beside {listed}: the training set is missing.")
    if "train" not in found or not any(map(_folders_in, found["train"])):
        if only_splits:
            train = found["train"][0]
            raise UserError(
                f"{root} has images but no class folders in {train.name}/: sort them into {train / 'CLASS'}, one "
                "folder a class."
            )
        return {"train": root}  # a folder train without folders is a class, such as of vehicles
    if twice := next((folders for folders in found.values() if len(folders) > 1), None):
        names = " and ".join(sorted(folder.name for folder in twice))
        raise UserError(f"{root} has the folders {names} for one split: leave one of them.")
    if unused := sorted(folder.name for folder in every if [folder] not in found.values()):
        say_once(f"{root}: not used, as their names are of no split: {', '.join(unused)}.")
    return {split: folder for split, (folder,) in found.items()}


def _folders_in(folder: Path) -> list[Path]:
    try:
        inner = [one for one in folder.iterdir() if one.is_dir()]
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error.strerror}); check its permissions.") from error
    return [one for one in inner if not _is_hidden(one.name)]


def _sorted(names: set[str]) -> list[str]:
    whole = all(name.isascii() and name.isdigit() for name in names)
    return sorted(names, key=lambda name: (int(name) if whole else 0, name))


def _files_of(folder: Path, names: Sequence[str]) -> Split:
    """Return the files of a split, those of images sorted within each class. An image of no class is not used."""
    split = Split([], [], [file for file in folder.iterdir() if file.is_file() and _is_image(file.name)])
    for label, name in enumerate(names):
        images, others = _files_in(folder / name)
        split.files.extend(sorted(images))
        split.labels.extend([label] * len(images))
        split.others.extend(others)
    return split


def _files_in(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the image files in a folder and in those inside, and the other files; without hidden ones."""
    images: list[Path] = []
    others: list[Path] = []
    for place, inner, names in os.walk(folder):
        inner[:] = [name for name in inner if not _is_hidden(name)]
        for name in names:
            if not _is_hidden(name):
                (images if _is_image(name) else others).append(Path(place, name))
    return images, others


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in ENDINGS and not _is_hidden(name)  # noqa: PTH122 faster than Path


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "__"))


def _check_numbers(root: Path, found: Mapping[str, Split], names: Sequence[str]) -> None:
    endings = ", ".join(sorted(ENDINGS))
    for name, split in found.items():
        if not split.files and any(_is_image(file.name) for file in split.others):
            raise UserError(
                f"{root}: the images of the {name} split are in no class folder: sort them into those of its classes, "
                "or move them elsewhere if their classes are not known."
            )
        if not split.files:
            raise UserError(f"{root} has no images of the {name} split ({endings}).")
    number = sum(len(split.files) for split in found.values())
    if number > MOST_IMAGES:
        raise UserError(f"{root} has {number:,} images, more than {MOST_IMAGES:,}; check data.path.")
    present = {label for split in found.values() for label in split.labels}
    if lacking := [name for label, name in enumerate(names) if label not in present]:
        raise UserError(f"{root}: the class {lacking[0]} has no images ({endings}); remove its folder or fill it.")


def _say_unused(root: Path, found: Mapping[str, Split]) -> None:
    if others := [file for split in found.values() for file in split.others]:
        several = f"{len(others):,} files are" if len(others) > 1 else "1 file is"
        say_once(
            f"{root}: {several} not used, such as {min(others).relative_to(root)} (no image, or in no class folder)."
        )
