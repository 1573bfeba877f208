"""Measurements in turns: a drift of the machine's speed affects all sides, and each ratio is within one round."""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

SLOW = 0.75  # of its own median: a slower side was disturbed by other load, and its round is not counted


@dataclass
class Contest:
    """The speeds of each side in the counted rounds, and the number of rounds that are not counted."""

    unit: str
    speeds: dict[str, list[float]]
    disturbed: int

    def ratios(self, side: str, other: str) -> list[float]:
        """Return how many times as fast as the other a side was, round by round."""
        return [ours / theirs for ours, theirs in zip(self.speeds[side], self.speeds[other], strict=True)]

    def lines(self, reference: str) -> list[str]:
        """Return a table: median speed, its range, and the median ratio to the reference with its range."""
        lines = [f"{'':34} {self.unit:>9}   {'(range)':>17}   × {reference}"]
        for side, speeds in self.speeds.items():
            ratios = self.ratios(side, reference)
            lines.append(
                f"{side:34} {number(statistics.median(speeds)):>9}   "
                f"({number(min(speeds))} to {number(max(speeds))})".ljust(66)
                + f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            )
        rounds = len(next(iter(self.speeds.values())))
        return [*lines, f"{rounds} rounds; {self.disturbed} more were disturbed by other load and are not counted"]

    def as_json(self) -> dict[str, Any]:
        """Return everything measured."""
        return {"unit": self.unit, "speeds": self.speeds, "disturbed": self.disturbed}


def take_turns(sides: Mapping[str, Callable[[], float]], rounds: int, unit: str, warm_up: bool = True) -> Contest:
    """Call each side once a round, in an order that turns, until ``rounds`` count or twice as many have run.

    A side returns its speed, where more is better.
    """
    names = list(sides)
    if warm_up:
        for side in sides.values():
            side()
    measured: list[dict[str, float]] = []
    while len(measured) < 2 * rounds and len(undisturbed(measured)) < rounds:
        first = len(measured) % len(names)
        measured.append({name: sides[name]() for name in names[first:] + names[:first]})
    kept = undisturbed(measured)
    speeds = {name: [speed[name] for speed in kept] for name in names}
    return Contest(unit, speeds, len(measured) - len(kept))


def undisturbed(measured: list[dict[str, float]]) -> list[dict[str, float]]:
    """Return the rounds in which no side ran slower than SLOW of its median."""
    if not measured:
        return []
    medians = {name: statistics.median(speed[name] for speed in measured) for name in measured[0]}
    return [speed for speed in measured if all(speed[name] >= SLOW * medians[name] for name in speed)]


def number(value: float) -> str:
    """Return a number with three significant digits, or as an integer from 100."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
