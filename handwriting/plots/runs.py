"""Figures of a folder of runs, from plain arrays: curves, ranking, grid, costs, search, race. Imports no torch."""

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import cycle, product
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.scale import FuncScale
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator
from numpy.typing import ArrayLike
from pandas.api.indexers import BaseIndexer

from handwriting.plots.style import fonts_for
from handwriting.utils.text import fold

# The palette of Okabe and Ito, safe for colour-blind people (without yellow, which is too pale for a line).
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8B4513"]
STYLES = [(colour, dash) for dash, colour in product(["-", "--", ":", "-."], COLOURS)]
SMOOTHING = 1 / 20  # the bold line is a moving mean over this fraction of the steps
GREY = "#999999"
WIDTH = 11.0  # inches
MOST_WITH_SEEDS = 8  # configurations; with more, the lines of the seeds hide each other
MOST_CURVES = len(STYLES)  # with more, two would look the same
MOST_ROWS = 100
SEEDS_IN_SCALE = 3  # intervals of two seeds reach 13 standard errors and would compress all others

# Accuracies in percent whose errors are spaced evenly enough on a logarithmic scale.
ACCURACY_TICKS = [0, 50, 70, 80, 90, 95, 97, 98, 99, 99.5, 99.7, 99.8, 99.9, 99.95, 99.99]

Curves = Mapping[str, pd.DataFrame]


def draw_curves(losses: Curves, accuracies: Curves, total: int | None = None, repeat: str = "seed") -> Figure:
    """Draw training loss by step and validation accuracy by epoch, one colour for each configuration.

    Each frame has a column for each seed, indexed by step or epoch; losses in nats, accuracies as fractions. Thin lines
    are seeds, the bold line is their mean: if only some seeds learn, no seed is near the mean. ``total`` is the number
    of all configurations if these are only the best; ``repeat`` is the word for one run of a configuration.
    """
    labels = list(losses)
    texts = [fold(label, 100) for label in labels]
    with rc_context({"font.family": fonts_for(labels)}):
        columns = max(1, int(WIDTH / (0.75 + 0.075 * max((min(len(label), 100) for label in labels), default=1))))
        lines = max((text.count("\n") + 1 for text in texts), default=1)
        figure = Figure(figsize=(WIDTH, 4.6 + 0.2 * lines * -(-len(labels) // columns)), dpi=110, layout="constrained")
        left, right = figure.subplots(1, 2)
        each = len(labels) <= MOST_WITH_SEEDS
        for label, text, (colour, dash) in zip(labels, texts, cycle(STYLES), strict=False):
            _draw_loss(left, losses[label], colour, dash, each)
            _draw_seeds(right, accuracies[label] * 100, colour, dash, each, text)
        left.set(xlabel="training step (batches)", ylabel="training loss (cross-entropy, nats)", yscale="log")
        label_plainly(left.yaxis)
        left.set_title("Training loss, smoothed (pale: raw)", fontsize=10)
        right.set(xlabel="epoch", ylabel="validation accuracy (%, log scale of errors)")
        several = any(frame.shape[1] > 1 for frame in accuracies.values())
        which = (f", mean and each {repeat}" if each else f", mean of the {repeat}s") if several else ""
        right.set_title("Validation accuracy" + which + _best_of(labels, total), fontsize=10)
        right.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        values = [100 * frame.to_numpy().ravel() for frame in accuracies.values()]
        scale_by_error(right, "y", np.concatenate(values))
        unheld = "nothing logged by epoch:\nno epoch has ended, or there is no validation set (data.val_fraction=0)"
        for axes, curves, missing in ((left, losses, "nothing logged by step"), (right, accuracies, unheld)):
            axes.grid(alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
            if all(frame.empty for frame in curves.values()):
                axes.set(xticks=[], yticks=[])
                axes.minorticks_off()
                axes.text(0.5, 0.5, missing, transform=axes.transAxes, ha="center", color=GREY)
        figure.legend(
            *right.get_legend_handles_labels(), loc="outside lower center", ncols=columns, frameon=False, fontsize=9
        )
    return figure


def draw_ranking(
    labels: Sequence[str],
    accuracies: Sequence[Sequence[float]],
    half_widths: Sequence[float | None],
    worse: Collection[str] = (),
    total: int | None = None,
    repeat: str = "seed",
) -> Figure:
    """Draw the test accuracy of each configuration in the given order: mean, interval and every run (fractions).

    The labels in ``worse`` are drawn in grey. ``total`` is the number of all configurations if these are only the best;
    ``repeat`` is the word for one run of a configuration.
    """
    texts = [fold(label, 40) for label in labels]
    with rc_context({"font.family": fonts_for(labels)}):
        tall = sum(0.32 + 0.16 * text.count("\n") for text in texts)
        figure = Figure(figsize=(8, 1.3 + tall), dpi=110, layout="constrained")
        axes = figure.subplots()
        drawn: list[float] = []
        wide: list[float] = []
        for row, (label, values, half_width) in enumerate(zip(labels, accuracies, half_widths, strict=True)):
            percent = np.asarray(values) * 100
            colour = GREY if label in worse else COLOURS[0]
            axes.plot(percent, np.full(len(percent), row), "o", color=colour, alpha=0.3, markersize=4)
            mean = percent.mean()
            # No accuracy is below 0 or above 100 %, though an interval of few seeds may be.
            reach = None if half_width is None else half_width * 100
            error = None if reach is None else [[min(reach, mean)], [min(reach, 100 - mean)]]
            drawn += [*percent]
            if error:
                (drawn if len(percent) >= SEEDS_IN_SCALE else wide).extend([mean - error[0][0], mean + error[1][0]])
            axes.errorbar([mean], [row], xerr=error, fmt="D", color=colour, capsize=4, markersize=5)
        means = [f"{100 * np.mean(values):.2f}" for values in accuracies]
        axes.set_yticks(range(len(labels)), texts)
        axes.set_ylim(len(labels) - 0.5, -0.5)
        right = axes.secondary_yaxis("right")
        right.set_yticks(range(len(labels)), means)
        right.tick_params(length=0)
        right.spines["right"].set_visible(False)
        counts = {len(values) for values in accuracies}
        title = _interval_title(counts, repeat) + _best_of(labels, total)
        axes.set_title(title + ("\ngrey: significantly worse than another" if worse else ""), fontsize=10)
        axes.set_xlabel("test accuracy (%, log scale of errors)")
        scale_by_error(axes, "x", np.array(drawn))
        low, high = axes.get_xlim()
        if any(not low <= end <= high for end in wide):
            axes.set_title(axes.get_title() + f"\nsome intervals of two {repeat}s are cut off", fontsize=10)
        axes.grid(axis="x", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_loss(axes: Axes, frame: pd.DataFrame, colour: str, dash: str, each: bool) -> None:
    raw = frame.mean(axis=1)
    axes.plot(raw.index, raw.to_numpy(), color=colour, alpha=0.18, linewidth=0.8)
    window = max(3, round(SMOOTHING * len(frame)))
    smoothed: pd.DataFrame = frame.rolling(_Around(window_size=window), min_periods=1).mean()  # type: ignore[assignment]
    _draw_seeds(axes, smoothed, colour, dash, each)


class _Around(BaseIndexer):
    """Windows of ``window_size`` rows centred on each row, narrower at both ends.

    At the start losses fall steeply. Windows grow from one row there, so that the line begins at the first loss and has
    no kink.
    """

    def get_window_bounds(
        self,
        num_values: int = 0,
        min_periods: int | None = None,
        center: bool | None = None,
        closed: str | None = None,
        step: int | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the first row of each window and the one after its last, (rows,) each."""
        rows = np.arange(num_values)
        reach = np.minimum(rows // 2, self.window_size // 2)
        return rows - reach, np.minimum(rows + reach + 1, num_values)


def _draw_seeds(axes: Axes, frame: pd.DataFrame, colour: str, dash: str, each: bool, label: str | None = None) -> None:
    mean = frame.mean(axis=1)
    marker = "o" if len(mean) == 1 else None  # a line with one point is invisible
    axes.plot(mean.index, mean.to_numpy(), dash, color=colour, linewidth=1.6, label=label, marker=marker)
    if each and frame.shape[1] > 1:
        axes.plot(frame.index, frame.to_numpy(), dash, color=colour, linewidth=0.7, alpha=0.5, zorder=1.9)


def label_plainly(axis: Axis) -> None:
    """Label a logarithmic axis with 0.1, 0.2, 0.5 instead of powers of ten, which are also slower to draw."""
    low, high = axis.get_view_interval()
    if high < 5 * low:  # the range may contain only one of 1, 2 and 5
        axis.set_major_locator(MaxNLocator(3))
    elif high < 1000 * low:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(lambda tick, _: f"{tick:,.12g}")
    axis.set_minor_formatter(NullFormatter())


def scale_by_error(axes: Axes, direction: str, percents: np.ndarray) -> None:
    """Scale an axis by the logarithm of the error: from 98 to 99 is as far as from 80 to 90.

    100 % would be at infinity; it is drawn at half of the smallest error.
    """
    percents = percents[np.isfinite(percents)]
    errors = 100 - percents[percents < 100]
    floor = errors.min() / 2 if len(errors) else 1.0

    def forward(percent: ArrayLike) -> np.ndarray:
        return -np.log10(np.maximum(100 - np.asarray(percent, dtype=float), floor))

    def inverse(place: ArrayLike) -> np.ndarray:
        return 100 - 10.0 ** -np.asarray(place, dtype=float)

    axis = axes.xaxis if direction == "x" else axes.yaxis
    axes.set(**{f"{direction}scale": FuncScale(axis, (forward, inverse))})
    ends = forward(np.array([percents.min(), percents.max()])) if len(percents) else np.array([-2.0, 0.0])
    margin = max(0.05 * (ends[1] - ends[0]), 0.02)
    low, high = inverse(np.array([ends[0] - margin, ends[1] + margin]))
    visible = [tick for tick in ACCURACY_TICKS if low <= tick <= high]
    ticks = visible if len(visible) > 3 else MaxNLocator(6).tick_values(low, high)
    ticks = [tick for tick in ticks if max(low, 0) <= tick <= high and 100 - tick > 1.2 * floor]
    if 100 in percents:
        ticks.append(100)
    axes.set(**{f"{direction}lim": (low, high), f"{direction}ticks": ticks})
    axis.set_major_formatter(lambda tick, _: f"{tick:.6g}")
    axis.set_minor_locator(NullLocator())


def _best_of(labels: Sequence[str], total: int | None) -> str:
    if not total or total <= len(labels):
        return ""
    return f"\nthe best {len(labels)} of {total:,} configurations; summary.csv has all"


def _interval_title(counts: set[int], repeat: str) -> str:
    if counts == {1}:
        return f"One {repeat} for each configuration: inconclusive (n = 1)"
    number = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    return f"Mean with 95 % interval, {number} {repeat}s (dots)"


MARKERS = "oDs^v"
PANEL = (3.4, 2.9)  # inches
WIDE_RANGE = 20  # from this ratio of largest to smallest, a parameter has a logarithmic scale


def draw_grid(
    rows: tuple[str, Sequence[str]], columns: tuple[str, Sequence[str]], cells: np.ndarray, half_widths: np.ndarray
) -> Figure:
    """Draw mean test accuracies (fractions) over two settings, each a name and its values; NaN: no run."""
    (row_name, row_values), (column_name, column_values) = rows, columns
    wide, tall = 2.4 + 1.05 * len(column_values), 1.6 + 0.55 * len(row_values)
    figure = Figure(figsize=(max(wide, 4.5), max(tall, 2.6)), dpi=110, layout="constrained")
    axes = figure.subplots()
    # Colours by the logarithm of the error, as in the other figures, which separates the best values.
    errors = np.log10(np.maximum(1 - cells, 1e-5))
    image = axes.imshow(-errors, cmap="Blues", aspect="auto")
    low, high = image.get_clim()
    axes.set_xticks(range(len(column_values)), column_values)
    axes.set_yticks(range(len(row_values)), row_values)
    axes.set(xlabel=column_name, ylabel=row_name)
    axes.set_title("Test accuracy (%), mean ± 95 % interval", fontsize=10)
    for (row, column), cell in np.ndenumerate(cells):
        if np.isnan(cell):
            continue
        interval = half_widths[row, column]
        text = f"{100 * cell:.2f}" + ("" if np.isnan(interval) else f"\n± {100 * interval:.2f}")
        dark = high > low and (-errors[row, column] - low) / (high - low) > 0.55
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color="white" if dark else "black")
    return figure


def draw_search(scores: Sequence[float], parameters: Mapping[str, Sequence[Any]], metric: str, best: str) -> Figure:
    """Draw the trials of a search in order: scores, the best so far, and scores against parameters.

    ``parameters`` has a value for each trial, None where it was not sampled; ``best`` is max or min.
    """
    columns = min(1 + len(parameters), 3)
    rows = math.ceil((1 + len(parameters)) / columns)
    figure = Figure(figsize=(PANEL[0] * columns, PANEL[1] * rows), dpi=110, layout="constrained")
    places = list(figure.subplots(rows, columns, squeeze=False, sharey=True).flat)
    scale, unit = (100, " (%)") if metric.endswith("acc") else (1, "")
    heights = scale * np.array(scores, dtype=float)
    so_far = (np.maximum if best == "max" else np.minimum).accumulate(heights)
    winner = int(np.argmax(heights) if best == "max" else np.argmin(heights))
    numbers = np.arange(1, len(heights) + 1)
    first = places[0]
    first.plot(numbers, heights, "o", color=COLOURS[0], alpha=0.6, markersize=4)
    first.step(numbers, so_far, where="post", color=COLOURS[1], linewidth=1.6, label="best so far")
    first.legend(fontsize=8, frameon=False)
    first.set_xlabel("trial")
    for axes in places[::columns]:
        axes.set_ylabel(metric + unit)
    first.xaxis.get_major_locator().set_params(integer=True)
    for axes, (name, values) in zip(places[1:], parameters.items(), strict=False):
        _draw_parameter(axes, name, values, heights, winner)
    for axes in places[1 + len(parameters) :]:
        axes.set_visible(False)
    for axes in places:
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{len(heights)} trials; the best has a ring", fontsize=10)
    return figure


def draw_race(
    labels: Sequence[str], scores: np.ndarray, dropped: Sequence[int | None], metric: str, best: str
) -> Figure:
    """Draw a race as a table of colours: a row for each configuration, a column for each round, the colour is the rank.

    ``scores`` (configurations, rounds) is NaN where a run failed and after a configuration ``dropped`` out, at the end
    of that round; ``best`` is max or min.
    """
    rows, rounds = scores.shape
    scale, digits = (100, 2) if metric.endswith("acc") else (1, 3)
    texts = [fold(label, 40) for label in labels]
    with rc_context({"font.family": fonts_for(labels)}):
        lines = max((text.count("\n") + 1 for text in texts), default=1)
        tall = 1.4 + max(0.34, 0.18 * lines) * rows
        figure = Figure(figsize=(2.5 + 0.55 * max(rounds, 6), tall), dpi=110, layout="constrained")
        axes = figure.subplots()
        ranks = pd.DataFrame(scores).rank(ascending=best == "min")
        image = axes.imshow(ranks, cmap="cividis_r", aspect="auto", vmin=1, vmax=max(rows, 2))
        for row, end in enumerate(dropped):
            trained = end or rounds
            for column in range(trained):
                score = scores[row, column]
                bright = bool(ranks.iloc[row, column] < (rows + 1) / 2)
                text = "failed" if math.isnan(score) else f"{scale * score:.{digits}f}"
                colour = "black" if bright or math.isnan(score) else "white"
                axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
            if end:
                axes.plot([end - 0.5] * 2, [row - 0.5, row + 0.5], color=COLOURS[1], linewidth=3, clip_on=False)
        axes.set(xlabel="round", xticks=range(rounds), xticklabels=range(1, rounds + 1))
        axes.set_yticks(range(rows), texts)
        axes.spines[:].set_visible(False)
        axes.set_title(f"{metric}{' (%)' if scale > 1 else ''} by round, a seed each; orange: dropped out", fontsize=10)
        figure.colorbar(image, label="rank in the round", ticks=[1, max(rows, 2)], fraction=0.05)
    return figure


def draw_costs(
    labels: Sequence[str],
    accuracies: Sequence[Sequence[float]],
    half_widths: Sequence[float | None],
    costs: Mapping[str, Sequence[float]],
) -> Figure:
    """Draw mean test accuracy and its interval (fractions) against each cost, such as parameters and training time.

    The best come first; if there are very many, the rest is grey and has no labels.
    """
    with rc_context({"font.family": fonts_for(labels)}):
        figure = Figure(
            figsize=(10.5, max(3.8, 0.3 * min(len(labels), MOST_CURVES) + 1)), dpi=110, layout="constrained"
        )
        places = figure.subplots(1, len(costs), sharey=True, squeeze=False)[0]
        means = [100 * float(np.mean(values)) for values in accuracies]
        reaches = [100 * (half_width or 0.0) for half_width in half_widths]
        for axes, (name, values) in zip(places, costs.items(), strict=True):
            for number, (label, mean, reach, value) in enumerate(zip(labels, means, reaches, values, strict=True)):
                ends = [[min(reach, mean)], [min(reach, 100 - mean)]] if reach else None
                named, marker = number < MOST_CURVES, MARKERS[number // len(COLOURS) % len(MARKERS)]
                colour = COLOURS[number % len(COLOURS)] if named else GREY
                style = {"fmt": marker, "color": colour, "capsize": 3, "markersize": 7}
                axes.errorbar([value], [mean], yerr=ends, label=fold(label, 30) if named else None, **style)
            if min(values) > 0:
                axes.set_xscale("log")
                if max(values) < WIDE_RANGE * min(values):  # powers of ten would make one tick or none
                    label_plainly(axes.xaxis)
            axes.set_xlabel(name)
            axes.grid(alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
        drawn = list(means)
        for mean, reach, values in zip(means, reaches, accuracies, strict=True):
            if len(values) >= SEEDS_IN_SCALE:
                drawn += [mean - reach, mean + reach]
        scale_by_error(places[0], "y", np.clip(drawn, 0, 100))
        places[0].set_ylabel("test accuracy (%, log scale of errors)")
        figure.legend(*places[0].get_legend_handles_labels(), loc="outside right center", fontsize=8, frameon=False)
    return figure


def _draw_parameter(axes: Axes, name: str, values: Sequence[Any], heights: np.ndarray, winner: int) -> None:
    tried = [index for index, value in enumerate(values) if value is not None]
    numeric = all(isinstance(values[index], (int, float)) and not isinstance(values[index], bool) for index in tried)
    if numeric:
        places = {index: float(values[index]) for index in tried}
        low, high = min(places.values()), max(places.values())
        if low > 0 and high / low >= WIDE_RANGE:
            axes.set_xscale("log")
    else:
        names = sorted({str(values[index]) for index in tried})
        places = {index: float(names.index(str(values[index]))) for index in tried}
        axes.set_xticks(range(len(names)), [fold(text, 14) for text in names])
        axes.set_xlim(-0.5, len(names) - 0.5)
    axes.plot(list(places.values()), heights[tried], "o", color=COLOURS[0], alpha=0.6, markersize=4)
    if winner in places:
        ring = {"markersize": 10, "markerfacecolor": "none", "markeredgecolor": COLOURS[1], "markeredgewidth": 1.6}
        axes.plot(places[winner], heights[winner], "o", **ring)
    axes.set_xlabel(name)
