"""Groups runs that differ only in their seed into configurations and labels them. Imports no torch."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from handwriting.reports.stats import interval_for_new_images, mean_and_half_width
from handwriting.runs.record import Run, fingerprint, has_influence, setting_of

# Settings that may differ among the runs of one configuration: those that conf/ derives from the seed, and the fold.
PER_SEED = {"seed", "data.shuffle_seed", "augment.seed", "model.estimator.random_state", "data.fold"}


@dataclass
class Configuration:
    """One row of a report: the runs that differ only in their seed."""

    runs: list[Run]
    label: str = ""

    @property
    def settings(self) -> dict[str, Any]:
        """Return the settings of its first run; the others differ only in their seed."""
        return self.runs[0].settings

    @cached_property
    def overridden(self) -> set[str]:
        """Return the keys of the overrides of its runs."""
        return {key for run in self.runs for key in run.overridden}

    @cached_property
    def done(self) -> list[Run]:
        """Return the finished runs."""
        return [run for run in self.runs if run.status == "done"]

    @cached_property
    def runs_by_seed(self) -> dict[tuple[str, ...], Run]:
        """Return the finished runs, keyed by the values of their PER_SEED settings.

        A setting that a run lacks counts as equal to its seed. So a network and a forest with the same seed are a pair,
        although only the forest has a ``random_state``.
        """
        keys = sorted(PER_SEED)
        settings = [(run, run.settings) for run in self.done]
        return {tuple([str(of.get(key, of["seed"])) for key in keys]): run for run, of in settings}

    def by_seed(self, metric: str) -> dict[tuple[str, ...], float]:
        """Return a metric of every finished run that has it, keyed as in ``runs_by_seed``."""
        return {seed: run.metrics[metric] for seed, run in self.runs_by_seed.items() if metric in run.metrics}

    def for_new_images(self) -> float:
        """Return the half-width of the 95 % interval of the test accuracy over new seeds and new images.

        NaN for fewer than two runs, for folds, and where the runs have no predictions for the same test images.
        """
        tested = [run.tested for run in self.done]
        tables = [one[1] for one in tested if one and tested[0] and one[0] == tested[0][0]]
        if len(tables) < 2 or len(tables) < len(self.done) or self.overlap:
            return math.nan
        return interval_for_new_images(np.stack(tables))[1]

    def values(self, metric: str) -> list[float]:
        """Return a metric of every finished run that has it."""
        return [run.metrics[metric] for run in self.done if metric in run.metrics]

    @cached_property
    def overlap(self) -> float:
        """Return the ratio of held-out to training images if the runs are several folds or bootstrap draws; else 0."""
        if len({run.settings.get("data.fold") for run in self.done}) < 2:
            return 0.0
        held_out, trained_on = (sum(run.record["images"][split] for run in self.done) for split in ("val", "train"))
        return held_out / trained_on

    def interval(self, metric: str) -> tuple[float, float | None]:
        """Return mean and half-width of the 95 % interval over the seeds; NaN without a run."""
        values = self.values(metric)
        return mean_and_half_width(values, overlap=self.overlap) if values else (math.nan, None)

    def mean(self, key: str) -> float:
        """Return the mean of a top-level number of result.json, such as ``seconds``."""
        values = [run.record[key] for run in self.done]
        return sum(values) / len(values) if values else math.nan


def group_runs(runs: Sequence[Run]) -> tuple[list[Configuration], list[str]]:
    """Return the configurations of a folder's runs and the keys that differ among them."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        shared = {key: value for key, value in run.settings.items() if key not in PER_SEED}
        groups.setdefault(fingerprint(shared), []).append(run)
    configurations = [Configuration(runs) for runs in groups.values()]
    return configurations, _label(configurations)


def _label(configurations: Sequence[Configuration]) -> list[str]:
    """Label every configuration by the settings that differ among the finished ones, and return their keys.

    A configuration without a finished run, or the only one with a finished run, is labelled by its overrides that not
    all others have. So a mistyped value does not make all other labels longer.
    """
    finished = [configuration for configuration in configurations if configuration.done]
    overridden = {key for configuration in finished for key in configuration.overridden}
    keys = _differing(finished, {key for key in overridden - PER_SEED if has_influence(key)})
    if len({_join(configuration, keys) for configuration in finished}) < len(finished):
        # The same overrides, but a file in conf/ changed between the runs.
        every = {key for configuration in finished for key in configuration.settings}
        keys += [key for key in _differing(finished, every - PER_SEED) if key not in keys]
    for configuration, name in zip(finished, _names(finished, keys), strict=True):
        configuration.label = name
    compared = finished if len(finished) > 1 else configurations
    overrides = [set(run.overrides) for configuration in compared for run in configuration.runs]
    shared = set.intersection(*overrides) if overrides else set()
    for configuration in configurations:
        if not configuration.label:
            own = {word: setting_of(word) for word in configuration.runs[0].overrides if word not in shared}
            configuration.label = ", ".join(
                word for word, key in own.items() if key not in PER_SEED and has_influence(key)
            )
        configuration.label = configuration.label or _without_seed(configuration.runs[0].folder.name)
    return keys


def _names(configurations: Sequence[Configuration], keys: Sequence[str]) -> list[str]:
    """Return a name for each configuration: its values of the keys; for three or more keys, only of its overrides.

    So if the configurations change one setting at a time, each is named after its change, if these names are unique.
    """
    brief = len({_join(configuration, keys, brief=True) for configuration in configurations}) == len(configurations)
    names = [_join(configuration, keys, brief) for configuration in configurations]
    if len(keys) < 3:
        return names
    own = [
        _join(configuration, [key for key in keys if key in configuration.overridden], brief)
        for configuration in configurations
    ]
    apart = len(set(own)) == len(own)
    return [change or name for change, name in zip(own, names, strict=True)] if apart else names


def as_text(value: Any, brief: bool = False) -> str:
    """Return the value of a setting as it is written on the command line; ``brief``: floats with three digits."""
    if isinstance(value, float):
        short = f"{value:.3g}" if brief else f"{value:g}"
        return short if brief or float(short) == value else repr(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ",".join(map(as_text, value)) + "]"
    return "null" if value is None else str(value)


def _without_seed(folder: str) -> str:
    """Return the name of a run's folder without its seeds: the label if there is only one configuration."""
    seeds = "|".join(re.escape(key) for key in PER_SEED)
    return re.sub(rf"(^|,)({seeds})=[^,]*", "", folder).lstrip(",") or "default"


def _differing(configurations: Sequence[Configuration], keys: set[str]) -> list[str]:
    values = {key: {as_text(configuration.settings.get(key)) for configuration in configurations} for key in keys}
    return sorted((key for key in keys if len(values[key]) > 1), key=lambda key: (key.count("."), key))


def _join(configuration: Configuration, keys: Sequence[str], brief: bool = False) -> str:
    settings = configuration.settings
    return ", ".join(f"{key}={as_text(settings[key], brief)}" for key in keys if key in settings)
