"""SIGTERM, Ctrl-C and SIGHUP: the first one ends the command in order, a second one at once.

```
signal ─┬► handler, in the main thread: raises `Stopped`; a training waits for the end of its step
        └► a byte in a pipe ─► thread: ends the process at the second signal, or if it is stuck
```

The thread is there because no Python handler runs while the main thread waits in a C call, such as
a collective that another rank does not answer. A signal that was ignored at the start (`nohup`, a
job in the background) stays ignored.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# Seconds without a sign of life between the first signal and the end of the process.
PATIENCE = 30.0
# Seconds for a command's child to end after the signal: a training may have a validation to finish.
CHILD_PATIENCE = 60.0
# A signal that one of our processes passes to another has another number. It is never taken for the
# user's second signal: a terminal and a scheduler send theirs to both processes.
PASSED_ON = getattr(signal, "SIGRTMIN", 0)
# The process that started this one, if it is one of ours.
PARENT = "VQVAE_PARENT"
PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Stopped(SystemExit):
    """The end of a command by signal `number`; the exit code is 128 + number, or `code`."""

    def __init__(self, number: int, code: int | None = None) -> None:
        super().__init__(128 + number if code is None else code)
        self.number = number


class _Signals:
    """The state of this process; there is at most one, `_current`."""

    def __init__(self) -> None:
        self.received = 0
        self.held = False
        self.limited = True
        self.saved: Path | None = None
        self.moved = time.monotonic()
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.writer, False)

    def install(self) -> None:
        kept = [n for n in ENDING if signal.getsignal(n) not in (signal.SIG_IGN, None)]
        numbers = sorted({*kept, *(PASSED_ON + n for n in ENDING)} if PASSED_ON else kept)
        self.wakeup = signal.set_wakeup_fd(self.writer, warn_on_full_buffer=False)
        self.previous: dict[int, Any] = {n: signal.signal(n, self.receive) for n in numbers}
        threading.Thread(target=self.watch, name="signals", daemon=True).start()

    def remove(self) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self.wakeup)
        os.close(self.writer)  # the thread reads the end of the pipe

    def receive(self, number: int, frame: FrameType | None) -> None:
        if not self.received:
            self.received = number - PASSED_ON if number > PASSED_ON else number
            if not self.held:
                self.end()

    def end(self) -> None:
        """Raises `Stopped`. A rank that our first process started leaves the end to that
        process.
        """
        if _follows and os.environ.get("LOCAL_RANK", "0") != "0":
            os.kill(os.getppid(), PASSED_ON + self.received)
        else:
            raise Stopped(self.received)

    def watch(self) -> None:
        first = signals = 0
        while True:
            if not select.select([self.reader], [], [], self.left() if first else None)[0]:
                if self.limited and self.left() <= 0:
                    self.give_up(first)
                continue
            numbers = os.read(self.reader, 64)
            if not numbers:
                os.close(self.reader)
                return
            for number in numbers:
                signals += number in ENDING
                if signals == 2:
                    os._exit(128 + number)
                if not first and (number in ENDING or number - PASSED_ON in ENDING):
                    first = number - PASSED_ON if number > PASSED_ON else number
                    self.moved = time.monotonic()

    def left(self) -> float:
        """Seconds until the patience ends; 1 while there is no limit, to ask again."""
        return max(0.0, self.moved + PATIENCE - time.monotonic()) if self.limited else 1.0

    def give_up(self, number: int) -> None:
        name = signal.Signals(number).name
        line = f"vqvae: {name}, and nothing moved for {PATIENCE:.0f} s: the process ends"
        if self.saved and self.saved.is_file():
            line += f" without a checkpoint of this step; the last one is {self.saved}"
        with suppress(OSError):
            os.write(2, os.fsencode(line + "\n"))
        os._exit(128 + number)


_current: _Signals | None = None
# Whether the parent is a command of ours: a rank's first process, or a study.
_follows = False


@contextmanager
def caught(ends_process: bool = False) -> Iterator[None]:
    """Inside, a signal raises `Stopped` in the main thread.

    In another thread, where Python has no handlers, and inside another `caught` this does nothing.
    With `ends_process`, that of a command, the watch goes on after a signal, until the process has
    ended. Without it Ctrl-C leaves as the KeyboardInterrupt that a program or a notebook expects.
    """
    global _current
    if _current or not _in_main_thread():
        yield
        return
    _current = _Signals()
    _current.install()
    try:
        yield
    except Stopped as stop:
        if ends_process or stop.number != signal.SIGINT:
            raise
        raise KeyboardInterrupt from stop
    finally:
        if not (ends_process and _current.received):
            _current.remove()
            _current = None


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _own() -> _Signals | None:
    """The state, in the main thread: signals do not concern a training in another one."""
    return _current if _in_main_thread() else None


def hold(limited: bool, saved: Path | None) -> None:
    """From now on a signal is only noted, see `received`.

    If `limited`, the process ends when PATIENCE seconds pass after a signal without a call of
    `moved`, and names the checkpoint `saved`, if there is one.
    """
    if own := _own():
        own.held, own.limited, own.saved = True, limited, saved


def release() -> None:
    """A signal raises `Stopped` again."""
    if own := _own():
        own.held, own.limited, own.saved = False, True, None
    moved()


def wait() -> None:
    """Lifts the time limit after a first signal; a second one still ends the process."""
    if own := _own():
        own.limited = False


def received() -> int:
    """The number of the first signal; 0 if there was none."""
    own = _own()
    return own.received if own else 0


def moved() -> None:
    """Reports progress of the code that holds signals back, so that PATIENCE starts anew."""
    if own := _own():
        own.moved = time.monotonic()


def end_if_received() -> None:
    """Raises `Stopped` if a signal was noted before."""
    if (own := _own()) and own.received:
        own.end()


def pass_on(child: "subprocess.Popen[Any]", number: int) -> None:
    """Passes a signal on to a command that this one started, and waits for its end.

    After CHILD_PATIENCE seconds the command is killed.
    """
    if _current:
        _current.limited = False
    child.send_signal(PASSED_ON + number)
    try:
        child.wait(CHILD_PATIENCE)
    except subprocess.TimeoutExpired:
        child.kill()


def follow_parent() -> None:
    """On Linux this process is killed when the command of ours that started it has ended."""
    global _follows
    _follows = os.environ.get(PARENT) == str(os.getppid())
    if _follows and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.environ[PARENT] = str(os.getpid())
