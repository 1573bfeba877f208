"""hydra/sweeper=race on the command line: drops, resumes, continues, and refuses what is no race."""

import json
from pathlib import Path
from typing import Any

import pytest

SMALL = ["data=digits", "data.limit=100", "trainer.max_epochs=1", "model.widths=[4,8]", "model.hidden=[16]"]
RACE = ["-m", "hydra/sweeper=race", *SMALL, "trainer.enable_progress_bar=false"]
TREES = ["-m", "hydra/sweeper=race", "data=digits", "data.limit=200", "model=forest", "race.max_seeds=7"]
TREES += ["model.estimator.n_estimators=1,20"]


def race_in(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "outputs" / "digits" / "race.json").read_text())


def runs(folder: Path) -> list[str]:
    return sorted(path.parent.name for path in folder.glob("outputs/digits/*/result.json"))


@pytest.mark.long
def test_a_race_resumes_and_continues_with_more_seeds(main, tmp_path: Path):
    short = main(*TREES, "race.max_seeds=3")
    assert short.code == 0, short.errors
    assert race_in(tmp_path)["ended"] == "race.max_seeds=3"
    assert len(runs(tmp_path)) == 6
    assert runs(tmp_path)[0] == "data.limit=200,model=forest,model.estimator.n_estimators=1,seed=0"
    whole = main(*TREES)
    assert whole.code == 0, whole.errors
    assert whole.output.count("already done") == 6
    ended = race_in(tmp_path)
    assert ended["ended"] == "one configuration is left"
    assert [racer["dropped"] for racer in ended["racers"]] == [6, None]
    assert len(runs(tmp_path)) == 12
    assert "model.estimator.n_estimators=1 dropped out after round 6: worse than model.estimator.n_e" in whole.output
    assert "It took 12 of the 14 trainings" in whole.output
    assert (tmp_path / "outputs" / "digits" / "race.png").stat().st_size > 0
    assert "Nothing was trained" in main(*TREES).output
    assert race_in(tmp_path) == ended


def test_configurations_that_are_refused_drop_out_at_once(main, tmp_path: Path):
    outcome = main(*RACE, "data.batch_size=64,0", "race.max_seeds=5")
    assert outcome.code == 2
    (good, bad) = race_in(tmp_path)["racers"]
    assert (good["dropped"], len(good["scores"])) == (None, 1)
    assert bad["dropped"] == 1
    assert "data.batch_size=0 dropped out after round 1: its run failed: data.batch_size=0 must be" in outcome.output


@pytest.mark.long
@pytest.mark.parametrize(("failed", "rounds"), [("worst", 6), ("drop", 1)])
def test_failed_runs_rank_last_or_drop_out(main, tmp_path: Path, failed: str, rounds: int):
    outcome = main(*RACE, "optim=sgd", "optim.lr=0.01,1e30", f"race.failed={failed}", "race.max_seeds=8")
    assert outcome.code == 1
    assert [racer["dropped"] for racer in race_in(tmp_path)["racers"]] == [None, rounds]


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["optim=adam"], "A race needs two or more configurations"),
        (["optim=sgd,adam", "seed=3"], "A race chooses the seeds"),
        (["optim=sgd,adam", "seed=0,1"], "A race chooses the seeds"),
        (["data=digits,mnist"], "on the same validation images: give data one value"),
        (["data.val_fraction=0.1,0.2"], "on the same validation images: give data.val_fraction one value"),
        (
            ["monitor.metric=val/acc,val/loss"],
            "by the same metric on the same validation images: give monitor.metric one",
        ),
        (["optim=sgd,adam", "name=a,b"], "give name one value"),
        (["race.alpha=0.05,0.1"], "give race.alpha one value"),
        (["optim=sgd,adam", "race.alpha=2"], "race.alpha=2 must be"),
        (["optim=sgd,adam", "race.max_seeds=1"], "race.max_seeds=1 must be"),
        (["optim=sgd,adam", "race.failed=best"], "race.failed=best must be worst or drop"),
        (["optim=sgd,adam", "race.margin=0"], "race.margin=0 must be"),
        (["optim=sgd,adm"], "optim=adm is not a choice"),
    ],
)
def test_what_is_no_race_is_refused(main, tmp_path: Path, overrides: list[str], sentence: str):
    outcome = main(*RACE, *overrides)
    assert outcome.code == 2
    assert sentence in outcome.errors
    assert not runs(tmp_path)


def test_settings_of_a_race_are_refused_without_one(main, tmp_path: Path):
    outcome = main(*SMALL, "race.max_seeds=3")
    assert outcome.code == 2
    assert "race.max_seeds=3 has no effect without a race: add -m hydra/sweeper=race" in outcome.errors
    assert not runs(tmp_path)


def test_a_race_without_validation_is_refused(main, tmp_path: Path):
    outcome = main(*RACE, "optim=sgd,adam", "data.val_fraction=0")
    assert outcome.code == 2
    assert "A race decides by val/acc, which the run" in outcome.errors
