"""Comparisons of configurations: differences paired by seed, with p-values corrected for multiple testing."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from handwriting.reports.groups import Configuration
from handwriting.reports.stats import (
    MOST_SEEDS,
    POWER,
    Difference,
    adjust_by_holm,
    detectable_difference,
    interval_for_new_images,
    paired_differences,
    pairs_for,
    probability_of_higher,
)

METRIC = "test/acc"
LEVEL = 0.05  # family-wise: over all comparisons of a report together
FEWEST = 4  # pairs whose spread says how many are needed
SMALLEST = 0.1  # percentage points: the default of report.smallest


class Comparison(NamedTuple):
    """Two configurations, compared on the seeds that both have; ``better`` has the higher mean."""

    better: Configuration
    worse: Configuration
    difference: Difference  # of accuracies, as fractions
    p: float  # after Holm's correction for the number of comparisons
    level: float  # of one of so many comparisons: LEVEL divided by their number

    @property
    def significant(self) -> bool:
        """Return whether the corrected p-value is below 0.05."""
        return self.p < LEVEL

    @property
    def detectable(self) -> float:
        """Return the difference that so many seeds would have shown in 80 % of experiments, as a fraction.

        It is calculated for a paired t-test at ``level`` and the spread of the differences that was found. NaN for
        folds, which are not independent.
        """
        if self.better.overlap or self.worse.overlap:
            return math.nan
        return self.difference.spread * detectable_difference(self.difference.pairs, self.level)

    def seeds_for(self, smallest: float) -> int | None:
        """Return how many seeds a difference of ``smallest`` percentage points needs.

        None means more than MOST_SEEDS, or folds.
        """
        if self.better.overlap or self.worse.overlap:
            return None
        spread = 100 * self.difference.spread
        return pairs_for(smallest / spread, self.level) if spread else 2

    def for_new_images(self) -> float:
        """Return the half-width of the 95 % interval of the difference over new seeds and new images, as a fraction.

        Paired by seed and image. NaN for folds, and where the runs have no predictions for the same test images.
        """
        others = self.worse.runs_by_seed
        pairs = [(run.tested, others[seed].tested) for seed, run in self.better.runs_by_seed.items() if seed in others]
        first = pairs[0][0][0] if pairs and pairs[0][0] else None
        tables = [
            one[1].astype(float) - other[1] for one, other in pairs if one and other and one[0] == other[0] == first
        ]
        if len(tables) < 2 or len(tables) < len(pairs) or self.better.overlap or self.worse.overlap:
            return math.nan
        return interval_for_new_images(np.stack(tables))[1]

    def probability(self) -> tuple[float, float, float]:
        """Return the probability that a seed of the better one beats a seed of the other, and its 95 % interval."""
        return probability_of_higher(self.better.values(METRIC), self.worse.values(METRIC))

    def sentence(self, names: dict[str, str], smallest: float = SMALLEST) -> str:
        """Return the comparison as a sentence, in percentage points; ``names`` maps each label to a short name.

        If it is not significant, it says what it could have detected, and how many seeds ``smallest`` needs.
        """
        better, worse = names[self.better.label], names[self.worse.label]
        size = f"{100 * self.difference.mean:.2f} ± {100 * self.difference.half_width:.2f} percentage points"
        folds = self.better.overlap or self.worse.overlap
        number = f"{self.difference.pairs} {'runs' if folds else 'seeds'}"
        p = "p < 0.001" if self.p < 0.001 else f"p = {self.p:.3f}"
        if not math.isnan(wider := self.for_new_images()):
            number = f"± {100 * wider:.2f} for new images; {number}"
        if self.significant:
            return f"{better} is better than {worse} by {size} ({number}, {p})."
        sentence = f"{better} and {worse}: the difference of {size} is not significant ({number}, {p})."
        return sentence + self._power(smallest)

    def _power(self, smallest: float) -> str:
        """Return what so many seeds could have detected, and how many a difference of ``smallest`` needs."""
        detectable, pairs = 100 * self.detectable, self.difference.pairs
        if pairs < FEWEST or not detectable <= 100:
            return ""
        needed = self.seeds_for(smallest)
        seeds = f"about {needed:,}" if needed else f"more than {MOST_SEEDS:,}"
        return (
            f" In {100 * POWER:g} % of experiments, {pairs} seeds detect a difference of {detectable:.2f}; to detect "
            f"{smallest:g}, {seeds} seeds are needed."
        )


def compare_all(configurations: Sequence[Configuration], against: Configuration | None = None) -> list[Comparison]:
    """Compare every two configurations that share at least two seeds; or each with ``against`` alone.

    All pairs count as comparisons, whatever their results: to select a few by test accuracy would make differences
    by chance look significant. With ``against`` there are fewer comparisons, so it must be chosen before training.
    """
    scores = [configuration.by_seed(METRIC) for configuration in configurations]
    seeds = sorted({seed for by_seed in scores for seed in by_seed})
    table = np.array([[by_seed.get(seed, np.nan) for seed in seeds] for by_seed in scores])  # (configurations, seeds)
    steps = np.array([_step(configuration) for configuration in configurations])
    overlaps = np.array([configuration.overlap for configuration in configurations])
    pairs: list[tuple[int, int]] = []
    differences: list[Difference] = []
    for one, configuration in enumerate(configurations):
        if against and configuration is not against:
            continue
        rows = table[:, ~np.isnan(table[one])]  # only its own seeds: if few are shared, the table is mostly empty
        others = np.flatnonzero((~np.isnan(rows)).sum(axis=1) > 1)
        others = others[others != one] if against else others[others > one]
        if len(others):
            step, overlap = (np.maximum(each[one], each[others]) for each in (steps, overlaps))
            differences += paired_differences(rows[one], rows[others], step, overlap)
            pairs += [(one, other) for other in others.tolist()]
    level = LEVEL / max(len(pairs), 1)
    p_values = adjust_by_holm([difference.p for difference in differences])
    return [
        Comparison(configurations[one], configurations[other], difference, p, level)
        if difference.mean >= 0
        else Comparison(
            configurations[other],
            configurations[one],
            difference._replace(mean=-difference.mean),
            p,
            level,
        )
        for (one, other), difference, p in zip(pairs, differences, p_values, strict=True)
    ]


def sentences_on(
    comparisons: Sequence[Comparison],
    names: dict[str, str],
    against: Configuration | None = None,
    most: int = 5,
    smallest: float = SMALLEST,
) -> list[str]:
    """Return the first comparisons as sentences, and how many are significant; ``names`` as in ``sentence``."""
    sentences = [comparison.sentence(names, smallest) for comparison in comparisons[:most]]
    if any("for new images" in sentence for sentence in sentences):
        sentences.append(
            "The first ± is for new trainings tested on the same images, that for new images also for other test "
            "images of the same kind."
        )
    if len(comparisons) > most:
        sentences.append(f"{len(comparisons) - most:,} more pairs are in differences.csv.")
    if len(comparisons) > 1:
        significant = sum(comparison.significant for comparison in comparisons)
        which = f"{len(comparisons):,} comparisons" + (f" with {names[against.label]}" if against else "")
        sentences.append(
            f"{significant:,} of {which} {'is' if significant == 1 else 'are'} significant at the 5 % level over all "
            "of them (paired t-tests, p with Holm's correction). Each ± is a 95 % interval of that difference alone."
        )
    return sentences


def _step(configuration: Configuration) -> float:
    """Return the resolution of METRIC: one test image as a fraction of the test set."""
    counts = [run.record.get("images", {}).get("test") or 1_000_000 for run in configuration.done]
    return 1 / min(counts, default=1_000_000)


def short_names(configurations: Sequence[Configuration], keys: Sequence[str]) -> dict[str, str]:
    """Return a short name for each label: only the value if only one key differs, such as adam for optim=adam."""
    prefix = f"{keys[0]}=" if len(keys) == 1 else ""
    return {configuration.label: configuration.label.removeprefix(prefix) for configuration in configurations}
