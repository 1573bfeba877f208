"""A sweep on a real SLURM: jobs are cancelled and requeued, the node is drained, and the table is whole."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.cluster
SWEEP = ["-m", "data=digits", "data.limit=200", "trainer.max_epochs=60", "optim=sgd,adam", "seed=0,1,2,3", "name=study"]
LAUNCHER = [
    "hydra/launcher=submitit_slurm",
    "hydra.launcher.partition=main",
    "hydra.launcher.cpus_per_task=1",
    "hydra.launcher.mem_gb=1",
    "hydra.launcher.timeout_min=20",
    "hydra.launcher.signal_delay_s=5",
]


def runs(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("outputs/study/*/result.json"))]


def ask(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def wait(until: Callable[[], Any], seconds: float) -> Any:
    """Return the first true answer."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := until():
            return found
        time.sleep(0.5)
    pytest.fail(f"not within {seconds:.0f} s\n{ask('squeue')}")


def running_jobs() -> list[str]:
    return ask("squeue", "-h", "-t", "R", "-o", "%i").split()


def two_have_trained(folder: Path) -> bool:
    return len(list(folder.glob("outputs/study/*/checkpoints/last.ckpt"))) > 1


def test_eight_jobs_one_requeued_one_cancelled_and_the_node_drained(slurm: Path, tmp_path: Path):
    command = [sys.executable, "-m", "handwriting.run", *SWEEP, *LAUNCHER]
    sweep = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        wait(lambda: two_have_trained(tmp_path) and running_jobs(), 180)
        ask("scontrol", "requeue", running_jobs()[0])  # what preemption does
        host = socket.gethostname().split(".")[0]
        ask("scontrol", "update", f"nodename={host}", "state=drain", "reason=test")
        time.sleep(5)
        ask("scontrol", "update", f"nodename={host}", "state=resume")
        output, _ = sweep.communicate(timeout=900)
    finally:
        sweep.kill()
    assert sweep.returncode == 0, output
    assert [run["status"] for run in runs(tmp_path)] == ["done"] * 8, output
    assert any(run.get("resumed") for run in runs(tmp_path))
    assert "summary.md" in output  # the report is made where the sweep was started
    text = (tmp_path / "outputs" / "study" / "summary.md").read_text()
    assert "optim=adam" in text
    assert "Not finished" not in text
