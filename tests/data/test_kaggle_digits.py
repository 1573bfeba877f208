"""Kaggle's Digit Recognizer: train.csv is split, and test.csv has no labels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate

from handwriting.data.digits import read_digits
from handwriting.data.kaggle_digits import read_kaggle_digits
from handwriting.data.mnist_csv import read_csv_pixels

HEADER = ",".join(f"pixel{number}" for number in range(784))


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's digits at 28×28: images (1297, 784) and labels."""
    train = read_digits().train
    return train.images.flatten(1).numpy(), train.labels.numpy()


def write(file: Path, pixels: np.ndarray, labels: np.ndarray | None = None, header: bool = True) -> Path:
    table = pixels if labels is None else np.column_stack([labels, pixels])
    head = HEADER if labels is None else f"label,{HEADER}"
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(file, table, "%d", ",", header=head if header else "", comments="")
    return file


def test_digits_of_train_csv_are_the_same_images_in_three_splits(tmp_path: Path, digits: Any):
    pixels, labels = digits
    write(tmp_path / "train.csv", pixels, labels)
    target = {"_target_": "handwriting.data.kaggle_digits.read_kaggle_digits", "_partial_": True}
    module = {"_target_": "handwriting.data.DataModule", "name": "kaggle_digits", "read": target, "path": str(tmp_path)}
    data = instantiate(module)
    splits = (data.train, data.val, data.test)
    assert [len(split) for split in splits] == [934, 104, 259]
    found = sorted(
        (image.numpy().tobytes(), int(label))
        for split in splits
        for image, label in zip(split.images, split.labels, strict=True)
    )
    assert found == sorted((image.tobytes(), int(label)) for image, label in zip(pixels, labels, strict=True))


def test_the_file_its_folder_and_the_data_root_are_found(tmp_path: Path, data_root: Path, digits: Any, complaint: Any):
    with complaint(f"{data_root / 'kaggle_digits'} has no train.csv", "kaggle.com", "data.path="):
        read_kaggle_digits()
    file = write(data_root / "kaggle_digits" / "train.csv", digits[0][:200], digits[1][:200])
    first, again = read_kaggle_digits(), read_kaggle_digits(file)
    assert torch.equal(first.test.images, again.test.images)
    assert not torch.equal(read_kaggle_digits(file, test_seed=1).test.images, first.test.images)
    assert len(read_kaggle_digits(file, test_fraction=0.5).test) == 100


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("labelled", [True, False])
def test_pixels_are_loaded_with_and_without_labels(tmp_path: Path, digits: Any, header: bool, labelled: bool):
    pixels, labels = digits
    file = write(tmp_path / "test.csv", pixels[:50], labels[:50] if labelled else None, header)
    assert np.array_equal(read_csv_pixels(file).flatten(1).numpy(), pixels[:50])


@pytest.mark.parametrize(("header", "words"), [(True, "names no label column"), (False, "784 values instead of 785")])
def test_a_file_without_labels_cannot_train(tmp_path: Path, digits: Any, complaint: Any, header: bool, words: str):
    file = write(tmp_path / "test.csv", digits[0][:50], None, header)
    with complaint(file, words):
        read_kaggle_digits(file)


def test_a_damaged_row_without_labels_is_named(tmp_path: Path, digits: Any, complaint: Any):
    file = write(tmp_path / "test.csv", digits[0][:5])
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:3], lines[3] + ",1", *lines[4:]]))
    with complaint(file, "row 4: 785 values instead of 784 (784 pixels)"):
        read_csv_pixels(file)
    file.write_text("\n".join([*lines[:3], "256" + lines[3][1:], *lines[4:]]))
    with complaint(file, "row 4, column 1: '256"):
        read_csv_pixels(file)
