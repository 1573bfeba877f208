"""Threads and memory of the process, configured before torch is imported. Imports no torch."""

import contextlib
import ctypes
import functools
import gc
import os
import platform
import sys
from pathlib import Path
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h
ONE_GIB = 1 << 30
SPINS = "10000"  # of a waiting thread before it sleeps: less than a millisecond
CPUINFO = Path("/proc/cpuinfo")
X86 = ("sse2", "avx2", "avx512f", "avx512_bf16", "amx_bf16")
INSTRUCTIONS = (*X86, "asimd", "sve", "bf16")  # that torch uses; the last three are Arm's
_WARNED: set[str] = set()  # of which precisions


def use_machine() -> None:
    """Configure the number of torch's threads, how long they spin, and the reuse of freed memory."""
    _set_threads()
    _let_waiting_threads_sleep()
    _keep_freed_memory()


def processor(cpuinfo: Path = CPUINFO) -> dict[str, Any]:
    """Return the name of this processor, and which of INSTRUCTIONS it has; None if unknown."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):  # not Linux
        lines = []
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in reversed(lines))}
    flags = fields.get("flags", fields.get("Features"))  # of x86, of Arm
    found = None if flags is None else [name for name in INSTRUCTIONS if name in flags.split()]
    name = fields.get("model name") or platform.processor() or platform.machine()
    return {"name": name, "architecture": platform.machine(), "instructions": found}


def slow_precision(precision: object, cpuinfo: Path = CPUINFO) -> str:
    """Return, once, a warning that training in bf16 is likely slower than in float32 on this processor; else ''.

    To be called after torch is imported. What was measured of an x86 processor, as times the speed of float32:
    0.76 with avx512_bf16 and without amx_bf16 (Net, batch 64); 0.43 and 0.37 held to AVX-512 without either
    (experiment=mnist_best and =characters); 1.2 to 1.4 on one that was not recorded, which AMX would explain.
    """
    chosen = str(precision)
    if "16" not in chosen or chosen in _WARNED or sys.modules["torch"].accelerator.is_available():
        return ""
    instructions = processor(cpuinfo)["instructions"]
    if instructions is None or not set(X86).intersection(instructions) or "amx_bf16" in instructions:
        return ""
    _WARNED.add(chosen)
    measured = "0.76 times the speed" if "avx512_bf16" in instructions else "less than half the speed"
    return (
        f"trainer.precision={chosen} is likely slower than 32-true on this processor, which has no amx_bf16 "
        f"instructions: {measured} was measured on such a processor"
    )


def with_threads(device: str) -> str:
    """Return a device with the number of torch's threads, such as 'cpu, 2 threads'; torch must be imported."""
    threads = sys.modules["torch"].get_num_threads()
    return f"{device}, {threads} thread{'s' if threads != 1 else ''}"


@functools.cache
def freeze_imports() -> None:
    """Let the garbage collector skip the imported modules: a collection after a job then takes 0.2 s less."""
    gc.freeze()


def return_memory() -> None:
    """Return freed memory to the kernel after a job, so that the next job starts with a clean heap."""
    gc.collect()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def cores() -> int:
    """Return how many physical cores this process may use."""
    from joblib import cpu_count

    return cpu_count(only_physical_cores=True)


def share_cores(jobs: int) -> None:
    """Give each of ``jobs`` parallel jobs an equal number of cores, unless OMP_NUM_THREADS is set."""
    if not os.environ.get("OMP_NUM_THREADS"):
        os.environ["OMP_NUM_THREADS"] = str(max(cores() // jobs, 1))


def is_zombie(pid: int, started: int | None) -> bool:
    """Return whether a process is a zombie; False if unknown.

    ``started`` is the process's start time as filelock records it: another process may have got its number.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return fields[0] in (b"Z", b"X") and (started is None or int(fields[19]) == started % 2**64)
    except (OSError, ValueError, IndexError):  # no such process, or not Linux
        return False


def _set_threads() -> None:
    """Let torch use the physical cores that this process may use, unless OMP_NUM_THREADS says otherwise.

    More threads than cores train at a third of the speed, and torch by itself sees every core of a machine of which a
    container may use two. The number never depends on the load of the moment: it changes the order of sums, and so the
    results.
    """
    share_cores(1)


def _let_waiting_threads_sleep() -> None:
    """Let waiting threads release their core soon, unless the environment says otherwise.

    GNU's OpenMP lets them spin 300,000 times, about 10 ms. If another process takes a core, a waiting thread then
    spins on the core that the awaited thread could use. Training of 300 steps of Net, 2 threads on 2 slow cores,
    with what a training does before its first step, medians of three: beside a busy core 22 instead of 25 s, alone 9.0
    instead of 8.8 s. On another machine steps took a third of the time beside a busy core.
    `make bench BENCH="--only switches"` measures it.
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
