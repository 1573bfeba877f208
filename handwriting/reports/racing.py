"""Races: which configurations are significantly worse than the leader after each round of seeds. Imports no torch."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np

from handwriting.reports.stats import paired_differences
from handwriting.utils.files import write_text

RACE = "race.json"
SIMULATED = 50_000  # races of equal configurations, for the critical values
MARGIN_ROUNDS = 5  # before these the margin is not looked at
SEEDLESS_ROUNDS = 3  # equal scores in so many rounds mean that a configuration does not depend on the seed
MOST_NAMED = 5  # configurations in a sentence
UNSPENT = 0.8  # the fraction of the error rate that each round leaves to later ones


def critical_values(configurations: int, rounds: int, alpha: float) -> list[float]:
    """Return for each round the rank sum above the leader's from which a configuration is significantly worse.

    Among configurations whose accuracies have the same distribution, each ranking of a round is as probable as any
    other, whatever that distribution is. So the values are found with races of random rankings: after round n, about
    the fraction alpha · (1 - 0.8ⁿ⁻¹) of them have dropped a configuration, and so ``alpha`` in any number of rounds.

    The statistic is that of P. Nemenyi's test of one look (1963), the race of rankings that of M. Birattari et al.
    (2002). The error rate is divided among the rounds as in K. Lan and D. DeMets (1983, doi:10.1093/biomet/70.3.659),
    here by a fraction for each round.
    """
    values, walk = _simulated_race(configurations, alpha)
    while len(values) < rounds:
        values.append(next(walk))
    return values[:rounds]


@lru_cache(maxsize=2)  # a race of 100 configurations keeps 20 MB
def _simulated_race(configurations: int, alpha: float) -> tuple[list[float], Iterator[float]]:
    return [], _simulate(configurations, alpha)


def _simulate(configurations: int, alpha: float) -> Iterator[float]:
    """Yield the critical value of each round."""
    generator = np.random.default_rng(0)
    sums = np.zeros((SIMULATED, configurations), dtype=np.int32)
    ranking = np.tile(np.arange(configurations, dtype=np.int32), (SIMULATED, 1))
    running = np.ones(SIMULATED, dtype=bool)
    for number in count(1):
        sums += generator.permuted(ranking, axis=1)
        gaps = np.where(running, np.ptp(sums, axis=1), -1)
        may_drop = int(alpha * (1 - UNSPENT ** (number - 1)) * SIMULATED) - int((~running).sum())
        kept = np.partition(gaps, -may_drop - 1)[-may_drop - 1]
        critical = float(gaps[gaps > kept].min(initial=configurations * number))  # a sum that occurs: ties lie between
        yield critical
        running &= gaps < critical


class Gap(NamedTuple):
    """How far a configuration is behind the leader: its rank sum above the leader's, and the critical value."""

    place: int
    leader: int
    rank_sum: float
    critical: float
    lost: int  # rounds in which it was worse than the leader


def significantly_worse(scores: np.ndarray, alpha: float) -> list[Gap]:
    """Return the configurations that are significantly worse than the leader.

    ``scores`` (configurations, rounds): higher is better, -inf for a failed run. Equal scores share their ranks.
    """
    from scipy.stats import rankdata

    configurations, number = scores.shape
    if configurations < 2 or number < 2:
        return []
    sums = rankdata(-scores, axis=0).sum(axis=1)
    leader = int(np.argmin(sums))
    critical = critical_values(configurations, number, alpha)[-1]
    gaps = sums - sums[leader]
    lost = (scores < scores[leader]).sum(axis=1)
    return [
        Gap(place, leader, float(gaps[place]), critical, int(lost[place]))
        for place in np.flatnonzero(gaps >= critical).tolist()
    ]


def within_margin(scores: np.ndarray, margin: float) -> bool:
    """Return whether the 95 % interval of each difference from the best mean lies within ±``margin``.

    ``scores`` as in ``significantly_worse``, ``margin`` in their unit. False before round MARGIN_ROUNDS: the spread of
    a few seeds is often small by chance.
    """
    if scores.shape[1] < MARGIN_ROUNDS or not np.isfinite(scores).all():
        return False
    best = int(np.argmax(scores.mean(axis=1)))
    others = np.delete(scores, best, axis=0)
    differences = paired_differences(scores[best], others) if len(others) else []
    return all(one.mean + one.half_width < margin for one in differences)


def _finite(score: float | None, sign: float) -> float:
    """Return a score so that higher is better; that of a failed run or of a loss that is not finite is -inf."""
    return sign * score if score is not None and np.isfinite(score) else -np.inf


@dataclass
class Racer:
    """A configuration in a race: its overrides without the seed, its score in each round, and how it left."""

    name: str  # the overrides that not all configurations have
    overrides: list[str]
    scores: list[float | None] = field(default_factory=list)  # as monitored; None: the run failed
    dropped: int | None = None  # the round after which it dropped out
    reason: str = ""


@dataclass
class Race:
    """A race as it stands: what race.json holds."""

    metric: str  # which decides, of the validation set
    mode: str  # max or min
    alpha: float
    margin: float | None  # percentage points
    max_seeds: int
    racers: list[Racer]
    ended: str = ""  # why; empty while it runs

    @property
    def active(self) -> list[Racer]:
        """Return the configurations still in the race."""
        return [racer for racer in self.racers if racer.dropped is None]

    @property
    def rounds(self) -> int:
        """Return the number of complete rounds."""
        return max((len(racer.scores) for racer in self.racers), default=0)

    def close_round(self) -> None:
        """Drop the configurations that are significantly worse than the leader, and end the race if it is decided.

        After a drop the rest is compared again, in a smaller field.
        """
        if self.ended or self._cannot_go_on():
            return
        while worse := significantly_worse(self._scores(), self.alpha):
            racers = self.active
            for gap in worse:
                racer = racers[gap.place]
                racer.dropped = self.rounds
                racer.reason = (
                    f"worse than {racers[gap.leader].name} in {gap.lost} of {self.rounds} seeds "
                    f"(rank sums differ by {gap.rank_sum:g}, critical value {gap.critical:g})"
                )
        scale, unit = (100.0, " percentage points") if self.metric.endswith("acc") else (1.0, "")
        if len(self.active) < 2:
            self.ended = "one configuration is left"
        elif self.margin and within_margin(self._scores() * scale, self.margin):
            self.ended = f"the rest differ by less than {self.margin:g}{unit} (95 % intervals)"
        elif self.rounds >= self.max_seeds:
            self.ended = f"race.max_seeds={self.max_seeds}"

    def _cannot_go_on(self) -> bool:
        """Return whether there is nothing to compare, and say why in ``ended``."""
        last = [racer.scores[-1] for racer in self.active]
        long = [one for one in self.active if len(one.scores) >= SEEDLESS_ROUNDS and None not in one.scores]
        same = [one for one in long if len(set(one.scores)) == 1]
        if not self.active or all(score is None for score in last):
            self.ended = "every run of this round failed"
        elif len(same) > 1:
            self.ended = f"{same[0].name} and {same[1].name} have the same result for each seed: compare single runs"
        return bool(self.ended)

    def _scores(self) -> np.ndarray:
        """Return the scores of the active configurations (configurations, rounds), higher is better."""
        sign = 1.0 if self.mode == "max" else -1.0
        return np.array([[_finite(score, sign) for score in racer.scores] for racer in self.active])

    def sentences(self) -> list[str]:
        """Return how the race went: a sentence on the whole, and one for each configuration that dropped out."""
        trained, grid = sum(len(racer.scores) for racer in self.racers), self.max_seeds * len(self.racers)
        left = "; ".join(racer.name for racer in self.active[:MOST_NAMED])
        left += f"; and {len(self.active) - MOST_NAMED} more" * (len(self.active) > MOST_NAMED)
        state = f"ended after {self.rounds} rounds: {self.ended}" if self.ended else f"runs, {self.rounds} rounds done"
        lines = [
            f"The race on {self.metric} {state}. In the race: {left or 'none'}. It took {trained} of the {grid} "
            f"trainings of the full grid ({100 * trained / grid:.0f} %).",
            f"About {100 * self.alpha:g} % of races, at most, drop any of several configurations whose accuracies on "
            "these validation images have the same distribution. Differences of configurations that dropped out are "
            "somewhat exaggerated.",
        ]
        lines += [f"{one.name} dropped out after round {one.dropped}: {one.reason}." for one in self._dropped()]
        return lines

    def _dropped(self) -> list[Racer]:
        return sorted((one for one in self.racers if one.dropped is not None), key=lambda one: one.dropped or 0)

    def write(self, folder: Path) -> None:
        """Write race.json."""
        write_text(folder / RACE, json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")


def read_race(folder: Path) -> Race | None:
    """Return the race whose runs a folder holds; None if there was none."""
    try:
        content = json.loads((folder / RACE).read_text(encoding="utf-8"))
        return Race(**content | {"racers": [Racer(**racer) for racer in content["racers"]]})
    except (OSError, ValueError, TypeError, KeyError):
        return None
