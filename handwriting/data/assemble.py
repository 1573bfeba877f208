"""HandwritingSet from the splits of a user's own files: a test set is split off if there is none, classes get names."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from handwriting.data.checks import say_once
from handwriting.data.dataset import HandwritingSet, LabelledImages
from handwriting.data.splits import Stratum, split_holdout
from handwriting.utils.errors import UserError

MOST_CLASSES = 10_000  # more are labels of something else, such as row numbers


def own_path(choice: str, path: str | Path | None, example: str) -> Path:
    """Return the path of a user's own data. Raises UserError if none is given, or if it does not exist."""
    if path is None:
        raise UserError(f"data={choice} needs the place of your data: add data.path={example}.")
    found = Path(path).expanduser()
    if not found.exists():
        raise UserError(f"{found} does not exist: set data.path to the place of your data.")
    return found


def assemble(
    source: Path,
    splits: Mapping[str, LabelledImages],
    names: Sequence[str],
    test_fraction: float,
    test_seed: int,
    photographs: bool = False,
) -> HandwritingSet:
    """Return a data set of the splits ``train``, and ``val`` and ``test`` if they are known.

    Without ``test`` the fraction ``test_fraction`` of the training set is the test set, stratified by class; the same
    for the same ``test_seed``. ``photographs`` is that of HandwritingSet. Raises UserError if images of two splits
    differ in size or colour, or if a class has too few images to be split.
    """
    train = splits["train"]
    for name, split in splits.items():
        if split.images.shape[1:] != train.images.shape[1:]:
            raise UserError(
                f"{source}: its training images are {_form(train)} but its {name} images {_form(split)}; make all of "
                "the same form."
            )
    if "test" in splits:
        return HandwritingSet(train, splits["test"], tuple(names), photographs=photographs, val=splits.get("val"))
    setting = "data.test_fraction"
    drawn = split_holdout(train.labels, test_fraction, test_seed, Stratum("class", names), setting)
    kept, held_out = (rows.sort().values for rows in drawn)  # in the order of the files
    say_once(
        f"{source} has no test set: {len(held_out):,} of its {len(train):,} training images are the test set "
        f"({setting}={test_fraction:g})."
    )
    return HandwritingSet(train[kept], train[held_out], tuple(names), photographs=photographs, val=splits.get("val"))


def _form(split: LabelledImages) -> str:
    channels, height, width = split.images.shape[1:]
    return f"{height}×{width} {'in colour' if channels > 1 else 'grey'}"


def renamed(whole: HandwritingSet, class_names: Sequence[object] | None, source: object) -> HandwritingSet:
    """Return a data set with other class names, in the order of its labels; None leaves them.

    Raises UserError if their number is wrong or one is there twice.
    """
    if class_names is None:
        return whole
    names = tuple(str(name) for name in class_names)
    check_names(names, len(whole.class_names), source)
    return replace(whole, class_names=names, glyphs=())


def check_names(names: Sequence[str], classes: int, source: object) -> None:
    """Raise UserError unless there are as many different names as classes."""
    if len(names) != classes:
        raise UserError(f"data.class_names has {len(names)} names, but {source} has {classes} classes: give each one.")
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"data.class_names has {twice[0]!r} twice: each class needs a name of its own.")


def number_classes(
    source: Path, labels: Mapping[str, np.ndarray], class_names: Sequence[object] | None = None
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Return labels (N,) of each split as int64 class numbers, and the names of the classes.

    Labels are whole numbers or texts. The classes are the values that occur, in their order, and are called by them.
    If ``class_names`` has a name for each number from 0 to the largest label, the labels are those numbers.
    """
    values = np.unique(np.concatenate(list(labels.values())))
    if len(values) > MOST_CLASSES:
        raise UserError(f"{source} has {len(values):,} different labels, more than {MOST_CLASSES:,}: check its labels.")
    given = None if class_names is None else tuple(str(name) for name in class_names)
    if given and values.dtype.kind in "iu" and values[0] >= 0 and values[-1] < len(given):
        check_names(given, len(given), source)
        return {split: some.astype(np.int64) for split, some in labels.items()}, given
    if given:
        check_names(given, len(values), source)
    numbers = {split: np.searchsorted(values, some).astype(np.int64) for split, some in labels.items()}
    return numbers, given or tuple(str(value) for value in values)
