"""Training in separate processes: one for each device, or one to retry a job that was killed. Rarely imports torch."""

import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from subprocess import PIPE
from typing import Any

from handwriting.runs.record import Run, RunSpec, read_result, write_result
from handwriting.utils.errors import DivergedError, JobError, UserError
from handwriting.utils.hardware import cores

log = logging.getLogger(__name__)
BAD_INPUT = 2  # exit code for a UserError
PATIENCE = 5.0  # seconds that the other processes have to end after one has ended


def train_apart(spec: RunSpec, earlier: Run | None, processes: int, title: str, say: Callable[[str], None]) -> Run:
    """Train a job in ``processes`` processes, survive their death, and return the new run.

    ``say`` is called with each line that the first process prints. Raises UserError or JobError, with the reason in the
    record, if there is no result, and KeyboardInterrupt if the run was interrupted.
    """
    record = earlier.record if earlier else None
    order = json.dumps({"spec": asdict(spec) | {"folder": str(spec.folder)}, "earlier": record, "title": title})
    children: list[subprocess.Popen[str]] = []
    port = _free_port()
    try:
        for rank in range(processes):
            command = [sys.executable, "-m", "handwriting.sweeps.subprocesses"]
            environment = _environment(rank, processes, port)
            # The first one's output is printed. That of the others goes to a file: a full pipe would block them.
            with (spec.folder / "run.log").open("ab") as log_file:
                output = log_file if rank else PIPE
                child = subprocess.Popen(command, stdin=PIPE, stdout=output, text=True, env=environment)
            children.append(child)
            assert child.stdin is not None
            child.stdin.write(order + "\n")
            child.stdin.flush()  # left open: the child exits when it is closed, as by the end of this process
        threading.Thread(target=_pass_on, args=(children[0], say), daemon=True).start()
        first_bad = _wait(children)
    except BaseException:
        _end(children, patience=0)
        raise
    _end(children, PATIENCE)
    note_end(spec.folder, first_bad)
    run = read_result(spec.folder)
    if run and run.status == "interrupted":
        raise KeyboardInterrupt
    if first_bad or run is None or run.status != "done":
        reason = run.record.get("reason", "failed") if run else "its result.json is gone"
        raise UserError(reason) if first_bad == BAD_INPUT else JobError(reason)
    return run


def note_end(folder: Path, code: int) -> None:
    """Record in result.json why a process ended, if it did not do so itself.

    ``code`` is its exit code, or minus the number of a signal. If one of several processes is killed, the others may
    already have recorded a failure; the signal replaces it.
    """
    run = read_result(folder)
    if not code or run is None or run.status not in (("running", "failed") if code < 0 else ("running",)):
        return
    name = signal.Signals(-code).name if code < 0 else ""
    if name in ("SIGTERM", "SIGINT"):
        changes = {"status": "interrupted", "reason": "interrupted"}
    elif name:
        hint = ", as the system does when memory runs out" if name == "SIGKILL" else ""
        changes = {"status": "failed", "reason": f"killed by {name}{hint}", "killed": True}
    else:
        changes = {"status": "failed", "reason": f"one of its processes ended with code {code}; run.log says more"}
    write_result(folder, run.record | changes)


def count_processes(trainer: dict[str, Any]) -> int:
    """Return the number of processes for the settings of the trainer: one for each device."""
    devices = trainer["devices"]
    if isinstance(devices, list):
        return max(len(devices), 1)
    if isinstance(devices, int) and devices >= 0:
        return max(devices, 1)
    if trainer["accelerator"] not in ("auto", "gpu", "cuda"):
        return 1
    import torch  # devices=auto or -1: all devices

    return max(torch.cuda.device_count(), 1)


def _environment(rank: int, processes: int, port: int) -> dict[str, str]:
    """Return the environment variables of a process: those of this one and, for several processes, Lightning's."""
    if processes == 1:
        return dict(os.environ)
    place = {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(cores() // processes, 1))
    return os.environ | place | {"OMP_NUM_THREADS": threads}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _pass_on(child: "subprocess.Popen[str]", say: Callable[[str], None]) -> None:
    for line in child.stdout or ():
        with contextlib.suppress(OSError):  # continue after a failed print: the pipe must not fill up
            say(line.rstrip("\n"))


def _wait(children: "list[subprocess.Popen[str]]") -> int:
    """Wait until all processes have ended or one has failed; return the exit code of that one, else 0."""
    while any(child.poll() is None for child in children):
        bad = [child.returncode for child in children if child.returncode]
        if bad:
            return min(bad)  # a signal (below 0) before an error that it may have caused
        time.sleep(0.05)
    return min((child.returncode for child in children if child.returncode), default=0)


def _end(children: "list[subprocess.Popen[str]]", patience: float) -> None:
    """Wait ``patience`` seconds for the processes to end, then terminate them, then kill them."""
    steps = (
        (patience, lambda child: None),
        (PATIENCE, lambda child: child.terminate()),
        (1, lambda child: child.kill()),
    )
    for seconds, act in steps:
        deadline = time.monotonic() + seconds
        for child in children:
            if child.poll() is None:
                act(child)
        for child in children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(max(deadline - time.monotonic(), 0.01))


def _stop(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)  # at once: another process may have taken the job over


def _train_for_parent() -> None:
    """Train the RunSpec in the first line of standard input; exit when the parent process ends."""
    from handwriting.sweeps.execute import train, train_rank  # not at the top: execute imports this module

    signal.signal(signal.SIGTERM, _stop)
    order = json.loads(sys.stdin.readline())
    spec = RunSpec(**order["spec"] | {"folder": Path(order["spec"]["folder"])})
    earlier = Run(spec.folder, order["earlier"]) if order["earlier"] else None
    rank = int(os.environ.get("LOCAL_RANK", 0))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.basicConfig(filename=spec.folder / "run.log", format="%(message)s")
    try:
        if rank:
            train_rank(spec, earlier)
        else:
            train(spec, earlier, order["title"], lambda news: print(news, flush=True))
    except KeyboardInterrupt:
        sys.exit(130)
    except UserError:
        sys.exit(BAD_INPUT)  # the parent reports it from the record
    except DivergedError:
        sys.exit(1)
    except Exception:
        log.exception("This job failed; please report it if the cause is not yours:")
        sys.exit(1)


if __name__ == "__main__":
    _train_for_parent()
