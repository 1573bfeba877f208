"""A sweep that is killed several times has the same results in the end."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

pytestmark = pytest.mark.long
SWEEP = ["-m", "data=digits", "data.limit=1000", "optim=sgd,adam", "seed=0,1", "trainer.max_epochs=16"]
SWEEP += ["model.dropout=0.2"]
RACE = ["-m", "hydra/sweeper=race", "data=digits", "data.limit=300", "optim=sgd,adam,adadelta", "race.max_seeds=7"]
NUMBERS = ["-m", "data=street_demo", "data.images=400", "model=crnn,detector", "trainer.max_epochs=6", "augment=scene"]
NAMES = ("whole", "parts")
EIGHT = ["-m", "data=digits", "optim=sgd,adam,adagrad,adadelta", "seed=0,1", "trainer.max_epochs=20"]


def command(sweep: list[str], name: str) -> list[str]:
    return [sys.executable, "-m", "handwriting.run", *sweep, f"name={name}"]


def kill_at_random(sweep: list[str], folder: Path, times: int, takes: float, environment: dict[str, str]) -> int:
    """Start a sweep several times, kill it each time, and return how often it was still running."""
    moments = random.Random(0)
    killed = 0
    for _ in range(times):
        process = subprocess.Popen(
            command(sweep, "parts"),
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            process.wait(moments.uniform(0.05, 0.35) * takes)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.wait()
    return killed


def run_whole(sweep: list[str], folder: Path, name: str, environment: dict[str, str]) -> float:
    begun = time.monotonic()
    result = subprocess.run(
        command(sweep, name), cwd=folder, env=environment, capture_output=True, text=True, timeout=900
    )
    assert result.returncode == 0, result.stderr
    return time.monotonic() - begun


def check_equal(folder: Path) -> None:
    records = [json.loads(path.read_text()) for path in folder.glob("outputs/parts/*/result.json")]
    assert sum(len(record.get("resumed", [])) for record in records) >= 1
    whole, parts = (pd.read_csv(folder / "outputs" / name / "summary.csv") for name in NAMES)
    pd.testing.assert_frame_equal(whole.drop(columns="seconds"), parts.drop(columns="seconds"), check_exact=True)
    for path in folder.glob("outputs/whole/*/metrics.csv"):
        first, second = pd.read_csv(path), pd.read_csv(folder / "outputs" / "parts" / path.parent.name / path.name)
        pd.testing.assert_frame_equal(first, second, check_like=True, check_exact=True)


@pytest.mark.parametrize(("sweep", "times"), [(SWEEP, 10), (NUMBERS, 5), (RACE, 8)], ids=["digits", "numbers", "race"])
def test_a_sweep_killed_at_random_moments_ends_as_an_undisturbed_one(tmp_path: Path, sweep: list[str], times: int):
    takes = run_whole(sweep, tmp_path, "whole", dict(os.environ))
    assert kill_at_random(sweep, tmp_path, times, takes, dict(os.environ)) >= 0.8 * times
    run_whole(sweep, tmp_path, "parts", dict(os.environ))
    check_equal(tmp_path)
    whole, parts = (
        sorted(path.read_text() for path in (tmp_path / "outputs" / one).glob("race.json")) for one in NAMES
    )
    assert whole == parts


def test_a_sweep_killed_beside_a_busy_core_has_the_accuracies_of_an_undisturbed_one(tmp_path: Path):
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}  # as a user has it
    takes = run_whole(EIGHT, tmp_path, "whole", environment)
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        assert kill_at_random(EIGHT, tmp_path, 5, takes, environment) >= 4
        run_whole(EIGHT, tmp_path, "parts", environment)
    finally:
        busy.kill()
        busy.wait()
    check_equal(tmp_path)
