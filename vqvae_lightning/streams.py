"""Standard streams that never fail: output that cannot be written costs no result.

A reader that has gone (`| head`), a full disk, a closed descriptor or an encoding without the
character would each be an exception in the middle of a training.
"""

import io
import os
import select
import sys
from typing import Any, TextIO


def protect_streams() -> None:
    """Makes stdout and stderr of this process streams that raise nothing when they are written to.

    A stream that was replaced before, by a test or a notebook, is left alone. Child processes
    inherit the descriptors, so a closed one is open for them too.
    """
    _open_standard_descriptors()
    if sys.stdout is sys.__stdout__:
        sys.stdout = protected(sys.stdout, 1)
    if sys.stderr is sys.__stderr__:
        sys.stderr = protected(sys.stderr, 2)


class _Lossy(io.FileIO):
    """A file descriptor that becomes /dev/null for good when it cannot be written."""

    def write(self, data: Any, /) -> int:
        try:
            written: int | None = super().write(data)
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
            return len(data)
        if written is not None:
            return written
        # The descriptor is non-blocking and its reader is slow.
        select.select([], [self], [])
        return self.write(data)


def protected(stream: TextIO | None, descriptor: int) -> TextIO:
    """A stream to `descriptor` that raises nothing, with the encoding and buffering of `stream`."""
    buffer = io.BufferedWriter(_Lossy(descriptor, "wb", closefd=False))
    if not isinstance(stream, io.TextIOWrapper):  # None: it was closed
        return io.TextIOWrapper(buffer, "utf-8", "backslashreplace")
    stream.flush()
    return io.TextIOWrapper(
        buffer,
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _open_standard_descriptors() -> None:
    """Opens /dev/null as those of 0, 1 and 2 that are closed: a file would get the number."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != descriptor:
                os.dup2(null, descriptor)
                os.close(null)
            os.set_inheritable(descriptor, True)
