"""Time to a good accuracy on MNIST: the naive script up to its best epoch, and experiment=mnist_fast."""

import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import ordinary
from sweep import NAIVE, seconds_from_prompt


@dataclass(frozen=True)
class Result:
    """Test accuracy, seconds of training, and seconds since the shell prompt."""

    accuracy: float
    training: float
    since_prompt: float


def naive_at_its_best(folder: Path, root: Path, epochs: int) -> Result:
    """Run the naive script with Adam; return its best epoch by test accuracy."""
    command = [sys.executable, str(NAIVE), str(root), "adam", "--epochs", str(epochs)]
    results, start = [], time.perf_counter()
    with subprocess.Popen(
        command, cwd=folder, env=ordinary.ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as script:
        for line in script.stdout or []:  # adam epoch 1 test 0.9834 after 49.6 s
            words = line.split()
            results.append(Result(float(words[4]), float(words[6]), time.perf_counter() - start))
    if script.returncode or len(results) < epochs:
        raise RuntimeError(f"{' '.join(command)}: exit code {script.returncode} after {len(results)} epochs")
    return max(results, key=lambda result: result.accuracy)  # the first of equal ones


def one_pass(folder: Path, root: Path, seed: int) -> Result:
    """Run experiment=mnist_fast in a process of its own, to the end of its report."""
    command = ["-m", "handwriting.run", "experiment=mnist_fast", f"seed={seed}"]
    seconds = seconds_from_prompt(folder, root, command)
    record = json.loads(next(folder.glob("outputs/mnist_fast/*/result.json")).read_text())
    return Result(record["metrics"]["test/acc"], record["seconds"], seconds)


def compare_to_the_best(folder: Path, root: Path, epochs: int = 10, seeds: int = 3) -> dict[str, Result]:
    """Run both; return the best epoch of the naive script and the mean accuracy and median seconds of ours."""
    best = naive_at_its_best(folder, root, epochs)
    ours = [one_pass(folder, root, seed) for seed in range(seeds)]
    middle = Result(
        statistics.mean(result.accuracy for result in ours),
        statistics.median(result.training for result in ours),
        statistics.median(result.since_prompt for result in ours),
    )
    return {f"naive script, the best of {epochs} epochs": best, f"experiment=mnist_fast, {seeds} seeds": middle}
