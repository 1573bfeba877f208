"""stop=early: training ends when the monitored metric no longer improves."""

import json
from pathlib import Path
from typing import Any

import lightning
import pandas as pd
import pytest
import torch

from handwriting.training.module import TrainingModule

SMALL = ("data=digits", "data.limit=120", "data.batch_size=32", "model.widths=[4,8]", "model.hidden=[16]")
# With this learning rate nothing improves after the first epoch, so that the third one is the last.
STOPS = (*SMALL, "optim=sgd", "optim.lr=0", "stop=early", "stop.patience=2")
RUNS_ON = (*SMALL, "optim.lr=0.003", "monitor.metric=val/loss", "stop=early", "stop.patience=3")


def result_of(folder: Path, name: str) -> dict[str, Any]:
    (path,) = folder.glob(f"outputs/{name}/*/result.json")
    return json.loads(path.read_text())


def rows_of(folder: Path, name: str) -> pd.DataFrame:
    (path,) = folder.glob(f"outputs/{name}/*/metrics.csv")
    return pd.read_csv(path)


def check_equal(folder: Path, one: str, other: str) -> None:
    for key in ("metrics", "epochs", "chosen_epoch"):
        assert result_of(folder, one)[key] == result_of(folder, other)[key], key
    pd.testing.assert_frame_equal(rows_of(folder, one), rows_of(folder, other), check_like=True)


def test_a_run_ends_after_the_patience_and_is_done(main, tmp_path: Path):
    outcome = main(*STOPS)
    assert outcome.code == 0, outcome.errors
    result = result_of(tmp_path, "digits")
    assert (result["status"], result["epochs"], result["chosen_epoch"]) == ("done", 3, 1)
    assert "epochs" in outcome.output
    summary = pd.read_csv(tmp_path / "outputs" / "digits" / "summary.csv")
    assert summary["epochs"].tolist() == [3]
    assert "Nothing was trained" in main(*STOPS).output


def test_a_run_that_improves_is_trained_to_its_end(main, tmp_path: Path):
    for stop in ("none", "early"):
        assert main(*SMALL, "optim.lr=0.003", "trainer.max_epochs=3", f"stop={stop}", f"name={stop}").code == 0
    check_equal(tmp_path, "none", "early")
    assert result_of(tmp_path, "early")["epochs"] == 3


def test_a_smaller_improvement_counts_as_none(main, tmp_path: Path):
    assert main(*RUNS_ON, "stop.patience=1", "stop.min_delta=10").code == 0
    assert result_of(tmp_path, "digits")["epochs"] == 2


@pytest.mark.parametrize("place", ["training", "test"])
def test_an_interrupted_run_ends_where_an_undisturbed_one_does(main, tmp_path: Path, place: str):
    assert main(*STOPS, "name=whole").code == 0
    trained = TrainingModule.training_step

    def stop(model: TrainingModule, *arguments: Any) -> torch.Tensor:
        if model.current_epoch == 1:
            raise KeyboardInterrupt
        return trained(model, *arguments)

    def stop_test(*_: Any, **__: Any) -> None:  # the training has been stopped by then
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        if place == "training":
            patch.setattr(TrainingModule, "training_step", stop)
        else:
            patch.setattr(lightning.Trainer, "test", stop_test)
        assert main(*STOPS, "name=parts").code == 130
    again = main(*STOPS, "name=parts")
    assert again.code == 0, again.errors
    assert f"resumes after step {4 if place == 'training' else 12}" in again.output
    check_equal(tmp_path, "parts", "whole")


@pytest.mark.parametrize(
    "settings",
    [pytest.param(STOPS, id="stopped"), pytest.param(RUNS_ON, id="not stopped", marks=pytest.mark.long)],
)
def test_an_extended_run_equals_an_uninterrupted_one(main, tmp_path: Path, settings: tuple[str, ...]):
    short = (*settings, "hydra.run.dir=outputs/parts/run", "name=parts")
    assert main(*settings, "trainer.max_epochs=6", "name=whole").code == 0
    assert main(*short, "trainer.max_epochs=4").code == 0
    extended = main(*short, "trainer.max_epochs=6", "resume=extend")
    assert extended.code == 0, extended.errors
    check_equal(tmp_path, "parts", "whole")
    assert result_of(tmp_path, "parts")["epochs"] == (3 if settings == STOPS else 6)


def test_compile_graph_stops_at_the_same_epoch(main, tmp_path: Path):
    assert main(*STOPS, "name=plain").code == 0
    assert main(*STOPS, "compile=graph", "name=graph").code == 0
    check_equal(tmp_path, "graph", "plain")


def test_training_metrics_can_be_monitored_without_a_validation_set(main, tmp_path: Path):
    more = ("data.val_fraction=0", "monitor.metric=train/loss", "stop.min_delta=10")
    assert main(*STOPS, *more).code == 0
    assert result_of(tmp_path, "digits")["epochs"] == 3


ENDS = "stop may end a training before its last epoch, and this one has "


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("data.val_fraction=0",), "monitors val/acc, but data.val_fraction=0 leaves no validation set: choose stop="),
        (("scheduler=onecycle",), ENDS + "OneCycleLR, whose learning rate depends on trainer.max_epochs: choose stop="),
        (("scheduler=cosine",), ENDS + "CosineAnnealingLR"),
        (("scheduler=cyclic",), ENDS + "CosineCycles"),
        (("average=swa",), ENDS + "callbacks.swa"),
        (("augment=affine", "augment.clean_epochs=1"), ENDS + "augment.clean_epochs, which are its final epochs"),
        (("model=knn",), "stop=early has no effect on a classical baseline"),
        (("stop.patience=0",), "stop.patience=0 must be a whole number of at least 1."),
        (("stop.min_delta=-1",), "stop.min_delta=-1 must be a number, at least 0."),
        (("stop.monitor=test/acc",), "stop.monitor=test/acc is not a metric of training or validation."),
        (("stop.mode=min",), "stop.mode=min contradicts stop.monitor=val/acc"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, tuple) else "",
)
def test_what_cannot_be_stopped_is_refused_in_one_sentence(main, tmp_path: Path, more: tuple[str, ...], sentence: str):
    refused = main("data=digits", "data.limit=120", "stop=early", *more)
    assert refused.code == 2
    assert sentence in refused.errors
    assert len(refused.errors.splitlines()) == 1
    assert not list(tmp_path.glob("outputs/*/*/result.json"))


@pytest.mark.long
@pytest.mark.parametrize("more", ["scheduler=step", "scheduler=plateau", "average=ema"])
def test_what_can_end_at_any_epoch_is_accepted(main, tmp_path: Path, more: str):
    assert main(*STOPS, more).code == 0
    assert result_of(tmp_path, "digits")["epochs"] <= 4
