"""`python launch_fake.py ROOT COMMAND …`: the command line on generated images, in processes that a
test starts.

With the word `trainer.devices=N` the ranks that Lightning starts are forks: see waiting_ranks.py.
FAULT, a JSON mapping, says what goes wrong on the rank it names: the arguments of
`faults.install`. Its `patience` is that of every process.
"""

import json
import os
import sys
from pathlib import Path

import fake_data
from waiting_ranks import keep_ranks_waiting

from vqvae_lightning import interrupts
from vqvae_lightning.cli import main
from vqvae_lightning.comparison import many
from vqvae_lightning.training import tracking

if __name__ == "__main__":
    devices = [int(word.split("=")[1]) for word in sys.argv if word.startswith("trainer.devices=")]
    if devices and "WORLD_SIZE" not in os.environ:
        keep_ranks_waiting(devices[-1] - 1)
    tracking.START_TIMEOUT = tracking.FINISH_TIMEOUT = 5
    fake_data.install(Path(sys.argv[1]))
    many.COMMAND = (sys.executable, __file__, sys.argv[1])
    fault = json.loads(os.environ.get("FAULT", "{}"))
    interrupts.PATIENCE = fault.pop("patience", interrupts.PATIENCE)
    if fault and fault.pop("rank") == int(os.environ.get("LOCAL_RANK", "0")):
        import faults

        faults.install(**fault)
    main([*sys.argv[2:], *([f"data.root={sys.argv[1]}"] if sys.argv[2] == "train" else [])])
