"""How the process uses its machine; settled once, before torch is imported. Imports no torch."""

import atexit
import contextlib
import ctypes
import gc
import os
import sys
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h
ONE_GIB = 1 << 30
SPINS = "10000"  # of a thread that waits for the others, before it sleeps: less than a millisecond
CPUINFO = Path("/proc/cpuinfo")
_WARNED: set[str] = set()  # of which precisions


def use_machine() -> None:
    """Settle how many threads torch computes with, how long they spin, and what becomes of the memory it frees."""
    _set_threads()
    _let_waiting_threads_sleep()
    _keep_freed_memory()


def has_bf16(cpuinfo: Path = CPUINFO) -> bool | None:
    """Return whether this processor has instructions for bf16; None where it is no x86, or the system does not tell."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):  # another system
        return None
    flags = next((line.split() for line in lines if line.startswith("flags")), None)
    return None if flags is None else "avx512_bf16" in flags or "amx_bf16" in flags


def slow_precision(precision: object, cpuinfo: Path = CPUINFO) -> str:
    """Say, once, that this processor has no instructions for bf16 where training is to be in it; else nothing.

    To be asked after torch is imported. Held to AVX-512 (ONEDNN_MAX_CPU_ISA), a step of experiment=mnist took 2.3 times
    as long in bf16 as in float32, and one of experiment=characters 2.7 times; with the instructions .75 and .68 times.
    """
    asked = str(precision)
    if "16" not in asked or asked in _WARNED or sys.modules["torch"].accelerator.is_available():
        return ""
    if has_bf16(cpuinfo) is not False:
        return ""
    _WARNED.add(asked)
    return "this processor has no instructions for bf16: trainer.precision=32-true trains at least twice as fast"


def pass_over_modules() -> None:
    """Let the search for unused memory pass over what the imports made, once a process: it stays to the end.

    The last search, at the end, takes it in: modules written in C++ complain of what they made and nobody freed.
    """
    if not gc.get_freeze_count():
        gc.freeze()
        atexit.register(gc.unfreeze)


def return_memory() -> None:
    """Give freed memory back to the kernel, once a job: what one leaves behind does not lie in the way of the next."""
    gc.collect()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def live_briefly() -> None:
    """Spare a process that ends in a few seconds the search for unused memory, its last one too.

    ``compare`` of 20 runs took 2.6 instead of 3.1 s of processor time: most of what it makes is modules.
    """
    gc.disable()
    atexit.register(gc.freeze)


def cores() -> int:
    """Return how many physical cores this process may use."""
    from joblib import cpu_count

    return cpu_count(only_physical_cores=True)


def share_cores(jobs: int) -> None:
    """Give each of ``jobs`` that run at the same time an equal number of cores, unless OMP_NUM_THREADS is set."""
    if not os.environ.get("OMP_NUM_THREADS"):
        os.environ["OMP_NUM_THREADS"] = str(max(cores() // jobs, 1))


def is_zombie(pid: int, started: int | None) -> bool:
    """Return whether a process has ended and only its parent has not noticed yet; False where that is not known.

    ``started`` is the process's start time as filelock records it: another process may have got its number.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return fields[0] in (b"Z", b"X") and (started is None or int(fields[19]) == started % 2**64)
    except (OSError, ValueError, IndexError):  # no such process, or no Linux
        return False


def _set_threads() -> None:
    """Let torch use the physical cores that this process may use, unless OMP_NUM_THREADS says otherwise.

    More threads than cores train at a third of the speed, and torch by itself sees every core of a machine of which a
    container may use two. The number never depends on the load of the moment: it changes the order of sums, and so the
    results.
    """
    share_cores(1)


def _let_waiting_threads_sleep() -> None:
    """Let a thread that waits for the others give its core away soon, unless the environment says otherwise.

    GNU's OpenMP lets it spin 300,000 times, some ten milliseconds. That costs nothing while each thread has a core of
    its own; but when something else takes one, the others spin at full speed for a thread that could have theirs.
    Net's steps, 2 threads on 2 cores: three times as fast beside a busy core or another training. Its price where
    nothing else runs: 3 % of the median in one sitting, 13 % in another, when the virtual machine's host took a sixth
    of the time, and 16 % of the small steps of experiment=mnist_fast (five runs each).
    """
    if not os.environ.get("OMP_WAIT_POLICY"):
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def _keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next step instead of giving it back to the kernel after each.

    Every step allocates and frees the same few megabytes; by default each of them is mapped, zeroed page by page
    and unmapped again: Net trained 1.3 times faster on 2 cores without that. Elsewhere it does nothing.
    """
    if sys.platform == "linux":
        try:
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(M_MMAP_THRESHOLD, ONE_GIB)
            libc.mallopt(M_TRIM_THRESHOLD, ONE_GIB)
        except (OSError, AttributeError):  # another C library
            pass
