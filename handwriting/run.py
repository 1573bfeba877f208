"""python -m handwriting.run: train and test one job, or with -m a sweep; write result.json and the report."""

import contextlib
import errno
import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.text import Text

from handwriting.reports.report import read_report
from handwriting.reports.tables import PipeConsole, show_report, write_tables
from handwriting.runs.checks import check_config
from handwriting.runs.config import CONF, digest_of_request, explain, help_text
from handwriting.runs.record import Run, chance_warning, discard_run, plain_settings
from handwriting.sweeps.execute import Task
from handwriting.sweeps.hydra_hooks import pass_over_finished
from handwriting.sweeps.job import BusyError, do_job, note_lost
from handwriting.sweeps.progress import PROGRESS, duration, is_parallel
from handwriting.utils.errors import (
    DivergedError,
    JobError,
    UserError,
    exit_on_bad_input,
    is_of_stdout,
    make_stdout_safe,
)

log = logging.getLogger(__name__)
file_log = logging.getLogger("handwriting.run.log")  # conf/config.yaml sends it only to the run's run.log
console = PipeConsole(highlight=False)
ONE_MIB = 1 << 20
BUSY = 3  # the exit code if other processes are training some jobs
TABLES_EVERY = 300.0  # seconds between two updates of the tables while a sweep runs
SCORES = {"validation": "val/acc", "test": "test/acc"}


def main() -> None:
    """Run the command line and exit.

    Exit codes: 0 all done, 1 a job failed, 2 bad input, 3 a job is being trained by another process, 130 interrupted
    (Ctrl-C), 128 + n stopped by signal n (143 SIGTERM, 138 SIGUSR1).
    """
    make_stdout_safe()
    if sys.argv[1:] in (["--help"], ["-h"]):
        with exit_on_bad_input():
            print(help_text())
        return
    for preempted in (signal.SIGTERM, getattr(signal, "SIGUSR1", signal.SIGTERM)):  # SLURM sends one of them
        signal.signal(preempted, _stop)
    logging.raiseExceptions = False  # do not report that a log cannot be written, as on a full disk
    full_error = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors
    code = 0
    try:
        _run_all()
    except UserError:
        code = 2  # printed by the job that raised it
    except (DivergedError, JobError):
        code = 1
    except (HydraException, OmegaConfBaseException) as error:
        if full_error == "1":
            raise
        code = _complain(explain(error))
    except KeyboardInterrupt:
        code = 128 + (PROGRESS.stopped_by or signal.SIGINT)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except OSError as error:
        code = _complain(str(_as_user_error(error, Path.cwd())))
    except Exception as error:
        if str(error).startswith("Only one of --run"):  # Hydra's message for -m with --cfg and similar options
            code = _complain(f"{error}.")
        elif not PROGRESS.failures:
            raise
    finally:
        os.environ["HYDRA_FULL_ERROR"] = full_error or "0"
    if PROGRESS.failures and code in (0, 1):
        bad_input = all(isinstance(failure, UserError) for failure in PROGRESS.failures)
        code = 2 if bad_input else 1
    if PROGRESS.parallel:  # the jobs were counted in other processes
        PROGRESS.busy = sum(note_lost(folder)[1] for folder in PROGRESS.folders)
    if PROGRESS.busy and code == 0:
        code = BUSY
    written = _finish(code)
    sys.exit(code if written else code or 2)


def job(config: DictConfig) -> float | None:
    """Train one composed config, or load its existing result; return the monitored metric."""
    make_stdout_safe()  # for a process that the launcher started
    PROGRESS.begin_job()
    folder = Path(HydraConfig.get().runtime.output_dir)
    PROGRESS.folders.add(folder.parent)
    try:
        return _train_or_skip(config, folder)
    except Exception as error:
        reason = _as_user_error(error, folder)
        PROGRESS.failures.append(reason or error)
        if reason or isinstance(error, (JobError, DivergedError)):
            _say_failure(str(reason or error), folder)
        else:
            log.exception("This job failed; please report it if it is not an error of your code:")
        if config.fail_fast:
            raise SystemExit(1) from error
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            if _elsewhere() or HydraConfig.get().runtime.choices.get("hydra/sweeper") != "basic":
                raise reason or error from error  # the only way to inform another process or a search
            return None
        if reason:
            PROGRESS.folders.clear()  # print the sentence only, not a table of other runs
            if not any(folder.glob("checkpoints/*.ckpt")):
                discard_run(folder)  # a mistyped setting of a single run does not become a row
    return None


# Not a decorator: another process imports ``job`` by its name and must get the function itself.
compose_and_run = hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)


def _run_all() -> None:
    """Run the jobs; with joblib, which stops all workers if one is killed, repeat until no job is left."""
    pass_over_finished(_pass_over)
    while True:
        try:
            compose_and_run()
            return
        except Exception as error:
            if type(error).__name__ != "TerminatedWorkerError":
                raise
            if not sum(note_lost(folder)[0] for folder in PROGRESS.folders):
                raise
            log.error("A job's process was killed; the jobs that stopped with it are retried.")


def _as_user_error(error: Exception, folder: Path) -> UserError | None:
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


def _train_or_skip(config: DictConfig, folder: Path) -> float | None:
    """Do the job and print its result; return the monitored metric."""
    check_config(config, HydraConfig.instance().cfg.hydra)  # type: ignore[reportOptionalMemberAccess]
    resolved: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    asked = HydraConfig.get()
    if _elsewhere():
        resolved["trainer"]["enable_progress_bar"] = False  # the bars of several jobs would overwrite each other
    choices = {group: choice for group, choice in asked.runtime.choices.items() if choice and "hydra" not in group}
    title = ", ".join(part for part in (PROGRESS.title(), folder.name) if part)
    sweeper = asked.runtime.choices.get("hydra/sweeper", "")
    overrides = list(asked.overrides.task)
    request = digest_of_request(overrides, asked.runtime.config_sources)
    task = Task(folder, resolved, plain_settings(resolved), choices, overrides, title, sweeper, request)
    try:
        run, trained = do_job(task, lambda news: _say(folder, {}, news))
    except BusyError as busy:
        PROGRESS.busy += 1
        _say(folder, {}, f"is being trained by {busy}")
        return None
    if trained:
        _say(folder, run.metrics, duration(PROGRESS.end_job()))
        if warning := chance_warning(run):
            _print(f"  {warning}")
        _update_tables(folder.parent)
    else:
        _note_done(run)
    return run.metrics.get(config.monitor.metric)


def _update_tables(folder: Path) -> None:
    """Update a folder's tables every few minutes: it reads all runs, and happens at the end anyway."""
    if time.monotonic() - PROGRESS.tables_written > TABLES_EVERY:
        write_tables(read_report(folder))
        PROGRESS.tables_written = time.monotonic()


def _pass_over(run: Run) -> float | None:
    """Print that a job of a sweep is already done; return the monitored metric."""
    PROGRESS.begin_job()
    PROGRESS.folders.add(run.folder.parent)
    _note_done(run)
    return run.metrics.get(run.settings["monitor.metric"])


def _note_done(run: Run) -> None:
    PROGRESS.skipped += 1
    _say(run.folder, run.metrics, "already done")


def _say(folder: Path, metrics: dict[str, float], took: str) -> None:
    scores = [f"{part} {metrics[key]:.2%}" for part, key in SCORES.items() if key in metrics]
    run = f"{folder.parent.name}/{folder.name}"
    _print(_place() + "  ".join([run, *scores, took]))


def _print(line: str) -> None:
    with _unread_output():
        console.print(Text(line), soft_wrap=True)


@contextlib.contextmanager
def _unread_output() -> Iterator[None]:
    """Continue if stdout cannot be written, because a pipe is closed (``| head``) or a disk is full."""
    try:
        yield
    except OSError as error:
        if not is_of_stdout(error):
            raise
        print(f"The output cannot be written ({error.strerror}); training continues.", file=sys.stderr)


def _say_failure(sentence: str, folder: Path) -> None:
    """Log why a job failed, and print each reason once: all jobs of a sweep may have the same (missing data)."""
    file_log.error(sentence)
    if _elsewhere():
        return  # the process that started this one prints it once, in the report
    known = sentence in PROGRESS.reasons
    PROGRESS.reasons.add(sentence)
    run = f"{_place()}{folder.parent.name}/{folder.name}  "
    print((run if PROGRESS.jobs > 1 else "") + ("failed for the same reason" if known else sentence), file=sys.stderr)


def _elsewhere() -> bool:
    """Return whether this job runs in another process than the command."""
    return is_parallel(HydraConfig.get().launcher)


def _place() -> str:
    return f"job {PROGRESS.begun} of {PROGRESS.jobs}  " if PROGRESS.jobs > 1 else ""


def _stop(number: int, frame: object) -> None:
    """Stop as for Ctrl-C: the run is recorded as interrupted, and the report is written."""
    PROGRESS.stopped_by = number
    raise KeyboardInterrupt


def _complain(sentence: str) -> int:
    print(sentence, file=sys.stderr)
    return 2


def _finish(code: int) -> bool:
    """Write and print the report of every folder that this command touched; return whether all could be written."""
    written = True
    for folder in sorted(PROGRESS.folders):
        shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
        try:
            report = read_report(shown)
        except UserError:
            continue  # no job there has a result
        with _unread_output():
            written = not show_report(report, console, PROGRESS.reasons) and written
    if PROGRESS.skipped and PROGRESS.skipped == PROGRESS.begun:
        _print("Nothing was trained: all jobs were already done (force=true retrains).")
    if PROGRESS.busy:
        jobs = "1 job is" if PROGRESS.busy == 1 else f"{PROGRESS.busy} jobs are"
        _print(f"{jobs} being trained by other processes; repeat the command when they are done to see their results.")
    if code > 128:
        _print("Interrupted. The same command resumes: finished jobs are not retrained.")
    return written


if __name__ == "__main__":
    # Import the module by its own name, so that other processes can import the jobs that are sent to them.
    from handwriting.run import main as main_of_module

    main_of_module()
