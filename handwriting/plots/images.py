"""Figures of one run: images, augmented variants, confusion matrices, predictions. Imports no torch.

Images are uint8 (H, W), or (H, W, 3) with red, green and blue.
"""

import textwrap
from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from handwriting.plots.style import fonts_for

if TYPE_CHECKING:
    import pandas as pd

MOST_CELLS = 20  # classes up to which the cells of a confusion matrix have numbers
WRONG = "#D55E00"
BOX = "#00E05A"  # seen on bright and on dark images

PROPERTIES = {  # of images by which their accuracy is drawn
    "length": "number of characters",
    "height": "height of the characters (pixels)",
    "contrast": "contrast (standard deviation of grey levels)",
}
Boxes = Sequence[Sequence[float]] | np.ndarray  # of an image: left, top, right and bottom of each, in pixels


def draw_confusion(counts: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Draw the confusion matrix: how often each true class (rows) was predicted as each class (columns).

    With up to 20 classes each cell has its count and its fraction of the row.
    """
    few = len(class_names) <= MOST_CELLS
    with rc_context({"font.family": fonts_for(class_names)}):
        size = max(7.0, 1.6 + 0.52 * len(class_names)) if few else 7.0
        figure = Figure(figsize=(size, 0.89 * size), dpi=110, layout="constrained")
        axes = figure.subplots()
        percents = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
        image = axes.imshow(percents, cmap="Blues", vmin=0, vmax=100)
        figure.colorbar(image, label="fraction of the true class (%)", shrink=0.8)
        axes.set(xlabel="predicted class", ylabel="true class")
        if few:
            ticks = range(len(class_names))
            axes.set_xticks(ticks, class_names)
            axes.set_yticks(ticks, class_names)
            for row, column in product(ticks, ticks):
                if counts[row, column]:
                    colour = "white" if percents[row, column] > 50 else "black"
                    text = f"{counts[row, column]}\n{percents[row, column]:.3g} %"
                    axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=6.5)
    return figure


def draw_confused_pairs(
    pairs: Sequence[tuple[str, str, int]], examples: Sequence[tuple[np.ndarray, np.ndarray]], counts: np.ndarray
) -> Figure:
    """Draw the confusion matrix of many classes as an image, and beside it the pairs most often confused.

    A pair is two names and how often one was predicted for the other; its examples are an image of each.
    """
    names = [name for first, second, _ in pairs for name in (first, second)]
    with rc_context({"font.family": fonts_for(names)}):
        columns = 2
        rows = max(-(-len(pairs) // columns), 1)
        figure = Figure(figsize=(13, max(6.0, 0.8 * rows)), dpi=110, layout="constrained")
        left, right = list(figure.subfigures(1, 2, width_ratios=(1, 1.05), squeeze=False).flat)
        axes = left.subplots()
        percents = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
        image = axes.imshow(percents, cmap="Blues", vmin=0, vmax=100, interpolation="nearest")
        left.colorbar(image, label="fraction of the true class (%)", shrink=0.7)
        axes.set(xlabel="predicted class (number)", ylabel="true class (number)")
        right.suptitle("most often confused pairs" if pairs else "no image was misclassified", fontsize=10)
        if not pairs:
            return figure
        places = right.subplots(rows, columns * 3, width_ratios=(1, 1, 1) * columns, squeeze=False)
        for axes in places.flat:
            axes.set_axis_off()
        for number, ((first, second, times), both) in enumerate(zip(pairs, examples, strict=True)):
            row, column = number % rows, 3 * (number // rows)
            for place, (name, picture) in enumerate(zip((first, second), both, strict=True)):
                _show(places[row, column + place], picture)
                places[row, column + place].set_title(_short(name), fontsize=8)
            places[row, column + 2].text(0, 0.5, f"{times}×", va="center", fontsize=9)
    return figure


def draw_confusions(counts: Mapping[str, np.ndarray], class_names: Sequence[str], counted: str = "images") -> Figure:
    """Draw the errors of several runs with one colour scale: confusion matrices without their diagonals.

    ``counted`` says what the matrices count.
    """
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
            axes.set_title("\n".join(textwrap.wrap(f"{name}: {table.sum()} misclassified", 52)), fontsize=8)
            axes.set(xlabel="predicted class", ylabel="true class")
            if len(class_names) <= MOST_CELLS:
                axes.set_xticks(range(len(class_names)), class_names, fontsize=7)
                axes.set_yticks(range(len(class_names)), class_names, fontsize=7)
        for axes in places[len(counts) :]:
            axes.set_visible(False)
        whole = MaxNLocator(integer=True)
        figure.colorbar(colours, ax=places, label=f"misclassified {counted}", shrink=0.8, ticks=whole)
    return figure


def draw_accuracy_by(tables: Mapping[str, "pd.DataFrame"]) -> Figure:
    """Draw the accuracy of groups of images with 95 % intervals, one panel for each property that they are grouped by.

    Tables are those of accuracy_by in handwriting.utils.metrics.
    """
    figure = Figure(figsize=(4.2 * len(tables), 3.6), dpi=110, layout="constrained")
    for axes, (name, table) in zip(figure.subplots(1, len(tables), squeeze=False).flat, tables.items(), strict=True):
        place, accuracy = np.arange(len(table)), 100 * table["acc"]
        reach = [accuracy - 100 * table["acc_low"], 100 * table["acc_high"] - accuracy]
        axes.errorbar(place, accuracy, reach, fmt="o", capsize=3)
        ends = zip(table["from"], table["to"], table["images"], strict=True)
        labels = [f"{low:.3g}" + f"–{high:.3g}" * (high > low) + f"\nn = {images:,}" for low, high, images in ends]
        axes.set_xticks(place, labels, fontsize=7.5)
        axes.set(xlabel=PROPERTIES.get(name, name), ylabel="accuracy (%)", ylim=(0, 103), xlim=(-0.5, len(table) - 0.5))
        axes.grid(axis="y", alpha=0.3)
    return figure


def draw_predictions(
    images: np.ndarray,
    true: Sequence[str],
    predicted: Sequence[str],
    probabilities: Sequence[float],
    title: str,
    boxes: Sequence[Boxes] | None = None,
) -> Figure:
    """Draw images of one size, each with its true class, its prediction and the probability, and with its boxes.

    Misclassified images have a red title; '' is an unknown true class.
    """
    captions = []
    for label, prediction, sure in zip(true, predicted, probabilities, strict=True):
        wrong = bool(label) and label != prediction
        lines = ["true " + _short(label), "pred. " + _short(prediction)] if wrong else [_short(prediction)]
        lines.append(f"{sure:.1%}")  # a line of its own: beside a right-to-left glyph its order would change
        captions.append(("\n".join(lines), WRONG if wrong else "black"))
    return _draw_captioned(images, captions, title, boxes)


def draw_differences(
    images: np.ndarray, true: Sequence[str], first: Sequence[str], second: Sequence[str], title: str
) -> Figure:
    """Draw images of one size, each with its true class and, below, the predictions of two models."""
    captions = [
        (f"true {_short(label)}\n{_short(one)} | {_short(other)}", "black")
        for label, one, other in zip(true, first, second, strict=True)
    ]
    return _draw_captioned(images, captions, title)


def _draw_captioned(
    images: np.ndarray, captions: Sequence[tuple[str, str]], title: str, boxes: Sequence[Boxes] | None = None
) -> Figure:
    """Draw images of one size in rows, each with its boxes below its caption, a text and its colour."""
    columns = _columns(images)
    rows = max(-(-len(images) // columns), 1)
    wide = 10 / columns  # inches; below, 0.4 for the title
    with rc_context({"font.family": fonts_for([caption for caption, _ in captions])}):
        tall = wide * images.shape[1] / images.shape[2]
        figure = Figure(figsize=(10, (tall + 0.4) * rows + 0.5), dpi=110, layout="constrained")
        figure.suptitle(title, fontsize=10)
        places = list(figure.subplots(rows, columns, squeeze=False).flat)
        for axes in places:
            axes.set_axis_off()
        drawn = zip(places, images, boxes or [()] * len(images), captions, strict=False)
        for axes, image, framed, (caption, colour) in drawn:
            _show(axes, image, framed)
            axes.set_title(caption, fontsize=7.5, color=colour)
    return figure


def draw_steps(rows: Mapping[str, Mapping[str, np.ndarray]], boxes: Mapping[str, Boxes] | None = None) -> Figure:
    """Draw a row for each image: the result of each step, with the name of the step.

    ``boxes`` are those of the rows, drawn in their last images.
    """
    columns = max(len(steps) for steps in rows.values())
    tallest = max(picture.shape[0] / picture.shape[1] for steps in rows.values() for picture in steps.values())
    with rc_context({"font.family": fonts_for(rows)}):
        size = (1.9 * columns, min(0.7 + 1.9 * tallest, 2.1) * len(rows))
        figure = Figure(figsize=size, dpi=110, layout="constrained")
        bands = list(figure.subfigures(len(rows), 1, squeeze=False).flat)
        for band, (name, steps) in zip(bands, rows.items(), strict=True):
            band.suptitle(name, fontsize=9)
            places = list(band.subplots(1, columns, squeeze=False).flat)
            for axes, (step, picture) in zip(places, steps.items(), strict=False):
                _show(axes, picture)
                axes.set_title("\n".join(textwrap.wrap(step, 22)), fontsize=7)
            _frame(places[len(steps) - 1], (boxes or {}).get(name, ()))
            for axes in places:
                axes.set_axis_off()
    return figure


def draw_gallery(
    images: np.ndarray, names: Sequence[str], columns: int | None = None, boxes: Sequence[Boxes] | None = None
) -> Figure:
    """Draw images of one size in rows, each below its name, with its boxes."""
    with rc_context({"font.family": fonts_for(names)}):
        columns = columns or _columns(images)
        rows = -(-len(images) // columns)
        height, width = images.shape[1:3]
        head = height // 2  # room for the name
        wide = 0.62 * max(1, width / height)  # inches
        canvas = np.full((rows * (height + head), columns * (width + 4), *images.shape[3:]), 255, np.uint8)
        figure = Figure(figsize=(wide * columns, wide * rows * (height + head) / (width + 4)), dpi=110)
        axes = figure.add_axes((0, 0, 1, 1))
        for i, (image, name) in enumerate(zip(images, names, strict=True)):
            top, left = (i // columns) * (height + head) + head, (i % columns) * (width + 4) + 2
            canvas[top : top + height, left : left + width] = image
            size = min(8, 116 * wide / max(len(name), 1))  # a long name would overlap its neighbour
            axes.text(left + width / 2, top - head / 2, name, ha="center", va="center", fontsize=size)
            _frame(axes, boxes[i] if boxes else (), left, top)
        _show(axes, canvas)
        axes.set_axis_off()
    return figure


def draw_variants(
    originals: np.ndarray, variants: Mapping[str, np.ndarray], boxes: Mapping[str, Sequence[Boxes]] | None = None
) -> Figure:
    """Draw images of one size in a row and, below, a row of their variants for each name.

    ``boxes`` are those of the images of a row, by the name of the variant; those of the originals are by ``original``.
    """
    rows = {"original": originals, **variants}
    height, width = originals.shape[1:3]
    gap = 2  # pixels between two images
    canvas = np.full((len(rows) * (height + gap), len(originals) * (width + gap), *originals.shape[3:]), 255, np.uint8)
    margin, wide = 1.3, 0.6 * len(originals) * max(1, width / height)  # inches: width of the names and of the images
    figure = Figure(figsize=(margin + wide, wide * canvas.shape[0] / canvas.shape[1]), dpi=110)
    axes = figure.add_axes((margin / (margin + wide), 0, wide / (margin + wide), 1))
    for row, (name, images) in enumerate(rows.items()):
        axes.text(-3, row * (height + gap) + height / 2, name.replace("_", " "), ha="right", va="center", fontsize=9)
        framed = (boxes or {}).get(name, [()] * len(images))
        for column, (image, some) in enumerate(zip(images, framed, strict=True)):
            top, left = row * (height + gap), column * (width + gap)
            canvas[top : top + height, left : left + width] = image
            _frame(axes, some, left, top)
    _show(axes, canvas)
    axes.set_axis_off()
    return figure


def _show(axes: Axes, image: np.ndarray, boxes: Boxes = ()) -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=255)  # of colours, only the image counts
    _frame(axes, boxes)


def _frame(axes: Axes, boxes: Boxes, x: float = 0, y: float = 0) -> None:
    """Draw the boxes of an image whose first pixel is at (x, y)."""
    for left, top, right, bottom in boxes:
        corner = (x + left - 0.5, y + top - 0.5)  # in a figure, a whole number is the middle of a pixel
        axes.add_patch(Rectangle(corner, right - left, bottom - top, fill=False, edgecolor=BOX, linewidth=0.7))


def _columns(images: np.ndarray) -> int:
    """Return how many images are side by side: fewer if they are wide."""
    return 4 if images.shape[2] > 1.5 * images.shape[1] else 8


def _short(name: str, most: int = 13) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
