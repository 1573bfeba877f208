"""Figures of what one run sees and says: images, their variants, what is taken for what. Imports no torch."""

import textwrap
from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
from matplotlib import rc_context
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from handwriting.plots.style import fonts_for

MOST_CELLS = 20  # classes, of which each cell of a confusion matrix still has room for numbers
WRONG = "#D55E00"


def draw_confusion(counts: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Draw how often each true class (rows) was read as each class (columns).

    Up to 20 classes each cell says its count and its share of the row.
    """
    few = len(class_names) <= MOST_CELLS
    with rc_context({"font.family": fonts_for(class_names)}):
        size = max(7.0, 1.6 + 0.52 * len(class_names)) if few else 7.0
        figure = Figure(figsize=(size, 0.89 * size), dpi=110, layout="constrained")
        axes = figure.subplots()
        shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
        figure.colorbar(image, label="share of the true class (%)", shrink=0.8)
        axes.set(xlabel="read as", ylabel="true class")
        if few:
            ticks = range(len(class_names))
            axes.set_xticks(ticks, class_names)
            axes.set_yticks(ticks, class_names)
            for row, column in product(ticks, ticks):
                if counts[row, column]:
                    ink = "white" if shares[row, column] > 50 else "black"
                    text = f"{counts[row, column]}\n{shares[row, column]:.3g} %"
                    axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=6.5)
    return figure


def draw_confused_pairs(
    pairs: Sequence[tuple[str, str, int]], examples: Sequence[tuple[np.ndarray, np.ndarray]], counts: np.ndarray
) -> Figure:
    """Draw the confusion matrix of many classes as an image, and beside it the pairs most often confused.

    A pair is its two names and how often one was read as the other; its examples are uint8 images (H, W) of either.
    """
    names = [name for first, second, _ in pairs for name in (first, second)]
    with rc_context({"font.family": fonts_for(names)}):
        columns = 2
        rows = max(-(-len(pairs) // columns), 1)
        figure = Figure(figsize=(13, max(6.0, 0.8 * rows)), dpi=110, layout="constrained")
        left, right = list(figure.subfigures(1, 2, width_ratios=(1, 1.05), squeeze=False).flat)
        axes = left.subplots()
        shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100, interpolation="nearest")
        left.colorbar(image, label="share of the true class (%)", shrink=0.7)
        axes.set(xlabel="read as (number of the class)", ylabel="true class (number of the class)")
        right.suptitle("most often taken for each other" if pairs else "no image was misread", fontsize=10)
        if not pairs:
            return figure
        places = right.subplots(rows, columns * 3, width_ratios=(1, 1, 1) * columns, squeeze=False)
        for axes in places.flat:
            axes.set_axis_off()
        for number, ((first, second, times), both) in enumerate(zip(pairs, examples, strict=True)):
            row, column = number % rows, 3 * (number // rows)
            for place, (name, picture) in enumerate(zip((first, second), both, strict=True)):
                places[row, column + place].imshow(picture, cmap="gray", vmin=0, vmax=255)
                places[row, column + place].set_title(_short(name), fontsize=8)
            places[row, column + 2].text(0, 0.5, f"{times}×", va="center", fontsize=9)
    return figure


def draw_confusions(counts: Mapping[str, np.ndarray], class_names: Sequence[str]) -> Figure:
    """Draw what each of several runs misreads, in one scale: confusion matrices without what was read right."""
    columns = min(len(counts), 3)
    rows = -(-len(counts) // columns)
    with rc_context({"font.family": fonts_for([*class_names, *counts])}):
        figure = Figure(figsize=(4.2 * columns, 3.9 * rows), dpi=110, layout="constrained")
        places = list(figure.subplots(rows, columns, squeeze=False).flat)
        wrong = {name: np.where(np.eye(len(table), dtype=bool), 0, table) for name, table in counts.items()}
        most = max((table.max() for table in wrong.values()), default=0)
        colours = ScalarMappable(Normalize(0, max(most, 1)), "Reds")
        for axes, (name, table) in zip(places, wrong.items(), strict=False):
            axes.imshow(table, cmap=colours.cmap, norm=colours.norm, interpolation="nearest")
            axes.set_title("\n".join(textwrap.wrap(f"{name}: {table.sum()} misread", 52)), fontsize=8)
            axes.set(xlabel="read as", ylabel="true class")
            if len(class_names) <= MOST_CELLS:
                axes.set_xticks(range(len(class_names)), class_names, fontsize=7)
                axes.set_yticks(range(len(class_names)), class_names, fontsize=7)
        for axes in places[len(counts) :]:
            axes.set_visible(False)
        whole = MaxNLocator(integer=True)
        figure.colorbar(colours, ax=places, label="images misread", shrink=0.8, ticks=whole)
    return figure


def draw_readings(
    images: np.ndarray, true: Sequence[str], read: Sequence[str], probabilities: Sequence[float], title: str
) -> Figure:
    """Draw uint8 images (N, H, W), each under what it is, what it was read as, and with which probability.

    What was misread is said in red; a true name of '' is not known.
    """
    columns = 8
    rows = max(-(-len(images) // columns), 1)
    with rc_context({"font.family": fonts_for([*true, *read])}):
        figure = Figure(figsize=(1.25 * columns, 1.65 * rows + 0.5), dpi=110, layout="constrained")
        figure.suptitle(title, fontsize=10)
        places = list(figure.subplots(rows, columns, squeeze=False).flat)
        for axes in places:
            axes.set_axis_off()
        for axes, image, is_, as_, sure in zip(places, images, true, read, probabilities, strict=False):
            axes.imshow(image, cmap="gray", vmin=0, vmax=255)
            wrong = bool(is_) and is_ != as_
            lines = ["is " + _short(is_), "read " + _short(as_)] if wrong else [_short(as_)]
            lines.append(f"{sure:.1%}")  # a line of its own: beside a glyph from right to left, it would be turned
            axes.set_title("\n".join(lines), fontsize=7.5, color=WRONG if wrong else "black")
    return figure


def draw_steps(rows: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Draw a row an image: uint8 pictures (H, W) of what each step made of it, under the names of the steps."""
    columns = max(len(steps) for steps in rows.values())
    with rc_context({"font.family": fonts_for(rows)}):
        figure = Figure(figsize=(1.9 * columns, 2.1 * len(rows)), dpi=110, layout="constrained")
        bands = list(figure.subfigures(len(rows), 1, squeeze=False).flat)
        for band, (name, steps) in zip(bands, rows.items(), strict=True):
            band.suptitle(name, fontsize=9)
            for axes, (step, picture) in zip(
                band.subplots(1, columns, squeeze=False).flat, steps.items(), strict=False
            ):
                axes.imshow(picture, cmap="gray", vmin=0, vmax=255)
                axes.set_title("\n".join(textwrap.wrap(step, 22)), fontsize=7)
            for axes in band.axes:
                axes.set_axis_off()
    return figure


def _short(name: str, most: int = 13) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def draw_gallery(images: np.ndarray, names: Sequence[str], columns: int = 8) -> Figure:
    """Draw uint8 images (N, H, W) in rows, each with its name above."""
    with rc_context({"font.family": fonts_for(names)}):
        rows = -(-len(images) // columns)
        height, width = images.shape[1:]
        head = height // 2  # room for the name
        canvas = np.full((rows * (height + head), columns * (width + 4)), 255, np.uint8)
        figure = Figure(figsize=(0.62 * columns, 0.62 * rows * (height + head) / (width + 4)), dpi=110)
        axes = figure.add_axes((0, 0, 1, 1))
        for i, (image, name) in enumerate(zip(images, names, strict=True)):
            top, left = (i // columns) * (height + head) + head, (i % columns) * (width + 4) + 2
            canvas[top : top + height, left : left + width] = image
            size = min(8, 72 / max(len(name), 1))  # a long name would run into its neighbour
            axes.text(left + width / 2, top - head / 2, name, ha="center", va="center", fontsize=size)
        axes.imshow(canvas, cmap="gray", vmin=0, vmax=255)
        axes.set_axis_off()
    return figure


def draw_variants(originals: np.ndarray, variants: Mapping[str, np.ndarray]) -> Figure:
    """Draw uint8 images (N, H, W) in a row, and below them, a row for each name, what was made of them."""
    rows = {"original": originals, **{name.replace("_", " "): images for name, images in variants.items()}}
    height, width = originals.shape[1:]
    gap = 2  # pixels between two images
    canvas = np.full((len(rows) * (height + gap), len(originals) * (width + gap)), 255, np.uint8)
    for row, images in enumerate(rows.values()):
        for column, image in enumerate(images):
            top, left = row * (height + gap), column * (width + gap)
            canvas[top : top + height, left : left + width] = image
    margin, wide = 1.3, 0.6 * len(originals)  # inches, of the names and of the images
    figure = Figure(figsize=(margin + wide, wide * canvas.shape[0] / canvas.shape[1]), dpi=110)
    axes = figure.add_axes((margin / (margin + wide), 0, wide / (margin + wide), 1))
    axes.imshow(canvas, cmap="gray", vmin=0, vmax=255)
    for row, name in enumerate(rows):
        axes.text(-3, row * (height + gap) + height / 2, name, ha="right", va="center", fontsize=9)
    axes.set_axis_off()
    return figure
