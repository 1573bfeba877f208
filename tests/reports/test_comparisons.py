"""Comparisons of configurations: what a report claims, and how often chance alone makes it claim something."""

from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from statsmodels.stats.multitest import multipletests

from handwriting.reports.comparisons import judge
from handwriting.reports.groups import Setting
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


def settings_of(accuracies: np.ndarray, images: int = IMAGES) -> list[Setting]:
    """The configurations with these test accuracies, (configurations, seeds); nan where a run is missing."""
    settings = []
    for number, row in enumerate(accuracies.tolist()):
        record: dict[str, Any] = {"status": "done", "choices": {}, "images": {"test": images}}
        runs = [
            Run(Path(), record | {"settings": {"seed": seed}, "metrics": {"test/acc": accuracy}})
            for seed, accuracy in enumerate(row)
            if not np.isnan(accuracy)
        ]
        settings.append(Setting(runs, str(number)))
    return [settings[place] for place in np.argsort(-np.nanmean(accuracies, axis=1))]  # the best first, as in a report


def false_claims(draw: Draw, configurations: int, seeds: int, reports: int) -> int:
    """Of so many reports on configurations with equal means, how many claim that one beats another."""
    random = np.random.default_rng(configurations)
    drawn = (settings_of(draw(random, (configurations, seeds))) for _ in range(reports))
    return sum(any(verdict.shown for verdict in judge(settings)) for settings in drawn)


def most_claims(reports: int) -> int:
    """At most so many of the reports make a false claim in 999 of 1,000 simulations, if each does so in 5 %."""
    return int(scipy.stats.binom.ppf(0.999, reports, 0.05))


@pytest.mark.parametrize(("configurations", "reports"), [(2, 300), (20, 150), (110, 60)])
def test_at_most_5_percent_of_reports_on_equal_configurations_make_a_claim(configurations: int, reports: int):
    assert false_claims(EQUAL["normal"], configurations, 5, reports) <= most_claims(reports)


@pytest.mark.long
@pytest.mark.parametrize(("kind", "seeds"), [*((kind, 5) for kind in EQUAL), ("normal", 2), ("rounded", 2)])
@pytest.mark.parametrize(("configurations", "reports"), [(2, 4000), (20, 1000), (110, 200), (300, 80)])
def test_no_more_do_so_whatever_the_accuracies_look_like(configurations: int, reports: int, kind: str, seeds: int):
    assert false_claims(EQUAL[kind], configurations, seeds, reports) <= most_claims(reports)


def test_a_real_difference_among_many_is_claimed_and_nothing_else():
    accuracies = EQUAL["normal"](np.random.default_rng(0), (110, 5))
    accuracies[7] -= 0.2
    shown = [verdict for verdict in judge(settings_of(accuracies)) if verdict.shown]
    assert len(shown) > 100  # of 109
    assert {verdict.worse.label for verdict in shown} == {"7"}


def test_of_very_many_configurations_every_pair_is_compared():
    settings = settings_of(EQUAL["normal"](np.random.default_rng(0), (120, 3)))
    verdicts = judge(settings)
    assert len(verdicts) == 120 * 119 / 2
    assert [verdict.better.label for verdict in verdicts[:119]] == [settings[0].label] * 119  # the best one first


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
    verdicts = judge(settings_of(accuracies, images=10**9))
    found = {frozenset((verdict.better.label, verdict.worse.label)): verdict.p for verdict in verdicts}
    assert found == pytest.approx(adjusted)
    assert any(p < 0.05 for p in found.values())
    assert all(verdict.difference.mean >= 0 for verdict in verdicts)


def test_configurations_without_two_seeds_in_common_are_not_compared():
    accuracies = np.full((3, 5), np.nan)
    accuracies[0, :3], accuracies[1, 3:], accuracies[2, 2:4] = 0.9, 0.8, 0.7  # the last has one with either
    assert judge(settings_of(accuracies)) == []


def test_equal_accuracies_are_no_difference():
    (verdict,) = judge(settings_of(np.full((2, 5), 0.9)))
    assert (verdict.difference.mean, verdict.p, verdict.shown) == (0, 1, False)


def test_the_coarser_of_two_test_sets_is_the_step_of_a_difference():
    coarse, fine = settings_of(np.array([[0.98] * 3]), images=50), settings_of(np.array([[0.96] * 3]))
    expected = 2 * scipy.stats.t(2).sf(3**0.5)  # a difference of one image of 50, with that spread
    for settings in ([*coarse, *fine], [*fine, *coarse]):
        assert judge(settings)[0].p == pytest.approx(expected)
