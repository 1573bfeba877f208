"""A sweep that is killed again and again ends as if nothing had happened."""

import json
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


def command(name: str) -> list[str]:
    return [sys.executable, "-m", "handwriting.run", *SWEEP, f"name={name}"]


def test_a_sweep_killed_at_ten_random_moments_ends_as_an_undisturbed_one(tmp_path: Path):
    begun = time.monotonic()
    subprocess.run(command("whole"), cwd=tmp_path, check=True, capture_output=True, timeout=600)
    takes = time.monotonic() - begun
    moments = random.Random(0)
    killed = 0
    for _ in range(10):
        process = subprocess.Popen(command("parts"), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(moments.uniform(0.05, 0.35) * takes)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.wait()
    assert killed >= 8
    result = subprocess.run(command("parts"), cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    records = [json.loads(path.read_text()) for path in tmp_path.glob("outputs/parts/*/result.json")]
    assert sum(len(record.get("resumed", [])) for record in records) >= 1
    whole, parts = (pd.read_csv(tmp_path / "outputs" / name / "summary.csv") for name in ("whole", "parts"))
    pd.testing.assert_frame_equal(whole.drop(columns="seconds"), parts.drop(columns="seconds"))
    for path in tmp_path.glob("outputs/whole/*/metrics.csv"):
        first, second = pd.read_csv(path), pd.read_csv(tmp_path / "outputs" / "parts" / path.parent.name / path.name)
        pd.testing.assert_frame_equal(first, second, check_like=True)
