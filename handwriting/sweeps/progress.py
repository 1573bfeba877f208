"""Progress of a sweep: number of the job, and an estimate of the remaining time."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from handwriting.runs.config import count_jobs, sweep_values
from handwriting.sweeps.hydra_hooks import ONE_PROCESS, check_each_choice_once, outlive_lost_jobs
from handwriting.sweeps.search import prepare_study
from handwriting.utils.hardware import share_cores


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

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Count the jobs of the sweep, and make Hydra's check of them fast."""
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
