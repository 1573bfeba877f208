"""One job: it is skipped if it is done or in training by another process, and trained otherwise."""

import contextlib
import math
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, SoftFileLease, Timeout

from handwriting.runs.record import RESULT, Run, check_same, read_result
from handwriting.sweeps.execute import Say, Task, goes_on, train, was_killed
from handwriting.sweeps.subprocesses import count_processes, note_end, train_apart
from handwriting.utils.hardware import is_zombie, return_memory

LEASE = 30.0  # seconds after which the lock of a machine that is gone expires


class BusyError(Exception):
    """Another process trains this job."""


def do_job(task: Task, say: Say) -> tuple[Run, bool]:
    """Return the run in the task's folder, and whether this call trained it.

    Raises BusyError while another process trains it, JobError or any other exception if it fails; the record then has
    the reason.
    """
    if done := _done(task):
        return done, False
    with hold(task.folder):
        if done := _done(task):  # by another process in the meantime
            return done, False
        earlier, processes = read_result(task.folder), count_processes(task.config["trainer"])
        killed = earlier is not None and was_killed(earlier)
        if killed:  # whatever killed it must not kill the whole sweep
            say("was killed last time: retried in a separate process")
        if killed or processes > 1:
            train_apart(task, processes, say)
        else:
            try:
                train(task, goes_on(task, earlier), say)
            finally:
                return_memory()
    run = read_result(task.folder)
    assert run is not None
    return run, True


def note_lost(folder: Path) -> tuple[int, int]:
    """Record runs whose processes are gone as killed; return how many of them, and how many are being trained."""
    lost = busy = 0
    for path in sorted(folder.glob(f"*/{RESULT}")):
        run = read_result(path.parent)
        if run and run.status == "running":
            try:
                with hold(path.parent):
                    note_end(path.parent, -signal.SIGKILL)
                    lost += 1
            except BusyError:
                busy += 1
    return lost, busy


def _done(task: Task) -> Run | None:
    """Return the finished run of the folder. Raises UserError if it has other settings."""
    earlier = read_result(task.folder)
    if earlier is None or task.config["force"]:
        return None
    check_same(earlier, task.settings)
    return earlier if earlier.status == "done" else None


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold the job's lock, so that no two processes train it at once. Raises BusyError if a live process holds it.

    A process that ended does not hold it, even if its parent has not noticed (a zombie); nor does one that has not
    renewed its lease for LEASE seconds, because it hangs or its machine is gone.
    """
    lease = SoftFileLease(folder / ".lock", lease_duration=LEASE)
    try:
        lease.acquire(timeout=1)
    except Timeout:
        _break_lock_of_zombie(lease)
        owner, renewed = lease.owner, _age(folder / ".lock") < LEASE / 2
        if owner and renewed and owner.hostname.split("?")[0] == socket.gethostname():
            raise BusyError(f"process {owner.pid}") from None
        try:
            lease.acquire(timeout=LEASE + 5)
        except Timeout:
            raise BusyError(f"process {owner.pid} on {owner.hostname}" if owner else "another process") from None
    try:
        yield
    finally:
        lease.release()


def _break_lock_of_zombie(lease: SoftFileLease) -> None:
    guard = Path(f"{lease.lock_file}.breaking")  # without it a second process might break the lock of the first
    with FileLock(guard):
        if (owner := lease.owner) and is_zombie(owner.pid, owner.start):
            lease.force_break()
        guard.unlink(missing_ok=True)


def _age(file: Path) -> float:
    """Return the seconds since a file was last touched; infinite if it does not exist."""
    try:
        return time.time() - file.stat().st_mtime
    except OSError:
        return math.inf
