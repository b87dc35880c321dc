"""Programs of tests/programs, for what can only be seen in a process of its own."""

import os
import sys
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
