"""A folder of runs: its settings in their order, what they prove, and its plots. Imports no torch."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from handwriting.reports.comparisons import Verdict, judge, short_names
from handwriting.reports.groups import Setting, as_text, group_runs
from handwriting.runs.record import Run, read_runs
from handwriting.utils.errors import UserError, did_you_mean
from handwriting.utils.files import write_bytes

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

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


def write_plots(report: Report) -> list[Path]:
    """Write curves.png and ranking.png of the settings that have finished runs, and return their paths.

    Of very many settings they show the best.
    """
    from handwriting.plots.runs import MOST_CURVES, MOST_ROWS, draw_curves, draw_ranking

    finished = [setting for setting in report.settings if setting.values("test/acc")]
    if not finished:
        return []
    losses, accuracies = {}, {}
    for setting in finished[:MOST_CURVES]:
        logged = [run.curves() for run in setting.done]
        losses[setting.label] = _by_seed(logged, "train/loss_step", "step")
        accuracies[setting.label] = _by_seed(logged, "val/acc", "epoch").rename(index=lambda epoch: epoch + 1)
    ranked = finished[:MOST_ROWS]
    ranking = draw_ranking(
        [setting.label for setting in ranked],
        [setting.values("test/acc") for setting in ranked],
        [setting.interval("test/acc")[1] for setting in ranked],
        {verdict.worse.label for verdict in report.verdicts if verdict.shown},
        len(finished),
        report.repeat,
    )
    curves = draw_curves(losses, accuracies, len(finished), report.repeat)
    figures = {"curves.png": curves, "ranking.png": ranking}
    if len(report.keys) == 2:
        figures["grid.png"] = _draw_grid(finished, *report.keys)
    if report.sizes > 2:
        figures["costs.png"] = _draw_costs(finished)
    searched = [run for setting in finished for run in setting.done if run.record.get("sweeper") == "optuna"]
    if sum(str(run.settings["monitor.metric"]) in run.metrics for run in searched) > 1:
        figures["search.png"] = _draw_search(searched, report.keys)
    return [_save(figure, report.folder / name) for name, figure in figures.items()]


def _draw_grid(finished: Sequence[Setting], row_key: str, column_key: str) -> "Figure":
    """Draw a heat map of the two settings that vary."""
    from handwriting.plots.landscapes import draw_grid

    def places(key: str) -> list[str]:
        values = {as_text(setting.settings.get(key)): setting.settings.get(key) for setting in finished}
        numbers = all(isinstance(value, (int, float)) for value in values.values())
        return sorted(values, key=lambda text: values[text] or 0) if numbers else sorted(values)

    rows, columns = places(row_key), places(column_key)
    means, half_widths = (np.full((len(rows), len(columns)), np.nan) for _ in range(2))
    for setting in finished:
        row, column = (as_text(setting.settings.get(key)) for key in (row_key, column_key))
        place = rows.index(row), columns.index(column)
        mean, half_width = setting.interval("test/acc")
        means[place], half_widths[place] = mean, math.nan if half_width is None else half_width
    return draw_grid((row_key, rows), (column_key, columns), means, half_widths)


def _draw_costs(finished: Sequence[Setting]) -> "Figure":
    """Draw accuracy against the size of the net and against the seconds that its training took."""
    from handwriting.plots.landscapes import draw_costs

    return draw_costs(
        [setting.label for setting in finished],
        [setting.values("test/acc") for setting in finished],
        [setting.interval("test/acc")[1] for setting in finished],
        {
            "weights": [setting.mean("parameters") for setting in finished],
            "seconds of training": [setting.mean("seconds") for setting in finished],
        },
    )


def _draw_search(runs: Sequence[Run], keys: Sequence[str]) -> "Figure":
    """Draw the trials of a search in their order, by what it looked for."""
    from handwriting.plots.landscapes import draw_search

    metric, best = str(runs[0].settings["monitor.metric"]), str(runs[0].settings["monitor.mode"])
    trials = sorted((run for run in runs if metric in run.metrics), key=lambda run: run.record["started"])
    parameters = {key: [run.settings.get(key) if key in run.asked else None for run in trials] for key in keys}
    return draw_search([run.metrics[metric] for run in trials], parameters, metric, best)


def _by_seed(curves: Sequence["pd.DataFrame"], metric: str, index: str) -> "pd.DataFrame":
    """Return a metric with a column a run, by step or epoch; between two of its own a run has what lies between them.

    Epochs of different folds may differ by a step.
    """
    import pandas as pd

    known = [frame for frame in curves if metric in frame and index in frame]
    seeds = []
    for frame in known:  # as arrays: pandas takes a millisecond for each of these, and there may be thousands of runs
        heights, places = frame[metric].to_numpy(float), frame[index].to_numpy(float)
        there = ~(np.isnan(heights) | np.isnan(places))
        seed = pd.Series(heights[there], places[there], name=metric)
        seeds.append(seed[~seed.index.duplicated(keep="last")])
    if not seeds:
        return pd.DataFrame()
    frame = pd.concat(seeds, axis=1, keys=range(len(seeds))).sort_index()
    return frame.interpolate(method="index", limit_area="inside")


def _save(figure: "Figure", path: Path) -> Path:
    from handwriting.plots.runs import as_png

    write_bytes(path, as_png(figure))
    return path
