"""`import_names.py`: imports the package, lists its names, and prints whether that took torch."""

import sys

import vqvae_lightning

if __name__ == "__main__":
    names = dir(vqvae_lightning)
    print("torch" in sys.modules, "load" in names, vqvae_lightning.__version__)
