"""Prediction of the rows of a CSV file, and the submission to Kaggle's Digit Recognizer."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from handwriting.data.digits import read_digits
from handwriting.predict import main


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    assert isinstance(stop.value.code, int)
    return stop.value.code


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """test.csv with the bundled test digits, without labels."""
    pixels = read_digits().test.images.flatten(1).numpy()
    pd.DataFrame(pixels).add_prefix("pixel").to_csv(tmp_path / "test.csv", index=False)
    return tmp_path / "test.csv"


@pytest.mark.parametrize("invert", [False, True])
def test_a_submission_has_a_row_for_each_image(
    digits_run: Path, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], invert: bool
):
    if invert:
        (255 - pd.read_csv(file)).to_csv(file, index=False)
    written = tmp_path / "a" / "submission.csv", tmp_path / "all.csv"
    assert call(digits_run, file, "--submission", written[0], "--csv", written[1]) == 0
    submission, table = map(pd.read_csv, written)
    assert list(submission.columns) == ["ImageId", "Label"]
    assert submission["ImageId"].tolist() == list(range(1, 501))
    assert (submission["Label"].to_numpy() == read_digits().test.labels.numpy()).mean() > 0.8
    assert table[["ImageId", "Label"]].equals(submission)
    assert table["probability"].between(0, 1).all()
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"{file}: 500 images predicted, written to {written[0]} and {written[1]}."
    assert sum(int(pair.split(" × ")[0]) for pair in second.removeprefix("Predicted: ").split("; ")) == 500


def test_views_are_averaged(digits_run: Path, file: Path, tmp_path: Path):
    assert call(digits_run, file, "--views", 3, "--augment", "affine", "--submission", tmp_path / "s.csv") == 0
    assert len(pd.read_csv(tmp_path / "s.csv")) == 500


def test_bad_input_is_one_sentence(
    digits_run: Path, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    Image.fromarray(np.zeros((28, 28), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "bad.csv").write_text("pixel0,pixel1\n1,2\n")
    for arguments, words in (
        ([file, file], "Give one .csv and nothing else"),
        ([file, tmp_path / "a.png"], "Give one .csv and nothing else"),
        ([file, "--json", tmp_path / "a.json"], "--json is for image files"),
        ([tmp_path / "absent.csv"], "absent.csv cannot be read"),
        ([tmp_path / "bad.csv"], "bad.csv: its header names"),
    ):
        assert call(digits_run, *arguments) == 2
        message = capsys.readouterr().err
        assert words in message
        assert message.count("\n") == 1
    monkeypatch.setattr("handwriting.inference.rows.SIDE", 32)
    assert call(digits_run, file) == 2
    assert "is for images of 28×28 (grey): give another model." in capsys.readouterr().err
