"""What each switch behind the package's back gains: a patched method, a global setting, an environment variable.

A switch that saves less than 5 % of a step or less than a second of a command is to be removed.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

BUSY = [sys.executable, "-c", "while True: pass"]
SPIN = "300000"  # GNU OpenMP's own number of turns before a waiting thread sleeps


def compare_spinning(folder: Path, rounds: int) -> dict[str, list[float]]:
    """Return seconds of a run on the digits by how long waiting threads spin, alone and beside a busy core."""
    seconds: dict[str, list[float]] = {}
    for _ in range(rounds):
        for busy in (False, True):
            for spin in ("", SPIN):
                beside = subprocess.Popen(BUSY) if busy else None
                environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
                environment |= {"GOMP_SPINCOUNT": spin} if spin else {}
                try:
                    taken = _train_digits(folder, environment)
                finally:
                    if beside:
                        beside.kill()
                        beside.wait()
                name = f"{'beside a busy core' if busy else 'alone'}, {'OpenMP’s' if spin else 'short'} spinning"
                seconds.setdefault(name, []).append(taken)
    return seconds


def _train_digits(folder: Path, environment: dict[str, str]) -> float:
    command = [sys.executable, "-m", "handwriting.run", "data=digits", "trainer.max_epochs=5", "force=true"]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    (result,) = folder.glob("outputs/digits/trainer.max_epochs=5/result.json")
    return json.loads(result.read_text())["seconds"]
