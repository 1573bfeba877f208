"""How the process uses its machine; settled once, before torch is imported. Imports no torch."""

import atexit
import contextlib
import ctypes
import gc
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h
ONE_GIB = 1 << 30
SPINS = "10000"  # of a thread that waits for the others, before it sleeps: less than a millisecond
CPUINFO = Path("/proc/cpuinfo")
X86 = ("sse2", "avx2", "avx512f", "avx512_bf16", "amx_bf16")
INSTRUCTIONS = (*X86, "asimd", "sve", "bf16")  # that torch computes with; the last three of Arm
LONG_ENOUGH = 0.5  # seconds to look at what others do
_SETTLED: list[tuple[float, float, float]] = []  # what had been worked when this process set its threads itself
_WARNED: set[str] = set()  # of which precisions


def use_machine() -> None:
    """Settle how many threads torch computes with, how long they spin, and what becomes of the memory it frees."""
    _set_threads()
    _let_waiting_threads_sleep()
    _keep_freed_memory()


def leave_busy_cores() -> str:
    """Give up, once and after torch is imported, as many threads as others keep cores busy; say so, else nothing.

    All threads wait in each layer for the one that shares its core: beside a busy core Net's step took 27.4 ms with 2
    threads, 12.4 with one. What others do is seen over the seconds that the imports took. Where OMP_NUM_THREADS was
    set by whoever started this process, it stands.
    """
    if not _SETTLED:
        return ""
    before, all_cores = _SETTLED.pop(), cores()
    time.sleep(max(LONG_ENOUGH - (time.monotonic() - before[0]), 0))
    now = _worked()
    assert now is not None  # it told at the start
    seconds, busy, own = (late - early for late, early in zip(now, before, strict=True))
    threads = free_cores(seconds, busy, own, usable=len(os.sched_getaffinity(0)))
    if threads >= all_cores:
        return ""
    os.environ["OMP_NUM_THREADS"] = str(threads)  # for the processes that this one starts
    sys.modules["torch"].set_num_threads(threads)
    some = "1 thread" if threads == 1 else f"{threads} threads"
    return f"{some} on {all_cores} cores, as other programs keep the rest busy; OMP_NUM_THREADS={all_cores} takes all"


def processor(cpuinfo: Path = CPUINFO) -> dict[str, Any]:
    """Return the name of this processor, and which of INSTRUCTIONS it has; None of them where Linux does not tell."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):  # another system
        lines = []
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in reversed(lines))}
    flags = fields.get("flags", fields.get("Features"))  # of x86, of Arm
    found = None if flags is None else [name for name in INSTRUCTIONS if name in flags.split()]
    name = fields.get("model name") or platform.processor() or platform.machine()
    return {"name": name, "architecture": platform.machine(), "instructions": found}


def slow_precision(precision: object, cpuinfo: Path = CPUINFO) -> str:
    """Say, once, that training in bf16 is likely slower than in float32 on this processor; else nothing.

    To be asked after torch is imported. What was measured of an x86 processor, as times the speed of float32:
    0.76 with avx512_bf16 and without amx_bf16 (Net, batch 64); 0.43 and 0.37 held to AVX-512 without either
    (experiment=mnist and =characters); 1.2 to 1.4 on one that was not recorded, which AMX would explain.
    """
    asked = str(precision)
    if "16" not in asked or asked in _WARNED or sys.modules["torch"].accelerator.is_available():
        return ""
    instructions = processor(cpuinfo)["instructions"]
    if instructions is None or not set(X86).intersection(instructions) or "amx_bf16" in instructions:
        return ""
    _WARNED.add(asked)
    measured = "0.76 times the speed" if "avx512_bf16" in instructions else "less than half the speed"
    return (
        f"trainer.precision={asked} is likely slower than 32-true on this processor, which has no amx_bf16 "
        f"instructions: {measured} was measured on such a one"
    )


def with_threads(device: str) -> str:
    """Return a device with the number of torch's threads, as in 'cpu, 2 threads'; torch is imported already."""
    threads = sys.modules["torch"].get_num_threads()
    return f"{device}, {threads} thread{'s' if threads != 1 else ''}"


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


def free_cores(seconds: float, busy: float, own: float, usable: int) -> int:
    """Return how many of the ``usable`` cores others left free: in so many seconds all were ``busy`` so long together.

    ``own`` of that, in seconds too, was this process itself. At least one is free.
    """
    return max(round(usable - (busy - own) / seconds), 1)


def _set_threads() -> None:
    """Let torch use the physical cores that this process may use, unless OMP_NUM_THREADS says otherwise.

    More threads than cores train at a third of the speed, and torch by itself sees every core of a machine of which a
    container may use two. Jobs that run side by side share the cores: who starts them says so by OMP_NUM_THREADS
    (joblib does: cores ÷ jobs).
    """
    if not os.environ.get("OMP_NUM_THREADS"):
        os.environ["OMP_NUM_THREADS"] = str(cores())
        if now := _worked():
            _SETTLED.append(now)


def _worked() -> tuple[float, float, float] | None:
    """Return the time, and how long the cores that this process may use have worked, and itself: all in seconds.

    None where the system does not tell.
    """
    try:
        lines = Path("/proc/stat").read_text(encoding="ascii").splitlines()
        mine = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        counts = [[int(count) for count in line.split()[1:8]] for line in lines if line.split(" ")[0] in mine]
        ticks = sum(user + nice + system + irq + soft for user, nice, system, _idle, _wait, irq, soft in counts)
    except (OSError, ValueError, AttributeError):  # another system
        return None
    own = os.times()
    spent = own.user + own.system + own.children_user + own.children_system
    return time.monotonic(), ticks / os.sysconf("SC_CLK_TCK"), spent


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
