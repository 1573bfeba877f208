"""One job: what is done is skipped, what another process trains is left to it, the rest is trained."""

import contextlib
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

from filelock import SoftFileLease, Timeout

from handwriting.attempt import Say, Task, goes_on, train, was_killed
from handwriting.machine import return_memory
from handwriting.processes import count_processes, note_end, train_apart
from handwriting.results import RESULT, Run, check_same, read_result

LEASE = 30.0  # seconds after which the lock of a machine that is gone no longer holds


class BusyError(Exception):
    """Another process trains this job."""


def do_job(task: Task, say: Say) -> tuple[Run, bool]:
    """Return the run that stands in the task's folder, and whether it was trained for that.

    Raises BusyError while another process trains it, JobError or any other exception when it comes to no result; the
    record then says why.
    """
    if done := _done(task):
        return done, False
    with _held(task.folder):
        if done := _done(task):  # by another process in the meantime
            return done, False
        earlier, processes = read_result(task.folder), count_processes(task.config["trainer"])
        killed = earlier is not None and was_killed(earlier)
        if killed:  # what killed it shall not kill the whole sweep
            say("was killed last time: tried again in a process of its own")
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


def note_lost(folder: Path) -> int:
    """Note the runs of a folder whose processes are gone without a word, and return how many."""
    lost = 0
    for path in sorted(folder.glob(f"*/{RESULT}")):
        run = read_result(path.parent)
        if run and run.status == "running":
            with contextlib.suppress(BusyError), _held(path.parent):
                note_end(path.parent, -signal.SIGKILL)
                lost += 1
    return lost


def _done(task: Task) -> Run | None:
    """Return the finished run of the folder; UserError when it is one of other settings."""
    earlier = read_result(task.folder)
    if earlier is None or task.config["force"]:
        return None
    check_same(earlier, task.settings)
    return earlier if earlier.status == "done" else None


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold the job: no two processes train it at once, and one that died, or whose machine did, does not hold it."""
    lease = SoftFileLease(folder / ".lock", lease_duration=LEASE)
    try:
        lease.acquire(timeout=1)
    except Timeout:
        owner = lease.owner
        if owner and owner.hostname == socket.gethostname():  # and alive, or it would have been ours
            raise BusyError(f"process {owner.pid}") from None
        try:
            lease.acquire(timeout=LEASE + 5)
        except Timeout:
            raise BusyError(f"process {owner.pid} on {owner.hostname}" if owner else "another process") from None
    try:
        yield
    finally:
        lease.release()
