"""Kaggle's Digit Recognizer: MNIST's images in another split, with labels for those of train.csv only."""

from pathlib import Path

from handwriting.data.assemble import assemble
from handwriting.data.dataset import HandwritingSet
from handwriting.data.files import data_root, find_file
from handwriting.data.mnist import DIGITS
from handwriting.data.mnist_csv import read_csv_images
from handwriting.utils.errors import UserError

FILE = "train.csv"


def read_kaggle_digits(
    path: str | Path | None = None, test_fraction: float = 0.2, test_seed: int = 0
) -> HandwritingSet:
    """Return the 42,000 digits of ``train.csv``, 28×28, of which the fraction ``test_fraction`` is the test set.

    ``path`` is the file or its folder; without it, it is ``HANDWRITING_DATA/kaggle_digits``. ``test_seed`` chooses the
    test set, stratified by class. Raises UserError if the file is missing or damaged, or if its rows have no labels.
    """
    root = Path(path).expanduser() if path is not None else data_root() / "kaggle_digits"
    file = root if root.is_file() else find_file(root, FILE)
    if file is None:
        raise UserError(
            f"{root} has no {FILE}: download it there from https://www.kaggle.com/c/digit-recognizer, or give its "
            "folder with data.path=."
        )
    return assemble(file, {"train": read_csv_images(file)}, DIGITS, test_fraction, test_seed)
