"""A trained run is evaluated as a user does it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from handwriting.evaluate import main as evaluate
from handwriting.evaluation import without_common

TRAINED = ("data=digits", "data.limit=300", "trainer.max_epochs=2")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, run_in: Callable[..., int]) -> Path:
    """Two seeds of a small net."""
    folder = tmp_path_factory.mktemp("runs")
    assert run_in(folder, "-m", *TRAINED, "seed=0,1") == 0
    return folder / "outputs" / "digits"


def evaluation(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "evaluation.json").read_text())


def run_of(runs: Path, seed: int = 0) -> Path:
    (folder,) = runs.glob(f"*seed={seed}*")
    return folder


def test_the_accuracy_is_that_of_the_result_to_the_image(runs: Path, capsys: pytest.CaptureFixture[str]):
    evaluate([str(run_of(runs))])
    record = evaluation(run_of(runs) / "evaluation" / "test")
    result = json.loads((run_of(runs) / "result.json").read_text())
    (scores,) = record["readers"].values()
    assert round(scores["acc"] * 500) == round(result["metrics"]["test/acc"] * 500)
    assert scores["loss"] == pytest.approx(result["metrics"]["test/loss"], rel=1e-4)
    table = pd.read_csv(run_of(runs) / "evaluation" / "test" / "per_class.csv")
    assert table["right"].sum() == round(scores["acc"] * 500)
    for name in ("confusion", "mistakes", "samples"):
        assert (run_of(runs) / "evaluation" / "test" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert f"{scores['acc']:.2%}" in printed
    assert "500 images are read in" in printed
    assert record["speed"]["one_seconds"] < record["speed"]["all_seconds"]


def test_validation_and_training_parts_are_those_of_the_run(runs: Path):
    result = json.loads((run_of(runs) / "result.json").read_text())
    for split in ("val", "train"):
        evaluate([str(run_of(runs)), f"split={split}", "format=pdf", "dpi=50"])
        record = evaluation(run_of(runs) / "evaluation" / split)
        assert record["images"] == result["images"][split]
        assert (run_of(runs) / "evaluation" / split / "confusion.pdf").read_bytes().startswith(b"%PDF")
    (scores,) = evaluation(run_of(runs) / "evaluation" / "val")["readers"].values()
    assert scores["acc"] == pytest.approx(result["metrics"]["val/acc"], abs=1e-6)


def test_several_runs_are_also_averaged(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    evaluate([str(runs), f"out={tmp_path}"])
    record = evaluation(tmp_path)
    readers = record["readers"]
    assert list(readers) == ["seed=0", "seed=1", "mean of the 2"]
    assert (tmp_path / "confusions.png").is_file()
    none, one, both = record["read_right_by"]
    assert none + one + both == record["images"]
    right = [reader["acc"] * record["images"] for reader in readers.values()]
    assert one + 2 * both == pytest.approx(right[0] + right[1])
    assert f"All 2 read {both} images right, some of them {one}, none {none}." in capsys.readouterr().out


def test_names_lose_what_all_of_them_have():
    assert without_common(["a=1,model.widths=[3,4],seed=0", "a=1,model.widths=[3,5],seed=0"]) == [
        "model.widths=[3,4]",
        "model.widths=[3,5]",
    ]
    assert without_common(["a=1,b=2"]) == ["a=1,b=2"]
    assert without_common(["a=1", "a=1"]) == ["a=1", "a=1"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["split=half"], "split=half must be one of test, val, train."),
        (["splitt=test"], "There is no setting 'splitt'. Did you mean 'split'?"),
        (["dpi=0"], "dpi=0 must be a whole number from 20 to 1200."),
        (["format=gif"], "format=gif must be one of png, pdf."),
        (["data=nothing"], "data=nothing is not a choice of data."),
        (["data.speed=1"], "speed"),
        (["data=mnist", "data.path=nowhere"], "nowhere"),
        (["nowhere/run"], "nowhere/run is neither a checkpoint nor a folder of runs"),
    ],
)
def test_bad_input_is_one_sentence(runs: Path, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        evaluate([str(run_of(runs)), *arguments])
    errors = capsys.readouterr().err
    assert stop.value.code == 2
    assert sentence in errors
    assert len(errors.splitlines()) == 1


def test_a_validation_part_that_is_not_there_is_one_sentence(runs: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        evaluate([str(run_of(runs)), "split=val", "data.val_fraction=0"])
    assert "split=val is empty" in capsys.readouterr().err
