"""`show_help.py`: makes the text of `vqvae --help`, and prints whether that imported torch."""

import sys

from vqvae_lightning.cli import parser

if __name__ == "__main__":
    parser().format_help()
    print("torch" in sys.modules)
