"""Classification of image files from the command line; a file that cannot be read does not affect the others."""

import csv
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from handwriting.inference.predictions import Character, Prediction, report
from handwriting.predict import main as predict
from handwriting.reader import Reader


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        predict([str(argument) for argument in arguments])
    assert isinstance(stop.value.code, int)
    return stop.value.code


def test_the_command_classifies_a_folder_and_writes_the_predictions(
    digits_run: Path, ten_digits: tuple[np.ndarray, list[int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "scans"
    folder.mkdir()
    for number, picture in enumerate(ten_digits[0][:3]):
        large = Image.fromarray(255 - picture).resize((140, 140), Image.Resampling.BICUBIC)
        large.save(folder / f"{number}.jpg")
    (folder / "notes.txt").write_text("not an image")
    written = {name: tmp_path / f"{name}.{end}" for name, end in (("csv", "csv"), ("json", "json"), ("figure", "png"))}
    more = [word for name, file in written.items() for word in (f"--{name}", file)]
    assert call(digits_run, folder, *more, "--steps", tmp_path / "steps.pdf") == 0
    rows = list(csv.DictReader(io.StringIO(written["csv"].read_text())))
    assert [Path(row["file"]).name for row in rows] == ["0.jpg", "1.jpg", "2.jpg"]
    assert [row["prediction"] for row in rows] == [str(label) for label in ten_digits[1][:3]]
    records = json.loads(written["json"].read_text())
    assert [len(record["likeliest"]) for record in records] == [5, 5, 5]
    assert written["figure"].read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "steps.pdf").read_bytes().startswith(b"%PDF")
    assert "2.jpg" in capsys.readouterr().out


def test_an_unreadable_file_is_a_line_and_the_others_are_classified(
    digits_run: Path,
    ten_digits: tuple[np.ndarray, list[int]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch,
):
    monkeypatch.setenv("COLUMNS", "300")
    Image.fromarray(ten_digits[0][0]).save(tmp_path / "good.png")
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:60])
    Image.new("L", (90, 90), 255).save(tmp_path / "empty.png")
    assert call(digits_run, tmp_path, tmp_path / "missing.png") == 1
    lines = capsys.readouterr().out.splitlines()
    reasons = {
        name: next(line for line in lines if name in line) for name in ("good", "text", "cut", "empty", "missing")
    }
    assert "error" not in reasons["good"]
    assert "is not an image that can be read" in reasons["text"]
    assert "damaged" in reasons["cut"]
    assert "no writing was found" in reasons["empty"]
    assert "No such file" in reasons["missing"]
    assert call(digits_run, tmp_path / "empty.png", tmp_path / "text.png") == 1  # also if none could be read


def test_patterns_and_standard_input(
    digits_run: Path, ten_digits: tuple[np.ndarray, list[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for number in (1, 2):
        Image.fromarray(ten_digits[0][number]).save(tmp_path / f"scan{number}.png")
    content = (tmp_path / "scan1.png").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert call(digits_run, tmp_path / "scan?.png", "-", "--json", tmp_path / "all.json") == 0
    predictions = [record["prediction"] for record in json.loads((tmp_path / "all.json").read_text())]
    assert len(predictions) == 3
    assert predictions[2] == predictions[0]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nothing*.png"], "No file matches"),
        (["."], "holds no images"),
        (["missing.png", "--figure", "a.txt"], "a.txt must end in .png or .pdf"),
        (["missing.png", "--figure", "a.png"], "No image could be read"),
        (["missing.png", "--csv", "/dev/null/a.csv"], "/dev/null cannot be read or written"),
    ],
)
def test_bad_input_is_one_sentence(
    digits_run: Path,
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    assert call(digits_run, *arguments) == 2
    errors = capsys.readouterr().err
    assert sentence in errors
    assert len(errors.splitlines()) == 1


def test_several_views_are_averaged(
    digits_run: Path, ten_digits: tuple[np.ndarray, list[int]], capsys: pytest.CaptureFixture[str]
):
    reader = Reader.load(digits_run)
    alone, seen = reader.read(ten_digits[0]), reader.read(ten_digits[0], views=8, augment="affine")
    assert len(seen) == len(alone)
    assert all(a.probability != b.probability for a, b in zip(alone, seen, strict=True))
    again = reader.read(ten_digits[0], views=8, augment="affine")
    assert [prediction.probability for prediction in again] == [prediction.probability for prediction in seen]
    with pytest.raises(SystemExit) as stop:
        predict([str(digits_run), str(digits_run / "augment.png"), "--views", "3"])
    assert stop.value.code == 1  # no such file
    capsys.readouterr()
    Image.fromarray(ten_digits[0][0]).save(digits_run / "digit.png")
    assert call(digits_run, digits_run / "digit.png", "--views", "3") == 2
    assert "tta.views=3 is more than the 1 that this augmentation makes" in capsys.readouterr().err
    assert call(digits_run, digits_run / "digit.png", "--views", "3", "--augment", "affine") == 0


def test_names_in_brackets_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]):
    single = Prediction(0, "[/b]", probability=0.9, likeliest=(("[/b]", 0.9), ("[red]x", 0.1)))
    failed = Prediction(error="a[b]c.png is not an image.")
    report(["a[b]c.png", ":smile:.png", "a[b]c.png"], [single, single, failed])
    printed = capsys.readouterr().out
    for text in ("a[b]c.png", ":smile:.png", "[/b]", "[red]x", "error: is not an image."):
        assert text in printed
    report(["x.png"], [Prediction(-1, "[/b]", probability=0.9, characters=(Character("[/b]", 0.9),))])
    assert "[/b] 90.0%" in capsys.readouterr().out
