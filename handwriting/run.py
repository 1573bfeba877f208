"""python -m handwriting.run: one job, or with -m a sweep of them: train, test, result.json, report."""

import logging
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.text import Text

from handwriting.attempt import Task
from handwriting.checks import check_config
from handwriting.errors import DivergedError, JobError, UserError
from handwriting.job import BusyError, do_job, note_lost
from handwriting.launching import pass_over_finished
from handwriting.report import read_report, write_plots
from handwriting.results import Run, discard_run, plain_settings
from handwriting.settings import CONF, digest_of_request, explain, help_text
from handwriting.sweep import PROGRESS, duration, is_parallel
from handwriting.tables import print_report, write_tables

log = logging.getLogger(__name__)
console = Console(highlight=False)
ONE_MIB = 1 << 20
SCORES = {"validation": "val/acc", "test": "test/acc"}


def main() -> None:
    """Run the command line. Exit codes: 0 all done, 1 a job failed, 2 bad input, 130 interrupted, 143 terminated."""
    if sys.argv[1:] in (["--help"], ["-h"]):
        print(help_text())
        return
    for preempted in (signal.SIGTERM, getattr(signal, "SIGUSR1", signal.SIGTERM)):  # SLURM sends the one or the other
        signal.signal(preempted, _stop)
    logging.raiseExceptions = False  # a log that cannot be written, on a full disk, is no news of its own
    full_error = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then leaves its errors to us
    code = 0
    try:
        _run_all()
    except UserError:
        code = 2  # said by the job that raised it
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
        if not PROGRESS.failures:
            code = _complain(f"{error.filename or 'A file'} cannot be read or written: {error.strerror}.")
    except Exception as error:
        if str(error).startswith("Only one of --run"):  # Hydra's word for -m together with --cfg and the like
            code = _complain(f"{error}.")
        elif not PROGRESS.failures:
            raise
    finally:
        os.environ["HYDRA_FULL_ERROR"] = full_error or "0"
    if PROGRESS.failures and code in (0, 1):
        bad_input = all(isinstance(failure, UserError) for failure in PROGRESS.failures)
        code = 2 if bad_input else 1
    try:
        _finish(code)
    except OSError as error:
        code = code or _complain(f"The report cannot be written: {error.filename or 'a file'}: {error.strerror}.")
    sys.exit(code)


def job(config: DictConfig) -> float | None:
    """Train one composed config, or return the result that stands; the value is the monitored metric."""
    PROGRESS.begin_job()
    folder = Path(HydraConfig.get().runtime.output_dir)
    PROGRESS.folders.add(folder.parent)
    try:
        return _train_or_skip(config, folder)
    except Exception as error:
        reason = _as_user_error(error, folder)
        PROGRESS.failures.append(reason or error)
        if reason or isinstance(error, (JobError, DivergedError)):
            log.error(str(reason or error))
        else:
            log.exception("This job failed; please report it if the cause is not yours:")
        if config.fail_fast:
            raise SystemExit(1) from error
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            raise reason or error from error
        if reason:
            PROGRESS.folders.clear()  # the sentence is the answer, not a table of other runs
            if not any(folder.glob("checkpoints/*.ckpt")):
                discard_run(folder)  # a mistyped setting of a single run is no row of that table
    return None


# Not a decorator: another process finds a job by its name, and under that name must be the function itself.
compose_and_run = hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)


def _run_all() -> None:
    """Run the command line's jobs; with joblib, whose other workers end where one is killed, until none is left."""
    pass_over_finished(_pass_over)
    while True:
        try:
            compose_and_run()
            return
        except Exception as error:
            lost = type(error).__name__ == "TerminatedWorkerError" and sum(map(note_lost, PROGRESS.folders))
            if not lost:
                raise
            log.error("A job's process was killed; the jobs that it took along are tried again.")


def _as_user_error(error: Exception, folder: Path) -> UserError | None:
    """Return the error as one that the user can mend, with its sentence, or None: a bug, which needs its traceback."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, OmegaConfBaseException):
        return UserError(explain(error))
    if isinstance(error, OSError) and error.strerror:
        place = error.filename or folder
        return UserError(f"{place} cannot be read or written: {error.strerror}; mend that and start again.")
    if shutil.disk_usage(folder).free < ONE_MIB:  # torch.save says it in other words
        return UserError(f"The disk of {folder} is full: make room and give the same command again.")
    return None


def _train_or_skip(config: DictConfig, folder: Path) -> float | None:
    """Do the job and say what came of it; the value is the monitored metric."""
    check_config(config, HydraConfig.instance().cfg.hydra)  # type: ignore[reportOptionalMemberAccess]
    resolved: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    asked = HydraConfig.get()
    if is_parallel(asked.launcher):
        resolved["trainer"]["enable_progress_bar"] = False  # the bars of several jobs would draw over each other
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
        write_tables(read_report(folder.parent))
    else:
        _note_done(run)
    return run.metrics.get(config.monitor.metric)


def _pass_over(run: Run) -> float | None:
    """Say that a job of a sweep is done already; the value is the monitored metric."""
    PROGRESS.begin_job()
    PROGRESS.folders.add(run.folder.parent)
    _note_done(run)
    return run.metrics.get(run.settings["monitor.metric"])


def _note_done(run: Run) -> None:
    PROGRESS.skipped += 1
    _say(run.folder, run.metrics, "done already")


def _say(folder: Path, metrics: dict[str, float], took: str) -> None:
    place = f"job {PROGRESS.begun} of {PROGRESS.jobs}  " if PROGRESS.jobs > 1 else ""
    scores = [f"{part} {metrics[key]:.2%}" for part, key in SCORES.items() if key in metrics]
    run = f"{folder.parent.name}/{folder.name}"
    console.print(Text("  ".join([place + run, *scores, took])), soft_wrap=True)


def _stop(number: int, frame: object) -> None:
    """Stop as for Ctrl-C: the run is noted as interrupted, and the report is written."""
    PROGRESS.stopped_by = number
    raise KeyboardInterrupt


def _complain(sentence: str) -> int:
    print(sentence, file=sys.stderr)
    return 2


def _finish(code: int) -> None:
    """Write and print the report of every folder that this command touched."""
    for folder in sorted(PROGRESS.folders):
        if PROGRESS.parallel:
            note_lost(folder)
        shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
        try:
            report = read_report(shown)
        except UserError:
            continue  # nothing has come to a result there
        print_report(report, [*write_tables(report), *write_plots(report)], console)
    if PROGRESS.skipped and PROGRESS.skipped == PROGRESS.begun:
        console.print("Nothing was trained: every job was done already (force=true trains anew).")
    if PROGRESS.busy:
        console.print(f"Left to other processes: {PROGRESS.busy}. The same command shows them when they are done.")
    if code > 128:
        console.print("Interrupted. The same command goes on: what is done is not trained again.")


if __name__ == "__main__":
    # The module under its own name: a job that is sent to another process must be found there again.
    from handwriting.run import main as main_of_module

    main_of_module()
