"""`answer_at_once.py`: makes all that is to be there at once, and prints what heavy it imported."""

import sys

from vqvae_lightning import cli
from vqvae_lightning.cli.completing import Completer

if __name__ == "__main__":
    cli.parser().format_help()
    assert Completer("train")("trainer.ste") == {"trainer.steps=": "optimizer steps"}
    cli.settings(["model.quantizer"])
    cli.runs(["runs=nowhere"])
    cli.announce(cli.parser().parse_args(["train", "mnist/vqvae"]))
    print("heavy:", sorted({"torch", "pytorch_lightning", "wandb", "sklearn"} & {*sys.modules}))
