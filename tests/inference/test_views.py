"""Test-time augmentation, snapshots and ensembles from the command line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from handwriting.data.augment import Augmentation, Mixup, Warp
from handwriting.data.digits import read_digits
from handwriting.evaluate import main as evaluate
from handwriting.inference.checkpoints import load_trained
from handwriting.utils.errors import UserError

SMALL = ("data=digits", "data.limit=300", "trainer.max_epochs=2", "model.widths=[8,16]", "model.hidden=[32]")


def evaluated(place: Path, *options: str, out: Path) -> dict[str, dict[str, float]]:
    evaluate([str(place), *options, f"out={out}"])
    return json.loads((out / "evaluation.json").read_text())["models"]


def record_of(folder: Path) -> tuple[Path, dict[str, Any]]:
    (path,) = folder.glob("outputs/*/*/result.json")
    return path.parent, json.loads(path.read_text())


def test_the_first_view_is_the_image_and_all_are_the_same_each_time():
    images = read_digits().test.images[:20]
    augmentation = Augmentation(steps={"warp": Warp(degrees=10, shift=2)}, seed=3)
    views, again = (list(augmentation.views(images, 4)) for _ in range(2))
    assert len(views) == 4
    assert torch.equal(views[0], images)
    assert all(view.dtype == torch.uint8 for view in views)
    assert all(map(torch.equal, views, again))
    assert len({view.numpy().tobytes() for view in views}) == 4


@pytest.mark.parametrize("steps", [{}, {"mixup": Mixup(alpha=1.0)}])
def test_an_augmentation_that_changes_no_single_image_gives_no_views(steps: dict):
    with pytest.raises(UserError, match=r"tta\.views=2 is more than the 1 that this augmentation makes"):
        list(Augmentation(steps=steps).views(read_digits().test.images[:4], 2))


def test_offline_variants_are_views_before_the_random_ones():
    images = read_digits().test.images[:6]
    fixed = Augmentation(["one_pixel_left", "original", "one_pixel_down"])
    views = list(fixed.views(images, 3))
    assert [torch.equal(view, images) for view in views] == [True, False, False]
    assert torch.equal(views[1][..., :-1], images[..., 1:])
    assert torch.equal(views[2][:, :, 1:], images[:, :, :-1])
    assert all(map(torch.equal, fixed.views(images, 2), views[:2]))
    with pytest.raises(UserError, match=r"tta\.views=4 is more than the 3 that this augmentation makes"):
        list(fixed.views(images, 4))
    both = list(Augmentation(fixed.variants, {"warp": Warp(degrees=10)}).views(images, 5))
    assert all(map(torch.equal, both, views))
    assert not any(torch.equal(both[3], view) for view in [*views, both[4]])


def test_a_run_is_tested_with_views_and_without(main, tmp_path: Path):
    outcome = main(*SMALL, "augment=affine", "tta.views=3")
    assert outcome.code == 0
    run, record = record_of(tmp_path)
    assert "test TTA %" in (run.parent / "summary.md").read_text()
    trained = load_trained(run / "checkpoints" / "best.ckpt")
    test = read_digits().test
    augmentation = Augmentation(steps={"warp": Warp(**affine_of(record))}, seed=0)
    with torch.inference_mode():
        outputs = [
            torch.stack([trained.model(view).softmax(1) for view in augmentation.views(images, 3)]).mean(0)
            for images in test.images.split(500)
        ]
    accuracy = (torch.cat(outputs).argmax(1) == test.labels).float().mean().item()
    assert record["metrics"]["test_tta/acc"] == pytest.approx(accuracy, abs=1e-6)
    models = evaluated(run, "tta.views=3", out=tmp_path / "evaluated")
    assert [scores["acc"] for scores in models.values()] == pytest.approx(
        [record["metrics"]["test/acc"], record["metrics"]["test_tta/acc"]], abs=1e-6
    )
    assert list(models) == [run.name, f"{run.name}, 3 views"]


def affine_of(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record["settings"]["augment"]["steps"]["warp"].items() if key != "_target_"}


def test_views_without_augmentation_are_refused_before_training(main):
    outcome = main(*SMALL, "tta.views=3")
    assert outcome.code == 2
    assert "tta.views=3 is more than the 1 that this augmentation makes of an image: choose fewer" in outcome.errors
    outcome = main(*SMALL, "tta.views=3", "tta.augment=nudges")
    assert outcome.code == 2
    assert "augment=nudges is not a choice of augment. Did you mean 'nudge'?" in outcome.errors


@pytest.mark.long
def test_another_augmentation_can_make_the_views(main, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    assert main(*SMALL, "augment=affine", "tta.views=5", "tta.augment=nudge").code == 0
    run, record = record_of(tmp_path)
    model, test = load_trained(run / "checkpoints" / "best.ckpt").model, read_digits().test
    padded = torch.nn.functional.pad(test.images, (1, 1, 1, 1))
    height, width = test.images.shape[2:]
    places = (
        (1, 1),
        (1, 2),
        (1, 0),
        (2, 1),
        (0, 1),
    )  # top left corner in the padded image: original, left, right, up, down
    with torch.inference_mode():
        views = [model(padded[:, :, y : y + height, x : x + width]).softmax(1) for y, x in places]
    accuracy = (torch.stack(views).mean(0).argmax(1) == test.labels).float().mean().item()
    assert record["metrics"]["test_tta/acc"] == pytest.approx(accuracy, abs=1e-6)
    shifted = evaluated(run, "tta.views=5", out=tmp_path / "as the run")
    assert shifted[f"{run.name}, 5 views"]["acc"] == pytest.approx(accuracy, abs=1e-6)
    warped = evaluated(run, "tta.views=5", "tta.augment=affine", out=tmp_path / "warped")
    assert warped[f"{run.name}, 5 views"]["loss"] != pytest.approx(shifted[f"{run.name}, 5 views"]["loss"], abs=1e-6)
    with pytest.raises(SystemExit) as stop:
        evaluate([str(run), "tta.views=2", "tta.augment=afine"])
    assert stop.value.code == 2
    assert "Did you mean 'affine'?" in capfd.readouterr().err


@pytest.mark.long
def test_a_cyclic_learning_rate_saves_snapshots_that_are_averaged(main, tmp_path: Path):
    assert main(*SMALL[:2], *SMALL[3:], "scheduler=cyclic", "scheduler.cycles=3", "trainer.max_epochs=6").code == 0
    run, _ = record_of(tmp_path)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
        "best.ckpt", "cycle1.ckpt", "cycle2.ckpt", "cycle3.ckpt", "last.ckpt",
    ]  # fmt: skip
    last, third = (load_trained(run / "checkpoints" / f"{name}.ckpt").model.state_dict() for name in ("last", "cycle3"))
    assert all(torch.equal(last[name], third[name]) for name in last)
    models = evaluated(run, out=tmp_path / "evaluated")
    assert list(models)[-1] == "mean of the 3"
    assert len(models) == 4
    test = read_digits().test
    with torch.inference_mode():
        nets = [load_trained(run / "checkpoints" / f"cycle{number}.ckpt").model for number in (1, 2, 3)]
        mean = torch.stack([net(test.images).softmax(1) for net in nets]).mean(0)
    assert models["mean of the 3"]["acc"] == pytest.approx((mean.argmax(1) == test.labels).float().mean().item())


def test_the_learning_rate_falls_to_zero_in_each_cycle():
    from handwriting.training.optim import CosineCycles

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.2)
    scheduler = CosineCycles(optimizer, total_steps=20, cycles=2)
    rates = []
    for _ in range(20):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    expected = [0.1 * (1 + torch.tensor(step % 10 * torch.pi / 10).cos().item()) for step in range(20)]
    assert rates == pytest.approx(expected, abs=1e-6)


def test_a_cycle_that_ends_within_an_epoch_is_refused(main):
    outcome = main(*SMALL, "scheduler=cyclic", "scheduler.cycles=3")
    assert outcome.code == 2
    assert "trainer.max_epochs=2 must be a multiple of scheduler.cycles=3" in outcome.errors


@pytest.mark.long
def test_stacking_is_fitted_on_held_out_predictions(main, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    few = ("data=digits", "trainer.max_epochs=1", "model.widths=[8,16]", "model.hidden=[32]")
    folds = ("data.split=kfold", "data.folds=2", "data.fold=0,1")
    assert main("-m", *few, *folds, "optim=adam,sgd").code == 0
    study = tmp_path / "outputs" / "digits"
    for way, called in (
        ("stack", "stack of the 4"),
        ("vote", "vote of the 4"),
        ("logits", "mean of the logits of the 4"),
    ):
        models = evaluated(study, f"ensemble={way}", out=tmp_path / way)
        assert list(models)[-1] == called
        assert models[called]["acc"] > min(scores["acc"] for scores in models.values())
    evaluate([str(study), "split=val"])  # each fold separately, with the ensemble of its two models
    assert "These runs have 2 different validation sets" in capfd.readouterr().out
    assert sorted(path.name for path in (study / "evaluation").iterdir()) == ["digits,fold=0_val", "digits,fold=1_val"]
    for run in study.glob("*data.fold=1,*optim=sgd*"):
        (run / "result.json").unlink()
    with pytest.raises(SystemExit):
        evaluate([str(study), "ensemble=stack"])
    assert "needs predictions for images that were held out once each" in capfd.readouterr().err
    with pytest.raises(SystemExit):
        evaluate([str(study), "ensemble=median"])
    assert "ensemble=median must be one of mean, logits, vote, stack" in capfd.readouterr().err


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, run_in: Callable[..., int]) -> None:
    """Figures are tested elsewhere."""
    monkeypatch.setattr("handwriting.inference.evaluation_report._figures", lambda *_: {})
