"""What a process does with memory that it has freed."""

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


def keep_freed_memory() -> None:
    """Lets glibc keep what was freed for the next step, which wants as much again; elsewhere it
    does nothing.

    By itself it gives large blocks back to the system at each step, and every page of them has to
    be mapped and zeroed anew. The price is a higher peak: 862 MB instead of 749 in a CIFAR-10
    training (experiments/benchmarks/README.md).
    """
    set_malloc({M_TRIM_THRESHOLD: -1, M_MMAP_MAX: 0})


def set_malloc(parameters: dict[int, int]) -> None:
    """Sets parameters of glibc's malloc by their numbers in malloc.h; under another C library it
    does nothing.
    """
    if platform.libc_ver()[0] == "glibc":
        for parameter, value in parameters.items():
            ctypes.CDLL(None).mallopt(parameter, value)
