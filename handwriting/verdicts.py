"""Which setting beats which, and whether that is shown: paired by seed, corrected for the number of comparisons."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from handwriting.groups import Setting
from handwriting.stats import Difference, adjust_by_holm, paired_difference

METRIC = "test/acc"
LEVEL = 0.05  # of all claims of a report together
MOST_PAIRS = 5000  # of more, only those with the best setting are compared


@dataclass(frozen=True)
class Verdict:
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
    """Compare every two settings, the best first, that share at least two seeds; or each with ``against`` alone.

    Fewer comparisons are corrected less: what all others are compared with should be chosen before it is trained.
    """
    scores = [(setting, setting.by_seed(METRIC)) for setting in settings]
    pairs = list(combinations([pair for pair in scores if len(pair[1]) > 1], 2))
    if against:
        pairs = [pair for pair in pairs if any(setting is against for setting, _ in pair)]
    elif len(pairs) > MOST_PAIRS:
        pairs = [pair for pair in pairs if pair[0] is pairs[0][0]]
    found: list[tuple[Setting, Setting, Difference]] = []
    for (first, values), (second, others) in pairs:
        seeds = sorted(values.keys() & others.keys())
        if len(seeds) < 2:
            continue
        step = 1 / first.done[0].record.get("images", {}).get("test", 1_000_000)
        pair = [values[seed] for seed in seeds], [others[seed] for seed in seeds]
        difference = paired_difference(*pair, step, max(first.overlap, second.overlap))
        if difference.mean < 0:  # on the seeds that both have, the order may be another
            first, second, difference = second, first, replace(difference, mean=-difference.mean)
        found.append((first, second, difference))
    chances = adjust_by_holm([difference.p for *_, difference in found])
    return [Verdict(*pair, p) for pair, p in zip(found, chances, strict=True)]


def short_names(settings: Sequence[Setting], keys: Sequence[str]) -> dict[str, str]:
    """Return a name for each label: its value alone where only one key differs, as adam of optim=adam."""
    prefix = f"{keys[0]}=" if len(keys) == 1 else ""
    return {setting.label: setting.label.removeprefix(prefix) for setting in settings}
