"""python notebooks/claims.py [OUTPUTS]: the claims of claims.yaml, tested: claims.md, and claims.sh with the commands.

With a folder of outputs, its runs first replace the rows of their experiments in claims.csv.
"""

import argparse
import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from handwriting.reports.comparisons import LEVEL
from handwriting.reports.report import read_report
from handwriting.reports.stats import Difference, adjust_by_holm, paired_differences
from handwriting.runs.config import CONF
from handwriting.runs.record import RESULT, Run, has_influence, setting_of
from handwriting.utils.errors import UserError, exit_on_bad_input
from handwriting.utils.files import write_bytes, write_text

HERE = Path(__file__).resolve().parent
CSV, FIGURE = HERE / "claims.csv", HERE / "gradients.png"
NETWORKS = "claims/networks"  # whose gradient norms the figure shows
SPLIT = ", "  # between the overrides of a configuration; a list in one of them has commas without spaces
OF_SEVERAL: dict[str, Callable[..., float]] = {  # of the values of each metric that the runs of one seed have
    "mean": np.mean,
    "range": np.ptp,
    "gap": lambda values, others: abs(np.mean(values) - np.mean(others)),
}


class Value(NamedTuple):
    """A row of claims.csv: a metric of one run, or of one evaluation. ``images`` are those of its split, 0: unknown."""

    experiment: str
    configuration: str  # the swept overrides
    seed: int
    metric: str
    value: float
    images: int
    seconds: float
    device: str


class Tested(NamedTuple):
    """A claim with the mean of each side, their difference and its p, corrected for all claims that were run."""

    claim: dict[str, Any]
    planned: int
    pairs: int
    means: tuple[float, float] = (np.nan, np.nan)
    difference: Difference | None = None  # None: runs are missing
    p: float = 1.0

    @property
    def verdict(self) -> str:
        """Return confirmed, contradicted, inconclusive or not run."""
        if self.difference is None:
            return "not run"
        if self.p >= LEVEL:
            return "inconclusive"
        return "confirmed" if self.difference.mean > 0 else "contradicted"


def read_plan() -> dict[str, Any]:
    """Return claims.yaml."""
    return yaml.safe_load((HERE / "claims.yaml").read_text(encoding="utf-8"))


@cache
def sweep_of(experiment: str) -> list[str]:
    """Return the configurations that an experiment sweeps over; one without a name if it sweeps over nothing."""
    content = yaml.safe_load((CONF / "experiment" / f"{experiment}.yaml").read_text(encoding="utf-8"))
    params = content.get("hydra", {}).get("sweeper", {}).get("params", {})
    return [
        SPLIT.join(f"{key}={value}" for key, value in zip(params, values, strict=True))
        for values in product(*(str(values).split(",") for values in params.values()))
    ]


def metrics_of(claim: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Return for both sides of a claim what is computed and of which metrics: ("gap", ["val/acc", "test/acc"])."""
    sides = claim["metric"] if isinstance(claim["metric"], list) else [claim["metric"]] * 2
    found = [(side, re.fullmatch(r"(\w+)\((.*)\)", side)) for side in sides]
    return [(match[1], match[2].split(", ")) if match else ("mean", [side]) for side, match in found]


def collect(outputs: Path, plan: dict[str, Any]) -> list[Value]:
    """Return the values of all finished runs and evaluations that the claims need. Raises UserError."""
    if not outputs.is_dir():
        raise UserError(f"{outputs} is not a folder: give that of the runs, outputs.")
    values: list[Value] = []
    for experiment, settings in plan["experiments"].items():
        folder = outputs / experiment
        claims = [claim for claim in plan["claims"] if claim["experiment"] == experiment]
        metrics = list(dict.fromkeys(name for claim in claims for _, names in metrics_of(claim) for name in names))
        if any(folder.glob(f"*/{RESULT}")):
            values += _of_runs(folder, experiment, settings, metrics)
            values += _of_evaluations(folder, experiment, settings, metrics)
    return values


def _of_runs(folder: Path, experiment: str, settings: dict[str, Any], metrics: Sequence[str]) -> list[Value]:
    """Return the values of finished runs; runs with further overrides, such as short trials, are left out."""
    names = {frozenset(name.split(SPLIT)) - {""}: name for name in sweep_of(experiment)}
    repeat, values = settings.get("repeat", "seed"), []
    for run in [run for configuration in read_report(folder).configurations for run in configuration.done]:
        seed = run.settings[repeat]
        own = frozenset(override for override in run.overrides if has_influence(setting_of(override)))
        name = names.get(own - {f"experiment={experiment}", f"{repeat}={seed}"})
        images, device = run.record.get("images", {}), run.record.get("device", "")
        for metric in metrics:
            if name is not None and (value := metric_of(run, metric)) is not None:
                split = images.get(metric.split("/")[0], images.get("test", 0))
                values.append(Value(experiment, name, seed, metric, value, split, run.record["seconds"], device))
    return values


def metric_of(run: Run, metric: str) -> float | None:
    """Return a metric of result.json or, as train/loss@1 or train/loss@last, of metrics.csv; None if it has none."""
    name, _, epoch = metric.partition("@")
    if not epoch:
        return run.metrics.get(name)
    curves = run.curves()
    if name not in curves:
        return None
    rows = curves[["epoch", name]].dropna().set_index("epoch")[name]
    found = list(rows)[-1:] if epoch == "last" else list(rows[rows.index == int(epoch) - 1])
    return float(found[0]) if found else None


def _of_evaluations(folder: Path, experiment: str, settings: dict[str, Any], metrics: Sequence[str]) -> list[Value]:
    """Return the values of the evaluations of each seed; the last model of an evaluation is the ensemble."""
    values = []
    for name, seed in product(settings.get("evaluate", {}), range(settings["seeds"])):
        file = folder / "evaluation" / f"{name},seed={seed}" / "evaluation.json"
        if not file.is_file():
            continue
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
            *single, ensemble = [model["acc"] for model in record["models"].values()]
            found = {"ensemble": ensemble, "single": np.mean(single or [ensemble])}
            found |= {"seconds": record["speed"]["all_seconds"]} if "speed" in record else {}
            found = {f"{name}:{what}": float(value) for what, value in found.items()}
            images = int(record["images"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{file} is damaged: evaluate its runs again.") from error
        values += [Value(experiment, "", seed, one, found[one], images, 0.0, "") for one in metrics if one in found]
    return values


def judge(plan: dict[str, Any], values: Iterable[Value]) -> list[Tested]:
    """Return each claim with its paired t-test, corrected for all claims whose runs are complete."""
    by_experiment: dict[str, list[Value]] = {}
    for value in values:
        by_experiment.setdefault(value.experiment, []).append(value)
    tested = [_compare(plan, claim, by_experiment.get(claim["experiment"], [])) for claim in plan["claims"]]
    p_values = iter(adjust_by_holm([one.difference.p for one in tested if one.difference]))
    return [one._replace(p=next(p_values)) if one.difference else one for one in tested]


def _compare(plan: dict[str, Any], claim: dict[str, Any], values: Sequence[Value]) -> Tested:
    """Return the difference between both sides of a claim, paired by seed, unless a planned run is missing."""
    planned = plan["experiments"][claim["experiment"]]["seeds"]
    sides = zip((claim["more"], claim["than"]), metrics_of(claim), strict=True)
    more, than = (_by_seed(claim["experiment"], side, *metric, planned, values) for side, metric in sides)
    seeds = [seed for seed in range(planned) if seed in more and seed in than]
    if len(seeds) < planned:
        return Tested(claim, planned, len(seeds))
    one, other = ([side[seed] for seed in seeds] for side in (more, than))
    images = [value.images for value in values if value.images and in_percent(value.metric)]
    step = 1 / min(images) if images and in_percent(claim["metric"]) else 0.0
    (difference,) = paired_differences([one], [other], step)
    return Tested(claim, planned, planned, (float(np.mean(one)), float(np.mean(other))), difference)


def _by_seed(
    experiment: str, side: str | float, kind: str, names: Sequence[str], planned: int, values: Sequence[Value]
) -> dict[int, float]:
    """Return the value of one side of a claim for each seed of which all runs are there."""
    if not isinstance(side, str):
        return dict.fromkeys(range(planned), float(side))
    wanted = set(side.split(SPLIT)) - {""}
    runs = 1 if ":" in names[0] else sum(wanted <= set(name.split(SPLIT)) for name in sweep_of(experiment))
    found: dict[int, dict[str, list[float]]] = {}
    for value in values:
        if value.metric in names and wanted <= set(value.configuration.split(SPLIT)):
            found.setdefault(value.seed, {name: [] for name in names})[value.metric].append(value.value)
    whole = {seed: some for seed, some in found.items() if all(len(one) == runs for one in some.values())}
    return {seed: float(OF_SEVERAL[kind](*some.values())) for seed, some in whole.items()}


def in_percent(metric: str | list[str]) -> bool:
    """Return whether a metric is an accuracy."""
    return bool(re.search(r"acc\b|:ensemble|:single", str(metric)))


VERDICTS = ("confirmed", "contradicted", "inconclusive", "not run")
INTRODUCTION = """\
What five documents claim about training, tested. `python notebooks/claims.py` makes this file from
[claims.yaml](claims.yaml) and [claims.csv](claims.csv), which has every value. The documents are the optimizer study,
the characters notebook, the CCNet report, the course on street digits and the MNIST walk-through.

* **Measured effect**: the mean of both configurations, and the first minus the second, paired by seed, with its 95 %
  interval (Student's t). Accuracies are in percent, their differences in percentage points.
* **Verdict**: *confirmed* or *contradicted* if the difference is significant in the direction of the claim or in the
  opposite one, else *inconclusive*; *not run* if runs are missing. A difference is significant if the p-value of the
  paired t-test is below 0.05 after Holm's correction for all claims that were run. So at most 5 % of such tables have
  one or more false verdicts.
* The numbers of seeds were chosen before training. A race (`hydra/sweeper=race`) chooses them by the results, for which
  these tests are not valid; therefore there is none here.
* **Differences** are those from the document's own set-up, as far as it is known, and the same for both configurations.
  The documents do not say how many seeds they trained."""
FIGURE_TEXT = "![Gradient norms of each layer in the first epoch, with ReLU and with sigmoid](gradients.png)"
HOW = """\
`sh notebooks/claims.sh` trains everything, cheapest first, about {hours} hours for two jobs at a time on 2 slow
cores. It needs the extra `sweep`, and the data sets in `HANDWRITING_DATA`. Finished runs are skipped and interrupted
ones resume, so it can be stopped and started again; single lines of it work too. Then
`python notebooks/claims.py outputs` writes the files again."""


def markdown(plan: dict[str, Any], tested: Sequence[Tested]) -> str:
    """Return claims.md."""
    head = ["document", "claim", "command and comparison", "seeds", "measured effect", "verdict", "differences"]
    rows = [_row(plan, one) for one in tested]
    table = ["| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]]
    figure = [FIGURE_TEXT] if FIGURE.is_file() else []
    settings = plan["experiments"].items()
    costs = ["| command | hours, estimated |", "|---|--:|"]
    costs += [
        f"| `python -m handwriting.run -m {command_of(plan, name)}` | {one['hours']:g} |" for name, one in settings
    ]
    total = sum(one["hours"] for _, one in settings)
    how = HOW.format(hours=f"{total:.1f}")
    parts = ["# Claims", INTRODUCTION, count_verdicts(tested) + "."]
    parts += ["\n".join(table), *figure, "## How to run", how, "\n".join(costs)]
    return "\n\n".join(parts) + "\n"


def _row(plan: dict[str, Any], one: Tested) -> list[str]:
    claim, (more, than) = one.claim, one.means
    sides = [f"`{side}`" if side and isinstance(side, str) else f"{side}" for side in (claim["more"], claim["than"])]
    metrics = claim["metric"] if isinstance(claim["metric"], list) else [claim["metric"]] * 2
    both = [f"{metric} of {side}" if side else metric for metric, side in zip(metrics, sides, strict=True)]
    if metrics[0] == metrics[1] and all(sides):
        both[1] = sides[1]
    effect = ""
    if one.difference:
        scale, digits = (100, ".2f") if in_percent(metrics) else (1, ".4g")
        numbers = [format(scale * number, digits) for number in (more, than, one.difference.half_width)]
        effect = f"{numbers[0]} − {numbers[1]} = {scale * one.difference.mean:+{digits}} ± {numbers[2]}"
    seeds = f"{one.planned}" if one.pairs == one.planned else f"{one.pairs} of {one.planned}"
    command = f"`experiment={claim['experiment']}`: {' minus '.join(both)}"
    return [claim["document"], claim["claim"], command, seeds, effect, one.verdict, claim["differs"]]


def count_verdicts(tested: Sequence[Tested]) -> str:
    """Return how many claims have each verdict."""
    return ", ".join(f"{sum(one.verdict == verdict for one in tested)} {verdict}" for verdict in VERDICTS)


def command_of(plan: dict[str, Any], experiment: str) -> str:
    """Return the overrides that run an experiment."""
    settings = plan["experiments"][experiment]
    return f"experiment={experiment} '{settings.get('repeat', 'seed')}=range({settings['seeds']})'"


def script(plan: dict[str, Any]) -> str:
    """Return claims.sh."""
    lines = [
        "# What claims.md needs, cheapest first; made by claims.py. Finished runs are skipped, others resume.",
        'run() { python -m handwriting.run -m hydra/launcher=joblib hydra.launcher.n_jobs=2 "$@"; }',
    ]
    for experiment, settings in plan["experiments"].items():
        lines += ["", f"# about {settings['hours']:g} hours", f"run {command_of(plan, experiment)}"]
        for name, arguments in settings.get("evaluate", {}).items():
            out = f"out=outputs/{experiment}/evaluation/{name},seed=$seed"
            seeds = " ".join(map(str, range(settings["seeds"])))
            lines.append(f"for seed in {seeds}; do python -m handwriting.evaluate {arguments} {out}; done")
    return "\n".join([*lines, "", "python notebooks/claims.py outputs"]) + "\n"


def read_values() -> list[Value]:
    """Return the rows of claims.csv. Raises UserError if it is damaged."""
    try:
        with CSV.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        kinds = [str, str, int, str, float, int, float, str]
        return [Value(*(kind(row[key]) for kind, key in zip(kinds, Value._fields, strict=True))) for row in rows]
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{CSV} is damaged: delete it and run python notebooks/claims.py outputs.") from error


def as_csv(values: Iterable[Value]) -> str:
    """Return claims.csv."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([Value._fields, *values])
    return text.getvalue()


def draw_gradients(folder: Path) -> None:
    """Draw the gradient norm of each layer in the first epoch, of one run with ReLU and one with sigmoid."""
    from matplotlib.figure import Figure

    from handwriting.plots.style import as_png

    runs = {run.settings["model"]: run for one in read_report(folder).configurations for run in one.done}
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.set(yscale="log", xlabel="layer, from input to output", ylabel="gradient norm, mean of the first epoch")
    for model, label in {"net": "ReLU", "net_sigmoid": "sigmoid"}.items():
        if run := runs.get(model):
            layers = [name for name in run.curves() if name.startswith("grad/")]
            layers.sort(key=lambda name: (name.startswith("grad/classifier"), name))
            axes.plot(
                [name.removeprefix("grad/") for name in layers],
                [metric_of(run, f"{name}@1") or np.nan for name in layers],
                marker="o",
                label=f"{label}, seed {run.settings['seed']}",
            )
    axes.legend()
    write_bytes(FIGURE, as_png(figure))


def main(arguments: list[str] | None = None) -> None:
    """Write claims.md and claims.sh, and with a folder of outputs first claims.csv; exit code 2 for bad input."""
    parser = argparse.ArgumentParser(prog="python notebooks/claims.py", description=__doc__)
    parser.add_argument("outputs", nargs="?", type=Path, help="the folder of the runs: outputs")
    with exit_on_bad_input():
        outputs = parser.parse_args(arguments).outputs
        plan = read_plan()
        values = read_values() if CSV.is_file() else []
        if outputs:
            found = collect(outputs, plan)
            new = {value.experiment for value in found}
            values = sorted([value for value in values if value.experiment not in new] + found)
            write_text(CSV, as_csv(values))
            if NETWORKS in new:
                draw_gradients(outputs / NETWORKS)
        tested = judge(plan, values)
        write_text(HERE / "claims.md", markdown(plan, tested))
        write_text(HERE / "claims.sh", script(plan))
        print(count_verdicts(tested))


if __name__ == "__main__":
    main()
