"""A folder of runs: its settings in their order, what they prove, and its plots. Imports no torch."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from handwriting.reports.comparisons import Verdict, judge, short_names
from handwriting.reports.groups import Setting, group_runs
from handwriting.runs.record import Run, read_runs
from handwriting.utils.errors import UserError, did_you_mean

if TYPE_CHECKING:
    pass

MOST_NAMED = 12  # settings, where one is asked for that is not there


@dataclass
class Report:
    """What a folder of runs says."""

    folder: Path
    settings: list[Setting]  # best test accuracy first
    keys: list[str]  # the settings that differ and so name the rows
    against: Setting | None = None  # what all others are compared with; without it, each with each
    damaged: dict[Path, str] = field(default_factory=dict)  # folders whose result.json is no run, and what is wrong

    @property
    def failed(self) -> list[Run]:
        """Return the runs that did not come to their end."""
        return [run for setting in self.settings for run in setting.runs if run.status != "done"]

    @cached_property
    def verdicts(self) -> list[Verdict]:
        """Return which setting is shown to beat which."""
        return judge(self.settings, self.against)

    @property
    def repeat(self) -> str:
        """Return what a run of a setting is called: a seed, or just a run where settings have several folds."""
        return "run" if any(setting.overlap for setting in self.settings) else "seed"

    @property
    def sizes(self) -> int:
        """Return how many different sizes the nets have that finished."""
        return len({setting.mean("parameters") for setting in self.settings if setting.values("test/acc")})

    @cached_property
    def chosen(self) -> Setting | None:
        """Return the setting with the best mean validation accuracy: the choice that never saw the test part."""
        with_runs = [setting for setting in self.settings if setting.values("val/acc")]
        return max(with_runs, key=lambda setting: setting.interval("val/acc")[0], default=None)


def read_report(folder: Path, against: str = "") -> Report:
    """Group a folder's runs by setting; UserError when it holds none, or none to compare with ``against``."""
    runs, damaged = read_runs(folder)
    settings, keys = group_runs(runs)

    def rank(setting: Setting) -> tuple[bool, float, str]:
        accuracy = setting.interval("test/acc")[0]
        return math.isnan(accuracy), -accuracy, setting.label

    settings = sorted(settings, key=rank)
    report = Report(folder, settings, keys, _find(against, settings, keys, folder) if against else None, damaged)
    if against and not report.verdicts:
        raise UserError(f"{folder} has no other setting that shares two seeds with {against}: add seed=0,1,2,3,4.")
    return report


def _find(name: str, settings: Sequence[Setting], keys: Sequence[str], folder: Path) -> Setting:
    """Return the setting that is called so, in full, in short, or as the only one by a part of its overrides."""
    short = short_names(settings, keys)
    by_name = {called: setting for setting in settings for called in (short[setting.label], setting.label)}
    if name not in by_name:
        fitting = [setting for setting in settings if _overrides(name) <= _overrides(setting.label)]
        if len(fitting) == 1:
            return fitting[0]
        known = ", ".join(repr(setting.label) for setting in settings[:MOST_NAMED])
        more = ", …" if len(settings) > MOST_NAMED else ""
        raise UserError(f"{folder} has no setting {name!r}.{did_you_mean(name, by_name)} It has {known}{more}.")
    return by_name[name]


def _overrides(label: str) -> set[str]:
    return set(re.split(r",\s*(?![^\[]*\])", label))
