import numpy as np
import pytest
import scipy.stats

from handwriting.stats import mean_and_half_width


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
@pytest.mark.parametrize("n", [2, 3, 5, 30])
def test_the_interval_is_the_one_of_scipy(n: int, level: float):
    values = np.random.default_rng(n).normal(0.99, 0.002, n)
    mean, half_width = mean_and_half_width(values.tolist(), level)
    low, high = scipy.stats.t.interval(level, n - 1, loc=values.mean(), scale=scipy.stats.sem(values))
    assert (mean - half_width, mean + half_width) == pytest.approx((low, high), rel=1e-9)  # type: ignore[operator]


def test_one_value_has_no_interval():
    assert mean_and_half_width([0.5]) == (0.5, None)


def test_the_interval_holds_the_true_mean_as_often_as_it_says():
    random = np.random.default_rng(0)
    hits = 0
    for _ in range(2000):
        mean, half_width = mean_and_half_width(random.normal(size=4).tolist())
        assert half_width is not None
        hits += abs(mean) <= half_width
    assert 0.935 < hits / 2000 < 0.965  # three standard errors around .95
