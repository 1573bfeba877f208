"""Evaluation of trained runs from the command line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import scipy.stats
import torch
from matplotlib.figure import Figure

from handwriting.data import DataModule
from handwriting.data.digits import read_digits
from handwriting.evaluate import main as evaluate
from handwriting.inference.checkpoints import load_trained, predict_proba

TRAINED = ("data=digits", "data.limit=300", "trainer.max_epochs=2")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, run_in: Callable[..., int]) -> Path:
    """Two seeds of a small model."""
    folder = tmp_path_factory.mktemp("runs")
    assert run_in(folder, "-m", *TRAINED, "seed=0,1") == 0
    return folder / "outputs" / "digits"


def evaluation(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "evaluation.json").read_text())


def run_of(runs: Path, seed: int = 0) -> Path:
    (folder,) = runs.glob(f"*seed={seed}*")
    return folder


@pytest.fixture
def no_galleries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the figures draw the confusion matrices only: the two galleries of 32 images take most of the time."""
    monkeypatch.setattr("handwriting.inference.classification.draw_predictions", lambda *_: Figure())


def test_the_number_of_correct_images_is_that_of_the_result(runs: Path, capsys: pytest.CaptureFixture[str]):
    evaluate([str(run_of(runs))])
    record = evaluation(run_of(runs) / "evaluation" / "test")
    result = json.loads((run_of(runs) / "result.json").read_text())
    (scores,) = record["models"].values()
    assert round(scores["acc"] * 500) == round(result["metrics"]["test/acc"] * 500)
    assert scores["loss_uncalibrated"] == pytest.approx(result["metrics"]["test/loss"], rel=1e-4)
    table = pd.read_csv(run_of(runs) / "evaluation" / "test" / "per_class.csv")
    assert table["right"].sum() == round(scores["acc"] * 500)
    for name in ("confusion", "mistakes", "samples"):
        assert (run_of(runs) / "evaluation" / "test" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert f"{scores['acc']:.2%}" in printed
    assert "500 images in " in printed
    assert record["speed"]["one_seconds"] < record["speed"]["all_seconds"]


def test_validation_and_training_sets_are_those_of_the_run(runs: Path, no_galleries: None):
    result = json.loads((run_of(runs) / "result.json").read_text())
    for split in ("val", "train"):
        evaluate([str(run_of(runs)), f"split={split}", "format=pdf", "dpi=50"])
        record = evaluation(run_of(runs) / "evaluation" / split)
        assert record["images"] == result["images"][split]
        assert (run_of(runs) / "evaluation" / split / "confusion.pdf").read_bytes().startswith(b"%PDF")
    (scores,) = evaluation(run_of(runs) / "evaluation" / "val")["models"].values()
    assert scores["acc"] == pytest.approx(result["metrics"]["val/acc"], abs=1e-6)


def test_several_runs_are_also_evaluated_as_an_ensemble(
    runs: Path, tmp_path: Path, no_galleries: None, capsys: pytest.CaptureFixture[str]
):
    evaluate([str(runs), f"out={tmp_path}"])
    record = evaluation(tmp_path)
    models = record["models"]
    assert list(models) == ["seed=0", "seed=1", "mean of the 2"]
    assert (tmp_path / "confusions.png").is_file()
    none, one, both = record["correct_by"]
    assert none + one + both == record["images"]
    right = [scores["acc"] * record["images"] for scores in models.values()]
    assert one + 2 * both == pytest.approx(right[0] + right[1])
    output = capsys.readouterr().out
    assert f"Correct by all 2 models: {both} images; by some: {one}; by none: {none}." in output
    difference = record["difference"]
    assert difference["only_first"] + difference["only_second"] == one
    assert difference["accuracy"] == pytest.approx(models["seed=0"]["acc"] - models["seed=1"]["acc"])
    assert difference["p"] == pytest.approx(scipy.stats.binomtest(difference["only_first"], one).pvalue)
    assert f"Only seed=0 is right on {difference['only_first']} images, only seed=1 on" in output
    assert (tmp_path / "differences.png").is_file()


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the figures, which take most of the time."""
    monkeypatch.setattr("handwriting.inference.evaluation_report._figures", lambda *_: {})


def copy_run(run: Path, to: Path, **data: Any) -> Path:
    """Copy a run and change the data settings in its checkpoint."""
    shutil.copytree(run, to, ignore=shutil.ignore_patterns("evaluation"))
    content = torch.load(to / "checkpoints" / "best.ckpt", weights_only=True)
    content["handwriting"]["settings"]["data"] |= data
    torch.save(content, to / "checkpoints" / "best.ckpt")
    return to


@pytest.fixture
def csv_data(tmp_path: Path, no_figures: None) -> dict[str, Any]:
    """Settings of a small data set with the class names of the digits: 30 of their test images, in another order."""
    test, columns = read_digits().test, ["label", *(f"pixel{number}" for number in range(784))]
    for split, images in (("train", test), ("test", test[torch.arange(30).flip(0)])):
        rows = torch.cat([images.labels[:, None], images.images.flatten(1)], 1).numpy()
        pd.DataFrame(rows, columns=columns).to_csv(tmp_path / f"mnist_{split}.csv", index=False)  # type: ignore[arg-type]
    read = {"_target_": "handwriting.data.mnist_csv.read_mnist_csv", "_partial_": True}
    return {"name": "mnist_csv", "path": str(tmp_path), "read": read}


def test_each_run_is_evaluated_on_its_own_data(
    runs: Path, tmp_path: Path, csv_data: dict[str, Any], capsys: pytest.CaptureFixture[str]
):
    study = tmp_path / "study"
    for seed in (0, 1):
        shutil.copytree(run_of(runs, seed), study / f"data=digits,seed={seed}")
        copy_run(run_of(runs, seed), study / f"data=mnist_csv,seed={seed}", **csv_data)
    evaluate([str(study)])
    printed = capsys.readouterr().out
    assert "digits, test: 500 images" in printed
    assert "mnist_csv, test: 30 images" in printed
    assert "2 different test sets: each has its own table" in printed
    digits, other = read_digits().test, read_digits().test[torch.arange(30)]
    for name, part in (("digits", digits), ("mnist_csv", other)):
        folder = study / "evaluation" / f"{name}_test"
        record = evaluation(folder)
        assert (record["data"], record["images"]) == (name, len(part))
        answers = []
        for seed in (0, 1):
            model = load_trained(run_of(runs, seed) / "checkpoints" / "best.ckpt")
            answers.append(predict_proba(model, part.images))
            accuracy = (answers[-1].argmax(1) == part.labels).double().mean()
            assert record["models"][f"seed={seed}"]["acc"] == pytest.approx(accuracy)
        together = (torch.stack(answers).mean(0).argmax(1) == part.labels).double().mean()
        assert record["models"]["mean of the 2"]["acc"] == pytest.approx(together)
        assert pd.read_csv(folder / "per_class.csv")["images"].to_numpy().sum() == len(part)
    evaluate([str(study), "data=digits"])  # the same for all: one test set
    assert len(evaluation(study / "evaluation" / "digits_test")["models"]) == 5


def test_the_only_run_on_its_data_is_evaluated_in_its_own_folder(runs: Path, tmp_path: Path, csv_data: dict[str, Any]):
    own = copy_run(run_of(runs), tmp_path / "study" / "own")
    other = copy_run(run_of(runs), tmp_path / "study" / "other", **csv_data)
    evaluate([str(tmp_path / "study")])
    assert evaluation(own / "evaluation" / "test")["images"] == 500
    assert evaluation(other / "evaluation" / "test")["images"] == 30
    evaluate([str(own), "data.limit=100"])  # other data settings do not replace it
    assert evaluation(own / "evaluation" / "digits,limit=100_test")["data"] == "digits,limit=100"
    evaluate([str(tmp_path / "study"), f"out={tmp_path / 'out'}"])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["digits_test", "mnist_csv_test"]


def test_different_data_sets_of_one_name_are_separate_and_equal_ones_are_not(
    runs: Path,
    tmp_path: Path,
    csv_data: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setenv("COLUMNS", "400")  # titles with long paths on one line
    study = tmp_path / "study"
    for number in (1, 2):
        folder = tmp_path / f"data{number}"
        folder.mkdir()
        shutil.copy(tmp_path / "mnist_train.csv", folder)
        rows = (tmp_path / "mnist_test.csv").read_text().splitlines()
        (folder / "mnist_test.csv").write_text("\n".join(rows[: 10 * number + 1]) + "\n")
        copy_run(run_of(runs), study / f"path={number}", **csv_data | {"path": str(folder)})
    shutil.copytree(tmp_path / "data2", tmp_path / "data3")
    copy_run(run_of(runs), study / "path=3", **csv_data | {"path": str(tmp_path / "data3")})
    evaluate([str(study)])
    titles = [line for line in capsys.readouterr().out.splitlines() if ", test: " in line]
    assert [title.split(", test: ")[1].strip() for title in titles] == ["10 images", "20 images"]
    assert "data1" in titles[0]
    assert "data2" in titles[1]
    assert evaluation(study / "path=1" / "evaluation" / "test")["images"] == 10
    (together,) = (study / "evaluation").iterdir()  # of data2 and data3, which hold the same images
    assert len(evaluation(together)["models"]) == 3


def test_validation_sets_of_different_splits_are_evaluated_each_by_its_run(
    runs: Path, tmp_path: Path, no_figures: None, capsys: pytest.CaptureFixture[str]
):
    for fold in (0, 1):
        copy_run(run_of(runs), tmp_path / "study" / f"data.fold={fold}", split="kfold", fold=fold)
    evaluate([str(tmp_path / "study"), "split=val"])
    printed = capsys.readouterr().out
    assert "digits,fold=0, val: 260 images" in printed
    assert "digits,fold=1, val: 260 images" in printed
    assert "2 different validation sets" in printed
    for fold in (0, 1):
        data = DataModule("digits", read_digits, split="kfold", fold=fold)
        model = load_trained(run_of(runs) / "checkpoints" / "best.ckpt")
        accuracy = (predict_proba(model, data.val.images).argmax(1) == data.val.labels).double().mean()
        (scores,) = evaluation(tmp_path / "study" / f"data.fold={fold}" / "evaluation" / "val")["models"].values()
        assert scores["acc"] == pytest.approx(accuracy)


def test_a_damaged_checkpoint_of_a_folder_is_reported_and_the_others_are_evaluated(
    runs: Path, tmp_path: Path, no_figures: None, capsys: pytest.CaptureFixture[str]
):
    shutil.copytree(runs, tmp_path / "study", ignore=shutil.ignore_patterns("evaluation"))
    damaged = run_of(tmp_path / "study") / "checkpoints" / "best.ckpt"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    with pytest.raises(SystemExit) as stop:
        evaluate([str(tmp_path / "study")])
    assert stop.value.code == 1
    output, errors = capsys.readouterr()
    reason = f"{damaged} is damaged or truncated: it cannot be read as a checkpoint."
    assert errors.endswith(f" is not evaluated: {reason}\n")
    assert reason in evaluation(run_of(tmp_path / "study", 1) / "evaluation" / "test")["not_evaluated"].values()
    assert list(evaluation(run_of(tmp_path / "study", 1) / "evaluation" / "test")["models"]) == [run_of(runs, 1).name]
    assert "500 images" in output


def leave_unfinished(run: Path, status: str) -> Path:
    """Let the record of a run of two epochs say that it has not reached the ninth."""
    record = json.loads((run / "result.json").read_text())
    record["settings"]["trainer"]["max_epochs"] = 9
    (run / "result.json").write_text(json.dumps(record | {"status": status}))
    return run


@pytest.mark.parametrize("status", ["interrupted", "running", "failed"])
def test_an_unfinished_run_is_evaluated_and_said_to_be_unfinished(
    runs: Path, tmp_path: Path, no_figures: None, caplog: pytest.LogCaptureFixture, status: str
):
    run = leave_unfinished(copy_run(run_of(runs), tmp_path / status), status)
    how = "running or killed" if status == "running" else status
    evaluate([str(run)])
    assert caplog.messages == [f"{run} is unfinished ({how} after epoch 2 of 9): its model so far is used."]
    assert evaluation(run / "evaluation" / "test")["images"] == 500
    (run / "checkpoints" / "last.ckpt").unlink()
    (run / "checkpoints" / "best.ckpt").unlink()
    with pytest.raises(SystemExit) as stop:
        evaluate([str(run)])
    assert stop.value.code == 2


def test_unfinished_runs_of_a_folder_are_rows_with_the_reason(
    runs: Path, tmp_path: Path, no_figures: None, capsys: pytest.CaptureFixture[str]
):
    copy_run(run_of(runs), tmp_path / "study" / "whole")
    leave_unfinished(copy_run(run_of(runs), tmp_path / "study" / "half"), "interrupted")
    begun = leave_unfinished(copy_run(run_of(runs), tmp_path / "study" / "begun"), "running")
    shutil.rmtree(begun / "checkpoints")
    evaluate([str(tmp_path / "study")])
    rows = {
        "begun": "it is unfinished (running or killed before the end of its first epoch).",
        "half": "it is unfinished (interrupted after epoch 2 of 9).",
    }
    assert capsys.readouterr().err == "".join(f"{name} is not evaluated: {why}\n" for name, why in rows.items())
    record = evaluation(tmp_path / "study" / "whole" / "evaluation" / "test")
    assert (record["not_evaluated"], list(record["models"])) == (rows, ["whole"])


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
        (["out=/dev/null/folder"], "/dev/null/folder cannot be read or written: Not a directory."),
        (["nowhere/run"], "nowhere/run is neither a checkpoint nor a folder of runs"),
    ],
)
def test_bad_input_is_one_sentence(
    no_figures: None, runs: Path, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as stop:
        evaluate([str(run_of(runs)), *arguments])
    errors = capsys.readouterr().err
    assert stop.value.code == 2
    assert sentence in errors
    assert len(errors.splitlines()) == 1


def test_a_missing_validation_set_is_one_sentence(runs: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        evaluate([str(run_of(runs)), "split=val", "data.val_fraction=0"])
    assert "split=val is empty" in capsys.readouterr().err
