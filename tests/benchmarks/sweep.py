"""A sweep of four optimizers, one epoch each, from the shell prompt to the finished report."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import ordinary
from rounds import Contest, take_turns

OPTIMIZERS = ["sgd", "adam", "adagrad", "adadelta"]
NAIVE = Path(__file__).with_name("naive.py")
FOUR, ONE, PACKAGE, PACKAGE_BF16 = "naive, four processes", "naive, one process", "handwriting -m", "… bf16-mixed"


def seconds_from_prompt(folder: Path, root: Path, *commands: list[str]) -> float:
    """Run commands one after the other, from nothing; return the seconds from the shell prompt to the end."""
    shutil.rmtree(folder / "outputs", ignore_errors=True)
    environment = ordinary.ENVIRONMENT | {"HANDWRITING_DATA": str(root)}
    start = time.perf_counter()
    for command in commands:
        subprocess.run([sys.executable, *command], cwd=folder, env=environment, check=True, capture_output=True)
    return time.perf_counter() - start


def sweeps_per_hour(folder: Path, root: Path, *commands: list[str]) -> float:
    """Return how often commands, run one after the other, could be done in an hour."""
    return 3600 / seconds_from_prompt(folder, root, *commands)


def compare_sweeps(root: Path, folder: Path, rounds: int, bf16: bool) -> Contest:
    """Compare the naive script, as four processes and as one, with this package's sweep."""
    script = [str(NAIVE), str(root)]
    ours = ["-m", "handwriting.run", "-m", f"optim={','.join(OPTIMIZERS)}", "trainer.max_epochs=1"]
    sides = {
        FOUR: lambda: sweeps_per_hour(folder, root, *([*script, name] for name in OPTIMIZERS)),
        ONE: lambda: sweeps_per_hour(folder, root, [*script, *OPTIMIZERS]),
        PACKAGE: lambda: sweeps_per_hour(folder, root, ours),
    }
    if bf16:
        sides[PACKAGE_BF16] = lambda: sweeps_per_hour(folder, root, [*ours, "trainer.precision=bf16-mixed"])
    return take_turns(sides, rounds, "sweeps/h", warm_up=False)
