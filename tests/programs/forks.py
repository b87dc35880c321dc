"""`forks.py`: runs programs in forks of itself, so that what they import is paid for once.

A JSON line on stdin asks for each: its `words`, `environment` and `folder`, its `streams`, the
files of its stdin, stdout and stderr, and the pipe that is `said` its process number, and at its
end its exit code; negative: by that signal. W&B is not imported, for it reads its variables once.
"""

import contextlib
import gc
import json
import os
import runpy
import sys
from typing import Any

from waiting_ranks import as_if_new

from vqvae_lightning import cli as _cli  # noqa: F401
from vqvae_lightning.comparison import compare as _compare  # noqa: F401
from vqvae_lightning.evaluation import evaluate as _evaluate  # noqa: F401
from vqvae_lightning.training import train as _train  # noqa: F401


def become(request: dict[str, Any], said: int) -> None:
    """Makes this process the one that was asked for, until it ends."""
    os.setsid()
    os.write(said, f"{os.getpid()}\n".encode())
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    as_if_new()
    for number, path in enumerate(request["streams"]):
        flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_APPEND
        os.dup2(os.open(path, flags), number)
    sys.stdin, sys.argv = os.fdopen(0), request["words"]
    runpy.run_path(sys.argv[0], run_name="__main__")


def start(request: dict[str, Any]) -> None:
    """Forks the program and waits for it, so that `main` need not. Returns in the program only."""
    try:
        said = os.open(request["said"], os.O_WRONLY | os.O_NONBLOCK)
    except OSError:  # who asked for it is gone
        os._exit(0)
    pid = os.fork()
    if pid == 0:
        become(request, said)
        return
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with contextlib.suppress(BrokenPipeError):  # nobody waits any more
        os.write(said, f"{code}\n".encode())
    os._exit(0)


def main() -> None:
    # A fork that ends looks through all that it holds, and what it touches it has to copy first.
    gc.freeze()
    for line in sys.stdin:
        if os.fork() == 0:
            start(json.loads(line))
            return
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


if __name__ == "__main__":
    main()
