"""Figures of what one run sees and says: images, their variants, what is taken for what. Imports no torch."""

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from handwriting.fonts import fonts_for


def draw_confusion(counts: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Draw how often each true class (rows) was read as each class (columns); numbers up to 20 classes."""
    with rc_context({"font.family": fonts_for(class_names)}):
        figure = Figure(figsize=(7, 6.2), dpi=110, layout="constrained")
        axes = figure.subplots()
        shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        image = axes.imshow(shares * 100, cmap="Blues", vmin=0, vmax=100)
        figure.colorbar(image, label="share of the true class (%)", shrink=0.8)
        axes.set(xlabel="read as", ylabel="true class")
        if len(class_names) <= 20:
            ticks = range(len(class_names))
            axes.set_xticks(ticks, class_names)
            axes.set_yticks(ticks, class_names)
            for row, column in product(ticks, ticks):
                if counts[row, column]:
                    ink = "white" if shares[row, column] > 0.5 else "black"
                    axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=ink, fontsize=8)
    return figure


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
