"""python -m handwriting.run: train and test one job, or with -m a sweep; write result.json and the report."""

import logging
import os
import signal
import sys
from pathlib import Path

import hydra
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from handwriting.reports.report import read_report
from handwriting.reports.tables import show_report
from handwriting.runs.config import CONF, explain, help_text
from handwriting.sweeps.hydra_hooks import add_sweeper, pass_over_finished
from handwriting.sweeps.job import as_user_error, job, note_lost, pass_over
from handwriting.sweeps.progress import PROGRESS, console, print_line, unread_output
from handwriting.sweeps.race import RaceSweeper
from handwriting.utils.errors import DivergedError, JobError, UserError, exit_on_bad_input, make_stdout_safe

log = logging.getLogger(__name__)
BUSY = 3  # the exit code if other processes are training some jobs


def main() -> None:
    """Run the command line and exit.

    Exit codes: 0 all done, 1 a job failed, 2 bad input, 3 a job is being trained by another process, 130 interrupted
    (Ctrl-C), 128 + n stopped by signal n (143 SIGTERM, 138 SIGUSR1).
    """
    make_stdout_safe()
    if not {"", str(Path.cwd())} & set(sys.path):
        sys.path.insert(0, "")  # modules of the working folder, as with python -m
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
    except UserError as error:
        code = 2 if error in PROGRESS.failures else _complain(str(error))  # a job prints its own
    except (DivergedError, JobError):
        code = 1
    except (HydraException, OmegaConfBaseException) as error:
        if full_error == "1":
            raise
        code = _complain(explain(error, sys.argv[1:]))
    except KeyboardInterrupt:
        code = 128 + (PROGRESS.stopped_by or signal.SIGINT)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except OSError as error:
        code = _complain(str(as_user_error(error, Path.cwd())))
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


# Not a decorator: another process imports ``job`` by its name and must get the function itself.
compose_and_run = hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)


def _run_all() -> None:
    """Run the jobs; with joblib, which stops all workers if one is killed, repeat until no job is left."""
    pass_over_finished(pass_over)
    add_sweeper("race", RaceSweeper)
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
        short = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
        try:
            report = read_report(short, smallest=PROGRESS.smallest)
        except UserError:
            continue  # no job there has a result
        with unread_output():
            written = not show_report(report, console, PROGRESS.reasons) and written
    if PROGRESS.skipped and PROGRESS.skipped == PROGRESS.begun:
        print_line("Nothing was trained: all jobs were already done (force=true retrains).")
    if PROGRESS.busy:
        jobs = "1 job is" if PROGRESS.busy == 1 else f"{PROGRESS.busy} jobs are"
        print_line(
            f"{jobs} being trained by other processes; repeat the command when they are done to see their results."
        )
    if code > 128:
        print_line("Interrupted. The same command resumes: finished jobs are not retrained.")
    return written


if __name__ == "__main__":
    # Import the module by its own name, so that other processes can import the jobs that are sent to them.
    from handwriting.run import main as main_of_module

    main_of_module()
