"""Jobs in parallel processes: equal results; the end of one does not end the others."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.long
SMALL = ["-m", "data=digits", "data.limit=100", "trainer.max_epochs=2"]
LAUNCHERS = [
    ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=10"],
]
TROUBLE = """
import os, signal, lightning
class Trouble(lightning.Callback):
    def __init__(self, seed): self.seed = seed
    def on_train_epoch_start(self, trainer, module):
        if trainer.current_epoch == 1:
            if self.seed == 1: os.kill(os.getpid(), signal.SIGKILL)
            if self.seed == 2: raise RuntimeError("boom")
            if self.seed == 3: module.net.classifier[0].weight.data.fill_(float("nan"))
"""


def sweep(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "handwriting.run", *SMALL, *more]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)


def runs(folder: Path, name: str) -> dict[int, dict[str, Any]]:
    records = [json.loads(path.read_text()) for path in folder.glob(f"outputs/{name}/*/result.json")]
    return {record["settings"]["seed"]: record for record in records}


@pytest.mark.parametrize("launcher", LAUNCHERS, ids=lambda launcher: launcher[0])
def test_parallel_results_equal_those_of_a_serial_sweep(tmp_path: Path, launcher: list[str], monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert sweep(tmp_path, "seed=0,1,2", "name=serial").returncode == 0
    done = sweep(tmp_path, "seed=0,1,2", "name=parallel", *launcher)
    assert done.returncode == 0, done.stderr
    assert "3 " in done.stdout  # the report is made where the sweep was started
    serial, parallel = runs(tmp_path, "serial"), runs(tmp_path, "parallel")
    assert {seed: run["metrics"] for seed, run in parallel.items()} == {s: r["metrics"] for s, r in serial.items()}


@pytest.mark.parametrize("launcher", LAUNCHERS, ids=lambda launcher: launcher[0])
def test_three_troubles_are_three_reasons_and_three_rows_are_good(tmp_path: Path, launcher: list[str], monkeypatch):
    (tmp_path / "trouble.py").write_text(TROUBLE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    callback = ["+callbacks.trouble._target_=trouble.Trouble", "+callbacks.trouble.seed=${seed}"]
    done = sweep(tmp_path, "seed=0,1,2,3,4,5", "name=six", *callback, *launcher)
    assert done.returncode == 1, done.stderr
    found = runs(tmp_path, "six")
    assert [found[seed]["status"] for seed in range(6)] == ["done", "failed", "failed", "failed", "done", "done"]
    assert found[1]["reason"].startswith("killed by SIGKILL")
    assert found[2]["reason"] == "RuntimeError: boom"
    assert found[3]["reason"].startswith("The training loss became nan")
    assert done.stdout.count("Not finished: ") == 3
