"""The main job as the README gives it, on real MNIST."""

import csv
from pathlib import Path

import pandas as pd
import pytest

pytestmark = pytest.mark.real_data


def test_four_optimizers_learn_mnist_and_the_second_time_nothing_is_trained(
    command, real_data_folder: Path, tmp_path: Path
):
    if not (real_data_folder / "MNIST" / "raw").is_dir():
        pytest.skip(f"{real_data_folder} holds no MNIST/raw")
    arguments = ("-m", "optim=sgd,adam,adagrad,adadelta", "trainer.max_epochs=1", "data.limit=24000")
    first = command("handwriting.run", *arguments, HANDWRITING_DATA=str(real_data_folder))
    assert first.returncode == 0, first.stderr
    with (tmp_path / "outputs" / "mnist" / "summary.csv").open() as file:
        accuracies = {row["configuration"]: float(row["test/acc"]) for row in csv.DictReader(file)}
    assert accuracies.keys() == {f"optim={name}" for name in ("sgd", "adam", "adagrad", "adadelta")}
    assert min(accuracies.values()) > 0.9
    again = command("handwriting.run", *arguments, HANDWRITING_DATA=str(real_data_folder))
    assert "Nothing was trained" in again.stdout


def test_the_characters_recipe_learns_200_classes_in_a_few_epochs(command, real_data_folder: Path, tmp_path: Path):
    if not (real_data_folder / "characters" / "characters.mat").is_file():
        pytest.skip(f"{real_data_folder} holds no characters/characters.mat")
    arguments = ("experiment=characters", "data.redundant=keep", "trainer.max_epochs=3", "augment.clean_epochs=1")
    small = ("model.branches=1", "model.shared=0", "model.widths=[16,32,64]")
    done = command("handwriting.run", *arguments, *small, HANDWRITING_DATA=str(real_data_folder))
    assert done.returncode == 0, done.stderr
    (row,) = pd.read_csv(tmp_path / "outputs" / "characters" / "summary.csv").to_dict("records")
    assert row["test/acc"] > 0.6
    assert row["test/acc"] < row["test/top5"] < 1
    assert row["train_clean/acc"] > row["train_augmented/acc"] > 0.2
    (table,) = tmp_path.glob("outputs/characters/*/per_class.csv")
    assert pd.read_csv(table)["name"].tolist()[128] == "Sanskrit 1"
