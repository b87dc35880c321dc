"""Programs of tests/ and tests/programs, for what can only be seen in a process of its own."""

import functools
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

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
    return subprocess.Popen(
        command("forks"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )


def run_fork(
    words: list[str],
    env: dict[str, str],
    stdin: str = "",
    cwd: Path | None = None,
    timeout: float = 120,
) -> "subprocess.CompletedProcess[str]":
    """What `subprocess.run` of a Python program gives, without the seconds that its imports take.

    Args:
        words: the command line, whose first word is this interpreter.
        env: all variables of the process.
        stdin: what it reads.
        cwd: its working folder; this process's unless given.
        timeout: seconds until it is killed and the test fails.
    """
    server = forks()
    assert server.stdin is not None
    assert server.stdout is not None
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder) / name for name in ("stdin", "stdout", "stderr")]
        for path in streams:
            path.write_text(stdin if path.name == "stdin" else "")
        request = {
            "words": words[1:],
            "environment": env,
            "folder": str(cwd or Path.cwd()),
            "streams": list(map(str, streams)),
        }
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        if not select.select([server.stdout], [], [], timeout)[0]:
            os.killpg(server.pid, signal.SIGKILL)
            server.communicate()
            forks.cache_clear()
            raise subprocess.TimeoutExpired(words, timeout, *(p.read_text() for p in streams[1:]))
        code = int(server.stdout.readline())
        return subprocess.CompletedProcess(words, code, *(p.read_text() for p in streams[1:]))
