"""Means with intervals, paired differences, Holm's correction, power. Imports no torch."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


def mean_and_half_width(
    values: Sequence[float], level: float = 0.95, overlap: float = 0.0
) -> tuple[float, float | None]:
    """Return the mean and the half-width of its Student-t interval; for one value the half-width is None.

    The interval is about the seeds: in a fraction ``level`` of such experiments it contains the mean over all seeds.
    Folds and bootstrap draws share most of their training images, so they differ less than trainings on independent
    sets. ``overlap``, the ratio of held-out to training images, widens the interval to correct for that (C. Nadeau,
    Y. Bengio, 2003, doi:10.1023/A:1024068626366).
    """
    array = np.asarray(values, dtype=float)
    if len(array) < 2:
        return float(array.mean()), None
    from scipy.special import stdtrit  # not scipy.stats.t: that takes 0.6 s to import, this 0.25 s

    standard_error = array.std(ddof=1) * np.sqrt(1 / len(array) + overlap)
    return float(array.mean()), float(stdtrit(len(array) - 1, (1 + level) / 2) * standard_error)


class Difference(NamedTuple):
    """The mean of paired differences, the half-width of its 95 % interval, the number of pairs, p, and their spread.

    ``p`` is the p-value of the two-sided paired t-test, ``spread`` the standard deviation of the differences.
    """

    mean: float
    half_width: float
    pairs: int
    p: float
    spread: float


def paired_differences(
    values: ArrayLike, others: ArrayLike, resolution: ArrayLike = 0.0, overlap: ArrayLike = 0.0
) -> list[Difference]:
    """Return for each comparison the mean difference ``values - others``, paired by seed.

    Both have the shape (comparisons, seeds) or broadcast to it; NaN where a run is missing. Each comparison needs at
    least two pairs. The test assumes that the differences of a comparison are normally distributed, and nothing about
    the dependence between comparisons.

    ``resolution`` is the smallest possible step of the values, such as 1 / (number of test images). It is the lower
    limit of the standard deviation of the differences: rounded values of a few seeds are often equal by chance, and
    without the limit p-values below 0.0001 were 350 times as frequent as they should be. ``overlap`` is explained in
    ``mean_and_half_width``. Both are one number, or one for each comparison.
    """
    differences = np.atleast_2d(np.asarray(values, dtype=float) - np.asarray(others, dtype=float))
    there = np.isfinite(differences)
    pairs = there.sum(axis=1)
    if (pairs < 2).any():
        raise ValueError("a difference needs at least two pairs")
    from scipy.special import stdtr, stdtrit

    means = differences.mean(axis=1, where=there)
    spreads = np.maximum(differences.std(axis=1, ddof=1, where=there), resolution)
    standard_errors = spreads * np.sqrt(1 / pairs + overlap)
    half_widths = stdtrit(pairs - 1, 0.975) * standard_errors
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(means == 0, 0, np.abs(means) / standard_errors)
    p = 2 * stdtr(pairs - 1, -t)
    return [
        Difference(*row) for row in zip(*(a.tolist() for a in (means, half_widths, pairs, p, spreads)), strict=True)
    ]


def adjust_by_holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values of several comparisons, corrected for their number (S. Holm, 1979).

    If those below 0.05 are called significant, at most 5 % of such experiments have one or more false positives,
    whatever the number of comparisons and their dependence.
    """
    order = np.argsort(p_values)
    steps = np.asarray(p_values, dtype=float)[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted.tolist()


POWER = 0.8
MOST_SEEDS = 10_000
LARGEST_T = 1000.0  # above this critical value the noncentral t distribution is not calculated


@lru_cache
def detectable_difference(pairs: int, level: float) -> float:
    """Return the difference that a two-sided paired t-test at ``level`` finds in POWER of experiments.

    It is in standard deviations of the differences of a pair; infinite for two pairs and a level below 0.0006.
    """
    from scipy.optimize import brentq
    from scipy.special import nctdtr, stdtrit

    critical = stdtrit(pairs - 1, 1 - level / 2)
    if critical > LARGEST_T:
        return np.inf

    def lacking(size: float) -> float:
        return nctdtr(pairs - 1, size * np.sqrt(pairs), critical) - (1 - POWER)

    largest = 1.5 * (critical + 2) / np.sqrt(pairs)
    return float(brentq(lacking, 0, largest))  # type: ignore[arg-type]


def pairs_for(difference: float, level: float) -> int | None:
    """Return how many pairs a paired t-test needs to find a ``difference`` in POWER of experiments.

    The difference is in standard deviations of the differences of a pair; None means more than MOST_SEEDS.
    """
    low, high = 1, MOST_SEEDS
    if detectable_difference(high, level) > difference:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if detectable_difference(middle, level) > difference:
            low = middle
        else:
            high = middle
    return high


def interval_for_new_images(table: np.ndarray) -> tuple[float, float]:
    """Return the mean of a table (seeds, images) and the half-width of its 95 % interval for new seeds and new images.

    A cell is 1 where a run predicts an image right, else 0; or the difference of two such tables, -1, 0 or 1. Seeds and
    images are random effects of a crossed design, as are readers and cases in B. D. Gallas, 2006
    (doi:10.1016/j.acra.2005.11.030); the degrees of freedom are those of F. E. Satterthwaite (1946). One seed tells
    nothing about other seeds: its interval is for new images only.
    """
    from scipy.special import stdtrit

    seeds, images = table.shape
    mean, of_images = table.mean(), table.mean(axis=0)
    if seeds == 1:
        return float(mean), float(stdtrit(images - 1, 0.975) * of_images.std(ddof=1) / np.sqrt(images))
    of_seeds = table.mean(axis=1)
    by_seed, by_image = images * of_seeds.var(ddof=1), seeds * of_images.var(ddof=1)  # mean squares
    rest = ((table - of_seeds[:, None] - of_images + mean) ** 2).sum() / ((seeds - 1) * (images - 1))
    variance = max(by_seed + by_image - rest, by_seed, by_image) / table.size
    if not variance:
        return float(mean), 0.0
    squares = by_seed**2 / (seeds - 1) + by_image**2 / (images - 1) + rest**2 / ((seeds - 1) * (images - 1))
    freedom = (variance * table.size) ** 2 / squares
    half_width = stdtrit(max(freedom, 1), 0.975) * np.sqrt(variance)
    same_images = stdtrit(seeds - 1, 0.975) * np.sqrt(by_seed / table.size)
    return float(mean), float(max(half_width, same_images))


def probability_of_higher(values: Sequence[float], others: Sequence[float]) -> tuple[float, float, float]:
    """Return the probability that one of ``values`` is higher than one of ``others``, and its 95 % interval.

    Equal ones count half. It is the Mann-Whitney statistic with the interval of R. G. Newcombe, 2006 (method 5,
    doi:10.1002/sim.2324), which suits a few seeds.
    """
    from scipy.optimize import brentq

    one, other = np.asarray(values, dtype=float)[:, None], np.asarray(others, dtype=float)[None, :]
    found = float(((one > other) + 0.5 * (one == other)).mean())
    spare = (one.size + other.size) / 2 - 1

    def excess(theta: float) -> float:
        inner = 1 + spare * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return abs(found - theta) - 1.96 * np.sqrt(theta * (1 - theta) * inner / (one.size * other.size))

    tiny = 1e-9  # at 0 and 1 the variance is 0
    low = float(brentq(excess, tiny, found - tiny)) if found > tiny and excess(tiny) > 0 else 0.0  # type: ignore
    high = float(brentq(excess, found + tiny, 1 - tiny)) if found < 1 - tiny and excess(1 - tiny) > 0 else 1.0  # type: ignore
    return found, low, high


def mcnemar(right: np.ndarray, others: np.ndarray) -> tuple[int, int, float]:
    """Return on how many images only the first model is right, on how many only the other, and McNemar's exact p.

    ``right`` and ``others`` (images,) say where each of two models is right.
    """
    from scipy.special import bdtr

    only, other = int((right & ~others).sum()), int((others & ~right).sum())
    both = only + other
    return only, other, min(1.0, 2 * float(bdtr(min(only, other), both, 0.5))) if both else 1.0
