"""An interrupted run resumes and has the same result as an uninterrupted one."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from handwriting.training.module import TrainingModule
from handwriting.training.resume import last_checkpoint

SMALL = ("data=digits", "data.limit=120", "trainer.max_epochs=3", "data.batch_size=32")
SMALL += ("model.widths=[4,8]", "model.hidden=[16]")
STEPS = 4  # an epoch
# Numbers of several characters: the same number of steps, and models that draw random crops and dropout.
NUMBERS = ("data=street_demo", "data.images=120", "data.test_images=30", "trainer.max_epochs=3", "data.batch_size=24")
NUMBERS += ("augment=scene", "optim=adamw", "scheduler=onecycle")
WHERE = ("model.detector.widths=[8,8]", "model.detector.depths=[1,1]", "model.crop_size=[16,32]")


class Interrupt:
    """Ctrl-C in the middle of a step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.monkeypatch = monkeypatch

    def at(self, step: int) -> None:
        trained = TrainingModule.training_step

        def training_step(model: TrainingModule, *arguments: Any) -> torch.Tensor:
            if model.global_step == step:
                raise KeyboardInterrupt
            return trained(model, *arguments)

        self.monkeypatch.setattr(TrainingModule, "training_step", training_step)

    def never(self) -> None:
        self.monkeypatch.undo()


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Interrupt:
    return Interrupt(pytest.MonkeyPatch())


def only(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


def result_of(folder: Path, name: str) -> dict[str, Any]:
    return json.loads(only(folder, f"outputs/{name}/*/result.json").read_text())


@pytest.mark.parametrize(
    "overrides",
    [
        (*SMALL, "model.dropout=0.3", "scheduler=onecycle"),
        *(
            pytest.param(more, marks=pytest.mark.long)
            for more in (
                (*SMALL, "optim=momentum", "scheduler=step", "scheduler.step_size=1", "augment=strong"),
                (*SMALL, "scheduler=plateau", "scheduler.patience=0", "optim.lr=0.1"),
                (*SMALL, "data.val_fraction=0", "model.dropout=0.3", "scheduler=cosine", "augment=mixup"),
                (
                    *NUMBERS,
                    "model=detect_then_read",
                    *WHERE,
                    "model.recogniser.widths=[8,8]",
                    "model.recogniser.depths=[1,1]",
                ),
            )
        ),
    ],
    ids=" ".join,
)
def test_a_resumed_run_equals_an_undisturbed_one(
    main, interrupt: Interrupt, tmp_path: Path, overrides: tuple[str, ...]
):
    assert main(*overrides, "name=whole").code == 0
    for step in (STEPS + 1, 2 * STEPS + 3):  # in the second epoch, and later in the third
        interrupt.at(step)
        assert main(*overrides, "name=parts").code == 130
        interrupt.never()
    result = main(*overrides, "name=parts")
    assert result.code == 0
    assert "resumes after step 8" in result.output
    whole, parts = result_of(tmp_path, "whole"), result_of(tmp_path, "parts")
    assert parts["resumed"] == [STEPS, 2 * STEPS]
    for key in ("metrics", "epochs", "chosen_epoch", "fingerprint"):
        assert parts[key] == whole[key]
    first, second = (pd.read_csv(only(tmp_path, f"outputs/{name}/*/metrics.csv")) for name in ("whole", "parts"))
    pd.testing.assert_frame_equal(first, second, check_like=True)
    weights = [
        torch.load(only(tmp_path, f"outputs/{name}/*/checkpoints/last.ckpt"), weights_only=True)["state_dict"]
        for name in ("whole", "parts")
    ]
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name]), name


@pytest.mark.long
def test_resume_restart_restarts(main, interrupt: Interrupt, tmp_path: Path):
    assert main(*SMALL, "name=whole").code == 0
    interrupt.at(STEPS + 1)
    assert main(*SMALL, "name=parts").code == 130
    interrupt.never()
    result = main(*SMALL, "name=parts", "resume=restart")
    assert result.code == 0
    assert "resumes" not in result.output
    assert result_of(tmp_path, "parts")["metrics"] == result_of(tmp_path, "whole")["metrics"]


def test_a_checkpoint_that_was_cut_off_is_not_gone_on_from(main, interrupt: Interrupt, tmp_path: Path):
    interrupt.at(STEPS + 1)
    assert main(*SMALL).code == 130
    interrupt.never()
    last = only(tmp_path, "outputs/digits/*/checkpoints/last.ckpt")
    assert last_checkpoint(last.parents[1]) is not None
    last.write_bytes(last.read_bytes()[:1000])
    assert last_checkpoint(last.parents[1]) is None
    result = main(*SMALL)
    assert result.code == 0
    assert "resumes" not in result.output


def test_before_the_first_epoch_is_whole_there_is_nothing_to_go_on_from(main, interrupt: Interrupt, tmp_path: Path):
    interrupt.at(1)
    assert main(*SMALL).code == 130
    interrupt.never()
    assert main(*SMALL).code == 0
