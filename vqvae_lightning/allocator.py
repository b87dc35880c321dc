"""What becomes of freed memory: for the next step of a training, and at the end of a process."""

import atexit
import ctypes
import gc
import platform

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


def keep_freed_memory() -> None:
    """Lets glibc keep freed memory for the next step; does nothing under another C library.

    By default glibc returns large blocks to the system at each step, and the next step has to map
    and zero every page anew. The price is a higher peak: 862 MB instead of 749 in a CIFAR-10
    training (experiments/benchmarks/README.md).
    """
    set_malloc({M_TRIM_THRESHOLD: -1, M_MMAP_MAX: 0})


def end_soon() -> None:
    """Has this process look once for unreachable objects at its end, where Python does so again
    and again, the last times in vain: of what a training imports that takes a second.

    What is unreachable by then is finalized. What a module still holds, in a cycle, is not: a file
    of a plugin belongs into a `with`.
    """
    atexit.unregister(_collect_once)
    atexit.register(_collect_once)


def _collect_once() -> None:
    gc.collect()
    gc.freeze()


def set_malloc(parameters: dict[int, int]) -> None:
    """Sets parameters of glibc's malloc by their numbers in malloc.h.

    Does nothing under another C library.
    """
    if platform.libc_ver()[0] == "glibc":
        for parameter, value in parameters.items():
            ctypes.CDLL(None).mallopt(parameter, value)
