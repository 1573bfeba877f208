"""hydra/sweeper=race: one more seed of every configuration a round, and the significantly worse ones drop out."""

import time
from collections.abc import Sequence
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from handwriting.reports.racing import Race, Racer
from handwriting.runs.constraints import SETTINGS
from handwriting.runs.record import has_influence, setting_of
from handwriting.sweeps.job import note_lost
from handwriting.sweeps.progress import PROGRESS, print_line
from handwriting.utils.errors import JobError, UserError

WAIT = 10.0  # seconds, while another process trains a run of the race
SAME_IMAGES = {"data.batch_size", "data.limit"}  # settings of the data that leave the validation images as they are


class RaceSweeper(Sweeper):
    """A Hydra sweeper over the seeds 0, 1, 2 …, each for the configurations that may still be the best.

    The jobs return the monitored metric; the test set decides nothing. The race keeps no state of its own: it follows
    from the scores, and finished runs are not retrained. So the same command resumes it.
    """

    def __init__(self, params: dict[str, str] | None = None) -> None:
        self.fixed = [f"{key}={value}" for key, value in (params or {}).items()]  # of a file, as an experiment

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take the config of the sweep, and the launcher that runs the jobs of each round."""
        self.config, self.hydra_context = config, hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """Run the race and return the jobs of each round. Raises UserError for overrides that leave no race."""
        assert self.config is not None
        assert self.launcher is not None
        race, folder = self._make_race(arguments), Path(self.config.hydra.sweep.dir) / self.config.name
        self.validate_batch_is_legal([[*racer.overrides, "seed=0"] for racer in race.racers])
        returns: list[Sequence[JobReturn]] = []
        while not race.ended:
            seed, racers = race.rounds, race.active
            PROGRESS.jobs = PROGRESS.begun + len(racers) * (race.max_seeds - seed)
            jobs = [[*racer.overrides, f"seed={seed}"] for racer in racers]
            returns.append(self._launch(jobs, sum(map(len, returns)), folder))
            self._take_scores(racers, returns[-1])
            race.close_round()
            race.write(folder)
            print_line(f"round {race.rounds}  {len(race.active)} of {len(race.racers)} configurations in the race")
        return returns

    def _make_race(self, arguments: list[str]) -> Race:
        """Return the race over every combination of the swept values."""
        assert self.config is not None
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        (batch,) = BasicSweeper.split_arguments(parser.parse_overrides([*self.fixed, *arguments]), None)
        shared = set(batch[0]).intersection(*batch)
        own = [[override for override in overrides if override not in shared] for overrides in batch]
        if "seed" in {setting_of(override) for overrides in batch for override in overrides}:
            raise UserError("A race chooses the seeds, and race.max_seeds limits their number: leave seed out.")
        for setting in sorted({setting_of(override) for overrides in own for override in overrides}):
            group = setting.split(".")[0]
            if (group in ("data", "monitor") and setting not in SAME_IMAGES) or not has_influence(setting):
                raise UserError(
                    f"A race compares configurations by the same metric on the same validation images: give {setting} "
                    "one value."
                )
        if len(batch) < 2:
            raise UserError(
                "A race needs two or more configurations: give a setting several values, as optim=sgd,adam."
            )
        rules, monitor = self.config.race, self.config.monitor
        for name, value in rules.items():
            SETTINGS[f"race.{name}"].check(f"race.{name}", value)
        racers = [Racer(", ".join(name), overrides) for name, overrides in zip(own, batch, strict=True)]
        return Race(monitor.metric, monitor.mode, rules.alpha, rules.margin, rules.max_seeds, racers)

    def _launch(self, jobs: Sequence[Sequence[str]], first: int, folder: Path) -> list[JobReturn]:
        """Run the jobs of a round, and wait for those that another process trains. UserError if one has no score."""
        assert self.config is not None
        assert self.launcher is not None
        done = list(self.launcher.launch(jobs, initial_job_idx=first))
        waited = False
        while open_ := [
            n for n, job in enumerate(done) if job.status == JobStatus.COMPLETED and job.return_value is None
        ]:
            busy = note_lost(folder)[1]
            if waited and not busy:
                raise UserError(
                    f"A race decides by {self.config.monitor.metric}, which the run {', '.join(jobs[open_[0]])} does "
                    "not have: choose a data.val_fraction above 0."
                )
            time.sleep(WAIT if busy else 0)
            again = self.launcher.launch([jobs[n] for n in open_], initial_job_idx=first)
            for place, job in zip(open_, again, strict=True):
                done[place] = job
            waited, PROGRESS.busy = True, 0
        return done

    def _take_scores(self, racers: Sequence[Racer], jobs: Sequence[JobReturn]) -> None:
        """Add the scores of a round.

        A configuration whose settings are refused drops out at once, one whose run failed by ``race.failed``.
        """
        assert self.config is not None
        scores = [job._return_value for job in jobs]  # return_value prints the errors, which are already printed
        if lost := next((score for score in scores if isinstance(score, JobError)), None):
            raise lost
        for racer, job, score in zip(racers, jobs, scores, strict=True):
            failed = job.status != JobStatus.COMPLETED
            racer.scores.append(None if failed else score)
            if isinstance(score, UserError) or (failed and self.config.race.failed == "drop"):
                racer.dropped, racer.reason = len(racer.scores), f"its run failed: {score}".rstrip(".")
            if failed and PROGRESS.parallel:  # the failure was counted in another process
                PROGRESS.failures.append(score)
