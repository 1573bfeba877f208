"""Each augmentation step against an independent reference: scipy, or a closed form.

For a warp, the source position of each pixel is compared.
"""

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
from torch import Generator, Tensor

from handwriting.data.augment import Blur, Erasing, Mixup, Noise, Step, Warp


def seeded(seed: int) -> Generator:
    return torch.Generator().manual_seed(seed)


def apply(step: Step, images: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return the images (B, H, W) after a step; the same seed means the same changes for any images."""
    pixels = torch.from_numpy(images.astype(np.float32))[:, None]
    return step(pixels, torch.zeros(len(images), dtype=torch.int64), 1, seeded(seed))[0][:, 0].numpy()


def spread_evenly(values: np.ndarray, low: float, high: float, slack: float = 0.002) -> bool:
    """Return whether values are uniform in low…high: their range, and a Kolmogorov-Smirnov test."""
    width = high - low
    from_low_to_high = (
        low - slack * width <= values.min() <= low + 0.05 * width
        and high - 0.05 * width <= values.max() <= high + slack * width
    )
    even = scipy.stats.uniform(low, width)
    return bool(from_low_to_high and scipy.stats.kstest(np.ravel(values), even.cdf).pvalue > 1e-3)


@pytest.mark.parametrize(("smallest", "largest"), [(0.3, 0.3), (0.2, 0.6), (0.0, 1.0)])
def test_an_erased_rectangle_keeps_to_its_sides(smallest, largest):
    height, width = 20, 28
    images = np.random.default_rng(0).uniform(0.1, 1, (500, height, width)).astype(np.float32)
    erased = apply(Erasing(probability=1, smallest=smallest, largest=largest), images)
    gone = erased == 0
    np.testing.assert_array_equal(erased[~gone], images[~gone])
    rows, columns = gone.any(2), gone.any(1)
    np.testing.assert_array_equal(gone, rows[:, :, None] & columns[:, None, :])  # a rectangle
    kept = [~side[:, 0] & ~side[:, -1] for side in (rows, columns)]  # not cut off by the edge
    for side, whole_ones, length in ((rows, kept[0], height), (columns, kept[1], width)):
        assert (np.abs(np.diff(side.astype(int), axis=1)).sum(1) <= 2).all()  # in one piece
        whole = side.sum(1)[whole_ones]
        assert whole.max() <= np.ceil(largest * length)
        assert whole.min() >= np.floor(smallest * length)
        assert whole.max() - whole.min() >= 0.5 * (largest - smallest) * length
    sides = np.stack([rows.sum(1), columns.sum(1)])[:, kept[0] & kept[1] & gone.any((1, 2))]
    assert smallest == largest or abs(np.corrcoef(sides)[0, 1]) < 0.35  # the two sides are independent


def test_rectangles_have_evenly_drawn_places_and_sides_of_their_own():
    height, width, smallest, largest = 10, 14, 0.2, 0.6
    gone = apply(Erasing(probability=1, smallest=smallest, largest=largest), np.ones((6000, height, width))) == 0
    chances = []
    for length in (height, width):
        pixel = ((np.arange(length) + 0.5) / length)[:, None]
        half = np.linspace(smallest, largest, 501) / 2
        chances.append((np.minimum(1, pixel + half) - np.maximum(0, pixel - half)).mean(1))
    np.testing.assert_allclose(gone.mean(0), np.outer(*chances), atol=4 * (0.25 / 6000) ** 0.5)


def test_noise_is_normal_and_its_strength_evenly_drawn():
    noise = apply(Noise(probability=1, deviation=0.1), np.full((400, 28, 28), 0.5)) - 0.5
    strengths = noise.std((1, 2))
    assert spread_evenly(strengths, 0, 0.1, slack=0.08)  # estimated from 784 pixels
    assert scipy.stats.kstest((noise / strengths[:, None, None])[:, ::4, ::4].ravel(), "norm").pvalue > 1e-3
    neighbours = np.corrcoef(noise[:, :, 1:].ravel(), noise[:, :, :-1].ravel())[0, 1]
    assert abs(neighbours) < 0.01


def test_noise_is_cut_to_the_range():
    images = np.random.default_rng(0).random((50, 10, 10))
    noisy = apply(Noise(probability=1, deviation=2), images)
    assert (noisy.min(), noisy.max()) == (0, 1)
    assert 0.2 < ((noisy > 0) & (noisy < 1)).mean() < 0.9


@pytest.mark.parametrize("largest", [1.0, 4.0])
def test_a_blur_is_the_gaussian_of_scipy(largest):
    images, step = np.random.default_rng(0).random((40, 20, 28)), Blur(probability=1, deviation=largest)
    point = np.zeros((40, 20, 28))
    point[:, 10, 14] = 1
    blurred = apply(step, point).astype(float)
    fall = -np.log(np.maximum(blurred[:, 10, 15], 1e-12) / blurred[:, 10, 14])  # 1 / (2 deviation²)
    deviations = (2 * fall) ** -0.5
    assert 0.9 * largest < deviations.max() <= largest * 1.0001
    assert np.median(deviations) == pytest.approx(largest / 2, rel=0.3)
    for image, result, deviation in zip(images, apply(step, images), deviations, strict=True):
        wanted = scipy.ndimage.gaussian_filter(image, deviation, mode="nearest", truncate=4 / deviation)
        np.testing.assert_allclose(result, wanted, atol=1e-5)


def mix(step: Mixup, pixels: Tensor, targets: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    images, shares = step(pixels[:, None], targets, len(pixels), generator)
    return images[:, 0], shares


@pytest.mark.parametrize("probability", [0.5, 1.0])
def test_a_mixture_has_the_weights_of_its_soft_target(probability):
    pixels, step, generator = torch.rand(50, 6, 5, generator=seeded(1)), Mixup(probability, 1.0), seeded(0)
    images, shares = mix(step, pixels, torch.arange(50), generator)  # a class for each image: shares are weights
    assert shares.dtype == torch.float32
    torch.testing.assert_close(images, torch.einsum("ij,jhw->ihw", shares, pixels))
    torch.testing.assert_close(shares.sum(1), torch.ones(50))
    assert (shares >= 0).all()
    assert ((shares > 0).sum(1) <= 2).all()
    assert len(shares.diagonal().unique()) > 40 * probability
    twice, both = mix(step, images, shares, generator)  # also for a mixture of mixtures
    torch.testing.assert_close(twice, torch.einsum("ij,jhw->ihw", both, pixels))
    torch.testing.assert_close(both.sum(1), torch.ones(50))
    assert (both > 0).sum(1).max() > 2


def test_images_of_one_class_stay_in_it():
    shares = Mixup()(torch.rand(9, 1, 4, 4), torch.full((9,), 2), 5, seeded(0))[1]
    torch.testing.assert_close(shares, torch.eye(5)[[2] * 9])


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_weights_of_mixup_follow_the_beta_distribution(alpha):
    step, generator, labels = Mixup(alpha=alpha), seeded(0), torch.arange(500)
    drawn = [step(torch.zeros(500, 1, 1, 1), labels, 500, generator)[1].diagonal() for _ in range(40)]
    shares = torch.cat(drawn).double()
    variance = 1 / (4 * (2 * alpha + 1))
    close = 4 * (variance / 20000) ** 0.5 + 0.001  # 1 in 500 is blended with itself
    assert shares.mean().item() == pytest.approx(0.5, abs=close)
    assert shares.var().item() == pytest.approx(variance, rel=0.04)
    steps = np.linspace(0.05, 0.95, 19)
    below = (shares.numpy()[:, None] < steps).mean(0)
    np.testing.assert_allclose(below, scipy.stats.beta(alpha, alpha).cdf(steps), atol=0.014)


def test_partners_are_drawn_for_each_batch():
    step, generator, labels = Mixup(alpha=1.0), seeded(0), torch.arange(30)
    partners = [step(torch.zeros(30, 1, 1, 1), labels, 30, generator)[1].fill_diagonal_(0).argmax(1) for _ in range(2)]
    assert (partners[0] != partners[1]).sum() > 20
    assert len(partners[0].unique()) > 25


def sources(step: Warp, count: int, size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Return the source position (row, column) of each pixel, (count, H, W, 2); NaN at and outside the edge.

    It is found by warping images whose pixel values are their positions.
    """
    seen = np.broadcast_to(np.stack([*np.indices(size), np.ones(size)])[:, None], (3, count, *size))
    rows, columns, inside = (apply(step, picture, seed) for picture in seen)
    return np.where(inside[..., None] > 0.99999, np.stack([rows, columns], -1), np.nan)


def motions(step: Warp, count: int, size: tuple[int, int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return matrices (count, 2, 2) and vectors (count, 2): source - middle = matrix · (place - middle) + vector."""
    middle = (np.array(size) - 1) / 2
    places = np.moveaxis(np.indices(size), 0, -1) - middle
    matrices, vectors = [], []
    for found in sources(step, count, size, seed) - middle:
        kept = ~np.isnan(found).any(-1)
        design = np.column_stack([places[kept], np.ones(kept.sum())])
        solution = np.linalg.lstsq(design, found[kept], rcond=None)[0]
        np.testing.assert_allclose(design @ solution, found[kept], atol=1e-3)  # straight lines stay straight
        matrices.append(solution[:2].T)
        vectors.append(solution[2])
    return np.stack(matrices), np.stack(vectors)


def test_a_warp_of_no_amount_is_none():
    images = np.random.default_rng(0).random((5, 28, 20))
    np.testing.assert_allclose(apply(Warp(), images), images, atol=1e-5)


def test_a_warp_is_the_affine_map_of_scipy():
    images, size = np.random.default_rng(0).random((6, 28, 28)), (28, 28)
    step, middle = Warp(degrees=20, scale=0.2, shear=0.3, shift=4), np.array([13.5, 13.5])
    warped = apply(step, images)
    for image, result, matrix, vector in zip(images, warped, *motions(step, 6, size), strict=True):
        offset = middle - matrix @ middle + vector
        wanted = scipy.ndimage.affine_transform(image, matrix, offset, order=1, mode="grid-constant")
        np.testing.assert_allclose(result, wanted, atol=2e-4)


@pytest.mark.parametrize("size", [(28, 28), (20, 32)])
def test_shift_moves_evenly_up_to_so_many_pixels_each_way(size):
    matrices, vectors = motions(Warp(shift=3), 400, size)
    np.testing.assert_allclose(matrices, np.broadcast_to(np.eye(2), (400, 2, 2)), atol=1e-4)
    assert all(spread_evenly(way, -3, 3) for way in vectors.T)
    assert abs(np.corrcoef(vectors.T)[0, 1]) < 0.15


@pytest.mark.parametrize("size", [(28, 28), (20, 32)])
def test_degrees_turns_evenly_about_the_middle(size):
    matrices, vectors = motions(Warp(degrees=30), 300, size)
    np.testing.assert_allclose(
        matrices @ matrices.transpose(0, 2, 1), np.broadcast_to(np.eye(2), (300, 2, 2)), atol=1e-3
    )
    np.testing.assert_allclose(np.linalg.det(matrices), 1, atol=1e-3)
    np.testing.assert_allclose(vectors, 0, atol=1e-3)
    assert spread_evenly(np.degrees(np.arctan2(matrices[:, 0, 1], matrices[:, 0, 0])), -30, 30)


@pytest.mark.parametrize("size", [(28, 28), (20, 32)])
def test_scale_stretches_each_axis_by_its_own_factor(size):
    matrices, vectors = motions(Warp(scale=0.5), 300, size)
    np.testing.assert_allclose(matrices[:, [0, 1], [1, 0]], 0, atol=1e-3)
    np.testing.assert_allclose(vectors, 0, atol=1e-3)
    logarithms = np.log(matrices[:, [0, 1], [0, 1]])
    assert all(spread_evenly(axis, -0.5, 0.5) for axis in logarithms.T)
    assert abs(np.corrcoef(logarithms.T)[0, 1]) < 0.2


@pytest.mark.parametrize("size", [(28, 28), (20, 32)])
def test_shear_moves_rows_sideways_and_the_middle_not_at_all(size):
    matrices, vectors = motions(Warp(shear=0.4), 300, size)
    np.testing.assert_allclose(matrices[:, [0, 0, 1], [0, 1, 1]], np.broadcast_to([1, 0, 1], (300, 3)), atol=1e-3)
    np.testing.assert_allclose(vectors, 0, atol=1e-3)
    assert spread_evenly(matrices[:, 1, 0], -0.4, 0.4)


def test_turning_and_shearing_keep_the_area():
    matrices, _ = motions(Warp(degrees=40, shear=0.5), 100, (28, 28))
    np.testing.assert_allclose(np.linalg.det(matrices), 1, atol=1e-3)


def bends(step: Warp, count: int, size: tuple[int, int]) -> np.ndarray:
    return sources(step, count, size) - np.moveaxis(np.indices(size), 0, -1)


@pytest.mark.parametrize("size", [(25, 25), (25, 41)])
def test_bend_is_the_standard_deviation_at_the_knots(size):
    between = (size[0] - 1) // 4, (size[1] - 1) // 4
    moved = bends(Warp(bend=0.8, knots=5), 300, size)[:, between[0] : -1 : between[0], between[1] : -1 : between[1]]
    assert moved.shape == (300, 3, 3, 2)  # the inner knots; none is moved off the image
    assert not np.isnan(moved).any()
    for way in np.moveaxis(moved, -1, 0):
        assert scipy.stats.kstest(way.ravel(), scipy.stats.norm(0, 0.8).cdf).pvalue > 1e-3
        assert way.std() == pytest.approx(0.8, rel=0.04)
    knots = np.corrcoef(moved.reshape(300, 18).T) - np.eye(18)
    assert np.abs(knots).max() < 0.25  # knots and directions are independent


def test_a_bend_is_smooth_and_the_smoother_the_fewer_its_knots():
    slopes = [np.nanstd(np.diff(bends(Warp(bend=0.5, knots=knots), 60, (29, 29)), axis=1)) for knots in (3, 5, 15)]
    assert slopes[0] < slopes[1] < slopes[2]
    assert slopes[1] == pytest.approx(0.5 * 2**0.5 / 7, rel=0.35)  # independent knots, seven pixels apart


def test_a_bend_comes_on_top_of_the_affine_map_and_only_to_images_chosen():
    moved = bends(Warp(probability=0.5, shift=2, bend=0.3), 400, (28, 28))[:, 10:18, 10:18]
    still = np.abs(moved).max((1, 2, 3)) < 1e-3
    assert 160 < still.sum() < 240
    assert np.abs(moved[~still].mean((1, 2))).max(1).min() > 1e-3
    assert moved[~still].std((1, 2)).min() > 0.005  # more than a shift of the whole image


def test_what_comes_from_outside_is_black():
    warped = apply(Warp(shift=20), np.ones((50, 10, 10)))
    assert (warped.max((1, 2)) == 0).sum() > 10


@pytest.mark.parametrize(
    "step",
    [
        Warp(degrees=20, scale=0.2, shear=0.2, shift=3),
        Warp(bend=2),
        Erasing(1.0, 0.2, 0.6),
        Blur(1.0, 3.0),
        Mixup(alpha=1.0),
    ],
    ids=["affine", "elastic", "erasing", "blur", "mixup"],
)
def test_all_channels_of_a_colour_image_are_changed_alike(step: Step):
    images, labels = torch.rand(6, 3, 14, 11, generator=seeded(5)), torch.arange(6)
    changed, targets = step(images, labels, 6, seeded(1))
    assert not torch.allclose(changed, images)
    for channel in range(3):
        alone, same = step(images[:, channel : channel + 1], labels, 6, seeded(1))
        torch.testing.assert_close(changed[:, channel : channel + 1], alone)
        torch.testing.assert_close(targets, same)


def test_the_noise_of_each_channel_is_independent_and_as_strong():
    noisy, _ = Noise(1.0, 0.1)(torch.full((4, 3, 50, 50), 0.5), torch.zeros(4).long(), 1, seeded(0))
    noise = (noisy - 0.5).flatten(2)
    for image in noise:
        correlations = torch.corrcoef(image) - torch.eye(3)
        assert correlations.abs().max() < 0.1  # five standard errors
        assert image.std(1).max() < 1.1 * image.std(1).min()
