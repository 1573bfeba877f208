"""The character set made from Omniglot, and the names of its classes (B. Lake, R. Salakhutdinov, J. Tenenbaum, 2015).

The published 200 classes are the first 200 characters of seven of its alphabets. ``omniglot.json`` lists the character
of each class and the order of its twenty drawers.
"""

import io
import json
import random
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from handwriting.data.downloads import download_once
from handwriting.data.files import read_bytes
from handwriting.data.mat import LARGEST_IMAGE, shrink
from handwriting.utils.errors import UserError, did_you_mean

RECIPE = Path(__file__).with_name("omniglot.json")
FOLDER = "omniglot-py"  # torchvision's name for it
HALVES = ("images_background", "images_evaluation")
DRAWERS = 20


@dataclass(frozen=True)
class Character:
    """A class: a character of an alphabet, its number there from 1, its glyph or '', and the order of its drawers."""

    alphabet: str
    number: int
    glyph: str
    drawers: tuple[int, ...]

    @property
    def name(self) -> str:
        """Return its name, such as ``Sanskrit 1``."""
        return f"{self.alphabet.replace('_', ' ')} {self.number}"


@cache
def published_characters() -> tuple[Character, ...]:
    """Return the 200 classes of the published set, in its order."""
    recipe = json.loads(RECIPE.read_text(encoding="utf-8"))
    return tuple(
        Character(row["alphabet"], row["character"], row["glyph"], tuple(row["drawers"])) for row in recipe["classes"]
    )


def characters_of(alphabets: Sequence[str], root: Path) -> list[Character]:
    """Return every character of the alphabets, as stored in ``root``.

    Characters of the published set keep their glyph and the order of their drawers. The drawers of others are shuffled,
    always in the same way. Raises UserError for an unknown alphabet.
    """
    published = {(character.alphabet, character.number): character for character in published_characters()}
    characters = []
    for alphabet in dict.fromkeys(alphabets):
        for folder in sorted(_find(alphabet, root).glob("character*")):
            number = _number(folder)
            order = list(range(1, DRAWERS + 1))
            random.Random(f"{alphabet}/{number}").shuffle(order)
            fresh = Character(alphabet, number, "", tuple(order))
            characters.append(published.get((alphabet, number), fresh))
    if not characters:
        raise UserError(f"{', '.join(alphabets) or 'No alphabet'}: no folder character01 was found; download it again.")
    return characters


def build_arrays(characters: Sequence[Character], train: int, root: Path) -> dict[str, np.ndarray]:
    """Return ``train`` and ``test``, uint8 (classes, examples, 28, 28), dark on white as in the notebook's file.

    The first ``train`` drawers of each class, 1 to 19, are for training. Raises UserError if an image of Omniglot is
    missing or damaged.
    """
    images = np.stack([[_read(character, drawer, root) for drawer in character.drawers] for character in characters])
    return {"train": images[:, :train], "test": images[:, train:]}


def fetch(alphabets: Sequence[str], root: Path) -> None:
    """Download what is missing of Omniglot into ``root``, in torchvision's layout.

    Raises UserError if it cannot be downloaded, or lacks one of the alphabets.
    """
    for half in HALVES:
        missing = [alphabet for alphabet in alphabets if not _has(alphabet, root)]
        if not missing:
            return
        _download(half, root, missing)
    for alphabet in alphabets:
        _find(alphabet, root)


def _download(half: str, root: Path, missing: Sequence[str]) -> None:
    from torchvision.datasets import Omniglot  # slow to import, and most runs find the files

    what = f"Omniglot's {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not in {root / FOLDER}"
    reason = download_once(
        root,
        FOLDER,
        wanted=f"{FOLDER}/{half}/*",
        is_there=lambda: all(_has(alphabet, root) for alphabet in missing),
        fetch=lambda folder: Omniglot(folder, background=half == HALVES[0], download=True),
        missing=f"{what}: downloading {half} there",
    )
    if reason:
        raise UserError(
            f"{what} and could not be downloaded ({reason}): put its folders into {root / FOLDER / HALVES[0]}, "
            "set HANDWRITING_DATA to their folder, or use data=digits, which needs no files."
            f"{_hint(missing, root)}"
        )


def _has(alphabet: str, root: Path) -> bool:
    return any((root / FOLDER / half / alphabet).is_dir() for half in HALVES)


def _find(alphabet: str, root: Path) -> Path:
    for half in HALVES:
        folder = root / FOLDER / half / alphabet
        if alphabet and folder.is_dir() and folder.parent == root / FOLDER / half:
            return folder
    known = _known(root)
    raise UserError(
        f"Omniglot in {root / FOLDER} has no alphabet {alphabet!r}, only {', '.join(known) or 'none at all'}."
        f"{did_you_mean(alphabet, known)}"
    )


def _hint(missing: Sequence[str], root: Path) -> str:
    known = [*_known(root), *(character.alphabet for character in published_characters())]
    misspelt = [alphabet for alphabet in missing if alphabet not in known]
    return did_you_mean(misspelt[0], known) if misspelt else ""


def _known(root: Path) -> list[str]:
    return [entry.name for half in HALVES for entry in sorted((root / FOLDER / half).glob("*")) if entry.is_dir()]


def _number(folder: Path) -> int:
    try:
        number = int(folder.name.removeprefix("character"))
        if folder.name != f"character{number:02d}":
            raise ValueError(folder.name)
        return number
    except ValueError as error:
        raise UserError(
            f"{folder} is not a folder of Omniglot: its folders are called character01, character02, …."
        ) from error


def _read(character: Character, drawer: int, root: Path) -> np.ndarray:
    folder = _find(character.alphabet, root) / f"character{character.number:02d}"
    found = sorted(folder.glob(f"*_{drawer:02d}.png"))
    if not found:
        raise UserError(f"{folder} has no image of drawer {drawer} (*_{drawer:02d}.png): {_remedy(root)}.")
    content = io.BytesIO(read_bytes(found[0], "PNG of Omniglot"))
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(content) as image:
            if max(image.size) > LARGEST_IMAGE:
                raise UserError(f"{found[0]} is {image.width}×{image.height}; Omniglot's are 105×105.")
            return shrink(image.convert("L"))
    except (
        OSError,
        SyntaxError,
        ValueError,
        Image.DecompressionBombError,
    ) as error:  # Pillow's errors for a damaged PNG
        raise UserError(f"{found[0]} is damaged or not a PNG ({type(error).__name__}): {_remedy(root)}.") from error


def _remedy(root: Path) -> str:
    return f"remove {root / FOLDER}, so that Omniglot is downloaded again"
