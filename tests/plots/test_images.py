"""Figures of images in grey and in colours, square and wide, with boxes."""

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from handwriting.plots import images as galleries
from handwriting.plots.style import as_png
from handwriting.utils.metrics import accuracy_by

SHAPES = {"grey": (28, 28), "colour": (28, 28, 3), "wide": (32, 80), "wide colour": (32, 80, 3)}
each_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def some_images(count: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *shape)).astype(np.uint8)


def frames(axes: Axes) -> list[list[float]]:
    """Return left, top, right and bottom of each drawn box, in pixels of what the axes show."""
    boxes = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    corners = [(box.get_x() + 0.5, box.get_y() + 0.5, box.get_width(), box.get_height()) for box in boxes]
    return [[x, y, x + wide, y + tall] for x, y, wide, tall in corners]


def shown(axes: Axes) -> np.ndarray:
    return np.asarray(axes.images[0].get_array())


def drawn(figure: Figure) -> Figure:
    assert as_png(figure).startswith(b"\x89PNG")
    return figure


@each_shape
def test_a_gallery_has_every_image_with_its_boxes(shape: tuple[int, ...]):
    pictures = some_images(9, shape)
    boxes = [[(1, 2, 10, 20)], [], *[[(3.5, 4, 6, 8), (10, 4, 20.5, 8)]] * 7]
    axes = drawn(galleries.draw_gallery(pictures, [f"{i}" for i in range(9)], boxes=boxes)).axes[0]
    canvas, found = shown(axes), frames(axes)
    height, width = shape[:2]
    columns = 4 if width > height else 8
    rest = list(found)
    for i, image in enumerate(pictures):
        top, left = (i // columns) * (height + height // 2) + height // 2, (i % columns) * (width + 4) + 2
        np.testing.assert_array_equal(canvas[top : top + height, left : left + width], image)
        for box in boxes[i]:
            assert rest.pop(0) == [left + box[0], top + box[1], left + box[2], top + box[3]]
    assert not rest
    assert [text.get_text() for text in axes.texts] == [f"{i}" for i in range(9)]


@each_shape
def test_variants_have_the_boxes_of_their_row(shape: tuple[int, ...]):
    pictures = some_images(3, shape)
    boxes = {"original": [[(1, 2, 3, 4)]] * 3, "random 2": [[], [(5, 6, 7, 8)], []]}
    rows = {"random 1": pictures[::-1], "random 2": 255 - pictures}
    axes = drawn(galleries.draw_variants(pictures, rows, boxes)).axes[0]
    height, width = shape[:2]
    for row, images in enumerate((pictures, *rows.values())):
        for column, image in enumerate(images):
            top, left = row * (height + 2), column * (width + 2)
            np.testing.assert_array_equal(shown(axes)[top : top + height, left : left + width], image)
    starts = [column * (width + 2) for column in range(3)]
    expected = [[left + 1, 2, left + 3, 4] for left in starts]
    assert frames(axes) == [*expected, [starts[1] + 5, 2 * (height + 2) + 6, starts[1] + 7, 2 * (height + 2) + 8]]


@each_shape
def test_predictions_have_their_image_boxes_and_title(shape: tuple[int, ...]):
    pictures = some_images(5, shape)
    boxes = [[(1, 2, 3, 4)], *[[]] * 4]
    figure = galleries.draw_predictions(pictures, ["12"] * 5, ["12", *["7"] * 4], [0.5] * 5, "all", boxes)
    first, second, *_ = drawn(figure).axes
    np.testing.assert_array_equal(shown(first), pictures[0])
    assert (first.get_title(), second.get_title()) == ("12\n50.0%", "true 12\npred. 7\n50.0%")
    assert frames(first) == [[1, 2, 3, 4]]
    assert frames(second) == []
    assert len(figure.axes) == (8 if shape[1] == shape[0] else 2 * 4)  # whole rows


def test_no_prediction_is_an_empty_figure():
    drawn(galleries.draw_predictions(some_images(0, (32, 80, 3)), [], [], [], "none", []))


@each_shape
def test_the_last_step_has_the_boxes(shape: tuple[int, ...]):
    pictures = some_images(3, shape)
    rows = {"a": {"photograph": pictures[0], "input": pictures[1]}, "b": {"input": pictures[2]}}
    figure = drawn(galleries.draw_steps(rows, {"a": [(1, 2, 3, 4)], "b": np.array([[5, 6, 7, 8]])}))
    assert [frames(axes) for axes in figure.axes] == [[], [[1, 2, 3, 4]], [[5, 6, 7, 8]], []]
    np.testing.assert_array_equal(shown(figure.axes[1]), pictures[1])


@each_shape
def test_confused_pairs_have_an_image_of_each(shape: tuple[int, ...]):
    pictures = some_images(2, shape)
    figure = galleries.draw_confused_pairs([("3", "8", 4)], [(pictures[0], pictures[1])], np.eye(30))
    found = [shown(axes) for axes in drawn(figure).axes if axes.images]
    assert any(np.array_equal(image, pictures[1]) for image in found)


def test_wide_images_are_drawn_larger():
    square, wide = (galleries.draw_gallery(some_images(8, shape), [""] * 8) for shape in ((64, 64), (64, 160)))
    assert square.get_size_inches()[0] / 8 < 0.7
    assert wide.get_size_inches()[0] / 4 > 1.5


def test_accuracy_is_drawn_for_each_group_with_its_interval_and_number():
    lengths = accuracy_by(np.array([1, 1, 0, 1, 0], bool), np.array([1, 1, 1, 2, 2]))
    heights = accuracy_by(np.arange(40) % 3 > 0, np.linspace(8, 30, 40), most=4)
    figure = galleries.draw_accuracy_by({"length": lengths, "height": heights})
    first, second = figure.axes
    assert first.get_xlabel() == "number of characters"
    assert [label.get_text() for label in first.get_xticklabels()] == ["1\nn = 3", "2\nn = 2"]
    assert [label.get_text().split("\n")[1] for label in second.get_xticklabels()] == ["n = 10"] * 4
    points, (low, high), _ = first.containers[0]  # type: ignore[misc]
    assert points.get_ydata() == pytest.approx([200 / 3, 50])
    assert low.get_ydata() == pytest.approx(100 * lengths["acc_low"])
    assert high.get_ydata() == pytest.approx(100 * lengths["acc_high"])
    assert as_png(figure).startswith(b"\x89PNG")
