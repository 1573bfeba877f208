"""Races: critical values against exact counts, error rates among equal configurations, when a race ends."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import permutations, product
from math import comb
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from handwriting.reports.racing import (
    MARGIN_ROUNDS,
    UNSPENT,
    Race,
    Racer,
    critical_values,
    read_race,
    significantly_worse,
)

Draw = Callable[[np.random.Generator, int, int], np.ndarray]


def normal(generator: np.random.Generator, configurations: int, rounds: int) -> np.ndarray:
    return generator.normal(98, 0.3, (configurations, rounds))


def some_fail(generator: np.random.Generator, configurations: int, rounds: int, often: float = 0.3) -> np.ndarray:
    """Return accuracies of 0.1 steps, many of them equal; some seeds stay at chance level."""
    scores = normal(generator, configurations, rounds).round(1)
    return np.where(generator.random(scores.shape) < often, 10.0, scores)


def race_of(scores: np.ndarray, alpha: float = 0.05, margin: float | None = None) -> Race:
    """Return the race in which the configurations have these scores, a row each."""
    configurations, rounds = scores.shape
    racers = [Racer(f"configuration {number}", []) for number in range(configurations)]
    race = Race("val/acc", "max", alpha, margin, rounds, racers)
    for round_ in range(rounds):
        for racer, row in zip(racers, scores, strict=True):
            if racer.dropped is None:
                racer.scores.append(float(row[round_]))
        race.close_round()
        if race.ended:
            break
    return race


def errors(draw: Draw, configurations: int, races: int, worse_by: float = 0.0, best: int = 0) -> int:
    """Return in how many races one of the ``best`` configurations dropped out; the others are worse. 0: all equal."""
    generator, count = np.random.default_rng(1), 0
    for _ in range(races):
        scores = draw(generator, configurations, 20)
        scores[best or configurations :] -= worse_by
        race = race_of(scores)
        count += any(racer.dropped for racer in race.racers[: best or configurations])
    return count


@pytest.mark.parametrize("draw", [normal, some_fail])
@pytest.mark.parametrize("configurations", [2, 5, 20])
def test_few_races_among_equal_configurations_drop_any(draw: Draw, configurations: int):
    races = 150
    assert errors(draw, configurations, races) <= scipy.stats.binom(races, 0.05).ppf(0.999)


@pytest.mark.long
@pytest.mark.parametrize("draw", [normal, some_fail, partial(some_fail, often=0.05)])
@pytest.mark.parametrize("configurations", [2, 5, 20])
def test_at_most_five_percent_of_races_among_equal_configurations_drop_any(draw: Draw, configurations: int):
    races = 2000
    assert errors(draw, configurations, races) <= scipy.stats.binom(races, 0.05).ppf(0.99)


@pytest.mark.long
@pytest.mark.parametrize("worse_by", [0.1, 0.2, 0.5, 1.5])
@pytest.mark.parametrize(("configurations", "best"), [(5, 2), (5, 4), (10, 3)])
def test_worse_configurations_beside_equal_ones_do_not_raise_the_error_rate(
    configurations: int, best: int, worse_by: float
):
    races = 1000
    assert errors(normal, configurations, races, worse_by, best) <= scipy.stats.binom(races, 0.05).ppf(0.99)


def test_clearly_worse_configurations_drop_out_early():
    generator = np.random.default_rng(2)
    scores = normal(generator, 5, 10) - np.array([[0], [2], [3], [4], [5]])
    race = race_of(scores)
    assert [racer.name for racer in race.active] == ["configuration 0"]
    assert sum(len(racer.scores) for racer in race.racers) <= 0.6 * 50
    assert race.ended == "one configuration is left"


def test_critical_values_of_two_configurations_are_those_of_a_sequential_sign_test():
    values = critical_values(2, 12, 0.05)
    still_running = {0: 1.0}  # the wins of the first less those of the second: probability
    spent = 0.0
    for number, critical in enumerate(values, 1):
        moved: dict[int, float] = {}
        for lead, probability in still_running.items():
            for step in (-1, 1):
                moved[lead + step] = moved.get(lead + step, 0) + probability / 2
        spent += sum(probability for lead, probability in moved.items() if abs(lead) >= critical)
        still_running = {lead: probability for lead, probability in moved.items() if abs(lead) < critical}
        assert spent <= 0.05 * (1 - UNSPENT ** (number - 1)) + 0.001
    assert values[5] == 6  # all six rounds won: the first round in which two can be told apart
    assert comb(6, 0) * 2 * 0.5**6 < 0.05 * (1 - UNSPENT**5)
    assert 0.05 * (1 - UNSPENT**4) < 2 * 0.5**5


def test_critical_values_of_three_configurations_against_all_rankings():
    values = critical_values(3, 5, 0.05)
    crossed = 0
    for rankings in product(list(permutations(range(3))), repeat=5):
        sums = np.cumsum(rankings, axis=0)
        crossed += any(np.ptp(total) >= critical for total, critical in zip(sums, values, strict=True))
    assert 0 < crossed / 6**5 <= 0.05 * (1 - UNSPENT**4) + 0.001


def test_critical_values_do_not_depend_on_the_length_of_the_race():
    assert critical_values(4, 30, 0.05)[:10] == critical_values(4, 10, 0.05)


def test_the_same_scores_upside_down_are_a_race_for_the_lowest():
    scores = normal(np.random.default_rng(3), 3, 8) - np.array([[0], [1], [2]])
    race = race_of(scores)
    lowest = Race("val/loss", "min", 0.05, None, 8, [Racer(one.name, []) for one in race.racers])
    for round_ in range(race.rounds):
        for racer, row in zip(lowest.racers, scores, strict=True):
            if racer.dropped is None:
                racer.scores.append(-float(row[round_]))
        lowest.close_round()
    assert [one.dropped for one in lowest.racers] == [one.dropped for one in race.racers]


def test_equal_scores_drop_nothing():
    assert significantly_worse(np.full((4, 30), 97.0), 0.05) == []


def go(race: Race, *columns: Sequence[float | None]) -> None:
    """Give the active configurations a score in each round until the race ends."""
    for scores in columns:
        for racer, score in zip(race.racers, scores, strict=True):
            if racer.dropped is None:
                racer.scores.append(score)
        race.close_round()
        if race.ended:
            return


def race_for(*names: str, metric: str = "val/acc", mode: str = "max") -> Race:
    return Race(metric, mode, 0.05, None, 8, [Racer(name, []) for name in names])


@pytest.mark.parametrize("failed", [None, float("nan"), float("inf")])
def test_failed_runs_rank_last(failed: float | None):
    race = race_for("a", "b", metric="val/loss", mode="min")
    go(race, *([0.5 + 0.01 * seed, failed] for seed in range(8)))
    assert race.racers[1].dropped == 6
    assert "worse than a in 6 of 6 seeds" in race.racers[1].reason


def test_a_round_in_which_every_run_fails_ends_the_race():
    race = race_for("a", "b")
    go(race, [None, None])
    assert race.ended == "every run of this round failed"
    race = race_for("a", "b")
    for racer in race.racers:
        racer.scores, racer.dropped = [None], 1
    race.close_round()
    assert race.ended == "every run of this round failed"
    assert "In the race: none" in race.sentences()[0]


def test_configurations_that_do_not_depend_on_the_seed_are_not_raced():
    race = race_for("a", "b", "c")
    go(race, *([0.9, 0.8, 0.7 + 0.01 * seed] for seed in range(8)))
    assert race.ended == "a and b have the same result for each seed: compare single runs"
    race = race_for("a", "b", "c")
    go(race, *([None, None, 0.7 + 0.01 * seed] for seed in range(3)))  # failed runs are no result
    assert race.ended in ("", "one configuration is left")
    assert not any(racer.dropped for racer in race.racers)


@pytest.mark.parametrize("ties", [0.0, 0.05, 0.2])
def test_the_error_rate_of_two_configurations_holds_exactly_with_ties(ties: float):
    critical, dropped = critical_values(2, 60, 0.05), 0.0
    walk = {0.0: 1.0}  # the rank sum of one less that of the other, of the races that run: probability
    steps = {-1.0: (1 - ties) / 2, 0.0: ties, 1.0: (1 - ties) / 2}
    for value in critical:
        moved: dict[float, float] = {}
        for gap, probability in walk.items():
            for step, chance in steps.items():
                moved[gap + step] = moved.get(gap + step, 0) + probability * chance
        dropped += sum(probability for gap, probability in moved.items() if abs(gap) >= value)
        walk = {gap: probability for gap, probability in moved.items() if abs(gap) < value}
    assert 0.01 < dropped <= 0.051


def test_a_race_ends_when_the_rest_differ_by_less_than_the_margin():
    scores = 0.98 + np.random.default_rng(4).normal(0, 0.0001, (3, 20))
    close = race_of(scores, margin=0.1)
    assert close.ended == "the rest differ by less than 0.1 percentage points (95 % intervals)"
    assert close.rounds == MARGIN_ROUNDS
    assert race_of(scores, margin=0.001).ended == "race.max_seeds=20"


def test_a_race_is_written_and_read(tmp_path: Path):
    race = race_of(some_fail(np.random.default_rng(5), 4, 6))
    race.write(tmp_path)
    assert read_race(tmp_path) == race
    (tmp_path / "race.json").write_text("{}")
    assert read_race(tmp_path) is None
