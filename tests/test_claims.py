"""notebooks/claims.py: the verdicts on made-up runs, their error rate, and the committed files."""

import importlib.util
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from statsmodels.stats.multitest import multipletests

from handwriting.runs.config import CONF, choices_of

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
spec = importlib.util.spec_from_file_location("claims", NOTEBOOKS / "claims.py")
assert spec is not None
assert spec.loader is not None
claims: Any = importlib.util.module_from_spec(spec)
spec.loader.exec_module(claims)

PLAN = claims.read_plan()
OPTIMIZERS = ("sgd", "adam", "adadelta", "adagrad")
EXPERIMENT = "claims/optimizers"


def plan_of(*sides: tuple[Any, Any], metric: Any = "test/acc", experiment: str = EXPERIMENT, **more: Any) -> Any:
    """A plan with six seeds and a claim for each pair of configurations."""
    common = {"document": "study", "claim": "", "experiment": experiment, "metric": metric, "differs": ""}
    rows = [common | {"more": more, "than": than} for more, than in sides]
    return {
        "experiments": {experiment: {"seeds": 6, "hours": 1} | more},
        "claims": rows,
    }


def optim(more: str, than: str) -> tuple[str, str]:
    return f"optim={more}", f"optim={than}"


def values_of(table: dict[str, Any]) -> list[Any]:
    return [
        claims.Value(EXPERIMENT, f"optim={name}", seed, "test/acc", value, 10_000, 1.0, "cpu")
        for name, values in table.items()
        for seed, value in enumerate(values)
    ]


@pytest.mark.parametrize("experiment", PLAN["experiments"])
def test_every_claim_compares_configurations_that_its_experiment_trains(experiment: str):
    assert experiment in choices_of("experiment")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", [f"experiment={experiment}"], return_hydra_config=True)
    assert config.name == experiment, "its runs lie in outputs/ under this name"
    swept = [dict(word.split("=") for word in one.split(claims.SPLIT) if word) for one in claims.sweep_of(experiment)]
    params = {key: set(values.split(",")) for key, values in (config.hydra.sweeper.params or {}).items()}
    assert {key: {one[key] for one in swept} for key in swept[0]} == params, "as Hydra composes it"
    own = [claim for claim in PLAN["claims"] if claim["experiment"] == experiment]
    assert own
    for side in [claim[name] for claim in own for name in ("more", "than") if isinstance(claim[name], str)]:
        wanted = {word for word in side.split(claims.SPLIT) if word}
        assert any(wanted <= set(one.split(claims.SPLIT)) for one in claims.sweep_of(experiment)), side
    evaluations = {
        name.split(":")[0] for one in own for _, names in claims.metrics_of(one) for name in names if ":" in name
    }
    assert evaluations == set(PLAN["experiments"][experiment].get("evaluate", {}))


def test_the_claims_cost_at_most_eight_hours_and_the_cheapest_come_first():
    hours = [one["hours"] for one in PLAN["experiments"].values()]
    assert sum(hours) <= 8
    assert hours == sorted(hours)
    assert {one["document"] for one in PLAN["claims"]} == {"study", "notebook", "report", "course", "walk-through"}


def test_the_committed_files_are_what_the_values_give():
    tested = claims.judge(PLAN, claims.read_values())
    assert (NOTEBOOKS / "claims.md").read_text(encoding="utf-8") == claims.markdown(PLAN, tested)
    assert (NOTEBOOKS / "claims.sh").read_text(encoding="utf-8") == claims.script(PLAN)


def test_the_script_starts_every_sweep_and_evaluates_every_seed(tmp_path: Path):
    python, calls = tmp_path / "python", tmp_path / "calls"
    python.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    python.chmod(0o755)
    subprocess.run(["sh", NOTEBOOKS / "claims.sh"], check=True, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    lines = [line.split()[1:] for line in calls.read_text().splitlines()]
    sweeps = [get_args_parser().parse_args(line[1:]) for line in lines if line[0] == "handwriting.run"]
    assert all(sweep.multirun for sweep in sweeps)
    assert [sweep.overrides[2] for sweep in sweeps] == [f"experiment={name}" for name in PLAN["experiments"]]
    evaluated = [line for line in lines if line[0] == "handwriting.evaluate"]
    assert len(evaluated) == sum(one["seeds"] for one in PLAN["experiments"].values() if "evaluate" in one)
    assert lines[-1] == ["outputs"]


def test_a_claim_is_confirmed_contradicted_inconclusive_or_not_run(tmp_path: Path, make_run):
    rng = np.random.default_rng(0)
    table = {name: mean + rng.normal(0, 0.004, 6) for name, mean in (("adam", 0.95), ("adagrad", 0.9), ("sgd", 0.95))}
    folder = tmp_path / EXPERIMENT
    for name, accuracies in table.items():
        for seed, accuracy in enumerate(accuracies):
            overrides = [f"experiment={EXPERIMENT}", f"optim={name}", f"seed={seed}", "fail_fast=true"]
            make_run(folder, f"optim={name}", f"seed={seed}", accuracy=accuracy, overrides=overrides)
    make_run(folder, "optim=adam", "seed=0", "data.batch_size=1", accuracy=0.1)  # a trial, which does not count
    make_run(folder, "optim=adadelta", "seed=0")
    make_run(folder, "optim=adadelta", "seed=1", status="failed")
    sides = [optim("adam", "adagrad"), optim("adagrad", "adam"), optim("sgd", "adam"), optim("adadelta", "sgd")]
    plan = plan_of(*sides)

    tested = claims.judge(plan, claims.collect(tmp_path, plan))

    assert [one.verdict for one in tested] == ["confirmed", "contradicted", "inconclusive", "not run"]
    pairs = [scipy.stats.ttest_rel(table[one], table[other]) for one, other in (("adam", "adagrad"), ("sgd", "adam"))]
    holm = multipletests([pairs[0].pvalue, pairs[0].pvalue, pairs[1].pvalue], method="holm")[1]
    assert [one.p for one in tested[:3]] == pytest.approx(holm)
    low, high = 100 * np.array(pairs[0].confidence_interval(0.95))
    text = claims.markdown(plan, tested)
    assert f" = +{(low + high) / 2:.2f} ± {(high - low) / 2:.2f} | confirmed |" in text
    assert "| 1 of 6 |  | not run |" in text


def test_at_most_5_percent_of_tables_without_effects_have_a_false_verdict():
    pairs = [optim(one, other) for number, one in enumerate(OPTIMIZERS) for other in OPTIMIZERS[:number]]
    plan, rng, tables = plan_of(*pairs), np.random.default_rng(0), 300
    false, uncorrected = 0, 0
    for _ in range(tables):
        tested = claims.judge(plan, values_of({name: rng.normal(0.98, 0.01, 6) for name in OPTIMIZERS}))
        false += any(one.verdict in ("confirmed", "contradicted") for one in tested)
        uncorrected += any(one.difference.p < 0.05 for one in tested)
    assert false / tables <= 0.05 + 2 * (0.05 * 0.95 / tables) ** 0.5
    assert uncorrected / tables > 0.1, "so this test would notice a missing correction"


def test_what_is_compared_can_be_an_epoch_a_range_or_a_gap(tmp_path: Path, make_run):
    for seed in range(6):
        for name, accuracy in (("adam", 0.9), ("sgd", 0.8)):
            make_run(tmp_path / EXPERIMENT, f"optim={name}", f"seed={seed}", accuracy=accuracy + seed / 1000)
            make_run(tmp_path / EXPERIMENT, f"optim={OPTIMIZERS[2 + (name == 'sgd')]}", f"seed={seed}", accuracy=0.7)

    def means(metric: Any, *sides: Any) -> list[float]:
        plan = plan_of(sides, metric=metric)
        (tested,) = claims.judge(plan, claims.collect(tmp_path, plan))
        return [round(mean, 4) for mean in tested.means]

    assert means("val/acc@1", "optim=adam", "optim=sgd") == [0.8925, 0.7925]
    assert means(["val/acc@last", "val/acc@2"], "optim=adam", "optim=adam") == [0.8975, 0.8975]
    assert means("range(test/acc)", "", "optim=sgd") == [0.2025, 0]
    assert means("gap(val/acc, test/acc)", "", 0.5) == [0.01, 0.5]
    assert np.isnan(means("val/acc@3", "optim=adam", "optim=sgd")).all()


def test_what_is_compared_can_be_of_evaluations(tmp_path: Path, make_run):
    make_run(tmp_path / EXPERIMENT, "optim=adam", "seed=0")
    models = {"0": {"acc": 0.9}, "1": {"acc": 0.92}, "mean of the 2": {"acc": 0.95}}
    record = {"models": models, "images": 10_000, "speed": {"all_seconds": 1.5}}
    folders = [tmp_path / EXPERIMENT / "evaluation" / f"all,seed={seed}" for seed in range(6)]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "evaluation.json").write_text(json.dumps(record))
    plan = plan_of(("", ""), metric=["all:ensemble", "all:single"], evaluate={"all": "outputs"})
    (tested,) = claims.judge(plan, claims.collect(tmp_path, plan))
    assert tested.means == pytest.approx((0.95, 0.91))
    assert tested.verdict == "confirmed"
    plan = plan_of((5, ""), metric="all:seconds", evaluate={"all": "outputs"})
    (tested,) = claims.judge(plan, claims.collect(tmp_path, plan))
    assert tested.means == pytest.approx((5, 1.5))
    (folders[3] / "evaluation.json").write_text("{}")
    with pytest.raises(claims.UserError, match=r"evaluation.json is damaged"):
        claims.collect(tmp_path, plan)


@pytest.fixture
def own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with claims.yaml, where the files are written."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    shutil.copy(NOTEBOOKS / "claims.yaml", folder)
    for name, path in {"HERE": folder, "CSV": folder / "claims.csv", "FIGURE": folder / "gradients.png"}.items():
        monkeypatch.setattr(claims, name, path)
    return folder


def test_runs_replace_the_rows_of_their_experiment_and_the_files_are_made_again(
    tmp_path: Path, own_files: Path, make_run
):
    csv = own_files / "claims.csv"
    csv.write_text(claims.as_csv(values_of({"adam": [0.9] * 10, "adagrad": [0.8] * 10})))
    for seed in range(5):
        for model, norm in (("net", 0.1), ("net_sigmoid", 0.001)):
            overrides = [f"model={model}", f"seed={seed}"]
            run = make_run(tmp_path / claims.NETWORKS, *overrides, fingerprint=f"{overrides}")
            record = json.loads((run / "result.json").read_text())
            record["choices"]["model"] = model
            (run / "result.json").write_text(json.dumps(record))
            (run / "metrics.csv").write_text(f"epoch,grad/classifier.2,grad/features.0.0\n0,1,{norm + seed / 1e5}\n")
    claims.main([str(tmp_path)])
    rows = claims.read_values()
    assert len([row for row in rows if row.experiment == EXPERIMENT]) == 20
    assert {row.configuration for row in rows if row.metric == "grad/features.0.0@1"} == {
        "model=net",
        "model=net_sigmoid",
    }
    text = (own_files / "claims.md").read_text()
    assert text.count("| confirmed |") == 2
    assert "](gradients.png)" in text
    assert (own_files / "gradients.png").is_file()

    (own_files / "claims.md").unlink()
    claims.main([])
    assert (own_files / "claims.md").read_text() == text


@pytest.mark.parametrize(
    ("csv", "arguments", "says"),
    [
        ("", ["nowhere"], "nowhere is not a folder: give that of the runs, outputs."),
        ("experiment,seed\na,b\n", [], "claims.csv is damaged: delete it and run python notebooks/claims.py outputs."),
    ],
)
def test_bad_input_is_one_sentence(own_files: Path, capsys: pytest.CaptureFixture[str], csv, arguments, says):
    (own_files / "claims.csv").write_text(csv)
    with pytest.raises(SystemExit) as stop:
        claims.main(arguments)
    assert stop.value.code == 2
    assert capsys.readouterr().err.strip().endswith(says)
    assert not (own_files / "claims.md").exists()
