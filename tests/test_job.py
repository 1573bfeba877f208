"""Jobs that fail, die, or are trained by another process."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from filelock import SoftFileLease

from handwriting.job import LEASE
from handwriting.processes import count_processes

SMALL = ("data=digits", "data.limit=100", "trainer.max_epochs=2")


def runs(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("outputs/*/*/result.json"))]


def test_a_loss_that_is_no_number_is_a_reason_and_the_others_run(main, tmp_path: Path):
    code, errors, output = main("-m", *SMALL, "optim.lr=0.001,1e30")
    assert code == 1
    good, bad = runs(tmp_path)
    assert (good["status"], bad["status"]) == ("done", "failed")
    assert bad["reason"].startswith("The training loss became nan up to step ")
    assert "Traceback" not in errors
    assert f"optim.lr=1e+30,trainer.max_epochs=2: {bad['reason']}" in output


def test_such_a_loss_can_be_kept(main, tmp_path: Path):
    assert main(*SMALL, "optim.lr=1e30", "on_nan=keep").code == 0
    (run,) = runs(tmp_path)
    assert (run["status"], run["epochs"], run["metrics"]["train/loss"]) == ("done", 2, None)


def test_fail_fast_ends_the_sweep(main, tmp_path: Path):
    assert main("-m", *SMALL, "data.batch_size=0,16", "fail_fast=true").code == 2
    assert [run["status"] for run in runs(tmp_path)] == ["failed"]


def test_a_job_that_another_process_trains_is_left_to_it(main, tmp_path: Path):
    folder = tmp_path / "outputs" / "digits" / "data.limit=100,optim=sgd,trainer.max_epochs=2"
    folder.mkdir(parents=True)
    with SoftFileLease(folder / ".lock", lease_duration=LEASE):
        code, _, output = main("-m", *SMALL, "optim=sgd,adam")
    assert code == 0
    assert f"is being trained by process {os.getpid()}" in output
    assert "Left to other processes: 1." in output
    assert [run["choices"]["optim"] for run in runs(tmp_path)] == ["adam"]
    assert main("-m", *SMALL, "optim=sgd,adam").code == 0
    assert [run["choices"]["optim"] for run in runs(tmp_path)] == ["adam", "sgd"]


def test_the_lock_of_a_process_that_died_does_not_hold(main, tmp_path: Path):
    folder = tmp_path / "outputs" / "digits" / "data.limit=100,trainer.max_epochs=2"
    folder.mkdir(parents=True)
    code = (
        f"from filelock import SoftFileLease; lease = SoftFileLease({str(folder / '.lock')!r}, lease_duration={LEASE})"
    )
    code += "; lease.acquire(); import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert (folder / ".lock").exists()
    assert main(*SMALL).code == 0
    assert not (folder / ".lock").exists()


@pytest.mark.parametrize(
    ("devices", "accelerator", "processes"),
    [(1, "auto", 1), (2, "cpu", 2), ([0, 3], "gpu", 2), ("auto", "cpu", 1), (-1, "cpu", 1)],
)
def test_a_device_is_a_process(devices: object, accelerator: str, processes: int):
    assert count_processes({"devices": devices, "accelerator": accelerator}) == processes
