"""House numbers in photographs: the Tianchi contest's files, or SVHN's own (Y. Netzer et al., 2011).

The contest's photographs are SVHN's: its mchar_train are those of SVHN's train/, its mchar_val are the first 10,000 of
test/. http://ufldl.stanford.edu/housenumbers; for non-commercial research.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from handwriting.data.checks import say_once
from handwriting.data.dataset import END, HandwritingSet, LabelledImages
from handwriting.data.digit_struct import KEYS, read_digit_struct
from handwriting.data.files import data_root, has_file, in_utf8, read_bytes
from handwriting.data.mnist import DIGITS
from handwriting.data.photographs import decode, fit_to
from handwriting.utils.errors import UserError

CONTEST = ("mchar_train", "mchar_val")
DIGIT_STRUCT = "digitStruct.mat"
FARTHEST = 1e6  # pixels; a box that is farther away is a mistake

Listed = tuple[Path, Path]  # the file of the labels, and the folder of its images


class Number(NamedTuple):
    """A photograph with its digits in any order: lists of their labels, left, top, width and height, by KEYS."""

    path: Path
    where: str  # for messages: the file of the labels, and the image in it
    digits: dict[str, list[float]]


def read_street(
    path: str | Path | None = None,
    image_size: tuple[int, int] = (64, 160),
    extra: bool = False,
    crop: bool = False,
    margin: float = 0.15,
) -> HandwritingSet:
    """Return house numbers with the boxes of their digits, in photographs that are letterboxed to ``image_size``.

    ``path`` is a folder of the contest (``mchar_train`` and ``mchar_val``, which is the test set, with their JSON files
    beside or inside them), or of SVHN (``train`` and ``test`` with their ``digitStruct.mat``, and ``extra``, on which
    ``extra`` also trains). Without ``path`` it is ``HANDWRITING_DATA/street``.

    Boxes are clamped to the photograph, and the digits are in the order of their boxes' centres, left to right. With
    ``crop`` each photograph is first cut out by the union of its boxes, enlarged on each side by ``margin``, a fraction
    of its width and height (I. Goodfellow et al., 2013, arXiv:1312.6082). This uses the true boxes of the test images
    as well: accuracies are not comparable with those of whole photographs.

    Images that a digitStruct.mat lists but that are not there are left out. Raises UserError if the folder or an image
    of the contest is missing, or a file is damaged.
    """
    root = Path(path).expanduser() if path is not None else data_root() / "street"
    size = (int(image_size[0]), int(image_size[1]))
    train, test = (
        [number for labels, folder in listed for number in _read_numbers(labels, folder)]
        for listed in _find(root, extra)
    )
    length = max(len(number.digits["label"]) for number in train + test)
    load = partial(_load, length=length, size=size, margin=margin if crop else None)
    return HandwritingSet(load(train), load(test), DIGITS, photographs=True)


def _find(root: Path, extra: bool) -> tuple[list[Listed], list[Listed]]:
    """Return the files of labels and the folders of the training set, and those of the test set."""
    if (root / CONTEST[0]).is_dir():
        if extra:
            raise UserError(
                f"data.extra=true needs SVHN's own files, but {root} has those of the contest: leave it out."
            )
        train, test = ((_json_of(root / name), root / name) for name in CONTEST)
        return [train], [test]
    if (root / "train").is_dir():
        train, test, *more = (
            (root / name / DIGIT_STRUCT, root / name) for name in ("train", "test", *["extra"] * extra)
        )
        return [train, *more], [test]
    raise UserError(
        f"House numbers are not in {root}: put mchar_train, mchar_val and their JSON files there (Tianchi contest "
        f"531795), or train and test with their {DIGIT_STRUCT} (http://ufldl.stanford.edu/housenumbers), give their "
        "folder with data.path=, or use data=street_demo, which needs no files."
    )


def _json_of(folder: Path) -> Path:
    beside, inside = folder.with_name(f"{folder.name}.json"), folder / f"{folder.name}.json"
    return inside if has_file(inside) else beside


def _read_numbers(file: Path, folder: Path) -> list[Number]:
    """Return the numbers of the images that a file lists and that are in a folder."""
    entries = read_digit_struct(file) if file.name == DIGIT_STRUCT else _read_json(file)
    try:
        there = {path.name for path in folder.iterdir()}
    except OSError as error:
        raise UserError(
            f"{folder} cannot be read ({error.strerror}); the images of {file} are expected there."
        ) from error
    missing = [name for name in entries if name not in there]
    if len(missing) == len(entries):
        raise UserError(f"{file} lists {len(entries):,} images, and none of them is in {folder}: unpack them there.")
    if missing and file.name != DIGIT_STRUCT:
        raise UserError(f"{folder / missing[0]} does not exist, but {file} lists it: unpack the images again.")
    if missing:
        say_once(f"{file}: {len(missing):,} of the {len(entries):,} images that it lists are missing and are left out.")
    numbers = [Number(folder / name, f"{file}, image {name}", entries[name]) for name in entries if name in there]
    for number in numbers:
        _check_digits(number.where, number.digits)
    return numbers


def _read_json(file: Path) -> dict[str, Any]:
    try:
        entries = json.loads(in_utf8(read_bytes(file, "JSON file of labels")))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is not a JSON file ({error}); download it again.") from error
    if not isinstance(entries, dict):
        raise UserError(
            f"{file} must map the names of images to {', '.join(KEYS)}, but it is a {type(entries).__name__}."
        )
    return entries


def _check_digits(where: str, digits: Any) -> None:
    for key in KEYS:
        if not isinstance(digits, dict) or key not in digits:
            raise UserError(f"{where}: it has no {key!r}; {', '.join(KEYS)} are needed.")
        values = digits[key]
        if not isinstance(values, list) or not all(isinstance(one, (int, float)) for one in values):
            raise UserError(f"{where}: its {key!r} is not a list of numbers, but {str(values)[:60]}.")
        if len(values) != len(digits[KEYS[0]]):
            raise UserError(
                f"{where}: it has {len(digits[KEYS[0]])} values of {KEYS[0]!r}, but {len(values)} of {key!r}; "
                "each digit needs one."
            )
        if not all(abs(one) < FARTHEST for one in values):
            raise UserError(f"{where}: its {key!r} is {str(values)[:60]}, which lies in no photograph.")
    if not digits["label"]:
        raise UserError(f"{where}: it has no digit; remove it from the file.")
    for label in digits["label"]:
        if label not in range(11):
            raise UserError(f"{where}: the label is {label:g}, but the digits are 0 to 9, and 10 for 0.")


def _load(numbers: list[Number], length: int, size: tuple[int, int], margin: float | None) -> LabelledImages:
    """Return numbers as images with labels, padded to ``length``, and boxes; cropped if there is a margin."""
    is_digit = np.arange(length) < np.array([len(number.digits["label"]) for number in numbers])[:, None]
    flat = {key: np.array([one for number in numbers for one in number.digits[key]], float) for key in KEYS}
    left, top = flat["left"], flat["top"]
    labels, boxes = np.full(is_digit.shape, END), np.zeros((*is_digit.shape, 4))
    labels[is_digit] = flat["label"] % 10
    boxes[is_digit] = np.stack([left, top, left + flat["width"], top + flat["height"]], axis=1)

    wanted = None if margin is None else _around(boxes, is_digit, margin)
    images, windows = decode([number.path for number in numbers], size, wanted)
    corner, other = np.tile(windows[:, None, :2], 2), np.tile(windows[:, None, 2:], 2)
    boxes = boxes.clip(corner, other) - corner
    _check_areas(numbers, boxes, is_digit)
    order = np.where(is_digit, boxes[..., 0] + boxes[..., 2], np.inf).argsort(axis=1, kind="stable")
    labels, boxes = np.take_along_axis(labels, order, 1), np.take_along_axis(boxes, order[..., None], 1)
    for row, (left, top, right, bottom) in enumerate(windows.tolist()):
        boxes[row] = fit_to((bottom - top, right - left), size).to_input(boxes[row])
    boxes[~is_digit] = 0
    return LabelledImages(torch.from_numpy(images), torch.from_numpy(labels), torch.from_numpy(boxes).float())


def _around(boxes: np.ndarray, is_digit: np.ndarray, margin: float) -> np.ndarray:
    """Return the union of each number's boxes, enlarged on each side by a fraction of its size, in whole pixels."""
    corner = np.where(is_digit[..., None], boxes[..., :2], np.inf).min(1)
    other = np.where(is_digit[..., None], boxes[..., 2:], -np.inf).max(1)
    more = margin * (other - corner)
    return np.concatenate([np.floor(corner - more), np.ceil(other + more)], axis=1).astype(np.int64)


def _check_areas(numbers: list[Number], boxes: np.ndarray, is_digit: np.ndarray) -> None:
    empty = is_digit & (boxes[..., 2:] <= boxes[..., :2]).any(-1)
    if empty.any():
        row, digit = np.argwhere(empty)[0]
        box = ", ".join(f"{key} {numbers[row].digits[key][digit]:g}" for key in ("left", "top", "width", "height"))
        raise UserError(
            f"{numbers[row].where}: the box of digit {digit + 1} has no area inside the photograph ({box}); "
            "correct it in the file."
        )
