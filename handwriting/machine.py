"""How the process uses its machine; called once, before torch takes its first memory. Imports no torch."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h
ONE_GIB = 1 << 30


def keep_freed_memory() -> None:
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
