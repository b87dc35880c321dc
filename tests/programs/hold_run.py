"""`hold_run.py RUN`: holds the lock of a run folder until it is killed, and says when it has it."""

import sys
import time

from vqvae_lightning.training.runs import Run

if __name__ == "__main__":
    with Run.open(sys.argv[1]).lock():
        print("held", flush=True)
        time.sleep(60)
