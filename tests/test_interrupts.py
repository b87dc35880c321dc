"""The first signal ends a command in order, a second one at once, whatever the main thread is
doing.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from vqvae_lightning import interrupts
from vqvae_lightning.interrupts import ENDING, PASSED_ON, Stopped

TERM, INT, HUP = signal.SIGTERM, signal.SIGINT, signal.SIGHUP


def code_of(body: Callable[[], None]) -> int:
    """How a forked process ends that runs `body` with signals caught: 0 if it comes to its end."""
    pid = os.fork()
    if pid == 0:
        code = 0
        try:
            with interrupts.caught(ends_process=True):
                body()
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def send(*numbers: int) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)


def sit_in_c() -> None:
    """A C call that no signal ends: it waits for a lock that it holds. SIGALRM kills what is
    left.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(5)
    lock = ctypes.create_string_buffer(64)
    for _ in range(2):
        ctypes.CDLL(None).pthread_mutex_lock(lock)


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_ends_a_command_with_its_code(number):
    assert code_of(lambda: send(number)) == 128 + number


@pytest.mark.parametrize("numbers", [(TERM, TERM), (INT, TERM), (HUP, INT)])
def test_a_second_signal_ends_a_process_that_waits_in_c(numbers):
    def body() -> None:
        interrupts.hold(limited=False, saved=None)
        # Apart: two equal signals that are both pending are one.
        for delay, number in zip((0.1, 0.3), numbers, strict=True):
            threading.Timer(delay, send, [number]).start()
        sit_in_c()

    started = time.monotonic()
    assert code_of(body) == 128 + numbers[1]
    assert time.monotonic() - started < 3


@pytest.mark.parametrize("held", [True, False])
def test_one_signal_ends_a_process_that_is_stuck(tmp_path, monkeypatch, capfd, held):
    monkeypatch.setattr(interrupts, "PATIENCE", 0.5)
    (tmp_path / "last.ckpt").touch()

    def body() -> None:
        if held:
            interrupts.hold(limited=True, saved=tmp_path / "last.ckpt")
        threading.Timer(0.1, send, [TERM]).start()
        sit_in_c()

    started = time.monotonic()
    assert code_of(body) == 143
    assert time.monotonic() - started < 3
    assert ("the last one is " + str(tmp_path) in capfd.readouterr().err) == held


def test_what_still_moves_after_a_signal_is_left_alone(monkeypatch):
    monkeypatch.setattr(interrupts, "PATIENCE", 0.5)

    def body() -> None:
        interrupts.hold(limited=True, saved=None)
        send(TERM)
        for _ in range(10):
            time.sleep(0.1)
            interrupts.moved()
        assert interrupts.received() == TERM
        os._exit(7)

    assert code_of(body) == 7


def test_a_signal_that_was_held_back_is_raised_when_asked_for():
    def body() -> None:
        interrupts.hold(limited=False, saved=None)
        send(HUP)
        interrupts.release()
        interrupts.end_if_received()

    assert code_of(body) == 129


@pytest.mark.parametrize("order", [(TERM, PASSED_ON + TERM), (PASSED_ON + TERM, TERM)])
def test_a_signal_that_was_passed_on_is_no_second_one(order):
    def body() -> None:
        interrupts.hold(limited=False, saved=None)
        send(*order)
        time.sleep(0.3)
        os._exit(interrupts.received())

    assert code_of(body) == TERM


@pytest.mark.parametrize("number", [INT, HUP])
def test_a_signal_that_was_ignored_stays_ignored(number):
    previous = signal.signal(number, signal.SIG_IGN)
    try:
        assert code_of(lambda: send(number)) == 0
    finally:
        signal.signal(number, previous)


def test_a_child_that_ignores_a_signal_is_killed_in_the_end(monkeypatch):
    monkeypatch.setattr(interrupts, "CHILD_PATIENCE", 0.5)
    signals = subprocess.Popen(
        ["sh", "-c", f"trap '' {PASSED_ON + TERM}; echo; exec sleep 20"], stdout=subprocess.PIPE
    )
    with signals:
        assert signals.stdout
        signals.stdout.readline()
        interrupts.pass_on(signals, TERM)
        assert signals.wait(2) == -signal.SIGKILL


@pytest.mark.skipif(sys.platform != "linux", reason="prctl")
def test_a_process_does_not_outlive_the_command_that_started_it(monkeypatch):
    """A forked command that forks one of its own, and dies."""
    reader, writer = os.pipe()
    parent = os.fork()
    if parent == 0:
        os.environ[interrupts.PARENT] = str(os.getpid())
        if os.fork() == 0:
            interrupts.follow_parent()
            os.write(writer, b"x")
            time.sleep(20)
            os._exit(0)
        time.sleep(20)
        os._exit(0)
    os.close(writer)
    assert os.read(reader, 1) == b"x"
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    started = time.monotonic()
    assert os.read(reader, 1) == b""
    os.close(reader)
    assert time.monotonic() - started < 5


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in ENDING]
    with interrupts.caught():
        assert [signal.getsignal(number) for number in ENDING] != before
    assert [signal.getsignal(number) for number in ENDING] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_in_another_thread_nothing_is_caught_and_nothing_breaks():
    seen = []

    def body() -> None:
        before = signal.getsignal(TERM)
        with interrupts.caught():
            interrupts.hold(limited=True, saved=None)
            seen.append(signal.getsignal(TERM) is before and interrupts.received() == 0)
            interrupts.release()

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [True]


def test_ctrl_c_leaves_a_program_that_is_no_command_as_a_keyboard_interrupt():
    with pytest.raises(KeyboardInterrupt), interrupts.caught():
        send(INT)
    with pytest.raises(Stopped), interrupts.caught():
        send(TERM)
    interrupts.moved()


def test_stopped_is_a_system_exit_with_the_code_of_a_shell():
    assert [Stopped(number).code for number in (TERM, INT, HUP)] == [143, 130, 129]
    assert Stopped(TERM, code=0).code == 0
