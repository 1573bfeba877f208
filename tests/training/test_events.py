"""The event files of a run: each curve in the order of its steps, the final accuracies, the settings."""

import json
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from handwriting.training.module import Classifier

SMALL = ("data=digits", "data.limit=120", "trainer.max_epochs=3", "data.batch_size=32", "trainer.log_every_n_steps=1")
SMALL += ("model.widths=[4,8]", "model.hidden=[16]")
LOGGED = {f"{part}/{metric}" for part in ("train", "val", "test") for metric in ("loss", "acc")}
FINAL = {"final/test/acc", "final/val/acc"}


def points(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the points of each tag, step and value, in the order in which they were written."""
    (result,) = folder.glob("outputs/*/*/result.json")
    events = EventAccumulator(str(result.parent), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def record(folder: Path) -> dict[str, Any]:
    (result,) = folder.glob("outputs/*/*/result.json")
    return json.loads(result.read_text())


def check_order(curves: dict[str, list[tuple[int, float]]]) -> None:
    assert "epoch" not in curves
    for tag, curve in curves.items():
        steps = [step for step, _ in curve]
        assert steps == sorted(set(steps)), tag


@pytest.mark.parametrize(
    ("more", "steps"), [((), 4), (("+trainer.accumulate_grad_batches=3",), 2), (("data.val_fraction=0",), 4)]
)
def test_no_point_is_out_of_order_or_logged_twice(main, tmp_path: Path, more: tuple[str, ...], steps: int):
    assert main(*SMALL, *more).code == 0
    curves = points(tmp_path)
    check_order(curves)
    assert [step for step, _ in curves["train/loss_step"]] == list(range(1, 3 * steps + 1))
    wanted = LOGGED | FINAL | {"lr", "train/loss_step"}
    assert curves.keys() == {tag for tag in wanted if "val/" not in tag or "data.val_fraction=0" not in more}


def test_after_a_resume_the_curves_are_in_order_and_whole(main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    trained = Classifier.training_step
    with monkeypatch.context() as patch:

        def stop(model: Classifier, *arguments: Any) -> Any:
            if model.global_step == 7:
                raise KeyboardInterrupt
            return trained(model, *arguments)

        patch.setattr(Classifier, "training_step", stop)
        assert main(*SMALL).code == 130
    assert main(*SMALL).code == 0
    curves = points(tmp_path)
    check_order(curves)
    assert record(tmp_path)["resumed"] == [4]
    assert [step for step, _ in curves["train/loss_step"]] == list(range(1, 13))
    assert [step for step, _ in curves["val/acc"]] == [3, 7, 11]


def test_the_final_validation_accuracy_is_that_of_the_chosen_epoch(main, tmp_path: Path):
    explodes = ("scheduler=step", "scheduler.step_size=1", "scheduler.gamma=1000", "model.widths=[32,64]")
    assert main(*SMALL, *explodes, "tta.views=3", "tta.augment=nudge").code == 0
    run, curves = record(tmp_path), points(tmp_path)
    assert run["chosen_epoch"] == 1
    for name in ("test/acc", "val/acc", "test_tta/acc"):
        ((step, value),) = curves[f"final/{name}"]
        assert (step, value) == (12, pytest.approx(run["metrics"][name]))
    assert curves["final/val/acc"][0][1] == pytest.approx(curves["val/acc"][0][1])
    check_order(curves)


def test_a_baseline_has_its_metrics_once(main, tmp_path: Path):
    assert main(*SMALL[:2], "model=knn").code == 0
    curves = points(tmp_path)
    assert curves.keys() == LOGGED | FINAL
    check_order(curves)
