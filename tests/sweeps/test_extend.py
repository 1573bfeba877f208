"""resume=extend: a finished run is trained for more epochs, with the result of an uninterrupted run."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from handwriting.inference.checkpoints import read_weights
from handwriting.training.module import TrainingModule

SMALL = ("data=digits", "data.limit=120", "data.batch_size=32", "model.widths=[4,8]", "model.hidden=[16]")
SMALL += ("model.dropout=0.3", "augment=affine")
EXTEND = "resume=extend"


def epochs(number: int) -> str:
    return f"trainer.max_epochs={number}"


def folder_of(folder: Path, name: str, number: int) -> Path:
    """The run of seed 0; its name may be too long for the setting to be in it."""
    settings = {
        path.parent: record_of(path.parent)["settings"] for path in folder.glob(f"outputs/{name}/*/result.json")
    }
    (run,) = (run for run, one in settings.items() if (one["trainer"]["max_epochs"], one["seed"]) == (number, 0))
    return run


def record_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "result.json").read_text())


def check_equal(run: Path, whole: Path) -> None:
    for key in ("metrics", "epochs", "chosen_epoch", "fingerprint", "temperature"):
        assert record_of(run)[key] == record_of(whole)[key], key
    first, second = (pd.read_csv(one / "metrics.csv") for one in (run, whole))
    pd.testing.assert_frame_equal(first, second, check_like=True)
    assert (run / "predictions.csv").read_text() == (whole / "predictions.csv").read_text()
    for checkpoint in ("best.ckpt", "last.ckpt"):
        weights, expected = (read_weights(one / "checkpoints" / checkpoint) for one in (run, whole))
        for name, tensor in expected.items():
            assert torch.equal(weights[name], tensor), name


@pytest.mark.parametrize(
    "more",
    [
        (),
        *(
            pytest.param(one, marks=pytest.mark.long)
            for one in (
                ("optim=momentum", "scheduler=step", "scheduler.step_size=1"),
                ("scheduler=plateau", "scheduler.patience=0", "optim.lr=0.1"),  # the best epoch is an early one
                ("data.val_fraction=0", "optim=adamw"),
            )
        ),
    ],
    ids=" ".join,
)
def test_an_extended_run_equals_an_uninterrupted_one(main, tmp_path: Path, more: tuple[str, ...]):
    settings = (*SMALL, *more)
    assert main(*settings, epochs(4), "name=whole").code == 0
    assert main(*settings, epochs(2), "name=parts").code == 0
    short = folder_of(tmp_path, "parts", 2)
    before = {path: path.read_bytes() for path in short.rglob("*") if path.is_file() and ".hydra" not in str(path)}
    extended = main(*settings, epochs(4), "name=parts", EXTEND)
    assert extended.code == 0, extended.errors
    assert "resumes after step 8" in extended.output
    assert all(path.read_bytes() == content for path, content in before.items())  # nothing of the short run is lost
    run = folder_of(tmp_path, "parts", 4)
    check_equal(run, folder_of(tmp_path, "whole", 4))
    assert record_of(run)["extended"] == [2]
    assert "Nothing was trained" in main(*settings, epochs(4), "name=parts", EXTEND).output


@pytest.mark.long
def test_an_extended_run_that_is_interrupted_resumes(main, tmp_path: Path):
    assert main(*SMALL, epochs(4), "name=whole").code == 0
    assert main(*SMALL, epochs(1), "name=parts").code == 0
    trained = TrainingModule.training_step

    def stop(model: TrainingModule, *arguments: Any) -> torch.Tensor:
        if model.current_epoch == 2:
            raise KeyboardInterrupt
        return trained(model, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingModule, "training_step", stop)
        assert main(*SMALL, epochs(4), "name=parts", EXTEND).code == 130
    again = main(*SMALL, epochs(4), "name=parts", EXTEND)
    assert "resumes after step 8" in again.output
    run = folder_of(tmp_path, "parts", 4)
    check_equal(run, folder_of(tmp_path, "whole", 4))
    assert (record_of(run)["extended"], record_of(run)["resumed"]) == ([1], [4, 8])


@pytest.mark.long
def test_where_the_folder_is_the_same_the_run_itself_is_extended(main, tmp_path: Path):
    assert main(*SMALL, epochs(3), "name=whole").code == 0
    same = "hydra.run.dir=outputs/parts/run"
    assert main(*SMALL, epochs(1), same).code == 0
    refused = main(*SMALL, epochs(3), same)
    assert refused.code == 2
    assert "trainer.max_epochs was 1, is 3" in refused.errors
    assert main(*SMALL, epochs(3), same, EXTEND).code == 0
    check_equal(tmp_path / "outputs" / "parts" / "run", folder_of(tmp_path, "whole", 3))


@pytest.mark.long
def test_the_longest_run_is_extended_and_others_are_left_alone(main, tmp_path: Path):
    for number in (1, 2):
        assert main(*SMALL, epochs(number), "name=parts").code == 0
    assert main(*SMALL, epochs(2), "seed=1", "name=parts").code == 0
    extended = main(*SMALL, epochs(3), "name=parts", EXTEND)
    assert "resumes after step 8" in extended.output
    assert record_of(folder_of(tmp_path, "parts", 3))["settings"]["seed"] == 0


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ((), "resume=extend found no finished run with these settings and fewer than trainer.max_epochs=2 epochs"),
        (("scheduler=onecycle",), "resume=extend cannot extend a run with OneCycleLR, whose learning rate depends on"),
        (("scheduler=cosine",), "resume=extend cannot extend a run with CosineAnnealingLR"),
        (("scheduler=cyclic",), "resume=extend cannot extend a run with CosineCycles"),
        (("average=swa",), "resume=extend cannot extend a run with callbacks.swa"),
        (("augment=affine", "augment.clean_epochs=1"), "resume=extend cannot extend a run with augment.clean_epochs"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, tuple) else "",
)
def test_what_cannot_be_extended_is_refused_in_one_sentence(main, tmp_path: Path, more: tuple[str, ...], sentence: str):
    refused = main("data=digits", "data.limit=120", epochs(2), *more, EXTEND)
    assert refused.code == 2
    assert sentence in refused.errors
    assert len(refused.errors.splitlines()) == 1
    assert not list(tmp_path.glob("outputs/*/*/result.json"))


def test_a_damaged_checkpoint_is_not_extended_and_a_foreign_run_is_not_replaced(main, tmp_path: Path):
    assert main(*SMALL, epochs(1), "name=parts").code == 0
    other = main(*SMALL, epochs(1), "seed=1", "hydra.run.dir=outputs/parts/other")
    assert other.code == 0
    refused = main(*SMALL, epochs(2), EXTEND, "hydra.run.dir=outputs/parts/other")
    assert refused.code == 2
    assert "has a run with other settings" in refused.errors
    assert record_of(tmp_path / "outputs" / "parts" / "other")["status"] == "done"
    last = folder_of(tmp_path, "parts", 1) / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    refused = main(*SMALL, epochs(2), "name=parts", EXTEND)
    assert refused.code == 2
    assert f"{last} is damaged: the run cannot be extended" in refused.errors
