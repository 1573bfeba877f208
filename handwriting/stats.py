"""Means with intervals, paired differences, corrected for their number. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


def mean_and_half_width(
    values: Sequence[float], level: float = 0.95, overlap: float = 0.0
) -> tuple[float, float | None]:
    """Return the mean and the half-width of its Student-t interval; None for one value, which shows no spread.

    The interval speaks of the seeds: it would hold the mean over all seeds in ``level`` of such experiments. Folds and
    bootstrap draws train on much the same images, and so differ less than trainings on sets of their own would:
    ``overlap``, the images held out over those trained on, widens their interval for that (C. Nadeau, Y. Bengio, 2003,
    doi:10.1023/A:1024068626366).
    """
    array = np.asarray(values, dtype=float)
    if len(array) < 2:
        return float(array.mean()), None
    from scipy.special import stdtrit  # of scipy.stats.t, which takes .6 s to import, and this .25 s

    standard_error = array.std(ddof=1) * np.sqrt(1 / len(array) + overlap)
    return float(array.mean()), float(stdtrit(len(array) - 1, (1 + level) / 2) * standard_error)


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences, the half-width of its 95 % interval, the pairs, and how surprising it is.

    ``p`` is the chance of a mean at least as far from 0 if there were no difference (the two-sided paired t-test).
    """

    mean: float
    half_width: float
    pairs: int
    p: float


def paired_difference(
    values: Sequence[float], others: Sequence[float], resolution: float = 0.0, overlap: float = 0.0
) -> Difference:
    """Return how far values lie above others, pair by pair; at least two pairs.

    ``resolution`` is the smallest step in which they are measured, such as 1 in so many test images: the differences
    are taken to spread by at least that much, for a few that happen to be equal prove nothing. ``overlap`` is that of
    ``mean_and_half_width``.
    """
    differences = np.asarray(values, dtype=float) - np.asarray(others, dtype=float)
    if len(differences) < 2:
        raise ValueError("a difference needs at least two pairs")
    mean, freedom = float(differences.mean()), len(differences) - 1
    standard_error = max(float(differences.std(ddof=1)), resolution) * (1 / len(differences) + overlap) ** 0.5
    from scipy.special import stdtr, stdtrit

    half_width = float(stdtrit(freedom, 0.975)) * standard_error
    t = abs(mean) / standard_error if standard_error else (np.inf if mean else 0.0)
    return Difference(mean, half_width, len(differences), float(2 * stdtr(freedom, -t)))


def adjust_by_holm(chances: Sequence[float]) -> list[float]:
    """Return the p-values of several comparisons, corrected for their number (S. Holm, 1979).

    Below .05 they are claims of which, all together, one is wrong in at most a twentieth of such experiments.
    """
    order = np.argsort(chances)
    steps = np.asarray(chances, dtype=float)[order] * np.arange(len(chances), 0, -1)
    adjusted = np.empty(len(chances))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted.tolist()
