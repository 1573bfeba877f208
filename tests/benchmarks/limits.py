"""Start time, memory, and the cost of each further run of a large folder."""

import copy
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from handwriting.data.digits import read_digits

DIGITS = ["-m", "handwriting.run", "-m", "data=digits", "data.limit=100", "trainer.max_epochs=1"]


def run(folder: Path, *arguments: str, code: int = 0) -> float:
    """Run Python with arguments; return the seconds until it ended."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode != code:
        raise RuntimeError(f"{' '.join(arguments)}: exit code {done.returncode}\n{done.stderr}")
    return seconds


def seconds_to_start(folder: Path, rounds: int) -> dict[str, list[float]]:
    """Measure what should not wait for torch, and predict, which waits for torch but not for Lightning."""
    run(folder, *DIGITS, "name=one")
    (trained,) = (folder / "outputs" / "one").glob("*/")
    image = folder / "digit.png"
    Image.fromarray(255 - read_digits().test.images[0, 0].numpy()).save(image)
    runs = make_runs(folder / "twenty", 20, epochs=10, steps=844)
    commands = {
        "--help": (["-m", "handwriting.run", "--help"], 0),
        "a mistyped setting": (["-m", "handwriting.run", "optim.rate=1"], 2),
        "compare, 20 runs": (["-m", "handwriting.compare", str(runs)], 0),
        "predict, one image": (["-m", "handwriting.predict", str(trained), str(image)], 0),
        "import torch": (["-c", "import torch"], 0),
    }
    for arguments, code in commands.values():
        run(folder, *arguments, code=code)
    return {name: [run(folder, *line, code=code) for _ in range(rounds)] for name, (line, code) in commands.items()}


def megabytes_of_a_run(folder: Path, root: Path) -> float:
    """Return the peak resident size of a run on MNIST: one epoch, with validation, test and figures."""
    code = "import resource, runpy, sys; sys.argv = ['run', 'trainer.max_epochs=1', 'name=memory']\n"
    code += "try: runpy.run_module('handwriting.run', run_name='__main__')\n"
    code += "except SystemExit: pass\n"
    code += "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    environment = os.environ | {"HANDWRITING_DATA": str(root)}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    return int(done.stdout.split()[-1]) / 1024


def megabytes_of_a_sweep(folder: Path, root: Path, jobs: int = 40) -> list[float]:
    """Return the resident size after each job of a sweep in one process, 2,000 images of MNIST each."""
    (folder / "watch.py").write_text(
        "import os, pathlib, lightning\n"
        "class Watch(lightning.Callback):\n"
        "    def on_test_end(self, trainer, module):\n"
        "        pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])\n"
        "        with open('sizes.txt', 'a') as file:\n"
        "            file.write(f'{pages * os.sysconf(\"SC_PAGE_SIZE\") / 2**20}\\n')\n"
    )
    arguments = ["-m", "handwriting.run", "-m", f"seed=range({jobs})", "data.limit=2000", "trainer.max_epochs=1"]
    arguments += ["name=growth", "+callbacks.watch._target_=watch.Watch", "trainer.limit_test_batches=2"]
    environment = os.environ | {"HANDWRITING_DATA": str(root), "PYTHONPATH": str(folder)}
    subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, check=True)
    return [float(line) for line in (folder / "sizes.txt").read_text().split()]


def seconds_a_finished_job(folder: Path, counts: Sequence[int]) -> dict[int, float]:
    """Return the time per job of a sweep in which all jobs are done: the same command again.

    One job is really trained; the others are its copies under the names of their seeds.
    """
    run(folder, *DIGITS, "seed=0", "name=done")
    alone = run(folder, *DIGITS, "seed=0", "name=done")
    costs = {}
    for count in counts:
        copy_finished(folder / "outputs" / "done", count)
        costs[count] = (run(folder, *DIGITS, f"seed=range({count})", "name=done") - alone) / (count - 1)
    return costs


def seconds_to_compare(folder: Path, counts: Sequence[int]) -> dict[int, float]:
    """Return the time of compare for these numbers of runs of 10 epochs."""
    return {
        count: run(folder, "-m", "handwriting.compare", str(make_runs(folder / f"runs{count}", count, 10, 844)))
        for count in counts
    }


def copy_finished(folder: Path, count: int) -> None:
    """Copy the one finished run in a folder as the runs of other seeds, ``count`` in all."""
    from handwriting.runs.config import CONF, digest_of_request
    from handwriting.runs.record import fingerprint

    (first,) = (path for path in folder.iterdir() if path.name.endswith("seed=0,trainer.max_epochs=1"))
    record = json.loads((first / "result.json").read_text())
    for seed in range(1, count):
        copied = copy.deepcopy(record)
        settings = copied["settings"]
        settings["seed"] = settings["data"]["shuffle_seed"] = settings["augment"]["seed"] = seed
        copied["fingerprint"] = fingerprint(settings)
        copied["overrides"] = [*DIGITS[3:], f"seed={seed}", "name=done"]
        copied["asked"] = digest_of_request(copied["overrides"], [{"path": str(CONF), "schema": "file"}])
        target = folder / first.name.replace("seed=0", f"seed={seed}")
        if not target.exists():
            target.mkdir()
            shutil.copy(first / "metrics.csv", target)
            (target / "result.json").write_text(json.dumps(copied))


def make_runs(folder: Path, count: int, epochs: int, steps: int) -> Path:
    """Write the results of made-up runs, five seeds per configuration, with a loss every ten steps."""
    from handwriting.runs.record import fingerprint

    random = np.random.default_rng(0)
    for i in range(count):
        rate, seed = 0.001 * (1 + i // 5), i % 5
        target = folder / f"optim.lr={rate:g},seed={seed}"
        target.mkdir(parents=True)
        settings = {"seed": seed, "optim": {"lr": rate}, "data": {"name": "mnist", "shuffle_seed": seed}}
        settings |= {"model": {"widths": [32, 64], "hidden": [128]}, "trainer": {"max_epochs": epochs}}
        score = {f"{part}/{metric}": random.random() for part in ("train", "val", "test") for metric in ("loss", "acc")}
        record = {"fingerprint": fingerprint(settings), "settings": settings, "choices": {"optim": "adam"}}
        record |= {"overrides": [f"optim.lr={rate:g}", f"seed={seed}"], "status": "done", "started": "2026"}
        record |= {"metrics": score, "chosen_epoch": 9, "epochs": epochs, "seconds": 1.0, "parameters": 225_034}
        (target / "result.json").write_text(json.dumps(record, indent=1))
        lines = ["epoch,lr,step,train/acc,train/loss,train/loss_step,val/acc,val/loss"]
        for step in range(10, epochs * steps + 1, 10):
            lines.append(f",,{step},,,{random.random()},,")
        for epoch in range(epochs):
            values = random.random(4)
            lines.append(f"{epoch},0.001,{epoch * steps},{values[0]},{values[1]},,{values[2]},{values[3]}")
        (target / "metrics.csv").write_text("\n".join(lines) + "\n")
    return folder


def median_of(seconds: list[float]) -> str:
    """Return median and range as text."""
    return f"{statistics.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})"
