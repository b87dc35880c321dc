"""What a process does with memory that it has freed."""

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


def keep_freed_memory() -> None:
    """Lets glibc keep what was freed for the next step, which wants as much again; elsewhere it does nothing.

    By itself it gives large blocks back to the system at each step, and every page of them has to be mapped and zeroed
    anew. The peak stays as it is; figures are in experiments/benchmarks/README.md.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(M_TRIM_THRESHOLD, -1)
        library.mallopt(M_MMAP_MAX, 0)
