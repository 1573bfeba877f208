"""How long until MNIST is read well: the student's script up to its best epoch, and experiment=mnist_fast."""

import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import ordinary
from sweep import STUDENT, seconds_from_prompt


@dataclass(frozen=True)
class Reading:
    """A share of the test part read right, the seconds of training it took, and those since the shell prompt."""

    accuracy: float
    training: float
    since_prompt: float


def student_at_its_best(folder: Path, root: Path, epochs: int) -> Reading:
    """Run the student's script with Adam; return its best epoch, which it knows by looking at the test part."""
    command = [sys.executable, str(STUDENT), str(root), "adam", "--epochs", str(epochs)]
    readings, start = [], time.perf_counter()
    with subprocess.Popen(
        command, cwd=folder, env=ordinary.ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as script:
        for line in script.stdout or []:  # adam epoch 1 test 0.9834 after 49.6 s
            words = line.split()
            readings.append(Reading(float(words[4]), float(words[6]), time.perf_counter() - start))
    if script.returncode or len(readings) < epochs:
        raise RuntimeError(f"{' '.join(command)}: exit code {script.returncode} after {len(readings)} epochs")
    return max(readings, key=lambda reading: reading.accuracy)  # of equals the first


def one_pass(folder: Path, root: Path, seed: int) -> Reading:
    """Run experiment=mnist_fast in a process of its own, to the end of its report."""
    command = ["-m", "handwriting.run", "experiment=mnist_fast", f"seed={seed}"]
    seconds = seconds_from_prompt(folder, root, command)
    result = json.loads(next(folder.glob("outputs/mnist_fast/*/result.json")).read_text())
    return Reading(result["metrics"]["test/acc"], result["seconds"], seconds)


def compare_to_the_best(folder: Path, root: Path, epochs: int = 10, seeds: int = 3) -> dict[str, Reading]:
    """Run both; return the student's best, and mean accuracy and median seconds of ours over the seeds."""
    best = student_at_its_best(folder, root, epochs)
    ours = [one_pass(folder, root, seed) for seed in range(seeds)]
    middle = Reading(
        statistics.mean(reading.accuracy for reading in ours),
        statistics.median(reading.training for reading in ours),
        statistics.median(reading.since_prompt for reading in ours),
    )
    return {f"student's script, the best of {epochs} epochs": best, f"experiment=mnist_fast, {seeds} seeds": middle}
