"""Figures of how the result depends on the settings: two of them as a grid, each that a search tried, what it costs.

Imports no torch.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from handwriting.plots.runs import COLOURS, GREY, MOST_CURVES, SEEDS_IN_SCALE, label_plainly, scale_by_error
from handwriting.plots.style import fonts_for
from handwriting.utils.text import fold

MARKERS = "oDs^v"
PANEL = (3.4, 2.9)  # inches
WIDE_RANGE = 20  # from this ratio of largest to smallest on, a parameter is drawn on a logarithmic scale


def draw_grid(
    rows: tuple[str, Sequence[str]], columns: tuple[str, Sequence[str]], cells: np.ndarray, half_widths: np.ndarray
) -> Figure:
    """Draw mean test accuracies (fractions) by two settings: each a name and its values; nan where there is no run."""
    (row_name, row_values), (column_name, column_values) = rows, columns
    wide, tall = 2.4 + 1.05 * len(column_values), 1.6 + 0.55 * len(row_values)
    figure = Figure(figsize=(max(wide, 4.5), max(tall, 2.6)), dpi=110, layout="constrained")
    axes = figure.subplots()
    # By the logarithm of the error, as in the other figures: the differences among the best are those of interest.
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
    """Draw a search in the order of its trials: the score of each and the best so far, and score against parameters.

    ``parameters`` has a value for each trial, None where it was not chosen; ``best`` is max or min.
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
    figure.suptitle(f"{len(heights)} trials; the best one ringed", fontsize=10)
    return figure


def draw_costs(
    labels: Sequence[str],
    accuracies: Sequence[Sequence[float]],
    half_widths: Sequence[float | None],
    costs: Mapping[str, Sequence[float]],
) -> Figure:
    """Draw mean test accuracy and its interval (fractions) against each of the costs, such as weights and seconds.

    The best come first; of very many the others are grey and have no names.
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
                if max(values) < WIDE_RANGE * min(values):  # powers of ten alone would be one tick or none
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
