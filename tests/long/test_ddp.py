"""One job in two processes: the result of one process; if one process ends, so does the job."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.long
# Without dropout, whose random numbers differ between processes; with 500 images the last batch is smaller.
SMALL = ["data=digits", "data.limit=500", "data.batch_size=33", "trainer.max_epochs=2", "model.dropout=0", "optim=sgd"]
SMALL += ["optim.lr=0.01"]  # where training is stable: at 0.1 rounding errors grow until the weights differ
NUMBERS = ["data=street_demo", "data.images=200", "data.test_images=41", "data.batch_size=20", "trainer.max_epochs=8"]
NUMBERS += ["model=detector", "model.widths=[16,32,64]", "model.depths=[1,1,1]", "model.features=16", "optim.lr=0.01"]
TROUBLE = """
import os, lightning
class Trouble(lightning.Callback):
    def on_train_epoch_start(self, trainer, module):
        if trainer.current_epoch == 1 and trainer.global_rank == 1 and not os.environ.get("SPARE"):
            os.kill(os.getpid(), 9)
"""


LOUD = """
import lightning
class Loud(lightning.Callback):
    def on_train_epoch_start(self, trainer, module):
        print(f"loud {trainer.global_rank}", "x" * 200_000)  # more than a pipe holds
"""


def run(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return call(folder, *SMALL, *more)


def call(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "handwriting.run", *overrides]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


def record(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("*/result.json")
    return json.loads(path.read_text())


@pytest.mark.parametrize(
    "overrides", [SMALL, [*SMALL, "augment=shift7", "data.limit=100", "data.val_fraction=0"]], ids=" ".join
)
def test_two_processes_come_to_the_result_of_one(tmp_path: Path, overrides: list[str]):
    alone, together = (
        call(tmp_path, "name=alone", *overrides),
        call(tmp_path, "name=together", "trainer=ddp", "trainer.accelerator=cpu", *overrides),
    )
    assert (alone.returncode, together.returncode) == (0, 0), together.stderr
    first, second = (record(tmp_path / "outputs" / name) for name in ("alone", "together"))
    assert second["device"].startswith("2 × cpu")
    assert second["metrics"] == pytest.approx(first["metrics"], rel=1e-5, abs=1e-6)
    assert [second["metrics"][key] for key in second["metrics"] if "acc" in key] == pytest.approx(
        [first["metrics"][key] for key in first["metrics"] if "acc" in key], abs=1e-6
    )
    tables = [(tmp_path / "outputs" / name).glob("*/per_class.csv") for name in ("alone", "together")]
    assert next(tables[0]).read_text() == next(tables[1]).read_text()


def test_two_processes_count_each_image_of_several_characters_once(tmp_path: Path):
    """Batch norm sees half of a batch in each process: the weights are not those of one process, but the counts are."""
    trained = call(tmp_path, "name=together", "trainer=ddp", "trainer.accelerator=cpu", *NUMBERS)
    assert trained.returncode == 0, trained.stderr
    together = record(tmp_path / "outputs" / "together")
    (run,) = (path.parent for path in tmp_path.glob("outputs/together/*/result.json"))
    command = [sys.executable, "-m", "handwriting.evaluate", str(run)]
    alone = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert alone.returncode == 0, alone.stderr
    (scores,) = json.loads((run / "evaluation" / "test" / "evaluation.json").read_text())["models"].values()
    for name in ("acc", "char_acc", "length_acc", "map", "map_50"):
        assert together["metrics"][f"test/{name}"] == pytest.approx(scores[name], abs=1e-5), name
    assert 0 < scores["map_50"] < 1


def test_the_death_of_one_process_is_the_jobs_reason_and_the_same_command_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "trouble.py").write_text(TROUBLE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    overrides = ["trainer=ddp", "trainer.accelerator=cpu", "+callbacks.trouble._target_=trouble.Trouble"]
    failed = run(tmp_path, *overrides)
    assert failed.returncode == 1, failed.stderr
    assert "killed by SIGKILL" in record(tmp_path / "outputs" / "digits")["reason"]
    monkeypatch.setenv("SPARE", "1")
    assert run(tmp_path, *overrides).returncode == 0
    found = record(tmp_path / "outputs" / "digits")
    assert (found["status"], found["epochs"], len(found["resumed"])) == ("done", 2, 1)


def test_what_the_second_process_prints_does_not_block_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "loud.py").write_text(LOUD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = run(tmp_path, "trainer=ddp", "trainer.accelerator=cpu", "+callbacks.loud._target_=loud.Loud")
    assert done.returncode == 0, done.stderr
    assert "loud 0" in done.stdout
    (log,) = tmp_path.glob("outputs/digits/*/run.log")
    assert "loud 1" in log.read_text()


def test_a_batch_that_leaves_a_process_nothing_is_refused(tmp_path: Path):
    refused = run(tmp_path, "trainer=ddp", "trainer.accelerator=cpu", "data.batch_size=499")
    assert refused.returncode == 2, refused.stderr
    assert "leaves a last batch of 1 for 2 processes" in refused.stderr
