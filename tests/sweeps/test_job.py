"""Jobs that fail, die, or are trained by another process."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from filelock import SoftFileLease

from handwriting.sweeps.job import LEASE, hold
from handwriting.sweeps.subprocesses import count_processes

SMALL = ("data=digits", "data.limit=100", "trainer.max_epochs=2", "model.widths=[4,8]", "model.hidden=[16]")
NAME = "data.limit=100,model.hidden=[16],model.widths=[4,8],"  # as their folders begin


def runs(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("outputs/*/*/result.json"))]


def test_a_loss_that_is_no_number_is_a_reason_and_the_others_run(main, tmp_path: Path):
    code, errors, output = main("-m", *SMALL, "optim.lr=0.001,1e30")
    assert code == 1
    good, bad = runs(tmp_path)
    assert (good["status"], bad["status"]) == ("done", "failed")
    assert bad["reason"].startswith("The training loss became nan up to step ")
    assert "Traceback" not in errors
    assert f"optim.lr=1e+30,trainer.max_epochs=2  {bad['reason']}" in errors
    assert "optim.lr=1e+30,trainer.max_epochs=2: the reason is given above." in output


def test_such_a_loss_can_be_kept(main, tmp_path: Path):
    assert main(*SMALL, "optim.lr=1e30", "on_nan=keep").code == 0
    (run,) = runs(tmp_path)
    assert (run["status"], run["epochs"], run["metrics"]["train/loss"]) == ("done", 2, None)


def test_fail_fast_ends_the_sweep(main, tmp_path: Path):
    assert main("-m", *SMALL, "data.batch_size=0,16", "fail_fast=true").code == 2
    assert [run["status"] for run in runs(tmp_path)] == ["failed"]


@pytest.mark.long
def test_a_job_that_another_process_trains_is_left_to_it(main, tmp_path: Path):
    folder = tmp_path / "outputs" / "digits" / (NAME + "optim=sgd,trainer.max_epochs=2")
    folder.mkdir(parents=True)
    with SoftFileLease(folder / ".lock", lease_duration=LEASE):
        code, _, output = main("-m", *SMALL, "optim=sgd,adam")
    assert code == 3
    assert f"is being trained by process {os.getpid()}" in output
    assert "1 job is being trained by other processes" in output
    assert [run["choices"]["optim"] for run in runs(tmp_path)] == ["adam"]
    assert main("-m", *SMALL, "optim=sgd,adam").code == 0
    assert [run["choices"]["optim"] for run in runs(tmp_path)] == ["adam", "sgd"]


def test_the_lock_of_a_process_that_died_does_not_hold(main, tmp_path: Path):
    folder = tmp_path / "outputs" / "digits" / (NAME + "trainer.max_epochs=2")
    folder.mkdir(parents=True)
    code = (
        f"from filelock import SoftFileLease; lease = SoftFileLease({str(folder / '.lock')!r}, lease_duration={LEASE})"
    )
    code += "; lease.acquire(); import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert (folder / ".lock").exists()
    assert main(*SMALL).code == 0
    assert not (folder / ".lock").exists()


HOLD = """
from filelock import SoftFileLease
lease = SoftFileLease({lock!r}, lease_duration={lease})
lease.acquire()
print("held", flush=True)
input()
"""


@pytest.fixture
def holder(tmp_path: Path):
    """Another process that holds the lock of a job."""
    folder = tmp_path / "outputs" / "digits" / (NAME + "trainer.max_epochs=2")
    folder.mkdir(parents=True)
    code = HOLD.format(lock=str(folder / ".lock"), lease=LEASE)
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


@pytest.mark.skipif(sys.platform != "linux", reason="no /proc")
def test_the_lock_of_a_zombie_does_not_hold(main, tmp_path: Path, holder: subprocess.Popen):
    holder.kill()
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody reaps it
    (folder,) = tmp_path.glob("outputs/digits/*/")
    begun = time.monotonic()
    with hold(folder):
        assert time.monotonic() - begun < LEASE / 2
    assert main(*SMALL).code == 0
    assert [run["status"] for run in runs(tmp_path)] == ["done"]
    assert not [file.name for file in folder.iterdir() if "lock" in file.name]


@pytest.mark.long
def test_the_lock_of_a_process_that_hangs_is_released_when_its_lease_expires(
    main, tmp_path: Path, holder: subprocess.Popen
):
    assert main(*SMALL).code == 3
    holder.send_signal(signal.SIGSTOP)
    time.sleep(LEASE / 2 + 1)
    assert main(*SMALL).code == 0
    assert [run["status"] for run in runs(tmp_path)] == ["done"]


@pytest.mark.parametrize(
    ("devices", "accelerator", "processes"),
    [(1, "auto", 1), (2, "cpu", 2), ([0, 3], "gpu", 2), ("auto", "cpu", 1), (-1, "cpu", 1)],
)
def test_a_device_is_a_process(devices: object, accelerator: str, processes: int):
    assert count_processes({"devices": devices, "accelerator": accelerator}) == processes


def test_an_error_of_all_jobs_is_printed_once(main, tmp_path: Path):
    code, errors, output = main("-m", "data=mnist", "data.path=nowhere", "optim=sgd,adam,adagrad")
    assert code == 2
    assert (errors + output).count("MNIST is not in nowhere") == 1
    assert errors.count("failed for the same reason") == 2
    assert len(errors.splitlines()) == 3
    logs = [path.read_text() for path in tmp_path.glob("outputs/mnist/*/run.log")]
    assert [log.count("MNIST is not in nowhere") for log in logs] == [1, 1, 1]
    assert (tmp_path / "outputs" / "mnist" / "summary.md").read_text().count("MNIST is not in nowhere") == 1


def test_a_run_at_chance_level_says_so(main, tmp_path: Path):
    assert "is chance level; try a lower optim.lr." in main(*SMALL, "optim.lr=30", "optim=sgd", "on_nan=keep").output
    assert "chance level" not in main("data=digits", "data.limit=500", "trainer.max_epochs=1").output


def test_forced_runs_keep_nothing_of_the_old_one(main, tmp_path: Path):
    assert main(*SMALL).code == 0
    (folder,) = tmp_path.glob("outputs/digits/*/")
    old = [folder / "evaluation" / "test" / "evaluation.json", folder / "fit-profile.txt", folder / "augment.png"]
    old[0].parent.mkdir(parents=True)
    for file in old:
        file.write_text("of the old weights")
    assert main(*SMALL, "force=true").code == 0
    assert not [file.name for file in [*old, folder / "evaluation"] if file.exists()]


@pytest.mark.parametrize("name", ["../../x", "", "null", "/x", "a/../b", "a//b"])
def test_a_name_that_is_no_folder_under_outputs_is_refused(main, tmp_path: Path, name: str):
    code, errors, _ = main(*SMALL, f"name={name}")
    assert code == 2
    assert errors == f"name={name} must name a folder under outputs/, such as name=study.\n"
    assert not list(tmp_path.rglob("result.json"))
    assert not (tmp_path.parent / "x").exists()


@pytest.mark.long
def test_a_sweep_of_many_jobs_does_not_rebuild_the_tables_after_each(main, tmp_path: Path, monkeypatch):
    written = []
    monkeypatch.setattr(
        "handwriting.sweeps.job.write_tables", lambda report: written.append(len(report.configurations)) or []
    )
    monkeypatch.setattr("handwriting.sweeps.job.TABLES_EVERY", 1e9)
    assert main("-m", *SMALL, "trainer.max_epochs=1", "optim=sgd,adam").code == 0
    assert written == []  # they are written at the end
    monkeypatch.setattr("handwriting.sweeps.job.TABLES_EVERY", 0.0)
    assert main("-m", *SMALL, "trainer.max_epochs=1", "optim=adagrad,momentum").code == 0
    assert written == [3, 4]  # a long sweep updates them while it runs


@pytest.fixture
def small_disk(tmp_path: Path):
    """A folder on a disk of 3 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("this user may not mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
def test_a_full_disk_is_named_by_the_folder_of_the_run(command, small_disk: Path):
    net = ("model.widths=[32,64]", "model.hidden=[128]")  # whose checkpoints do not fit
    done = command("handwriting.run", *SMALL, *net, f"hydra.run.dir={small_disk}/outputs/digits/run")
    assert done.returncode == 2
    sentence = f"The disk of {small_disk}/outputs/digits/run is full: free some space and repeat the command."
    assert done.stderr.splitlines()[-1] == sentence, done.stderr


@pytest.mark.long
@pytest.mark.parametrize("full", [True, False], ids=["full", "closed"])
def test_a_sweep_ends_though_nobody_takes_its_output(tmp_path: Path, full: bool):
    arguments = ["-m", *SMALL, "trainer.max_epochs=1", "optim=sgd,adam"]
    reader, writer = os.pipe()
    os.close(reader)
    with open("/dev/full", "wb") if full else os.fdopen(writer, "wb") as output:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-m", "handwriting.run", *arguments],
            cwd=tmp_path, stdout=output, stderr=subprocess.PIPE, text=True, timeout=300,
        )  # fmt: skip
    assert [run["status"] for run in runs(tmp_path)] == ["done", "done"]
    reason = os.strerror(errno.ENOSPC if full else errno.EPIPE)
    assert done.stderr == f"The output cannot be written ({reason}); training continues.\n"
    assert done.returncode == 0
    assert (tmp_path / "outputs" / "digits" / "summary.md").is_file()
