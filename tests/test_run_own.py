"""A run on a user's own data: from a relative path, with their validation set, evaluated and predicted elsewhere."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from handwriting.data.digits import read_digits
from handwriting.evaluate import main as evaluate
from handwriting.predict import main as predict
from handwriting.reader import Reader

QUICK = ("trainer.max_epochs=1", "data.batch_size=16")


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder ``scans`` with train, val and test of the bundled digits as dark writing on white."""
    root, digits = tmp_path_factory.mktemp("own"), read_digits().train
    for number, (image, label) in enumerate(zip(digits.images[:400, 0].numpy(), digits.labels.tolist(), strict=False)):
        split = "test" if number >= 320 else "val" if number >= 240 else "train"
        file = root / "scans" / split / ("zero" if label == 0 else f"n{label}") / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(255 - image).save(file)
    return root


@pytest.fixture(scope="module")
def run(scans: Path, run_in: Callable[..., int]) -> Path:
    assert run_in(scans, "data=folder", "data.path=scans", "model=net", *QUICK) == 0
    (result,) = scans.glob("outputs/folder/*/result.json")
    return result.parent


def test_the_record_has_an_absolute_path_and_the_given_splits(scans: Path, run: Path):
    record = json.loads((run / "result.json").read_text())
    assert record["settings"]["data"]["path"] == str(scans / "scans")
    assert record["images"] == {"train": 240, "val": 80, "test": 80}
    assert record["metrics"]["test/acc"] > 0.2


def test_it_is_evaluated_and_predicts_in_another_folder(
    scans: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    evaluate([str(run), "split=val"])
    assert "80 images in " in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        predict([str(run), *map(str, sorted((scans / "scans" / "test" / "zero").iterdir())[:2])])
    assert stop.value.code == 0
    assert any(name in capsys.readouterr().out for name in ("zero", *(f"n{number}" for number in range(1, 10))))


def test_the_same_command_skips_it_also_if_its_record_has_the_path_as_given(
    scans: Path, run: Path, run_in: Callable[..., int], capfd: pytest.CaptureFixture[str]
):
    arguments = ("data=folder", "data.path=scans", "model=net", *QUICK)
    for path in (str(scans / "scans"), "scans"):
        record = json.loads((run / "result.json").read_text())
        record["settings"]["data"]["path"] = path
        record["fingerprint"] = "of the path as given" if path == "scans" else record["fingerprint"]
        (run / "result.json").write_text(json.dumps(record))
        assert run_in(scans, *arguments) == 0
        assert "already done" in "".join(capfd.readouterr())


def test_grey_photographs_are_predicted_as_they_were_tested(scans: Path, run_in: Callable[..., int]):
    settings = ("name=photographs", "data=folder", "data.path=scans", "data.photographs=true")
    assert run_in(scans, *settings, "model=net", *QUICK) == 0
    (table,) = scans.glob("outputs/photographs/*/predictions.csv")
    tested = pd.read_csv(table)
    files = sorted((scans / "scans" / "test").rglob("*.png"))
    found = Reader.load(table.parent).read(files)
    assert [one.name for one in found] == tested["prediction"].tolist()
    assert [one.probability for one in found] == pytest.approx(tested["prediction_probability"], abs=1e-5)
    assert found[0].preprocessed is not None
    assert np.array_equal(found[0].preprocessed.image, np.asarray(Image.open(files[0])))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["data=folder"], "data=folder needs the place of your data: add data.path="),
        (["data=folder", "data.path=absent"], "absent does not exist: set data.path"),
        (["data=folder", "data.path=scans/test/zero"], "zero has no folder for each class"),
        (["data=folder", "data.path=scans", "data.image_size=[8,8]"], "an image of 8×8 is too small"),
        (["data=folder", "data.path=scans", "data.channels=2"], "data.channels=2 must be 1 (grey), 3 (colour) or null"),
        (
            ["data=folder", "data.path=scans", "data.test_fraction=1"],
            "data.test_fraction=1 must be above 0 and below 1",
        ),
        (["data=folder", "data.path=scans", "data.class_names=a"], "data.class_names=a must be a list"),
        (["data=folder", "data.path=scans", "data.photographs=1"], "data.photographs=1 must be true or false"),
        (["data=file", "data.path=scans"], "is a folder without .parquet files: of image files, use data=folder"),
        (["data=idx", "data.path=scans"], "lacks some of the four files"),
        (["data=emnist", "data.emnist_split=half"], "data.emnist_split=half must be one of byclass"),
    ],
)
def test_bad_input_is_one_sentence(
    scans: Path, run_in: Callable[..., int], capfd: pytest.CaptureFixture[str], arguments: list[str], words: str
):
    assert run_in(scans, *arguments, "name=bad") == 2
    *notes, said = capfd.readouterr().err.strip().splitlines()
    assert words in said
    assert all(note.startswith("Decoding ") or "are inverted" in note for note in notes), notes  # said once each


def test_an_archive_is_trained_on(tmp_path: Path, main: Callable[..., Any]):
    digits = read_digits().train
    np.savez(tmp_path / "digits.npz", x_train=digits.images[:300, 0].numpy(), y_train=digits.labels[:300].numpy())
    assert main("data=file", "data.path=digits.npz", *QUICK).code == 0
    (result,) = tmp_path.glob("outputs/file/*/result.json")
    assert json.loads(result.read_text())["images"] == {"train": 216, "val": 24, "test": 60}
