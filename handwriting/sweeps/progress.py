"""Progress of a sweep: which job of how many, an estimate of the remaining time, and what is printed."""

import contextlib
import logging
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich.text import Text

from handwriting.reports.comparisons import SMALLEST
from handwriting.reports.tables import PipeConsole
from handwriting.runs.config import count_jobs, sweep_values
from handwriting.sweeps.hydra_hooks import ONE_PROCESS, check_each_choice_once, outlive_lost_jobs
from handwriting.sweeps.search import prepare_study
from handwriting.utils.errors import is_of_stdout
from handwriting.utils.hardware import share_cores

console = PipeConsole(highlight=False, markup=False, emoji=False)
file_log = logging.getLogger("handwriting.run.log")  # conf/config.yaml sends it to the run's run.log alone
SCORES = {"validation": "val/acc", "test": "test/acc"}


@dataclass
class Progress:
    """The jobs of this process: a single run is a sweep of one."""

    jobs: int = 1
    begun: int = 0
    trained_seconds: list[float] = field(default_factory=list)
    skipped: int = 0
    busy: int = 0  # in training by other processes
    stopped_by: int = 0  # a signal's number
    parallel: bool = False  # the jobs run in other processes
    failures: list[BaseException] = field(default_factory=list)
    reasons: set[str] = field(default_factory=set)  # of failures that were already printed
    folders: set[Path] = field(default_factory=set)
    smallest: float = SMALLEST  # report.smallest
    job_started: float = 0.0
    tables_written: float = field(default_factory=time.monotonic)  # when, on the monotonic clock; at first the start

    def begin_job(self) -> None:
        """Record that the next job begins."""
        self.begun += 1
        self.job_started = time.perf_counter()

    def end_job(self) -> float:
        """Record that the job finished training, and return its duration in seconds."""
        self.trained_seconds.append(time.perf_counter() - self.job_started)
        return self.trained_seconds[-1]

    def title(self) -> str:
        """Return 'job 2 of 4, about 3 min left', or '' for a single run."""
        if self.jobs == 1:
            return ""
        title = f"job {self.begun} of {self.jobs}"
        if self.trained_seconds:
            mean = sum(self.trained_seconds) / len(self.trained_seconds)
            title += f", about {duration(mean * (self.jobs - self.begun + 1))} left"
        return title


PROGRESS = Progress()


class CountJobs(Callback):
    """A Hydra callback: counts the jobs before a sweep begins; later their number is unknown."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Take what the report needs of the config."""
        PROGRESS.smallest = config.report.smallest

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Count the jobs of the sweep, and make Hydra's check of them fast."""
        PROGRESS.smallest = config.report.smallest
        check_each_choice_once()
        sweeper = config.hydra.sweeper
        params = OmegaConf.to_container(sweeper.params) if "params" in sweeper and sweeper.params else None
        overrides = config.hydra.overrides.task
        if "n_trials" in sweeper:
            PROGRESS.jobs = prepare_study(config)
        else:
            PROGRESS.jobs = count_jobs(overrides, params)  # type: ignore[arg-type]
        if is_parallel(config.hydra.launcher):
            # The jobs record their folders in other processes.
            names = sweep_values("name", overrides) or [config.name]
            PROGRESS.folders |= {Path.cwd() / config.hydra.sweep.dir / name for name in names}
            PROGRESS.parallel = True
            launcher = config.hydra.launcher["_target_"]
            if "joblib" in launcher:
                from joblib import effective_n_jobs  # 0.3 s

                share_cores(effective_n_jobs(config.hydra.launcher.n_jobs))
            elif launcher.endswith("LocalLauncher"):  # submitit's, which starts all jobs at once
                share_cores(PROGRESS.jobs)
            if "submitit" in launcher:
                outlive_lost_jobs()


def is_parallel(launcher: DictConfig) -> bool:
    """Return whether a launcher runs jobs in other processes than this."""
    return launcher["_target_"] != ONE_PROCESS


def duration(seconds: float) -> str:
    """Return '45 s', '12 min' or '3.1 h'."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def say(folder: Path, metrics: dict[str, float], news: str) -> None:
    """Print a line about the run of a folder: which job it is, its accuracies, and the news."""
    scores = [f"{name} {metrics[key]:.2%}" for name, key in SCORES.items() if key in metrics]
    print_line(_place() + "  ".join([f"{folder.parent.name}/{folder.name}", *scores, news]))


def say_failure(sentence: str, folder: Path, elsewhere: bool) -> None:
    """Log why a job failed, and print each reason once: all jobs of a sweep may have the same (missing data).

    If the job runs in another process than the command (``elsewhere``), the report prints it.
    """
    file_log.error(sentence)
    if elsewhere:
        return
    known = sentence in PROGRESS.reasons
    PROGRESS.reasons.add(sentence)
    run = f"{_place()}{folder.parent.name}/{folder.name}  "
    print((run if PROGRESS.jobs > 1 else "") + ("failed for the same reason" if known else sentence), file=sys.stderr)


def print_line(line: str) -> None:
    """Print a line on stdout, if it can be written."""
    with unread_output():
        console.print(Text(line), soft_wrap=True)


@contextlib.contextmanager
def unread_output() -> Iterator[None]:
    """Continue if stdout cannot be written, because a pipe is closed (``| head``) or a disk is full."""
    try:
        yield
    except OSError as error:
        if not is_of_stdout(error):
            raise
        print(f"The output cannot be written ({error.strerror}); training continues.", file=sys.stderr)


def _place() -> str:
    return f"job {PROGRESS.begun} of {PROGRESS.jobs}  " if PROGRESS.jobs > 1 else ""
