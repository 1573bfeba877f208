"""One job: it is skipped if it is done or in training by another process, and trained otherwise."""

import contextlib
import errno
import logging
import math
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, SoftFileLease, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from handwriting.reports.report import read_report
from handwriting.reports.tables import write_tables
from handwriting.runs.checks import check_config
from handwriting.runs.config import digest_of_request, explain
from handwriting.runs.record import (
    INIT_DIGEST,
    RESULT,
    Run,
    RunSpec,
    chance_warning,
    changed_code,
    check_same,
    discard_run,
    fingerprint,
    has_influence,
    plain_settings,
    read_result,
    with_absolute_paths,
)
from handwriting.runs.source import digests_of_code
from handwriting.sweeps.execute import Say, execute
from handwriting.sweeps.extend import take_up
from handwriting.sweeps.progress import PROGRESS, duration, is_parallel, print_line, say, say_failure
from handwriting.sweeps.subprocesses import note_end
from handwriting.utils.errors import DivergedError, JobError, UserError, make_stdout_safe
from handwriting.utils.files import digest_of_file
from handwriting.utils.hardware import is_zombie

log = logging.getLogger(__name__)
ONE_MIB = 1 << 20
LEASE = 30.0  # seconds after which the lock of a machine that is gone expires
TABLES_EVERY = 300.0  # seconds between two updates of the tables while a sweep runs


class BusyError(Exception):
    """Another process trains this job."""


def job(config: DictConfig) -> float | None:
    """Train one composed config, or load its existing result; return the monitored metric."""
    make_stdout_safe()  # for a process that the launcher started
    PROGRESS.begin_job()
    hydra = HydraConfig.get()
    folder, elsewhere = Path(hydra.runtime.output_dir), is_parallel(hydra.launcher)
    PROGRESS.folders.add(folder.parent)
    try:
        return _train_or_report(config, folder, elsewhere)
    except Exception as error:
        reason = as_user_error(error, folder)
        PROGRESS.failures.append(reason or error)
        if reason or isinstance(error, (JobError, DivergedError)):
            say_failure(str(reason or error), folder, elsewhere)
        else:
            log.exception("This job failed; please report it if it is not an error of your code:")
        if config.fail_fast:
            raise SystemExit(1) from error
        if hydra.mode == RunMode.MULTIRUN:
            if elsewhere or hydra.runtime.choices.get("hydra/sweeper") != "basic":
                raise reason or error from error  # the only way to inform another process or a search
            return None
        if reason:
            PROGRESS.folders.clear()  # print the sentence only, not a table of other runs
            if not any(folder.glob("checkpoints/*.ckpt")):
                discard_run(folder)  # a mistyped setting of a single run does not become a row
    return None


def train_or_skip(spec: RunSpec, title: str, say: Say) -> tuple[Run, bool]:
    """Return the run in the folder of ``spec``, and whether this call trained it.

    Raises BusyError while another process trains it, UserError when the folder holds a run of another configuration,
    and what execute raises.
    """
    with hold(spec.folder):
        earlier = read_result(spec.folder)
        if spec.config["resume"] == "extend" and not spec.config["force"] and _is_new(earlier, spec):
            earlier = take_up(spec, earlier)
        if earlier and not spec.config["force"]:
            if changed := changed_code(earlier, spec.settings):
                say(f"{changed} changed since this run: it is trained again")
                spec.config["resume"] = "restart"
            else:
                check_same(earlier, spec.settings)
                if earlier.status == "done":
                    return earlier, False
        return execute(spec, earlier, title, say), True


def _is_new(earlier: Run | None, spec: RunSpec) -> bool:
    """Return whether a folder has no run of these settings that is done or can be resumed."""
    if earlier is None or earlier.record["fingerprint"] != fingerprint(spec.settings):
        return True
    return earlier.status == "failed" and not earlier.was_killed


def pass_over(run: Run) -> float | None:
    """Print that a job of a sweep is already done; return the monitored metric."""
    PROGRESS.begin_job()
    PROGRESS.folders.add(run.folder.parent)
    _say_done(run)
    return run.metrics.get(run.settings["monitor.metric"])


def as_user_error(error: Exception, folder: Path) -> UserError | None:
    """Return the error as a UserError if the user can fix it, else None: a bug, which needs its traceback."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, OmegaConfBaseException):
        return UserError(explain(error))
    full = [place for place in (folder, Path(tempfile.gettempdir())) if shutil.disk_usage(place).free < ONE_MIB]
    no_space = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or no_space:  # a full disk causes different errors: torch.save has its own
        return UserError(f"The disk of {(full or [folder])[0]} is full: free some space and repeat the command.")
    if isinstance(error, OSError) and error.strerror:
        place = error.filename or folder
        return UserError(f"{place} cannot be read or written: {error.strerror}; fix this and repeat the command.")
    return None


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


def _train_or_report(config: DictConfig, folder: Path, elsewhere: bool) -> float | None:
    """Do the job and print its result; return the monitored metric."""
    check_config(config, HydraConfig.instance().cfg.hydra)  # type: ignore[reportOptionalMemberAccess]
    spec = _spec(config, folder)
    if elsewhere:
        spec.config["trainer"]["enable_progress_bar"] = False  # the bars of several jobs would overwrite each other
    title = ", ".join(part for part in (PROGRESS.title(), folder.name) if part)
    try:
        run, trained = train_or_skip(spec, title, lambda news: say(folder, {}, news))
    except BusyError as busy:
        PROGRESS.busy += 1
        say(folder, {}, f"is being trained by {busy}")
        return None
    if trained:
        say(folder, run.metrics, duration(PROGRESS.end_job()))
        if warning := chance_warning(run):
            print_line(f"  {warning}")
        _update_tables(folder.parent)
    else:
        _say_done(run)
    return run.metrics.get(config.monitor.metric)


def _spec(config: DictConfig, folder: Path) -> RunSpec:
    hydra = HydraConfig.get()
    resolved: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    resolved = with_absolute_paths(resolved, Path(hydra.runtime.cwd))
    if code := digests_of_code(plain_settings(resolved)):
        resolved["code"] = code
    choices = {
        group: choice
        for group, choice in hydra.runtime.choices.items()
        if choice and "hydra" not in group and has_influence(group)
    }
    overrides = list(hydra.overrides.task)
    request = digest_of_request(overrides, hydra.runtime.config_sources)
    if resolved["init_from"]:
        from handwriting.inference.checkpoints import find_checkpoint  # imports torch

        resolved[INIT_DIGEST] = digest_of_file(find_checkpoint(Path(resolved["init_from"])))
        request = ""  # the overrides do not tell the content of that file: each job is composed and compared
    return RunSpec(folder, resolved, overrides, choices, hydra.runtime.choices.get("hydra/sweeper", ""), request)


def _update_tables(folder: Path) -> None:
    """Update a folder's tables every few minutes: it loads all runs, and happens at the end anyway."""
    if time.monotonic() - PROGRESS.tables_written > TABLES_EVERY:
        write_tables(read_report(folder))
        PROGRESS.tables_written = time.monotonic()


def _say_done(run: Run) -> None:
    PROGRESS.skipped += 1
    say(run.folder, run.metrics, "already done")
