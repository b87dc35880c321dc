"""`python launch_fake.py ROOT VERB …`: the command line on generated images, in processes that a test starts."""

import sys
from pathlib import Path

import fake_data

from vqvae_lightning.cli import main

if __name__ == "__main__":
    fake_data.install(Path(sys.argv[1]))
    main([*sys.argv[2:], *([f"data.root={sys.argv[1]}"] if sys.argv[2] == "train" else [])])
