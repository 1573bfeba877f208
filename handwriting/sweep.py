"""How far a sweep has come: which job of how many, and how long the rest may take."""

import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf

from handwriting.errors import JobError
from handwriting.results import setting_of
from handwriting.search import prepare_study
from handwriting.settings import count_jobs, groups, sweep_values


@dataclass
class Progress:
    """The jobs of this process: a single run is a sweep of one."""

    jobs: int = 1
    begun: int = 0
    trained_seconds: list[float] = field(default_factory=list)
    skipped: int = 0
    busy: int = 0  # left to other processes
    stopped_by: int = 0  # a signal's number
    parallel: bool = False  # the jobs run in other processes
    failures: list[BaseException] = field(default_factory=list)
    folders: set[Path] = field(default_factory=set)
    job_started: float = 0.0

    def begin_job(self) -> None:
        """Note that the next job begins."""
        self.begun += 1
        self.job_started = time.perf_counter()

    def end_job(self) -> float:
        """Note that the job trained to its end, and return the seconds it took."""
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
    """Hydra calls this once before a sweep begins; afterwards no one knows how many jobs there are."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Count the jobs of the sweep, and have Hydra look through them quickly."""
        check_each_choice_once()
        sweeper = config.hydra.sweeper
        params = OmegaConf.to_container(sweeper.params) if "params" in sweeper and sweeper.params else None
        overrides = config.hydra.overrides.task
        if "n_trials" in sweeper:
            PROGRESS.jobs = prepare_study(config)
        else:
            PROGRESS.jobs = count_jobs(overrides, params)  # type: ignore[arg-type]
        if is_parallel(config.hydra.launcher):
            # The jobs note what they touch in processes of their own.
            names = sweep_values("name", overrides) or [config.name]
            PROGRESS.folders |= {Path.cwd() / config.hydra.sweep.dir / name for name in names}
            PROGRESS.parallel = True
            if "submitit" in config.hydra.launcher["_target_"]:
                outlive_lost_jobs()


def is_parallel(launcher: DictConfig) -> bool:
    """Return whether a launcher runs jobs in other processes than this."""
    return not launcher["_target_"].endswith(".BasicLauncher")


def check_each_choice_once() -> None:
    """Let Hydra compose, before the first job runs, as many jobs as show each choice, and not all of them.

    It does so to refuse a mistyped choice at once; every job is composed again when its turn comes.
    """
    if not hasattr(Sweeper.validate_batch_is_legal, "__wrapped__"):
        check = Sweeper.validate_batch_is_legal

        @functools.wraps(check)
        def check_some(sweeper: Sweeper, batch: Sequence[Sequence[str]]) -> None:
            check(sweeper, some_with_each_choice(batch, set(groups())))

        Sweeper.validate_batch_is_legal = check_some  # type: ignore[method-assign]


def some_with_each_choice(batch: Sequence[Sequence[str]], groups: set[str]) -> list[Sequence[str]]:
    """Return the jobs, as overrides, in which a choice of a group, or any setting at all, comes up first."""
    seen: set[str] = set()
    found = []
    for overrides in batch:
        keys = {override: setting_of(override) for override in overrides}
        new = {override if key.split("@")[0] in groups else key for override, key in keys.items()} - seen
        if new or not overrides:
            found.append(overrides)
            seen |= new
    return found


def outlive_lost_jobs() -> None:
    """Let submitit wait for all jobs where the process of one was lost; that one has failed, as any other may."""
    import submitit
    from submitit.core.utils import FailedJobError, UncompletedJobError

    results = submitit.Job.results

    def results_or_failure(job: Any) -> list[Any]:
        try:
            return results(job)
        except (UncompletedJobError, FailedJobError) as error:
            lost = JobReturn(overrides=[f"job {job.job_id}"], status=JobStatus.FAILED)
            lost.return_value = JobError(f"the process of job {job.job_id} was lost ({type(error).__name__})")
            return [lost]

    submitit.Job.results = results_or_failure  # type: ignore[method-assign]


def duration(seconds: float) -> str:
    """Return '45 s', '12 min' or '3.1 h'."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
