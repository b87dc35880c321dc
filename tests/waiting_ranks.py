"""Ranks as forks of a process that has imported everything, in place of new interpreters, each of
which would take seconds to import it again.
"""

import json
import os
import random
import signal
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import numpy as np
from lightning_fabric.utilities.rank_zero import rank_zero_only
from pytorch_lightning.strategies.launchers import subprocess_script


class Rank:
    """A child that waits for its variables: what is asked of a `subprocess.Popen`."""

    def __init__(self, pid: int, writer: int) -> None:
        self.pid, self.writer = pid, writer
        self.returncode: int | None = None

    def start(self, variables: Mapping[str, str]) -> "Rank":
        with os.fdopen(self.writer, "w") as pipe:
            pipe.write(json.dumps(dict(variables)))
        return self

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def as_if_new() -> None:
    """Does in a fork what a new interpreter with its variables does, but one thing: strings have
    the hashes that they have in the process it is a fork of.
    """
    ranks = [os.environ[name] for name in ("RANK", "LOCAL_RANK") if name in os.environ]
    cast(Any, rank_zero_only).rank = int(ranks[0]) if ranks else 0  # Lightning's, at its import
    random.seed()
    np.random.seed()


def keep_ranks_waiting(count: int) -> None:
    """Forks `count` ranks, which Lightning's launcher then starts.

    Returns at once, and in each rank when it is started. One that is not ends with this process.
    """
    waiting: list[Rank] = []
    for _ in range(count):
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            for end in (writer, *(rank.writer for rank in waiting)):
                os.close(end)
            with os.fdopen(reader) as pipe:
                variables = pipe.read()
            if not variables:
                os._exit(0)
            os.environ.clear()
            os.environ.update(json.loads(variables))
            as_if_new()
            return
        os.close(reader)
        waiting.append(Rank(pid, writer))
    started = SimpleNamespace(Popen=lambda *_, env, **__: waiting.pop(0).start(env))
    mock.patch.object(subprocess_script, "subprocess", started).start()
