"""A search with optuna: ranges by optimizer, the best by validation, and a study that resumes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest

pytestmark = pytest.mark.long
SEARCH = ["-m", "experiment=search", "hydra/sweeper=optuna", "data=digits", "data.limit=100", "trainer.max_epochs=1"]
RANGES = {"sgd": (0.01, 1.0), "momentum": (0.001, 0.3), "adam": (0.0001, 0.03), "adamw": (0.0001, 0.03)}


def search(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "handwriting.run", *SEARCH, *more]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)


def runs(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in folder.glob("outputs/search/*/result.json")]


def test_a_search_keeps_to_its_ranges_and_resumes(tmp_path: Path):
    assert search(tmp_path, "hydra.sweeper.n_trials=4").returncode == 0
    assert len(runs(tmp_path)) == 4
    again = search(tmp_path, "hydra.sweeper.n_trials=8")
    assert again.returncode == 0, again.stderr
    assert "job 4 of 4" in again.stdout  # four of the eight were done
    found = runs(tmp_path)
    assert len(found) == 8
    for run in found:
        low, high = RANGES[run["choices"]["optim"]]
        assert low <= run["settings"]["optim"]["lr"] <= high
        assert "search" not in run["settings"]
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{tmp_path}/outputs/search/study.db")
    assert study.best_value == max(run["metrics"]["val/acc"] for run in found)


def test_failed_trials_are_tolerated(tmp_path: Path):
    done = search(tmp_path, "hydra.sweeper.n_trials=3", "data.batch_size=choice(0,16)", "seed=0")
    assert done.returncode in (0, 2)
    assert "Traceback" not in done.stderr
    assert len(runs(tmp_path)) >= 2
