"""Comparisons of configurations: which are called significant, and how often under the null hypothesis."""

from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from statsmodels.stats.multitest import multipletests

from handwriting.reports.comparisons import compare_all
from handwriting.reports.groups import Configuration
from handwriting.runs.record import Run

IMAGES = 10_000  # in the test set

Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
# Accuracies (configurations, seeds) of configurations whose means are equal.
EQUAL: dict[str, Draw] = {
    "normal": lambda random, shape: random.normal(0.98, 0.002, shape),
    "rounded": lambda random, shape: random.normal(0.98, 0.0003, shape).round(4),
    "seeds in common": lambda random, shape: random.normal(0.98, 0.01, shape[1]) + random.normal(0, 0.002, shape),
    "variances differ": lambda random, shape: 0.9 + random.normal(0, random.lognormal(-6, 1, (shape[0], 1)), shape),
    "skewed": lambda random, shape: 0.99 - random.exponential(0.002, shape),
}


def configurations_of(accuracies: np.ndarray, images: int = IMAGES) -> list[Configuration]:
    """The configurations with these test accuracies, (configurations, seeds); NaN where a run is missing."""
    configurations = []
    for number, row in enumerate(accuracies.tolist()):
        record: dict[str, Any] = {"status": "done", "choices": {}, "images": {"test": images}}
        runs = [
            Run(Path(), record | {"settings": {"seed": seed}, "metrics": {"test/acc": accuracy}})
            for seed, accuracy in enumerate(row)
            if not np.isnan(accuracy)
        ]
        configurations.append(Configuration(runs, str(number)))
    return [
        configurations[place] for place in np.argsort(-np.nanmean(accuracies, axis=1))
    ]  # the best first, as in a report


def false_positives(draw: Draw, configurations: int, seeds: int, reports: int) -> int:
    """How many of these reports on configurations with equal means contain a significant comparison."""
    random = np.random.default_rng(configurations)
    drawn = (configurations_of(draw(random, (configurations, seeds))) for _ in range(reports))
    return sum(any(comparison.significant for comparison in compare_all(configurations)) for configurations in drawn)


def most_false_positives(reports: int) -> int:
    """The 99.9 % quantile of the number of reports with a false positive, if each has one with probability 5 %."""
    return int(scipy.stats.binom.ppf(0.999, reports, 0.05))


@pytest.mark.long
@pytest.mark.parametrize(("configurations", "reports"), [(2, 300), (20, 150), (110, 60)])
def test_at_most_5_percent_of_reports_on_equal_configurations_have_a_significant_comparison(
    configurations: int, reports: int
):
    assert false_positives(EQUAL["normal"], configurations, 5, reports) <= most_false_positives(reports)


@pytest.mark.long
@pytest.mark.parametrize(("kind", "seeds"), [*((kind, 5) for kind in EQUAL), ("normal", 2), ("rounded", 2)])
@pytest.mark.parametrize(("configurations", "reports"), [(2, 4000), (20, 1000), (110, 200), (300, 80)])
def test_the_false_positive_rate_holds_for_any_distribution_of_accuracies(
    configurations: int, reports: int, kind: str, seeds: int
):
    assert false_positives(EQUAL[kind], configurations, seeds, reports) <= most_false_positives(reports)


def test_only_the_real_difference_among_many_is_significant():
    accuracies = EQUAL["normal"](np.random.default_rng(0), (110, 5))
    accuracies[7] -= 0.2
    significant = [comparison for comparison in compare_all(configurations_of(accuracies)) if comparison.significant]
    assert len(significant) > 100  # of 109
    assert {comparison.worse.label for comparison in significant} == {"7"}


def test_of_very_many_configurations_every_pair_is_compared():
    configurations = configurations_of(EQUAL["normal"](np.random.default_rng(0), (120, 3)))
    comparisons = compare_all(configurations)
    assert len(comparisons) == 120 * 119 / 2
    assert [comparison.better.label for comparison in comparisons[:119]] == [
        configurations[0].label
    ] * 119  # the best one first


def test_the_comparisons_are_those_of_scipy_and_statsmodels_where_seeds_are_missing():
    random = np.random.default_rng(1)
    accuracies = random.normal(0.95, 0.01, (8, 6)) + np.linspace(0, 0.5, 8)[:, None]
    accuracies[random.random(accuracies.shape) < 0.3] = np.nan
    accuracies[0, 1:] = np.nan  # a single seed
    expected, pairs = [], []
    for one, other in combinations(range(8), 2):
        both = ~np.isnan(accuracies[one] - accuracies[other])
        if both.sum() > 1:
            expected.append(scipy.stats.ttest_rel(accuracies[one][both], accuracies[other][both]).pvalue)
            pairs.append(frozenset((str(one), str(other))))
    adjusted = dict(zip(pairs, np.asarray(multipletests(expected, method="holm")[1]), strict=True))
    comparisons = compare_all(configurations_of(accuracies, images=10**9))
    found = {frozenset((comparison.better.label, comparison.worse.label)): comparison.p for comparison in comparisons}
    assert found == pytest.approx(adjusted)
    assert any(p < 0.05 for p in found.values())
    assert all(comparison.difference.mean >= 0 for comparison in comparisons)


def test_configurations_without_two_seeds_in_common_are_not_compared():
    accuracies = np.full((3, 5), np.nan)
    accuracies[0, :3], accuracies[1, 3:], accuracies[2, 2:4] = 0.9, 0.8, 0.7  # the last has one with either
    assert compare_all(configurations_of(accuracies)) == []


def test_equal_accuracies_are_no_difference():
    (comparison,) = compare_all(configurations_of(np.full((2, 5), 0.9)))
    assert (comparison.difference.mean, comparison.p, comparison.significant) == (0, 1, False)


def test_the_coarser_of_two_test_sets_is_the_step_of_a_difference():
    coarse, fine = configurations_of(np.array([[0.98] * 3]), images=50), configurations_of(np.array([[0.96] * 3]))
    expected = 2 * scipy.stats.t(2).sf(3**0.5)  # a difference of one image of 50, with that spread
    for configurations in ([*coarse, *fine], [*fine, *coarse]):
        assert compare_all(configurations)[0].p == pytest.approx(expected)
