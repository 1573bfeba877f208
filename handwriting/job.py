"""One job: what is done is skipped, what was interrupted goes on, what fails is noted. Imports no torch by itself."""

import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import SoftFileLease, Timeout
from omegaconf import OmegaConf

from handwriting.errors import DivergedError, JobError, UserError
from handwriting.machine import use_machine
from handwriting.results import RESULT, Run, check_same, clear_run, new_record, now, read_result, write_result

log = logging.getLogger(__name__)
LEASE = 30.0  # seconds after which the lock of a machine that is gone no longer holds
Say = Callable[[str], None]


class BusyError(Exception):
    """Another process trains this job."""


@dataclass(frozen=True)
class Task:
    """What a job is asked to do, as plain data that can be sent to another process."""

    folder: Path
    config: dict[str, Any]  # resolved
    settings: dict[str, Any]  # the config without what NOT_SETTINGS names
    choices: dict[str, str]
    overrides: list[str]
    title: str


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
        earlier = read_result(task.folder)
        if earlier and _was_killed(earlier):
            _train_alone(task, say)  # whatever killed it shall not kill the whole sweep
        else:
            train(task, earlier, say)
    run = read_result(task.folder)
    assert run is not None
    return run, True


def train(task: Task, earlier: Run | None, say: Say) -> None:
    """Train in this process, from the last checkpoint where an earlier attempt left one; write what came out."""
    record = new_record(task.settings, task.choices, task.overrides)
    begun = False
    try:
        use_machine()
        from handwriting.pictures import shown_settings  # this and the next: torch and Lightning, seconds to import
        from handwriting.train import build_job, train_job

        stopped = earlier is not None and (earlier.status == "interrupted" or _was_killed(earlier))
        go_on = stopped and task.config["resume"] == "continue" and not task.config["force"]
        objects = build_job(OmegaConf.create(task.config), task.settings, task.folder, task.title, go_on)
        begun = True
        if objects.last:
            record["resumed"] = [*(earlier.record.get("resumed", []) if earlier else []), objects.step]
            say(f"goes on after step {objects.step:,}")
        else:
            clear_run(task.folder)
        write_result(task.folder, {**record, "status": "running"})
        record |= train_job(objects, shown_settings(task.settings, task.choices, task.overrides))
    except BaseException as error:
        interrupted = isinstance(error, (KeyboardInterrupt, SystemExit))
        plain = isinstance(error, (UserError, DivergedError))
        text = str(error) if plain else f"{type(error).__name__}: {error}"
        record["status"] = "interrupted" if interrupted else "failed"
        record["reason"] = "interrupted" if interrupted else " ".join(text.split())
        if begun or not (earlier and earlier.status == "done"):  # what stands is not lost to bad input
            with contextlib.suppress(OSError):  # a full disk: the first error says it
                write_result(task.folder, record)
        if isinstance(error, SystemExit):  # Lightning's answer to Ctrl-C
            raise KeyboardInterrupt from error
        raise
    write_result(task.folder, {**record, "status": "done", "finished": now()})


def _done(task: Task) -> Run | None:
    """Return the finished run of the folder; UserError when it is one of other settings."""
    earlier = read_result(task.folder)
    if earlier is None or task.config["force"]:
        return None
    check_same(earlier, task.settings)
    return earlier if earlier.status == "done" else None


def _was_killed(run: Run) -> bool:
    """Return whether the process of an earlier attempt ended without a word; to be asked while the job is held."""
    return run.status == "running" or bool(run.record.get("killed"))


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


def _train_alone(task: Task, say: Say) -> None:
    """Train in a process of its own, and outlive it."""
    say("was killed last time: tried again in a process of its own")
    process = subprocess.Popen([sys.executable, "-m", "handwriting.job"], stdin=subprocess.PIPE, text=True)
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(vars(task) | {"folder": str(task.folder)}) + "\n")
        process.stdin.flush()  # and stays open: the other sees by its end that this process is gone
        process.wait()
    except BaseException:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        process.kill()
        raise
    finally:
        _note_end(task.folder, process.wait())
    run = read_result(task.folder)
    if run and run.status == "interrupted":
        raise KeyboardInterrupt
    if run is None or run.status != "done" or process.returncode:
        raise JobError(run.record.get("reason", "failed") if run else "its result.json is gone")


def _note_end(folder: Path, code: int) -> None:
    """Write down what a process that ended without a word did not write itself."""
    run = read_result(folder)
    if code < 0 and run and run.status == "running":
        name = signal.Signals(-code).name
        hint = ", as the system does when memory runs out" if name == "SIGKILL" else ""
        record = run.record | {"status": "failed", "reason": f"killed by {name}{hint}", "killed": True}
        if name in ("SIGTERM", "SIGINT"):
            record |= {"status": "interrupted", "reason": "interrupted", "killed": False}
        write_result(folder, record)


def note_lost(folder: Path) -> int:
    """Note the runs of a folder whose processes are gone without a word, and return how many."""
    lost = 0
    for path in sorted(folder.glob(f"*/{RESULT}")):
        run = read_result(path.parent)
        if run and run.status == "running":
            with contextlib.suppress(BusyError), _held(path.parent):
                _note_end(path.parent, -signal.SIGKILL)
                lost += 1
    return lost


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)  # at once: the job may be another's by now


def _train_for_parent() -> None:
    """Train the task that stands in the first line of standard input, as long as the parent lives."""
    asked = json.loads(sys.stdin.readline())
    task = Task(**asked | {"folder": Path(asked["folder"])})
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.basicConfig(filename=task.folder / "run.log", format="%(message)s")
    try:
        train(task, read_result(task.folder), lambda news: print(f"{task.folder.name}  {news}", flush=True))
    except KeyboardInterrupt:
        sys.exit(130)
    except (UserError, DivergedError) as error:
        log.error(str(error))
        sys.exit(1)
    except Exception:
        log.exception("This job failed; please report it if the cause is not yours:")
        sys.exit(1)


if __name__ == "__main__":
    _train_for_parent()
