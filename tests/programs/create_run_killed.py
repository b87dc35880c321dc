"""`create_run_killed.py ROOT`: creates the run ROOT/a and kills itself before the folder gets its
name.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from vqvae_lightning.experiment import load_experiment
from vqvae_lightning.training.runs import Run


def kill(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    # The method is replaced on purpose, in this process only.
    Path.rename = kill  # type: ignore[method-assign, assignment]
    Run.create(load_experiment(None, [f"runs={sys.argv[1]}", "name=a"]))
