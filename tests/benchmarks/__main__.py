"""make bench: how fast and how small this package is, as ratios measured side by side.

python tests/benchmarks [--only TABLE …] [--rounds N] [--busy] [--json]; the tables are steps, characters, sweep, best,
limits, switches and gpu.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import ordinary  # noqa: F401  (keeps the environment as it is now)

from handwriting.utils.hardware import processor, use_machine

TABLES = ("steps", "characters", "sweep", "best", "limits", "switches", "gpu")
REAL = "real MNIST and characters"


def find_data(folder: Path) -> tuple[Path, str]:
    """Return the folder of MNIST and the characters, and a description; random images if one is missing."""
    from speed import write_random_sets

    from handwriting.data.files import data_root

    root = data_root()
    raw, characters = root / "MNIST" / "raw" / "train-images-idx3-ubyte", root / "characters" / "characters.mat"
    if raw.is_file() and characters.is_file():
        return root, REAL
    return write_random_sets(folder / "data"), "random images of the shape of MNIST and the characters (no real ones)"


@contextlib.contextmanager
def busy_core() -> Iterator[None]:
    """Keep a core busy, as a browser or another training would."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def main() -> None:
    """Measure the selected tables and print them."""
    parser = argparse.ArgumentParser(prog="python tests/benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=TABLES, default=TABLES)
    parser.add_argument(
        "--rounds", type=int, default=7, help="for steps and characters (7); a sweep has at most 3, many minutes each"
    )
    parser.add_argument(
        "--busy", action="store_true", help="keep one core busy with another process during the measurement"
    )
    parser.add_argument("--json", action="store_true", help="print JSON; the tables go to stderr")
    options = parser.parse_args()
    say: Callable[..., None] = partial(print, file=sys.stderr, flush=True) if options.json else print
    with tempfile.TemporaryDirectory() as name, busy_core() if options.busy else contextlib.nullcontext():
        use_machine()  # before torch is imported
        import torch

        threads = f"CPU, {torch.get_num_threads()} threads"
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else threads
        device += ", one core kept busy by another process" if options.busy else ""
        folder = Path(name)
        root, data = find_data(folder)
        chip = processor()
        instructions = ", ".join(chip["instructions"] or ["instructions unknown"])
        say(f"torch {torch.__version__}, {device}; {data}\n{chip['name']}: {instructions}\n")
        results: dict[str, Any] = {"torch": torch.__version__, "device": device, "processor": chip, "data": data}
        for table in options.only:
            if table == "best" and data != REAL:
                say("best: needs real images; not measured\n")
                continue
            if table == "gpu" and not torch.cuda.is_available():
                say("gpu: needs a CUDA device; not measured\n")
                continue
            results[table] = MEASURES[table](root, folder, options.rounds, say)
    if options.json:
        print(json.dumps(results, indent=1))


def measure_steps(root: Path, folder: Path, rounds: int, say: Callable[..., None]) -> dict[str, Any]:
    """Net on MNIST."""
    from speed import PLAIN_LAST, compare_on_mnist, has_bf16

    contest = compare_on_mnist(root, folder, rounds)
    say("Training steps of Net on MNIST, batch 64", *contest.lines(PLAIN_LAST), sep="\n")
    _say_goals(say, contest.as_json()["speeds"])
    say("bf16-mixed: " + ("measured" if has_bf16() else "this machine has no instructions for it; not measured") + "\n")
    return contest.as_json()


def measure_characters(root: Path, folder: Path, rounds: int, say: Callable[..., None]) -> dict[str, Any]:
    """CharNet on the characters."""
    from speed import PLAIN_LAST, compare_on_characters

    contest = compare_on_characters(root, folder, rounds)
    say("Training steps of CharNet on the characters, batch 64, each image with a random affine map")
    say(*contest.lines(PLAIN_LAST), "", sep="\n")
    return contest.as_json()


def measure_sweep(root: Path, folder: Path, rounds: int, say: Callable[..., None]) -> dict[str, Any]:
    """A whole sweep."""
    from speed import has_bf16
    from sweep import FOUR, compare_sweeps

    contest = compare_sweeps(root, folder, min(rounds, 3), has_bf16())
    say("Four optimizers, one epoch each, from the shell prompt to the report (ours also validates and draws it)")
    say(*contest.lines(FOUR), "", sep="\n")
    return contest.as_json()


def measure_best(root: Path, folder: Path, rounds: int, say: Callable[..., None]) -> dict[str, Any]:
    """Time to a good accuracy on MNIST."""
    from best import compare_to_the_best

    results = compare_to_the_best(folder, root)
    say("MNIST, seconds of training (and from the shell prompt) to the test accuracy")
    for name, result in results.items():
        say(f"{name:42} {result.accuracy:8.2%} {result.training:8.1f} s ({result.since_prompt:.1f} s)")
    naive, ours = results.values()
    training, prompt = naive.training / ours.training, naive.since_prompt / ours.since_prompt
    say(f"{training:.0f} times as long in training, {prompt:.0f} times from the prompt\n")
    return {name: vars(result) for name, result in results.items()}


def measure_limits(root: Path, folder: Path, rounds: int, say: Callable[..., None]) -> dict[str, Any]:
    """Start, memory, scale."""
    import limits

    start = limits.seconds_to_start(folder, 5)
    say(
        "Seconds to start (goal: 2; of predict 3)",
        *(f"{name:34} {limits.median_of(times)}" for name, times in start.items()),
        sep="\n",
    )
    peak, sizes = limits.megabytes_of_a_run(folder, root), limits.megabytes_of_a_sweep(folder, root)
    say(f"\nPeak memory of a run on MNIST        {peak:,.0f} MB (goal: 1,200)")
    say(f"Growth from the 1st to the {len(sizes)}th job   {sizes[-1] - sizes[0]:,.0f} MB (goal: 50)\n")
    again = limits.seconds_a_finished_job(folder, (100, 200, 300))
    say(
        "A finished job when its sweep is repeated",
        *(f"{n:6,} runs  {1000 * s:.0f} ms" for n, s in again.items()),
        sep="\n",
    )
    compared = limits.seconds_to_compare(folder, (100, 300, 1000))
    say("compare, runs of 10 epochs (goal: 15 s for 1,000)")
    say(*(f"{count:6,} runs  {seconds:.1f} s" for count, seconds in compared.items()), "", sep="\n")
    return {"start": start, "peak_mb": peak, "mb_after_each_job": sizes, "finished_job": again, "compare": compared}


def measure_switches(root: Path, folder: Path, rounds: int, say: Callable[..., None]) -> dict[str, Any]:
    """What each switch behind the package's back gains."""
    import switches

    spun = switches.compare_spinning(root, folder, min(rounds, 3))
    say("Seconds of 300 training steps of Net on MNIST, by how long waiting threads spin")
    say(*(f"{name:42} {statistics.median(times):.1f}" for name, times in spun.items()), "", sep="\n")
    swept = switches.seconds_of_a_finished_sweep(folder)
    say(
        "Seconds of a sweep of 200 finished jobs",
        *(f"{name:42} {one:.1f}" for name, one in swept.items()),
        "",
        sep="\n",
    )
    return {"spinning": spun, "finished_sweep": swept}


def measure_gpu(root: Path, folder: Path, rounds: int, say: Callable[..., None]) -> dict[str, Any]:
    """Net and GlyphNet on a CUDA device; with a single round, only part of the table."""
    from gpu import compare_on_gpu

    return compare_on_gpu(root, folder, say, whole=rounds > 1)


def _say_goals(say: Callable[..., None], speeds: Mapping[str, list[float]]) -> None:
    from speed import NAIVE, NAIVE_ALONE, PACKAGE, PLAIN_LAST, TEMPLATE, TEMPLATE_ALONE

    goals = ((PLAIN_LAST, 0.92), (NAIVE, 1.6), (TEMPLATE, 2.0), (NAIVE_ALONE, 1.6), (TEMPLATE_ALONE, 2.0))
    for other, goal in goals:
        ratio = statistics.median(a / b for a, b in zip(speeds[PACKAGE], speeds[other], strict=True))
        say(f"{PACKAGE} / {other}: {ratio:.2f} (goal: {goal})")


MEASURES = {
    "steps": measure_steps,
    "characters": measure_characters,
    "sweep": measure_sweep,
    "best": measure_best,
    "limits": measure_limits,
    "switches": measure_switches,
    "gpu": measure_gpu,
}

if __name__ == "__main__":
    main()
