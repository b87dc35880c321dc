"""Programs of tests/ and tests/programs, for what can only be seen in a process of its own."""

import atexit
import contextlib
import functools
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Self

TESTS = Path(__file__).parent


def command(name: str, *arguments: object) -> list[str]:
    """The command line of tests/programs/NAME.py."""
    return [sys.executable, str(TESTS / "programs" / f"{name}.py"), *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    """This process's variables and `more`, with which a program finds the modules of tests/.

    Without those of W&B, such as the address of this process's own service.
    """
    mine = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
    return {**mine, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **more}


@functools.cache
def forks() -> "subprocess.Popen[str]":
    """The process that programs are forks of: it ends when this one does."""
    server = subprocess.Popen(
        command("forks"),
        stdin=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )
    # What is still open at the end of Python would be a warning.
    atexit.register(server.communicate, timeout=10)
    return server


class Fork:
    """A Python program that runs, as `subprocess.Popen` would start it, without the seconds that
    its imports take.

    It leads a process group of its own, whose number is `pid`. As a context manager it leaves
    nothing behind.
    """

    def __init__(
        self, words: list[str], env: dict[str, str], stdin: str = "", cwd: Path | None = None
    ) -> None:
        self.words, self.cwd = words, cwd or Path.cwd()
        self.folder = Path(tempfile.mkdtemp(prefix="fork-"))
        self.streams = [self.folder / name for name in ("stdin", "stdout", "stderr")]
        for path in self.streams:
            path.write_text(stdin if path.name == "stdin" else "")
        said = self.folder / "said"
        os.mkfifo(said)
        # For writing, too: it can be opened before the other end is. Unbuffered, for `select`.
        self.said = os.fdopen(os.open(said, os.O_RDWR), "rb", buffering=0)
        request = {
            "words": words[1:],
            "environment": env,
            "folder": str(self.cwd),
            "streams": list(map(str, self.streams)),
            "said": str(said),
        }
        self.pid = 0
        server = forks()
        assert server.stdin is not None
        try:
            server.stdin.write(json.dumps(request) + "\n")
            server.stdin.flush()
            while not select.select([self.said], [], [], 1)[0]:
                if server.poll() is not None:
                    raise BrokenPipeError("the process that programs are forks of has ended")
            self.pid = int(self.said.readline())
        except BaseException as error:
            if isinstance(error, BrokenPipeError):
                forks.cache_clear()
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait(self, timeout: float = 120) -> "subprocess.CompletedProcess[str]":
        """How it ended, and what it wrote; after `timeout` seconds the test fails."""
        over = bool(select.select([self.said], [], [], timeout)[0])
        written = [path.read_text() for path in self.streams[1:]]
        assert over, "\n".join([f"{self.words} did not end in {timeout} s", *written])
        return subprocess.CompletedProcess(self.words, int(self.said.readline()), *written)

    def close(self) -> None:
        """Kills what is left of its group, and removes its files."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        self.said.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def free_port() -> str:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


def start_ranks(stack: contextlib.ExitStack, program: list[str], world: int) -> list[Fork]:
    """`world` processes of a program, as torchrun starts them; the stack ends them."""
    shared = {
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world),
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": free_port(),
        "TORCHELASTIC_RUN_ID": "test",
        "WANDB_MODE": "disabled",
    }
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world)]
    return [stack.enter_context(Fork(program, environment(**shared, **rank))) for rank in ranks]


def wait_for_all(processes: list[Fork], timeout: float = 120) -> None:
    """Waits until all have ended; one that ended with an error fails the test."""
    ended = [process.wait(timeout) for process in processes]
    assert not any(done.returncode for done in ended), [done.stderr for done in ended]


def run_fork(
    words: list[str],
    env: dict[str, str],
    stdin: str = "",
    cwd: Path | None = None,
    timeout: float = 120,
) -> "subprocess.CompletedProcess[str]":
    """What `subprocess.run` of a Python program gives: see `Fork`.

    Args:
        words: the command line, whose first word is this interpreter.
        env: all variables of the process.
        stdin: what it reads.
        cwd: its working folder; this process's unless given.
        timeout: seconds until it is killed and the test fails.
    """
    with Fork(words, env, stdin, cwd) as fork:
        return fork.wait(timeout)
