"""Runs that differ in nothing but their seed are one setting, called by what sets it apart. Imports no torch."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from handwriting.reports.stats import mean_and_half_width
from handwriting.runs.record import NOT_SETTINGS, Run, fingerprint, setting_of

# What differs among the runs of one setting: whatever conf/ lets follow the seed, and the fold.
PER_SEED = {"seed", "data.shuffle_seed", "augment.seed", "model.estimator.random_state", "data.fold"}


@dataclass
class Setting:
    """The runs that differ in nothing but their seed."""

    runs: list[Run]
    label: str = ""

    @property
    def settings(self) -> dict[str, Any]:
        """Return the settings of its first run; the others differ in their seed."""
        return self.runs[0].settings

    @cached_property
    def asked(self) -> set[str]:
        """Return what the command lines of its runs named."""
        return {key for run in self.runs for key in run.asked}

    @cached_property
    def done(self) -> list[Run]:
        """Return the runs that came to their end."""
        return [run for run in self.runs if run.status == "done"]

    def by_seed(self, metric: str) -> dict[tuple[str, ...], float]:
        """Return a metric of every finished run that has it, by the run's seeds; one that it lacks is the seed itself.

        So a net and a forest that share a seed are a pair, though only the forest draws with a state of its own.
        """
        keys, by_seed = sorted(PER_SEED), {}
        for run in self.done:
            if metric in run.metrics:
                settings = run.settings
                by_seed[tuple([str(settings.get(key, settings["seed"])) for key in keys])] = run.metrics[metric]
        return by_seed

    def values(self, metric: str) -> list[float]:
        """Return a metric of every finished run that has it."""
        return [run.metrics[metric] for run in self.done if metric in run.metrics]

    @cached_property
    def overlap(self) -> float:
        """Return the images held out over those trained on, where the runs are of several folds or draws; else 0."""
        if len({run.settings.get("data.fold") for run in self.done}) < 2:
            return 0.0
        held_out, trained_on = (sum(run.record["images"][part] for run in self.done) for part in ("val", "train"))
        return held_out / trained_on

    def interval(self, metric: str) -> tuple[float, float | None]:
        """Return mean and half-width of the 95 % interval over the seeds; nan without a run."""
        values = self.values(metric)
        return mean_and_half_width(values, overlap=self.overlap) if values else (math.nan, None)

    def mean(self, key: str) -> float:
        """Return the mean of a number of result.json itself, such as ``seconds``."""
        values = [run.record[key] for run in self.done]
        return sum(values) / len(values) if values else math.nan


def group_runs(runs: Sequence[Run]) -> tuple[list[Setting], list[str]]:
    """Return the configurations of a folder's runs and the keys that differ among them."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        shared = {key: value for key, value in run.settings.items() if key not in PER_SEED}
        groups.setdefault(fingerprint(shared), []).append(run)
    settings = [Setting(runs) for runs in groups.values()]
    return settings, _label(settings)


def _label(settings: Sequence[Setting]) -> list[str]:
    """Give every setting a label of what differs among those that finished, and return the keys that differ.

    One that never finished, or finished alone, is called by what it asked for that not all others did: a mistyped value
    should not lengthen every other label.
    """
    finished = [setting for setting in settings if setting.done]
    asked = {key for setting in finished for key in setting.asked}
    keys = _differing(finished, asked - PER_SEED - NOT_SETTINGS)
    if len({_join(setting, keys) for setting in finished}) < len(finished):
        # The same overrides, but a file in conf/ changed between the runs.
        every = {key for setting in finished for key in setting.settings}
        keys += [key for key in _differing(finished, every - PER_SEED) if key not in keys]
    for setting, name in zip(finished, _names(finished, keys), strict=True):
        setting.label = name
    compared = finished if len(finished) > 1 else settings
    overrides = [set(run.overrides) for setting in compared for run in setting.runs]
    shared = set.intersection(*overrides) if overrides else set()
    for setting in settings:
        if not setting.label:
            own = (word for word in setting.runs[0].overrides if word not in shared)
            setting.label = ", ".join(word for word in own if setting_of(word) not in PER_SEED | NOT_SETTINGS)
        setting.label = setting.label or _without_seed(setting.runs[0].folder.name)
    return keys


def _names(settings: Sequence[Setting], keys: Sequence[str]) -> list[str]:
    """Return a name of each setting: its values of the keys, or of three and more keys those that it asked for itself.

    So of settings that were changed one at a time each is called by its change, where that tells them all apart.
    """
    brief = len({_join(setting, keys, brief=True) for setting in settings}) == len(settings)
    names = [_join(setting, keys, brief) for setting in settings]
    if len(keys) < 3:
        return names
    own = [_join(setting, [key for key in keys if key in setting.asked], brief) for setting in settings]
    apart = len(set(own)) == len(own)
    return [change or name for change, name in zip(own, names, strict=True)] if apart else names


def as_text(value: Any, brief: bool = False) -> str:
    """Return a value of a setting as one writes it on the command line; ``brief``: a float in three digits."""
    if isinstance(value, float):
        short = f"{value:.3g}" if brief else f"{value:g}"
        return short if brief or float(short) == value else repr(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ",".join(map(as_text, value)) + "]"
    return "null" if value is None else str(value)


def _without_seed(folder: str) -> str:
    """Return the name of a run's folder without its seeds: the label of a setting that is alone."""
    seeds = "|".join(re.escape(key) for key in PER_SEED)
    return re.sub(rf"(^|,)({seeds})=[^,]*", "", folder).lstrip(",") or "default"


def _differing(settings: Sequence[Setting], keys: set[str]) -> list[str]:
    values = {key: {as_text(setting.settings.get(key)) for setting in settings} for key in keys}
    return sorted((key for key in keys if len(values[key]) > 1), key=lambda key: (key.count("."), key))


def _join(setting: Setting, keys: Sequence[str], brief: bool = False) -> str:
    settings = setting.settings
    return ", ".join(f"{key}={as_text(settings[key], brief)}" for key in keys if key in settings)
