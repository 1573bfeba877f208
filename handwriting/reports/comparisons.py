"""Comparisons of configurations: which differences are significant, paired by seed, corrected for their number."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from handwriting.reports.groups import Setting
from handwriting.reports.stats import Difference, adjust_by_holm, paired_differences

METRIC = "test/acc"
LEVEL = 0.05  # of all claims of a report together


class Verdict(NamedTuple):
    """Two settings on the seeds that both have: the first has the higher mean."""

    better: Setting
    worse: Setting
    difference: Difference  # of accuracies, as fractions
    p: float  # corrected for the number of comparisons

    @property
    def shown(self) -> bool:
        """Return whether the difference is more than the seeds can explain."""
        return self.p < LEVEL

    def sentence(self, names: dict[str, str]) -> str:
        """Say it in words, in points of a percent; ``names`` has a short name for each label."""
        better, worse = names[self.better.label], names[self.worse.label]
        points = f"{100 * self.difference.mean:.2f} ± {100 * self.difference.half_width:.2f} points"
        folds = self.better.overlap or self.worse.overlap
        number = f"{self.difference.pairs} {'runs' if folds else 'seeds'}"
        if self.shown:
            return f"{better} beats {worse} by {points}, {number}."
        return f"{better} against {worse}: no difference shown ({points}, {number})."


def judge(settings: Sequence[Setting], against: Setting | None = None) -> list[Verdict]:
    """Compare every two configurations that share at least two seeds; or each with ``against`` alone.

    All of them count as comparisons, and none is left out for its results: chosen by test accuracy, a few would show
    what chance made. With ``against`` there are fewer, so it must be chosen before the others are trained.
    """
    scores = [setting.by_seed(METRIC) for setting in settings]
    seeds = sorted({seed for by_seed in scores for seed in by_seed})
    table = np.array([[by_seed.get(seed, np.nan) for seed in seeds] for by_seed in scores])  # (settings, seeds)
    steps = np.array([_step(setting) for setting in settings])
    overlaps = np.array([setting.overlap for setting in settings])
    pairs: list[tuple[int, int]] = []
    differences: list[Difference] = []
    for one, setting in enumerate(settings):
        if against and setting is not against:
            continue
        rows = table[:, ~np.isnan(table[one])]  # only its own seeds: with few in common, the table is mostly empty
        others = np.flatnonzero((~np.isnan(rows)).sum(axis=1) > 1)
        others = others[others != one] if against else others[others > one]
        if len(others):
            step, overlap = (np.maximum(each[one], each[others]) for each in (steps, overlaps))
            differences += paired_differences(rows[one], rows[others], step, overlap)
            pairs += [(one, other) for other in others.tolist()]
    chances = adjust_by_holm([difference.p for difference in differences])
    return [
        Verdict(settings[one], settings[other], difference, p)
        if difference.mean >= 0
        else Verdict(settings[other], settings[one], difference._replace(mean=-difference.mean), p)
        for (one, other), difference, p in zip(pairs, differences, chances, strict=True)
    ]


def sentences_on(
    verdicts: Sequence[Verdict], names: dict[str, str], against: Setting | None = None, most: int = 5
) -> list[str]:
    """Return the first comparisons in words, and how many of all are significant; ``names`` is that of ``sentence``."""
    sentences = [verdict.sentence(names) for verdict in verdicts[:most]]
    if len(verdicts) > most:
        sentences.append(f"{len(verdicts) - most:,} more pairs are in differences.csv.")
    if len(verdicts) > 1:
        significant = sum(verdict.shown for verdict in verdicts)
        which = f"{len(verdicts):,} comparisons" + (f" with {names[against.label]}" if against else "")
        sentences.append(
            f"{significant:,} of {which} {'is' if significant == 1 else 'are'} significant: at 5 % over all of them "
            "(paired t-tests, Holm's correction). Each ± is a 95 % interval of that difference alone."
        )
    return sentences


def _step(setting: Setting) -> float:
    """Return the accuracy of one test image, the smallest step of METRIC."""
    counts = [run.record.get("images", {}).get("test") or 1_000_000 for run in setting.done]
    return 1 / min(counts, default=1_000_000)


def short_names(settings: Sequence[Setting], keys: Sequence[str]) -> dict[str, str]:
    """Return a name for each label: its value alone where only one key differs, as adam of optim=adam."""
    prefix = f"{keys[0]}=" if len(keys) == 1 else ""
    return {setting.label: setting.label.removeprefix(prefix) for setting in settings}
