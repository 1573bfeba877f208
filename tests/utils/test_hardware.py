"""Threads and memory, configured before torch is imported; tested in separate processes."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from handwriting.utils.hardware import cores, is_zombie, processor, slow_precision

SHOW = """
from handwriting.utils.hardware import share_cores, use_machine
import sys
if len(sys.argv) > 1:
    share_cores(int(sys.argv[1]))
use_machine()
print("settled", flush=True)
import torch
print(torch.get_num_threads())
"""
SETTLED = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


class Settled(NamedTuple):
    """What torch and its OpenMP go by in a process of these settings: it imports torch, which takes seconds."""

    threads: int
    turns: str  # of a waiting thread before it sleeps


def settle(*arguments: str, load: Sequence[subprocess.Popen] = (), **environment: str) -> Settled:
    """Start such a process beside a load, which ends when the process has decided."""
    kept = {key: value for key, value in os.environ.items() if key not in SETTLED} | environment
    process = subprocess.Popen(
        [sys.executable, "-c", SHOW, *arguments],
        env=kept | {"OMP_DISPLAY_ENV": "verbose"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout
    said = process.stdout.readline()
    for busy in load:
        busy.kill()
    output, errors = process.communicate()
    assert (said, process.returncode) == ("settled\n", 0), errors
    return Settled(int(output), errors.partition("GOMP_SPINCOUNT = ")[2].partition("\n")[0])


@pytest.fixture(scope="module")
def alone() -> Settled:
    """Without settings of the user's, while two other processes take the cores."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        return settle(load=busy)
    finally:
        for process in busy:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def one_of_1000() -> Settled:
    """In one of a thousand parallel jobs, with a spin count of the user's."""
    return settle("1000", GOMP_SPINCOUNT="77")


@pytest.fixture(scope="module")
def given() -> Settled:
    """With a number of threads and a policy of waiting of the user's."""
    return settle("1", OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive")


def test_the_users_own_number_of_threads_is_kept(given: Settled):
    assert given.threads == 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to a core")
def test_no_more_threads_than_cores_that_the_process_may_use():
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(mine)})  # inherited by the process that is looked at
    try:
        assert settle().threads == 1
    finally:
        os.sched_setaffinity(0, mine)


@pytest.mark.long
@pytest.mark.skipif(cores() < 2, reason="one core: there is nothing to divide")
def test_the_threads_are_the_cores_divided_by_the_jobs_whatever_else_runs(alone: Settled, one_of_1000: Settled):
    assert alone.threads == cores()
    assert settle("2").threads == cores() // 2
    assert one_of_1000.threads == 1


@pytest.mark.skipif(sys.platform != "linux", reason="no /proc")
def test_a_process_that_ended_is_a_zombie_until_its_parent_notices():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert not is_zombie(child.pid, None)
    started = int(Path(f"/proc/{child.pid}/stat").read_text().split()[21])
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays unreaped
    assert is_zombie(child.pid, None)
    assert is_zombie(child.pid, (12345 << 64) | started)  # as filelock records it, with the number of the boot
    assert not is_zombie(child.pid, started + 1)
    child.communicate()
    assert not is_zombie(child.pid, None)


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="another OpenMP than GNU's")
def test_a_thread_that_waits_sleeps_soon_unless_the_environment_says_otherwise(
    alone: Settled, one_of_1000: Settled, given: Settled
):
    assert (alone.turns, one_of_1000.turns, given.turns) == ("'10000'", "'77'", "'0'")


@pytest.mark.parametrize(
    ("precision", "cpuinfo", "measured"),
    [
        ("bf16-mixed", "flags\t\t: fpu avx2 avx512f\n", "less than half the speed"),
        ("16-mixed", "flags\t\t: fpu avx2\n", "less than half the speed"),  # for Lightning bf16-mixed on a CPU
        ("bf16-mixed", "flags\t\t: fpu avx2 avx512f avx512_bf16\n", "0.76 times the speed"),
        ("bf16-true", "flags\t\t: fpu avx2 avx512f avx512_bf16 amx_bf16\n", ""),
        ("bf16-mixed", "Features\t: fp asimd bf16\n", ""),
        ("32-true", "flags\t\t: fpu avx2\n", ""),
        (64, "flags\t\t: fpu avx2\n", ""),
    ],
)
def test_bf16_on_an_x86_processor_without_amx_is_said_to_be_slow(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, precision: object, cpuinfo: str, measured: str
):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr("handwriting.utils.hardware._WARNED", set())
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    assert not slow_precision(precision, tmp_path / "of another system")
    said = slow_precision(precision, tmp_path / "cpuinfo")
    assert (bool(said), measured in said) == (bool(measured), True)
    assert not slow_precision(precision, tmp_path / "cpuinfo")  # not in each job of a sweep


def test_the_processor_is_known_by_its_name_and_instructions(tmp_path: Path):
    cpuinfo = tmp_path / "cpuinfo"
    one = "processor\t: {}\nmodel name\t: A Chip @ 2 GHz\nflags\t\t: fpu amx_bf16 avx2 sse2\n\n"
    cpuinfo.write_text(one.format(0) + one.format(1))
    found = processor(cpuinfo)
    assert (found["name"], found["instructions"]) == ("A Chip @ 2 GHz", ["sse2", "avx2", "amx_bf16"])
    elsewhere = processor(tmp_path / "of another system")
    assert elsewhere["name"]
    assert elsewhere["instructions"] is None
