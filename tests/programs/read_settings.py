"""`read_settings.py`: reads an experiment, and prints whether that imported Lightning."""

import sys

from vqvae_lightning.experiment import load_experiment

if __name__ == "__main__":
    load_experiment(None, ["kind=prior", "data.name=cifar10"])
    print("pytorch_lightning" in sys.modules)
