"""The main job as the README gives it, on real MNIST."""

import csv
from pathlib import Path

import pytest

pytestmark = pytest.mark.real_data


def test_four_optimizers_read_mnist_and_the_second_time_nothing_is_trained(
    command, real_data_folder: Path, tmp_path: Path
):
    if not (real_data_folder / "MNIST" / "raw").is_dir():
        pytest.skip(f"{real_data_folder} holds no MNIST/raw")
    arguments = ("-m", "optim=sgd,adam,adagrad,adadelta", "trainer.max_epochs=2")
    first = command("handwriting.run", *arguments, HANDWRITING_DATA=str(real_data_folder))
    assert first.returncode == 0, first.stderr
    with (tmp_path / "outputs" / "mnist" / "summary.csv").open() as file:
        accuracies = {row["setting"]: float(row["test/acc"]) for row in csv.DictReader(file)}
    assert accuracies.keys() == {f"optim={name}" for name in ("sgd", "adam", "adagrad", "adadelta")}
    assert min(accuracies.values()) > 0.95
    again = command("handwriting.run", *arguments, HANDWRITING_DATA=str(real_data_folder))
    assert "Nothing was trained" in again.stdout
