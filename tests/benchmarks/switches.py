"""What each switch behind the package's back gains: a patched method, a global setting, an environment variable.

A switch that saves less than 5 % of a step or less than a second of a command is to be removed.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from limits import DIGITS, copy_finished, run

BUSY = [sys.executable, "-c", "while True: pass"]
SPIN = "300000"  # GNU OpenMP's own number of turns before a waiting thread sleeps
HOOKS = {  # of the sweep: what to run before the command so that one is missing
    "with both": "",
    "without check_each_choice_once": "sys.modules['handwriting.sweeps.progress'].check_each_choice_once = lambda: 0",
    "without pass_over_finished": "r.pass_over_finished = lambda note: None",
}


def compare_spinning(root: Path, folder: Path, rounds: int) -> dict[str, list[float]]:
    """Return seconds of 300 steps of Net on MNIST by how long waiting threads spin, alone and beside a busy core."""
    seconds: dict[str, list[float]] = {}
    for _ in range(rounds):
        for busy in (False, True):
            for spin in ("", SPIN):
                beside = subprocess.Popen(BUSY) if busy else None
                environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
                environment |= {"HANDWRITING_DATA": str(root)} | ({"GOMP_SPINCOUNT": spin} if spin else {})
                try:
                    taken = _train(folder, environment)
                finally:
                    if beside:
                        beside.kill()
                        beside.wait()
                name = f"{'beside a busy core' if busy else 'alone'}, {'OpenMP’s' if spin else 'short'} spinning"
                seconds.setdefault(name, []).append(taken)
    return seconds


def seconds_of_a_finished_sweep(folder: Path, jobs: int = 200) -> dict[str, float]:
    """Return the seconds of a sweep in which all jobs are done, with the changes to Hydra and without one at a time."""
    folder = folder / "hooks"
    folder.mkdir()
    run(folder, *DIGITS, "seed=0", "name=done")
    copy_finished(folder / "outputs" / "done", jobs)
    lines = "import sys; sys.argv[0] = 'handwriting'; import handwriting.run as r\n{}\nr.main()"
    again = [*DIGITS[2:], f"seed=range({jobs})", "name=done"]
    return {name: run(folder, "-c", lines.format(without), *again) for name, without in HOOKS.items()}


def _train(folder: Path, environment: dict[str, str]) -> float:
    command = [sys.executable, "-m", "handwriting.run", "trainer.max_epochs=1", "name=spinning", "force=true"]
    command += ["trainer.limit_train_batches=300", "trainer.limit_val_batches=2", "trainer.limit_test_batches=2"]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    (result,) = folder.glob("outputs/spinning/*/result.json")
    return json.loads(result.read_text())["seconds"]
