"""The characters of the notebook: 200 classes of Omniglot with 15 training and 5 test images each.

python -m handwriting.data.characters --out FILE.mat builds that file, or one of other alphabets.
"""

import argparse
import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scipy.io
import torch

from handwriting.data import omniglot
from handwriting.data.checks import say_once
from handwriting.data.dataset import HandwritingSet, LabelledImages
from handwriting.data.downloads import not_written, one_process
from handwriting.data.files import data_root, has_file, in_utf8, read_bytes
from handwriting.data.mat import read_mat
from handwriting.utils.errors import UserError, check_whole, exit_on_bad_input
from handwriting.utils.files import write_bytes

LABELS = "labels.tsv"
TRAIN_IMAGES = 15


def read_characters(
    path: str | Path | None = None,
    redundant: str = "keep",
    redundant_groups: Sequence[Sequence[int]] = (),
) -> HandwritingSet:
    """Return the characters of a .mat file whose ``train`` and ``test`` are (classes, examples, height, width).

    Without ``path`` it is ``HANDWRITING_DATA/characters/characters.mat``, which is built from Omniglot if it does not
    exist. ``redundant`` says how to treat duplicate classes, the groups of which are in ``redundant_groups``:
    ``keep`` them, ``drop`` all but the first of a group, or ``merge`` them under one label. The published set has 200
    classes, 15 training and 5 test images each, dark on white.
    """
    file = Path(path).expanduser() if path is not None else data_root() / "characters" / "characters.mat"
    if not has_file(file):
        if file.is_dir():
            raise UserError(f"{file} is a folder; give a .mat file in it with data.path=.")
        if path is not None:
            raise UserError(
                f"{file} does not exist: put the character set there, leave out data.path to build it from Omniglot, "
                "or use data=digits, which needs no files."
            )
        _build_published(file)
    arrays, texts = read_mat(file)
    names, glyphs = _names(file, len(arrays["train"]), texts)
    train, test = (_flatten(arrays[key]) for key in ("train", "test"))
    return _without_redundant(HandwritingSet(train, test, names, glyphs), redundant, redundant_groups, file)


def write_characters(file: Path, characters: Sequence[omniglot.Character], train: int) -> dict[str, np.ndarray]:
    """Write a set of Omniglot's characters as a .mat file with its names and glyphs inside, and return its images."""
    arrays = omniglot.build_arrays(characters, train, data_root())
    names = np.array([character.name for character in characters], dtype=object)
    glyphs = np.array([character.glyph for character in characters], dtype=object)
    content = io.BytesIO()
    scipy.io.savemat(content, {**arrays, "names": names, "glyphs": glyphs}, do_compression=True)
    try:
        write_bytes(file, content.getvalue())
    except OSError as error:
        raise not_written(file, error) from error
    return arrays


def _build_published(file: Path) -> None:
    characters = omniglot.published_characters()
    with one_process(data_root(), "characters"):
        if has_file(file):
            return
        omniglot.fetch(list(dict.fromkeys(character.alphabet for character in characters)), data_root())
        write_characters(file, characters, TRAIN_IMAGES)
    say_once(f"{file} was built from Omniglot.")


def _names(file: Path, classes: int, texts: dict[str, list[str]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return names and glyphs from the file, else from a labels.tsv beside it, else numbers."""
    names, glyphs = texts.get("names", []), texts.get("glyphs", [])
    beside = file.with_name(LABELS)
    if not names and has_file(beside):
        names, glyphs = _read_labels(beside)
    if len(names) != classes or len(set(names)) != classes:
        if names:
            say_once(f"{file}: it has {len(names)} names for {classes} classes; numbers are used instead.")
        return tuple(str(label) for label in range(classes)), ()
    return tuple(names), tuple(glyphs) if len(glyphs) == classes else ()


def _read_labels(file: Path) -> tuple[list[str], list[str]]:
    """Read a table with the columns index, alphabet, character and glyph."""
    text = in_utf8(read_bytes(file, "table of labels")).decode("utf-8", "replace")
    rows = csv.DictReader(io.StringIO(text), delimiter="\t")
    try:
        table = sorted(((int(row["index"]), row) for row in rows), key=lambda pair: pair[0])
        if [index for index, _ in table] != list(range(len(table))):
            raise ValueError("an index is missing or duplicated")
        names = [" ".join((row["alphabet"].replace("_", " "), row["character"])) for _, row in table]
        return names, [row["glyph"] or "" for _, row in table]
    except (KeyError, TypeError, ValueError, AttributeError, csv.Error) as error:
        raise UserError(
            f"{file} must have the columns index, alphabet, character and glyph, separated by tabs."
        ) from error


def _flatten(array: np.ndarray) -> LabelledImages:
    """(classes, examples, 28, 28) → (classes × examples, 1, 28, 28) and their labels."""
    classes, examples, height, width = array.shape
    images = torch.from_numpy(array.reshape(-1, 1, height, width))
    return LabelledImages(images, torch.arange(classes).repeat_interleave(examples))


def _without_redundant(
    whole: HandwritingSet, redundant: str, groups: Sequence[Sequence[int]], file: Path
) -> HandwritingSet:
    if redundant not in ("keep", "drop", "merge"):
        raise UserError(f"data.redundant={redundant} must be keep, drop or merge.")
    if redundant == "keep":
        return whole
    first = _first_of_group(groups, len(whole.class_names), file)
    kept = sorted(set(first))
    labels = torch.tensor([kept.index(label) for label in first])

    def relabel(dataset: LabelledImages) -> LabelledImages:
        if redundant == "drop":
            dataset = dataset[torch.isin(dataset.labels, torch.tensor(kept))]
        return LabelledImages(dataset.images, labels[dataset.labels])

    def joined(texts: Sequence[str]) -> tuple[str, ...]:
        groups_of = {label: [i for i, other in enumerate(first) if other == label] for label in kept}
        together = {label: members if redundant == "merge" else [label] for label, members in groups_of.items()}
        return tuple("/".join(dict.fromkeys(texts[i] for i in together[label] if texts[i])) for label in kept)

    names, glyphs = joined(whole.class_names), joined(whole.glyphs) if whole.glyphs else ()
    return HandwritingSet(relabel(whole.train), relabel(whole.test), names, glyphs)


def _first_of_group(groups: Sequence[Sequence[int]], classes: int, file: Path) -> list[int]:
    """Return for each class the first one of its group, or itself if it is in none."""
    first = list(range(classes))
    try:
        members = [label for group in groups for label in group]
    except TypeError as error:
        raise UserError(f"data.redundant_groups={groups} must be a list of lists, such as [[0,81],[27,39]].") from error
    for label in members:
        if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < classes:
            raise UserError(
                f"data.redundant_groups names class {label}, but {file} has the classes 0 to {classes - 1}: "
                "give the groups of that file, or data.redundant=keep."
            )
        if members.count(label) > 1:
            raise UserError(f"data.redundant_groups names class {label} twice; each belongs to one group.")
    for group in groups:
        for label in group:
            first[label] = group[0]
    return first


def main(arguments: Sequence[str] | None = None) -> None:
    """Build a .mat file from Omniglot; exit code 2 if that is not possible."""
    parser = argparse.ArgumentParser(
        prog="python -m handwriting.data.characters",
        description="Build a character set from Omniglot in HANDWRITING_DATA, which is downloaded if it is missing.",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="FILE.mat", help="the file to write")
    parser.add_argument(
        "--alphabets", nargs="+", metavar="NAME", help="such as Sanskrit Tagalog; default: the 200 published classes"
    )
    parser.add_argument("--train", type=int, default=TRAIN_IMAGES, help="training images per class, of 20 (default 15)")
    with exit_on_bad_input():
        options = parser.parse_args(arguments)
    with exit_on_bad_input(options.out):
        if options.out.exists():
            raise UserError(f"{options.out} exists already; give another file with --out, or remove it first.")
        check_whole("--train", options.train, at_least=1, at_most=omniglot.DRAWERS - 1)
        published = omniglot.published_characters()
        alphabets = options.alphabets or list(dict.fromkeys(character.alphabet for character in published))
        omniglot.fetch(alphabets, data_root())
        characters = omniglot.characters_of(alphabets, data_root()) if options.alphabets else published
        arrays = write_characters(options.out, characters, options.train)
        train, test = arrays["train"].shape[1], arrays["test"].shape[1]
        print(f"{options.out}: {len(characters)} classes, {train} training and {test} test images each, 28×28.")


if __name__ == "__main__":
    main()
