"""compile=graph trains as compile=false does: here on a CPU, where its steps run without a graph."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from handwriting.training.graphs import GraphClassifier
from handwriting.utils.errors import UserError

SMALL = ("data=digits", "data.limit=300", "data.batch_size=32", "trainer.max_epochs=4")
SMALL += ("model.widths=[4,8]", "model.hidden=[16]", "trainer.log_every_n_steps=3")


def run_of(folder: Path, name: str) -> tuple[dict[str, Any], pd.DataFrame, dict[str, Any]]:
    (run,) = (folder / "outputs" / name).glob("*/")
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    return json.loads((run / "result.json").read_text()), pd.read_csv(run / "metrics.csv"), checkpoint


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(("model.dropout=0.3",), marks=pytest.mark.long),
        ("scheduler=onecycle", "augment=affine"),
        pytest.param(("scheduler=step", "scheduler.step_size=1", "augment=mixup"), marks=pytest.mark.long),
        pytest.param(
            ("scheduler=plateau", "scheduler.patience=0", "optim=sgd", "optim.lr=0.5"), marks=pytest.mark.long
        ),
        pytest.param(("scheduler=cyclic", "scheduler.cycles=2", "average=swa"), marks=pytest.mark.long),
        ("data.val_fraction=0", "scheduler=cosine", "trainer.precision=bf16-mixed"),
    ],
    ids=" ".join,
)
def test_graph_training_has_the_results_of_ordinary_training(main, tmp_path: Path, overrides: tuple[str, ...]):
    assert main(*SMALL, *overrides, "name=plain").code == 0
    assert main(*SMALL, *overrides, "compile=graph", "name=graph").code == 0
    (plain, rows, last), (graph, graph_rows, graph_last) = (run_of(tmp_path, name) for name in ("plain", "graph"))
    assert graph["metrics"] == plain["metrics"]
    pd.testing.assert_frame_equal(graph_rows, rows, check_like=True)
    assert graph_last["global_step"] == last["global_step"] == 4 * 10
    for name, weight in last["state_dict"].items():
        torch.testing.assert_close(graph_last["state_dict"][name], weight, rtol=0, atol=0)


@pytest.mark.long
def test_graph_training_resumes(main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    more = (*SMALL, "compile=graph", "model.dropout=0.3", "scheduler=onecycle")
    assert main(*more, "name=whole").code == 0
    trained = GraphClassifier.training_step

    def stop(model: GraphClassifier, *arguments: Any) -> None:
        if model.current_epoch == 2:
            raise KeyboardInterrupt
        return trained(model, *arguments)

    monkeypatch.setattr(GraphClassifier, "training_step", stop)
    assert main(*more, "name=resumed").code == 130
    monkeypatch.setattr(GraphClassifier, "training_step", trained)
    assert main(*more, "name=resumed").code == 0
    whole, resumed = run_of(tmp_path, "whole"), run_of(tmp_path, "resumed")
    assert resumed[0]["resumed"] == [2 * 10]
    assert resumed[0]["metrics"] == whole[0]["metrics"]
    pd.testing.assert_frame_equal(resumed[1], whole[1])


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("average=ema", "EMAWeightAveraging acts on single steps"),
        ("trainer.gradient_clip_val=1", "trainer.gradient_clip_val=1"),
        ("+trainer.accumulate_grad_batches=2", "trainer.accumulate_grad_batches=2"),
        ("trainer.limit_train_batches=3", "trainer.limit_train_batches=3"),
        ("trainer.limit_train_batches=1", "trainer.limit_train_batches=1"),
        ("trainer.devices=auto", "trainer.devices=auto"),
        ("+callbacks.checkpoint.every_n_train_steps=5", "ModelCheckpoint acts on single steps"),
        ("+trainer.detect_anomaly=true", "trainer.detect_anomaly=True"),
        ("compile=1", "compile=1 must be false, true or graph"),
        ("trainer.precision=16-mixed", "trainer.precision=16-mixed"),
        ("compile=maybe", "compile=maybe must be false, true or graph"),
    ],
)
def test_graph_training_refuses_what_it_cannot_do(main, tmp_path: Path, override: str, what: str):
    compiled = () if override.startswith("compile") else ("compile=graph",)
    outcome = main(*SMALL, *compiled, override)
    assert outcome.code == 2
    assert what in outcome.errors
    assert not list(tmp_path.glob("outputs/*/*/checkpoints"))


def test_an_optimizer_that_computes_the_loss_several_times_is_refused():
    model = GraphClassifier(torch.nn.Linear(4, 2), torch.optim.LBFGS, num_classes=2)
    with pytest.raises(UserError, match="compile=graph cannot train with LBFGS"):
        model.make_optimization(steps=10)


def test_plateau_without_a_validation_in_each_epoch_is_one_sentence(main):
    more = ("compile=graph", "scheduler=plateau", "trainer.check_val_every_n_epoch=2")
    outcome = main(*SMALL, *more)
    assert outcome.code == 2
    assert "scheduler=plateau needs val/loss after every epoch" in outcome.errors
