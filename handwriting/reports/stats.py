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


@lru_cache
def detectable_difference(pairs: int, level: float) -> float:
    """Return the difference that a two-sided paired t-test at ``level`` finds in POWER of experiments.

    It is in standard deviations of the differences of a pair.
    """
    from scipy.optimize import brentq
    from scipy.special import nctdtr, stdtrit

    critical = stdtrit(pairs - 1, 1 - level / 2)

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
