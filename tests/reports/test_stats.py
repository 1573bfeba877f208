import numpy as np
import pytest
import scipy.stats
from statsmodels.stats.contingency_tables import mcnemar as exact_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from handwriting.reports.stats import (
    POWER,
    adjust_by_holm,
    detectable_difference,
    interval_for_new_images,
    mcnemar,
    mean_and_half_width,
    paired_differences,
    pairs_for,
    probability_of_higher,
)


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
@pytest.mark.parametrize("n", [2, 3, 5, 30])
@pytest.mark.parametrize("overlap", [0, 0.25])
def test_the_interval_is_the_one_of_scipy(n: int, level: float, overlap: float):
    values = np.random.default_rng(n).normal(0.99, 0.002, n)
    mean, half_width = mean_and_half_width(values.tolist(), level, overlap)
    error = np.hypot(scipy.stats.sem(values), np.sqrt(overlap) * values.std(ddof=1))
    low, high = scipy.stats.t.interval(level, n - 1, loc=values.mean(), scale=error)
    assert (mean - half_width, mean + half_width) == pytest.approx((low, high), rel=1e-9)  # type: ignore[operator]


def test_one_value_has_no_interval():
    assert mean_and_half_width([0.5]) == (0.5, None)


def test_the_interval_has_its_nominal_coverage():
    random = np.random.default_rng(0)
    hits = 0
    for _ in range(2000):
        mean, half_width = mean_and_half_width(random.normal(size=4).tolist())
        assert half_width is not None
        hits += abs(mean) <= half_width
    assert 0.935 < hits / 2000 < 0.965  # three standard errors around 0.95


@pytest.mark.parametrize("n", [2, 3, 5, 30])
@pytest.mark.parametrize("shift", [0, 0.001, -0.01])
def test_a_paired_difference_is_that_of_scipy(n: int, shift: float):
    random = np.random.default_rng(n)
    others = random.normal(0.99, 0.002, n)
    values = others + random.normal(shift, 0.001, n)
    (found,) = paired_differences(values, others)
    wanted = scipy.stats.ttest_rel(values, others)
    low, high = wanted.confidence_interval(0.95)
    assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx((low, high), rel=1e-7)
    assert found.p == pytest.approx(wanted.pvalue, rel=1e-7)
    assert found.pairs == n


def test_the_standard_deviation_of_differences_is_at_least_their_resolution():
    values, others, step = [0.972, 0.982, 0.992], [0.970, 0.980, 0.990], 0.002  # one image of 500, three times
    (found,) = paired_differences(values, others, step)
    assert found.mean == pytest.approx(0.002)
    assert found.half_width == pytest.approx(scipy.stats.t(2).ppf(0.975) * step / 3**0.5)
    assert found.p == pytest.approx(2 * scipy.stats.t(2).sf(3**0.5))
    assert paired_differences([0.5, 0.6], [0.25, 0.35])[0].p == 0
    assert paired_differences([0.5, 0.6], [0.5, 0.6])[0].p == 1


def test_folds_of_one_set_give_wider_intervals_than_independent_sets():
    """The two-sided form of the corrected t-test in scikit-learn's guide, 'Statistical comparison of models'."""
    values, others = np.random.default_rng(0).normal([[0.98], [0.97]], 0.004, (2, 10))
    corrected_std = np.sqrt(np.var(values - others, ddof=1) * (1 / 10 + 150 / 1350))
    p = 2 * scipy.stats.t.sf(np.abs(np.mean(values - others) / corrected_std), 9)
    (found,) = paired_differences(values, others, overlap=150 / 1350)
    assert found.p == pytest.approx(p)
    assert found.half_width == pytest.approx(scipy.stats.t(9).ppf(0.975) * corrected_std)
    assert found.p > paired_differences(values, others)[0].p


def test_one_pair_is_refused():
    with pytest.raises(ValueError, match="two pairs"):
        paired_differences([0.9], [0.8])


@pytest.mark.parametrize("n", [0, 1, 2, 3, 10, 50])
def test_the_correction_is_that_of_statsmodels(n: int):
    p_values = np.random.default_rng(n).random(n) ** 3
    wanted = np.asarray(multipletests(p_values, method="holm")[1]) if n else np.empty(0)
    assert adjust_by_holm(p_values.tolist()) == pytest.approx(wanted.tolist())
    equal = [0.01] * n
    assert adjust_by_holm(equal) == pytest.approx([min(1, 0.01 * n)] * n)


@pytest.mark.parametrize(("pairs", "level"), [(2, 0.05), (2, 0.005), (3, 0.05), (9, 0.05), (50, 0.005), (1000, 0.05)])
def test_the_detectable_difference_has_the_power_that_statsmodels_calculates(pairs: int, level: float):
    power = TTestPower().power(detectable_difference(pairs, level), pairs, level)
    assert power == pytest.approx(POWER, abs=1e-3)


@pytest.mark.parametrize(("pairs", "level"), [(5, 0.05), (5, 0.0001), (10, 0.001)])
def test_the_detectable_difference_is_found_in_80_percent_of_experiments(pairs: int, level: float):
    experiments = 4000
    size = detectable_difference(pairs, level)
    differences = np.random.default_rng(0).normal(size, 1, (experiments, pairs))
    p_values = np.asarray(scipy.stats.ttest_1samp(differences, 0, axis=1)[1])
    found = (p_values < level).sum()
    assert found / experiments == pytest.approx(POWER, abs=0.025)


def test_the_number_of_pairs_is_that_of_statsmodels():
    for difference in (0.03, 0.1, 0.5, 1.0):
        needed = TTestPower().solve_power(effect_size=difference, alpha=0.05, power=POWER)
        assert pairs_for(difference, 0.05) == int(np.ceil(needed))
    assert pairs_for(0.001, 0.05) is None
    assert pairs_for(1000, 0.05) == 2


def right_or_not(generator: np.random.Generator, seeds: int, images: int, of_seeds: float, of_images: float):
    """Return which of new images new trainings get right; their logits vary by seed and by image."""
    logits = 3 + generator.normal(0, of_seeds, (seeds, 1)) + generator.normal(0, of_images, images)
    return (generator.random((seeds, images)) < 1 / (1 + np.exp(-logits))).astype(float)


@pytest.mark.parametrize(
    ("seeds", "images", "of_seeds", "of_images"), [(5, 500, 0.1, 3), (3, 500, 0.5, 1), (1, 500, 0, 2)]
)
def test_the_interval_for_new_images_has_its_nominal_coverage(
    seeds: int, images: int, of_seeds: float, of_images: float
):
    generator, experiments = np.random.default_rng(0), 400
    truth = right_or_not(generator, 3000 if seeds > 1 else 1, 3000, of_seeds, of_images).mean()
    if seeds == 1:  # of this training: no variation by seed
        truth = right_or_not(generator, 3000, 3000, 0, of_images).mean()
    covered = 0
    for _ in range(experiments):
        mean, half_width = interval_for_new_images(right_or_not(generator, seeds, images, of_seeds, of_images))
        covered += abs(mean - truth) <= half_width
    assert 0.92 <= covered / experiments <= 0.985


def test_the_interval_for_new_images_is_about_that_of_a_bootstrap_over_seeds_and_images():
    generator = np.random.default_rng(1)
    table = right_or_not(generator, 20, 400, 0.3, 2)
    means = []
    for _ in range(2000):
        seeds, images = generator.integers(0, 20, 20), generator.integers(0, 400, 400)
        means.append(table[seeds][:, images].mean())
    mean, half_width = interval_for_new_images(table)
    assert mean == table.mean()
    # A bootstrap of both counts the noise of a single cell twice, so it is slightly wider (A. B. Owen, 2007).
    assert 1.96 * np.std(means) == pytest.approx(half_width, rel=0.15)


def test_the_interval_for_new_images_is_that_of_the_seeds_where_all_images_are_equal():
    accuracies = [0.0, 1.0, 1.0, 1.0]
    assert interval_for_new_images(np.repeat(np.array(accuracies)[:, None], 50, 1)) == pytest.approx(
        mean_and_half_width(accuracies)
    )
    assert interval_for_new_images(np.ones((3, 50))) == (1, 0)


@pytest.mark.parametrize(("first", "second"), [(3, 5), (10, 10)])
def test_the_probability_of_a_higher_seed_is_the_mann_whitney_statistic(first: int, second: int):
    generator = np.random.default_rng(first)
    one, other = generator.integers(0, 9, first).tolist(), generator.integers(0, 9, second).tolist()
    found, low, high = probability_of_higher(one, other)
    assert found == pytest.approx(scipy.stats.mannwhitneyu(one, other)[0] / (first * second))
    assert 0 <= low <= found <= high <= 1
    mirrored = probability_of_higher(other, one)
    assert mirrored == pytest.approx((1 - found, 1 - high, 1 - low))


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.5])
def test_the_interval_of_the_probability_has_its_nominal_coverage(shift: float):
    generator, experiments = np.random.default_rng(0), 500
    truth, covered = scipy.stats.norm.cdf(shift / 2**0.5), 0
    for _ in range(experiments):
        _, low, high = probability_of_higher(generator.normal(shift, 1, 5).tolist(), generator.normal(0, 1, 5).tolist())
        covered += low <= truth <= high
    assert covered / experiments >= 0.92


def test_mcnemar_is_that_of_statsmodels():
    generator = np.random.default_rng(0)
    for _ in range(20):
        one, other = generator.random(60) < 0.9, generator.random(60) < 0.8
        table = [[(one & other).sum(), (one & ~other).sum()], [(~one & other).sum(), (~one & ~other).sum()]]
        only, only_other, p = mcnemar(one, other)
        assert (only, only_other) == (table[0][1], table[1][0])
        assert p == pytest.approx(exact_mcnemar(table, exact=True).pvalue)  # type: ignore[attr-defined]
    assert mcnemar(np.ones(5, dtype=bool), np.ones(5, dtype=bool)) == (0, 0, 1)


def test_two_pairs_among_very_many_comparisons_detect_nothing():
    assert detectable_difference(2, 0.05 / 10_000) == np.inf
    assert pairs_for(3.0, 0.05 / 10_000) is not None
