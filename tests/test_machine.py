"""What is settled before torch is imported, in processes of their own."""

import os
import subprocess
import sys

import pytest

SHOW = "from handwriting.machine import use_machine; use_machine(); import torch; print(torch.get_num_threads())"


def threads(**environment: str) -> int:
    kept = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"} | environment
    return int(
        subprocess.run([sys.executable, "-c", SHOW], env=kept, capture_output=True, text=True, check=True).stdout
    )


def test_the_users_own_number_of_threads_stands():
    assert threads(OMP_NUM_THREADS="1") == 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to a core")
def test_no_more_threads_than_cores_that_the_process_may_use():
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(mine)})  # inherited by the process that is looked at
    try:
        assert threads() == 1
    finally:
        os.sched_setaffinity(0, mine)
