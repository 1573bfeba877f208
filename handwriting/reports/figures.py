"""The figures of a report: curves.png, ranking.png; and grid, costs, search and race where they apply. No torch."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from handwriting.reports.groups import Configuration, as_text
from handwriting.reports.racing import Race
from handwriting.reports.report import Report
from handwriting.runs.record import Run
from handwriting.utils.files import write_bytes

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def write_plots(report: Report) -> list[Path]:
    """Write the figures of the configurations that have finished runs, and return their paths.

    If there are very many configurations, curves.png and ranking.png show the best.
    """
    from handwriting.plots.runs import MOST_CURVES, MOST_ROWS, draw_curves, draw_ranking

    finished = [configuration for configuration in report.configurations if configuration.values("test/acc")]
    if not finished:
        return []
    losses, accuracies = {}, {}
    for configuration in finished[:MOST_CURVES]:
        logged = [run.curves() for run in configuration.done]
        losses[configuration.label] = _by_seed(logged, "train/loss_step", "step")
        accuracies[configuration.label] = _by_seed(logged, "val/acc", "epoch").rename(index=lambda epoch: epoch + 1)
    ranked = finished[:MOST_ROWS]
    ranking = draw_ranking(
        [configuration.label for configuration in ranked],
        [configuration.values("test/acc") for configuration in ranked],
        [configuration.interval("test/acc")[1] for configuration in ranked],
        {comparison.worse.label for comparison in report.comparisons if comparison.significant},
        len(finished),
        report.repeat,
    )
    curves = draw_curves(losses, accuracies, len(finished), report.repeat)
    figures = {"curves.png": curves, "ranking.png": ranking}
    if len(report.keys) == 2:
        figures["grid.png"] = _draw_grid(finished, *report.keys)
    if report.sizes > 2:
        figures["costs.png"] = _draw_costs(finished)
    if report.race:
        figures["race.png"] = _draw_race(report.race)
    searched = [
        run for configuration in finished for run in configuration.done if run.record.get("sweeper") == "optuna"
    ]
    if sum(str(run.settings["monitor.metric"]) in run.metrics for run in searched) > 1:
        figures["search.png"] = _draw_search(searched, report.keys)
    return [_save(figure, report.folder / name) for name, figure in figures.items()]


def _draw_grid(finished: Sequence[Configuration], row_key: str, column_key: str) -> "Figure":
    """Draw test accuracy as a heat map over the two settings that vary."""
    from handwriting.plots.runs import draw_grid

    def places(key: str) -> list[str]:
        values = {
            as_text(configuration.settings.get(key)): configuration.settings.get(key) for configuration in finished
        }
        numbers = all(isinstance(value, (int, float)) for value in values.values())
        return sorted(values, key=lambda text: values[text] or 0) if numbers else sorted(values)

    rows, columns = places(row_key), places(column_key)
    means, half_widths = (np.full((len(rows), len(columns)), np.nan) for _ in range(2))
    for configuration in finished:
        row, column = (as_text(configuration.settings.get(key)) for key in (row_key, column_key))
        place = rows.index(row), columns.index(column)
        mean, half_width = configuration.interval("test/acc")
        means[place], half_widths[place] = mean, math.nan if half_width is None else half_width
    return draw_grid((row_key, rows), (column_key, columns), means, half_widths)


def _draw_costs(finished: Sequence[Configuration]) -> "Figure":
    """Draw test accuracy against the number of parameters and against the training time."""
    from handwriting.plots.runs import draw_costs

    return draw_costs(
        [configuration.label for configuration in finished],
        [configuration.values("test/acc") for configuration in finished],
        [configuration.interval("test/acc")[1] for configuration in finished],
        {
            "parameters": [configuration.mean("parameters") for configuration in finished],
            "training time (s)": [configuration.mean("seconds") for configuration in finished],
        },
    )


def _draw_search(runs: Sequence[Run], keys: Sequence[str]) -> "Figure":
    """Draw the trials of a search in their order, by the metric that it optimised."""
    from handwriting.plots.runs import draw_search

    metric, best = str(runs[0].settings["monitor.metric"]), str(runs[0].settings["monitor.mode"])
    trials = sorted((run for run in runs if metric in run.metrics), key=lambda run: run.record["started"])
    parameters = {key: [run.settings.get(key) if key in run.overridden else None for run in trials] for key in keys}
    return draw_search([run.metrics[metric] for run in trials], parameters, metric, best)


def _draw_race(race: Race) -> "Figure":
    """Draw the scores of a race by round, the configurations that stayed longest first."""
    from handwriting.plots.runs import draw_race

    order = sorted(race.racers, key=lambda racer: -(racer.dropped or race.rounds + 1))
    scores = np.full((len(order), race.rounds), np.nan)
    for row, racer in enumerate(order):
        scores[row, : len(racer.scores)] = [np.nan if score is None else score for score in racer.scores]
    return draw_race([one.name for one in order], scores, [one.dropped for one in order], race.metric, race.mode)


def _by_seed(curves: Sequence["pd.DataFrame"], metric: str, index: str) -> "pd.DataFrame":
    """Return a metric as a frame with a column for each run, indexed by step or epoch; gaps are interpolated.

    Epochs of different folds may end one step apart.
    """
    import pandas as pd

    known = [frame for frame in curves if metric in frame and index in frame]
    seeds = []
    for frame in known:  # as arrays: pandas takes 1 ms for each of these, and there may be thousands of runs
        heights, places = frame[metric].to_numpy(float), frame[index].to_numpy(float)
        there = ~(np.isnan(heights) | np.isnan(places))
        seed = pd.Series(heights[there], places[there], name=metric)
        seeds.append(seed[~seed.index.duplicated(keep="last")])
    if not seeds:
        return pd.DataFrame()
    frame = pd.concat(seeds, axis=1, keys=range(len(seeds))).sort_index()
    return frame.interpolate(method="index", limit_area="inside")


def _save(figure: "Figure", path: Path) -> Path:
    from handwriting.plots.style import as_png

    write_bytes(path, as_png(figure))
    return path
