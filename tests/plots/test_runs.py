import io
import logging
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from handwriting.plots import images as galleries
from handwriting.plots import runs as plots
from handwriting.plots import style


def curves(configurations: int, seeds: int, epochs: int = 10) -> tuple[dict, dict]:
    random = np.random.default_rng(0)
    steps, labels = np.arange(10, 2001, 10), [f"optim=adam, optim.lr={i / 1000}" for i in range(configurations)]
    losses = {x: pd.DataFrame(2 / steps[:, None] + random.random((len(steps), seeds)), index=steps) for x in labels}
    index = np.arange(1, epochs + 1)
    accuracies = {x: pd.DataFrame(0.9 + 0.1 * random.random((epochs, seeds)), index=index) for x in labels}
    return losses, accuracies


def drawn(figure: Figure) -> Figure:
    FigureCanvasAgg(figure).draw()
    return figure


@pytest.mark.parametrize(("configurations", "seeds", "epochs"), [(1, 1, 1), (2, 1, 10), (4, 5, 10), (24, 3, 10)])
def test_the_legend_covers_no_line_and_is_inside_the_figure(configurations: int, seeds: int, epochs: int):
    figure = drawn(plots.draw_curves(*curves(configurations, seeds, epochs)))
    (legend,) = figure.legends
    box = legend.get_window_extent()
    for axes in figure.axes:
        lines = axes.get_tightbbox()
        assert lines is not None
        assert not box.overlaps(lines)
    assert figure.bbox.x0 <= box.x0
    assert box.x1 <= figure.bbox.x1
    assert len(legend.get_texts()) == configurations


def test_a_panel_without_a_curve_has_a_note_and_no_scale():
    losses, accuracies = curves(2, 1)
    left, right = drawn(plots.draw_curves(losses, {label: pd.DataFrame() for label in accuracies})).axes
    assert [text.get_text() for text in (*left.texts, *right.texts)] == [
        "nothing logged by epoch:\nno epoch has ended, or there is no validation set (data.val_fraction=0)"
    ]
    assert not [tick for tick in right.get_xticklabels() + right.get_yticklabels() if tick.get_text()]


def test_epoch_ticks_are_integers_even_for_one_epoch():
    axes = drawn(plots.draw_curves(*curves(1, 1, epochs=1))).axes[1]
    assert [text for text in (tick.get_text() for tick in axes.get_xticklabels()) if "." in text] == []


def test_all_drawn_configurations_look_different():
    figure = plots.draw_curves(*curves(plots.MOST_CURVES, 1))
    lines = figure.axes[1].get_lines()
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == plots.MOST_CURVES


def test_a_figure_is_saved_as_matplotlib_would():
    figure = plots.draw_curves(*curves(3, 2))
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    assert style.as_png(plots.draw_curves(*curves(3, 2))) == picture.getvalue()


def test_the_title_has_the_number_of_all_configurations_if_some_are_not_drawn():
    for total, said in ((40, True), (2, False), (None, False)):
        curve = plots.draw_curves(*curves(2, 1), total).axes[1]
        ranking = plots.draw_ranking(["a", "b"], [[0.9], [0.8]], [None, None], total=total).axes[0]
        for axes in (curve, ranking):
            assert ("the best 2 of 40 configurations; summary.csv has all" in axes.get_title()) is said


def test_the_bold_line_is_the_mean_of_the_seeds_and_thin_lines_are_seeds():
    losses, accuracies = curves(1, 3)
    axes = plots.draw_curves(losses, accuracies).axes[1]
    (frame,) = accuracies.values()
    mean, *seeds = axes.get_lines()
    assert mean.get_ydata() == pytest.approx(100 * frame.to_numpy().mean(1))
    assert [np.asarray(line.get_ydata()).tolist() for line in seeds] == (100 * frame.to_numpy().T).tolist()
    for line in seeds:
        assert line.get_linewidth() < mean.get_linewidth()
        assert line.get_zorder() < mean.get_zorder()
    assert "mean and each seed" in axes.get_title()
    many, more = curves(plots.MOST_WITH_SEEDS + 1, 3)
    axes = plots.draw_curves(many, more).axes[1]
    assert len(axes.get_lines()) == len(more)
    assert "each seed" not in axes.get_title()


def test_the_smoothed_loss_begins_at_the_first_loss_and_is_centred():
    steps = np.arange(10, 2001, 10)
    falling = pd.DataFrame({0: 2300 - steps})  # the mean of a window that has the step in its middle is the loss there
    smooth = np.asarray(plots.draw_curves({"a": falling}, {"a": falling}).axes[0].get_lines()[1].get_ydata())
    assert smooth[:-10] == pytest.approx(2300 - steps[:-10])
    rough = pd.DataFrame({0: np.where(np.arange(200) % 2, 1.0, 3.0)})
    smooth = np.asarray(plots.draw_curves({"a": rough}, {"a": rough}).axes[0].get_lines()[1].get_ydata())
    assert smooth[10:] == pytest.approx(2.0, abs=0.15)
    spike = pd.DataFrame({0: [2.0] + 199 * [0.5]})  # seen in no window but its own
    smooth = np.asarray(plots.draw_curves({"a": spike}, {"a": spike}).axes[0].get_lines()[1].get_ydata())
    assert smooth == pytest.approx(spike[0].to_numpy())


def test_axes_have_units():
    left, right = plots.draw_curves(*curves(2, 1)).axes
    assert (left.get_xlabel(), left.get_ylabel()) == ("training step (batches)", "training loss (cross-entropy, nats)")
    assert (right.get_xlabel(), right.get_ylabel()) == ("epoch", "validation accuracy (%, log scale of errors)")
    ranking = plots.draw_ranking(["a"], [[0.9]], [None]).axes[0]
    assert ranking.get_xlabel() == "test accuracy (%, log scale of errors)"


def test_folds_are_not_called_seeds_in_figures():
    curve = plots.draw_curves(*curves(2, 3), repeat="run").axes[1]
    ranking = plots.draw_ranking(["a"], [[0.9, 0.8, 0.7]], [0.1], repeat="run").axes[0]
    assert "each run" in curve.get_title()
    assert "3 runs" in ranking.get_title()
    assert "seed" not in curve.get_title() + ranking.get_title()


def test_the_ranking_keeps_the_order_best_on_top():
    axes = drawn(plots.draw_ranking(["best", "second"], [[0.99, 0.98], [0.5, 0.6]], [0.01, 0.02])).axes[0]
    boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["best", "second"]
    assert boxes[0].y0 > boxes[1].y1


def test_the_best_value_of_every_configuration_is_visible():
    losses, accuracies = curves(2, 1)
    worst, best = accuracies
    accuracies[worst] = accuracies[worst] * 0 + 0.1
    axes = plots.draw_curves(losses, accuracies).axes[1]
    low, high = axes.get_ylim()
    assert low < 10 < high
    assert low < 100 * accuracies[best].to_numpy().max() < high


@pytest.mark.parametrize(
    ("worst", "best"), [(0.1, 0.9995), (0.97, 0.99), (0.985, 0.987), (0.5, 1.0), (1.0, 1.0), (0, 0)]
)
def test_the_error_scale_keeps_every_value_in_order_and_visible(worst: float, best: float):
    middle = (worst + best) / 2
    figure = drawn(plots.draw_ranking(list("abc"), [[best, best], [middle, middle], [worst, worst]], [0.5, 0.001, 0]))
    axes = figure.axes[0]
    places = [axes.transData.transform((100 * value, 0))[0] for value in (worst, middle, best)]
    assert places == sorted(places)
    assert axes.bbox.x0 <= places[0]
    assert places[-1] <= axes.bbox.x1
    ticks = [label.get_text() for label in axes.get_xticklabels()]
    assert len(ticks) == len(set(ticks)) >= (2 if 0 < worst < 1 else 1)
    assert all(0 <= float(tick) <= 100 for tick in ticks)
    boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_an_interval_of_two_seeds_does_not_set_the_scale():
    of_three = [0.982, 0.979, 0.981]
    for half_width, reaches_out in ((0.3, True), (0.001, False)):
        axes = plots.draw_ranking(["a", "b"], [[0.985, 0.987], of_three], [half_width, 0.004]).axes[0]
        low, high = axes.get_xlim()
        assert 97 < low < 97.7  # the other's interval, of three seeds, begins at 97.67
        assert high > 98.7
        assert ("are cut off" in axes.get_title()) is reaches_out
    costs = plots.draw_costs(["a", "b"], [[0.985, 0.987], of_three], [0.3, 0.004], {"parameters": [1, 2]}).axes[0]
    assert 97 < costs.get_ylim()[0] < 97.7


def test_close_costs_have_plain_labels():
    axes = drawn(plots.draw_costs(["a", "b"], [[0.9], [0.8]], [None, None], {"parameters": [4e5, 2e6]})).axes[0]
    low, high = axes.get_xlim()
    texts = [label.get_text() for label in axes.get_xticklabels() if low <= label.get_position()[0] <= high]
    assert texts == ["500,000", "1,000,000", "2,000,000"]
    assert not any(label.get_text() for label in axes.get_xticklabels(minor=True))


@pytest.mark.parametrize("parameters", [[225_034, 701_178], [2.1e5, 9.5e5], [1e6, 1.8e6], [2e7, 9e7], [61_706, 62_006]])
def test_the_labels_of_costs_do_not_overlap(parameters: list[float]):
    figure = plots.draw_costs(["a", "b"], [[0.9], [0.8]], [None, None], {"parameters": parameters, "seconds": [1, 2]})
    axes = drawn(figure).axes[0]
    low, high = axes.get_xlim()
    written = [label.get_window_extent() for label in axes.get_xticklabels() if low <= label.get_position()[0] <= high]
    assert len(written) > 1
    assert all(left.x1 < right.x0 for left, right in pairwise(written))


def test_on_the_error_scale_98_to_99_is_as_far_as_80_to_90():
    axes = plots.draw_ranking(["a", "b"], [[0.5], [0.999]], [None, None]).axes[0]
    a, b, c, d = (axes.transData.transform((value, 0))[0] for value in (80, 90, 98, 99))
    assert b - a == pytest.approx(d - c)


@pytest.mark.filterwarnings("error:constrained_layout")
def test_a_very_long_label_is_wrapped_and_leaves_room_for_the_plot():
    label = ",".join(f"data.redundant_groups{i}=[[0,81],[27,39]]" for i in range(5)) + "x" * 150
    ranking = drawn(plots.draw_ranking([label, "b"], [[0.5], [0.9]], [None, None]))
    losses, accuracies = curves(1, 1)
    (old,) = losses
    both = drawn(plots.draw_curves({label: losses[old]}, {label: accuracies[old]}))
    for figure, axes in ((ranking, ranking.axes[0]), (both, both.axes[1])):
        assert axes.get_window_extent().width > 0.25 * figure.bbox.width
    texts = ranking.axes[0].get_yticklabels()[0].get_text()
    assert texts.replace("\n", "") == label


def test_significantly_worse_configurations_are_grey():
    axes = plots.draw_ranking(["a", "b", "c"], [[0.9, 0.91], [0.8, 0.81], [0.7, 0.9]], [0.01, 0.01, 0.5], {"b"}).axes[0]
    colours = [line.get_color() for line in axes.lines if line.get_marker() == "o"]
    assert [colour == plots.GREY for colour in colours] == [False, True, False]
    assert "grey" in axes.get_title()


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 3), (7, 2)])
def test_a_grid_has_mean_and_interval_in_each_cell(rows: int, columns: int):
    cells, half_widths = np.linspace(0.9, 0.99, rows * columns).reshape(rows, columns), np.full((rows, columns), 0.002)
    half_widths[0, 0] = np.nan
    if rows * columns > 1:
        cells[-1, -1] = np.nan
    names = ("model.activation", [f"a{i}" for i in range(rows)]), ("optim.lr", [f"{i}" for i in range(columns)])
    axes = drawn(plots.draw_grid(*names, cells, half_widths)).axes[0]
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    assert len(texts) == np.isfinite(cells).sum()
    assert texts[0, 0] == f"{100 * cells[0, 0]:.2f}"
    if columns > 1:
        assert texts[1, 0] == f"{100 * cells[0, 1]:.2f}\n± 0.20"
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("model.activation", "optim.lr")


@pytest.mark.parametrize(("best", "so_far", "winner"), [("max", [0.5, 0.9, 0.9], 2), ("min", [0.5, 0.5, 0.2], 3)])
def test_a_search_shows_the_best_so_far_and_each_parameter(best: str, so_far: list[float], winner: int):
    parameters = {"optim": ["sgd", "adam", "sgd"], "optim.lr": [0.001, 0.1, 0.01], "model.width": [4, None, 8]}
    figure = drawn(plots.draw_search([0.5, 0.9, 0.2], parameters, "val/acc", best))
    trials, optimizers, rates, widths, *rest = figure.axes
    assert [line.get_ydata() for line in trials.lines][1] == pytest.approx([100 * value for value in so_far])
    assert [text.get_text() for text in optimizers.get_xticklabels()] == ["adam", "sgd"]
    assert (rates.get_xscale(), widths.get_xscale()) == ("log", "linear")
    assert list(np.asarray(widths.lines[0].get_xdata())) == [4, 8]
    assert rates.lines[1].get_xdata() == [parameters["optim.lr"][winner - 1]]
    assert not any(axes.get_visible() for axes in rest)


def test_costs_are_drawn_against_the_accuracy_and_only_the_best_have_labels():
    number = plots.MOST_CURVES + 2
    labels, means = [f"n{i}" for i in range(number)], np.linspace(0.99, 0.5, number)
    costs = {"parameters": np.geomspace(1e3, 1e6, number).tolist(), "training time (s)": [0.0, *range(1, number)]}
    accuracies = [[mean - 0.01, mean + 0.01] for mean in means]
    figure = drawn(plots.draw_costs(labels, accuracies, [0.005] * number, costs))
    parameters, seconds = figure.axes
    assert (parameters.get_xscale(), seconds.get_xscale()) == ("log", "linear"), "0 has no logarithm"
    markers = [line for line in parameters.lines if str(line.get_marker()) in plots.MARKERS]
    assert [float(np.asarray(line.get_xdata())[0]) for line in markers] == costs["parameters"]
    assert [float(np.asarray(line.get_ydata())[0]) for line in markers] == pytest.approx(100 * means)
    assert [line.get_color() == plots.GREY for line in markers] == [False] * plots.MOST_CURVES + [True] * 2
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == labels[: plots.MOST_CURVES]


def test_the_confusion_matrix_has_numbers_up_to_20_classes():
    counts = np.eye(20, dtype=int) * 3
    assert len(galleries.draw_confusion(counts, [str(i) for i in range(20)]).axes[0].texts) == 20
    counts = np.eye(21, dtype=int) * 3
    assert len(galleries.draw_confusion(counts, [str(i) for i in range(21)]).axes[0].texts) == 0


def test_a_gallery_has_every_image_below_its_name():
    images = np.arange(10, dtype=np.uint8)[:, None, None] * np.ones((1, 28, 28), np.uint8)
    axes = galleries.draw_gallery(images, [f"n{i}" for i in range(10)], columns=4).axes[0]
    canvas = axes.images[0].get_array()
    assert canvas is not None
    assert [text.get_text() for text in axes.texts] == [f"n{i}" for i in range(10)]
    assert {int(value) for value in np.unique(np.asarray(canvas))} == {*range(10), 255}


def test_variants_are_below_their_originals():
    originals = np.arange(16, dtype=np.uint8)[:, None, None] * np.ones((1, 28, 28), np.uint8)
    variants = {"turned_left": originals + 100, "random 1": originals + 200}
    axes = drawn(galleries.draw_variants(originals, variants)).axes[0]
    assert [text.get_text() for text in axes.texts] == ["original", "turned left", "random 1"]
    canvas = np.asarray(axes.images[0].get_array())
    for row, first in enumerate((0, 100, 200)):
        assert [int(value) for value in canvas[14 + row * 30, 14::30]] == list(range(first, first + 16))
    bounds = [text.get_window_extent() for text in axes.texts]
    assert min(box.x0 for box in bounds) >= 0


def test_a_figure_becomes_a_png():
    assert style.as_png(Figure()).startswith(b"\x89PNG")


@pytest.mark.filterwarnings("ignore:Glyph .* missing")  # pytest undoes the filter that fonts sets
def test_a_character_without_a_font_is_reported_and_still_drawn(caplog: pytest.LogCaptureFixture):
    nowhere = "\U000f1234"  # private use
    with caplog.at_level(logging.WARNING):
        drawn(plots.draw_ranking([f"a{nowhere}"], [[0.5]], [None]))
    assert "install one that has" in caplog.text
