"""A folder of runs, grouped: a row a setting, an interval from its seeds; and its plots. Imports no torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from handwriting.results import NOT_SETTINGS, Run, fingerprint, read_folder, setting_of
from handwriting.stats import mean_and_half_width
from handwriting.writing import write_bytes

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

PER_SEED = {"seed", "data.shuffle_seed", "augment.seed"}  # what differs among the runs of one setting


@dataclass
class Setting:
    """The runs that differ in nothing but their seed."""

    runs: list[Run]
    label: str = ""

    @cached_property
    def done(self) -> list[Run]:
        """Return the runs that came to their end."""
        return [run for run in self.runs if run.status == "done"]

    def values(self, metric: str) -> list[float]:
        """Return a metric of every finished run that has it."""
        return [run.metrics[metric] for run in self.done if metric in run.metrics]

    def interval(self, metric: str) -> tuple[float, float | None]:
        """Return mean and half-width of the 95 % interval over the seeds; nan without a run."""
        values = self.values(metric)
        return mean_and_half_width(values) if values else (math.nan, None)

    def mean(self, key: str) -> float:
        """Return the mean of a number of result.json itself, such as ``seconds``."""
        values = [run.record[key] for run in self.done]
        return sum(values) / len(values) if values else math.nan


@dataclass
class Report:
    """What a folder of runs says."""

    folder: Path
    settings: list[Setting]  # best test accuracy first
    keys: list[str]  # the settings that differ and so name the rows

    @property
    def failed(self) -> list[Run]:
        """Return the runs that did not come to their end."""
        return [run for setting in self.settings for run in setting.runs if run.status != "done"]

    @property
    def chosen(self) -> Setting | None:
        """Return the setting with the best mean validation accuracy: the choice that never saw the test part."""
        with_runs = [setting for setting in self.settings if setting.values("val/acc")]
        return max(with_runs, key=lambda setting: setting.interval("val/acc")[0], default=None)


def read_report(folder: Path) -> Report:
    """Group a folder's runs by setting; UserError when it holds none."""
    groups: dict[str, list[Run]] = {}
    for run in read_folder(folder):
        shared = {key: value for key, value in run.settings.items() if key not in PER_SEED}
        groups.setdefault(fingerprint(shared), []).append(run)
    settings = [Setting(runs) for runs in groups.values()]
    keys = _label(settings)

    def rank(setting: Setting) -> tuple[bool, float, str]:
        accuracy = setting.interval("test/acc")[0]
        return math.isnan(accuracy), -accuracy, setting.label

    return Report(folder, sorted(settings, key=rank), keys)


def write_plots(report: Report) -> list[Path]:
    """Write curves.png and ranking.png of the settings that have finished runs, and return their paths."""
    from handwriting.plots import draw_curves, draw_ranking

    finished = [setting for setting in report.settings if setting.values("test/acc")]
    if not finished:
        return []
    losses, accuracies = {}, {}
    for setting in finished:
        curves = [run.curves() for run in setting.done]
        losses[setting.label] = _by_seed(curves, "train/loss_step", "step")
        accuracies[setting.label] = _by_seed(curves, "val/acc", "epoch").rename(index=lambda epoch: epoch + 1)
    ranking = draw_ranking(
        [setting.label for setting in finished],
        [setting.values("test/acc") for setting in finished],
        [setting.interval("test/acc")[1] for setting in finished],
    )
    return [
        _save(draw_curves(losses, accuracies), report.folder / "curves.png"),
        _save(ranking, report.folder / "ranking.png"),
    ]


def _label(settings: Sequence[Setting]) -> list[str]:
    """Give every setting a label of what differs among those that finished, and return the keys that differ.

    One that never finished is called by its folder: a mistyped value should not lengthen every other label.
    """
    finished = [setting for setting in settings if setting.done]
    asked = {
        setting_of(override)
        for setting in finished
        for run in setting.runs
        for override in run.record.get("overrides", [])
    }
    keys = _differing(finished, asked - PER_SEED - NOT_SETTINGS)
    if len({_join(setting, keys) for setting in finished}) < len(finished):
        # The same overrides, but a file in conf/ changed between the runs.
        every = {key for setting in finished for key in setting.runs[0].settings}
        keys += [key for key in _differing(finished, every - PER_SEED) if key not in keys]
    for setting in settings:
        setting.label = (_join(setting, keys) if setting.done else "") or setting.runs[0].folder.name
    return keys


def as_text(value: Any) -> str:
    """Return a value of a setting as one writes it on the command line."""
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ",".join(map(as_text, value)) + "]"
    return "null" if value is None else str(value)


def _differing(settings: Sequence[Setting], keys: set[str]) -> list[str]:
    values = {key: {as_text(setting.runs[0].settings.get(key)) for setting in settings} for key in keys}
    return sorted((key for key in keys if len(values[key]) > 1), key=lambda key: (key.count("."), key))


def _join(setting: Setting, keys: Sequence[str]) -> str:
    settings = setting.runs[0].settings
    return ", ".join(f"{key}={as_text(settings[key])}" for key in keys if key in settings)


def _by_seed(curves: Sequence["pd.DataFrame"], metric: str, index: str) -> "pd.DataFrame":
    import pandas as pd

    known = [frame for frame in curves if metric in frame and index in frame]
    seeds = [frame.dropna(subset=[metric, index]).groupby(index)[metric].last() for frame in known]
    return pd.concat(seeds, axis=1, keys=range(len(seeds))) if seeds else pd.DataFrame()


def _save(figure: "Figure", path: Path) -> Path:
    from handwriting.plots import as_png

    write_bytes(path, as_png(figure))
    return path
