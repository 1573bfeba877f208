"""A job that kills its own process, as a job without enough memory is killed."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.long
SMALL = ("data=digits", "data.limit=100", "trainer.max_epochs=2")


def runs(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("outputs/*/*/result.json"))]


KILLER = """
import os, signal, lightning
class Kill(lightning.Callback):
    def __init__(self, seed): self.seed = seed
    def on_train_epoch_start(self, trainer, module):
        if trainer.current_epoch == 1 and self.seed == 1 and not os.environ.get("SPARE"):
            os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_job_that_kills_its_process_does_so_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "killer.py").write_text(KILLER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    command = [sys.executable, "-m", "handwriting.run", "-m", *SMALL, "seed=1,2"]
    command += ["+callbacks.kill._target_=killer.Kill", "+callbacks.kill.seed=${seed}"]

    def sweep() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200)

    assert sweep().returncode == -signal.SIGKILL
    assert [run["status"] for run in runs(tmp_path)] == ["running"]
    second = sweep()
    assert second.returncode == 1, second.stderr
    killed, good = runs(tmp_path)
    assert (killed["status"], good["status"]) == ("failed", "done")
    assert killed["reason"] == "killed by SIGKILL, as the system does when memory runs out"
    monkeypatch.setenv("SPARE", "1")
    assert sweep().returncode == 0
    assert [(run["status"], run.get("resumed")) for run in runs(tmp_path)] == [
        ("done", [7, 7]),
        ("done", None),
    ]  # steps
