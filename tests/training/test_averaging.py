"""Averages of weights are those computed by hand, and what is validated and tested is what is saved."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from handwriting.data.digits import read_digits
from handwriting.inference.checkpoints import load_trained
from handwriting.training.module import Classifier

SMALL = ("data=digits", "data.limit=128", "data.batch_size=32", "trainer.max_epochs=4", "optim.lr=0.01")
STEPS = 4  # an epoch
NET = ("model=glyph_net", "model.widths=[4,8]", "model.depths=[1,1]")  # with batch norm


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """The weights after each step, as they are trained."""
    after: list[dict[str, Tensor]] = []
    step = Classifier.optimizer_step

    def noted(model: Classifier, *arguments, **more) -> None:
        step(model, *arguments, **more)
        after.append({name: value.detach().clone() for name, value in model.state_dict().items()})

    monkeypatch.setattr(Classifier, "optimizer_step", noted)
    return after


def run_of(folder: Path) -> Path:
    (result,) = folder.glob("outputs/digits/*/result.json")
    return result.parent


def saved(folder: Path, name: str = "best") -> dict[str, Tensor]:
    return torch.load(run_of(folder) / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]


def check_close(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    for name, value in wanted.items():
        if "num_batches_tracked" not in name:
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("start", [0.0, 0.5, 0.75, 1.0])
def test_swa_is_the_mean_of_the_last_epochs(main, tmp_path: Path, weights: list[dict[str, Tensor]], start: float):
    assert main(*SMALL, *NET, "average=swa", f"callbacks.swa.start={start}", "data.val_fraction=0").code == 0
    ends = weights[STEPS - 1 :: STEPS]
    assert len(ends) == 4
    last = ends[min(int(4 * start), 3) :]
    mean = {name: torch.stack([end[name].double() for end in last]).mean(0).float() for name in last[0]}
    check_close(saved(tmp_path), mean)
    check_close(saved(tmp_path, "last"), mean)


@pytest.mark.parametrize(
    ("length", "steps", "epochs"),
    [("+trainer.max_steps=12", STEPS, 3), ("+trainer.accumulate_grad_batches=3", 2, 4)],
)
def test_swa_averages_at_the_ends_of_epochs(
    main, tmp_path: Path, weights: list[dict[str, Tensor]], length: str, steps: int, epochs: int
):
    assert main(*SMALL, *NET, "average=swa", "callbacks.swa.start=0", "data.val_fraction=0", length).code == 0
    ends = weights[steps - 1 :: steps]
    assert len(ends) == epochs
    check_close(saved(tmp_path), {n: torch.stack([end[n].double() for end in ends]).mean(0).float() for n in ends[0]})


def test_ema_is_the_moving_average(main, tmp_path: Path, weights: list[dict[str, Tensor]]):
    assert main(*SMALL, *NET, "average=ema", "callbacks.ema.decay=0.9", "data.val_fraction=0").code == 0
    average = {name: value.double() for name, value in weights[0].items()}
    for after in weights[1:]:
        average = {name: 0.9 * value + 0.1 * after[name].double() for name, value in average.items()}
    check_close(saved(tmp_path), {name: value.float() for name, value in average.items()})


@pytest.mark.parametrize("average", ["none", "ema", "swa"])
def test_what_is_validated_and_tested_is_what_is_saved(main, tmp_path: Path, average: str):
    more = ["callbacks.ema.decay=0.8"] if average == "ema" else []
    assert main(*SMALL, *NET, f"average={average}", *more).code == 0
    run = run_of(tmp_path)
    record = json.loads((run / "result.json").read_text())
    test = read_digits().test
    with torch.inference_mode():
        logits = load_trained(run / "checkpoints" / "best.ckpt").model(test.images)
    assert F.cross_entropy(logits, test.labels).item() == pytest.approx(record["metrics"]["test/loss"], rel=1e-4)
    rows = pd.read_csv(run / "metrics.csv").dropna(subset=["val/acc"])
    assert record["metrics"]["val/acc"] == pytest.approx(rows["val/acc"].max())
    assert record["choices"]["average"] == average


@pytest.mark.long
def test_an_average_resumes_after_an_interruption(main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for average in ("swa", "ema"):
        arguments = (*SMALL, *NET, f"average={average}")
        assert main(*arguments, "name=whole").code == 0
        with monkeypatch.context() as patch:
            trained = Classifier.training_step

            def stop(model, *batch, trained=trained):
                if model.global_step == 3 * STEPS + 2:
                    raise KeyboardInterrupt
                return trained(model, *batch)

            patch.setattr(Classifier, "training_step", stop)
            assert main(*arguments, "name=parts").code == 130
        assert main(*arguments, "name=parts").code == 0
        (whole,) = tmp_path.glob(f"outputs/whole/*{average}*/result.json")
        (parts,) = tmp_path.glob(f"outputs/parts/*{average}*/result.json")
        first, second = (json.loads(path.read_text())["metrics"] for path in (whole, parts))
        assert first == pytest.approx(second, rel=1e-5)


def test_an_impossible_start_is_refused(main):
    outcome = main(*SMALL, "average=swa", "callbacks.swa.start=1.5")
    assert outcome.code == 2
    assert "callbacks.swa.start=1.5 must be a number, at least 0 and at most 1" in outcome.errors
