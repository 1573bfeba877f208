"""A folder of runs, read into a Report: its configurations by test accuracy and their comparisons. No torch."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from handwriting.reports.comparisons import SMALLEST, Comparison, compare_all, short_names
from handwriting.reports.groups import Configuration, group_runs
from handwriting.reports.racing import Race, read_race
from handwriting.runs.record import Run, read_runs
from handwriting.utils.errors import UserError, did_you_mean

MOST_NAMED = 12  # configurations that an error message lists


@dataclass
class Report:
    """The configurations of a folder of runs and their comparisons."""

    folder: Path
    configurations: list[Configuration]  # best test accuracy first
    keys: list[str]  # the settings that differ and so label the rows
    against: Configuration | None = None  # the baseline of all comparisons; None: all pairs are compared
    smallest: float = SMALLEST  # percentage points: the difference for which the needed seeds are given
    race: Race | None = None
    damaged: dict[Path, str] = field(default_factory=dict)  # folders with an invalid result.json, and what is wrong

    @property
    def failed(self) -> list[Run]:
        """Return the runs that did not finish."""
        return [run for configuration in self.configurations for run in configuration.runs if run.status != "done"]

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """Return the comparisons of the configurations, the best configurations first."""
        return compare_all(self.configurations, self.against)

    @property
    def repeat(self) -> str:
        """Return the word for one run of a configuration: seed, or run where configurations have several folds."""
        return "run" if any(configuration.overlap for configuration in self.configurations) else "seed"

    @property
    def sizes(self) -> int:
        """Return how many different numbers of parameters the finished configurations have."""
        return len(
            {
                configuration.mean("parameters")
                for configuration in self.configurations
                if configuration.values("test/acc")
            }
        )

    @cached_property
    def chosen(self) -> Configuration | None:
        """Return the configuration with the best mean validation accuracy: a choice without the test set."""
        with_runs = [configuration for configuration in self.configurations if configuration.values("val/acc")]
        if self.race:  # means over different numbers of seeds are not compared
            left = [set(racer.overrides) for racer in self.race.active]
            still = [one for one in with_runs if any(own <= set(one.runs[0].overrides) for own in left)]
            with_runs = still or with_runs
        return max(with_runs, key=lambda configuration: configuration.interval("val/acc")[0], default=None)


def read_report(folder: Path, against: str = "", smallest: float = SMALLEST) -> Report:
    """Group a folder's runs by configuration. Raises UserError if it has none, or none to compare with ``against``.

    ``smallest`` is the difference, in percentage points, for which the report gives the number of seeds it needs.
    """
    runs, damaged = read_runs(folder)
    configurations, keys = group_runs(runs)

    def rank(configuration: Configuration) -> tuple[bool, float, str]:
        accuracy = configuration.interval("test/acc")[0]
        return math.isnan(accuracy), -accuracy, configuration.label

    configurations = sorted(configurations, key=rank)
    baseline = _find(against, configurations, keys, folder) if against else None
    report = Report(folder, configurations, keys, baseline, smallest, read_race(folder), damaged)
    if against and not report.comparisons:
        raise UserError(
            f"{folder} has no other configuration that shares two seeds with {against}: add seed=0,1,2,3,4."
        )
    return report


def _find(name: str, configurations: Sequence[Configuration], keys: Sequence[str], folder: Path) -> Configuration:
    """Return the configuration with this label or short name, or the only one that has all these overrides."""
    short = short_names(configurations, keys)
    by_name = {
        called: configuration
        for configuration in configurations
        for called in (short[configuration.label], configuration.label)
    }
    if name not in by_name:
        fitting = [
            configuration for configuration in configurations if _overrides(name) <= _overrides(configuration.label)
        ]
        if len(fitting) == 1:
            return fitting[0]
        known = ", ".join(repr(configuration.label) for configuration in configurations[:MOST_NAMED])
        rest = ", …" if len(configurations) > MOST_NAMED else ""
        raise UserError(f"{folder} has no configuration {name!r}.{did_you_mean(name, by_name)} It has {known}{rest}.")
    return by_name[name]


def _overrides(label: str) -> set[str]:
    return set(re.split(r",\s*(?![^\[]*\])", label))
