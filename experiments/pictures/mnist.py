"""`python -m experiments.pictures.mnist RUNS`: mnist.png and mnist_seven.png, of the runs of seed 0
that `make study DATASET=mnist` left in a folder.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from vqvae_lightning import load
from vqvae_lightning.data.images import ImageDataModule, to_float
from vqvae_lightning.pictures import grid_image, with_names
from vqvae_lightning.training.runs import Run

FOLDER = Path(__file__).parent
SEED = 0
COLUMNS = 16
# Of a kind: how its samples are called, without and with a learned p(z).
DRAWN = {
    "ae": "AE, N(0, I)",
    "ae_flow": "AE + flow",
    "vae": "VAE, N(0, I)",
    "vae_flow": "VAE + flow",
    "vqvae": "VQ-VAE, uniform",
    "prior": "VQ-VAE + prior",
    "prior_masked": "VQ-VAE + masked",
}
USUAL = ("ae", "vae", "vqvae", "prior")
RECONSTRUCTED = {"ae": "AE", "vae": "VAE", "vqvae": "VQ-VAE"}


def main(runs: Path) -> None:
    """Draws both pictures; the second has a row for each run that is there."""
    found = [kind for kind in DRAWN if (runs / f"{kind}-s0").is_dir()]
    if missing := [f"{kind}-s0" for kind in USUAL if kind not in found]:
        sys.exit(f"mnist: {runs} has no run {missing[0]}, wanted those of `make study`")
    modules = {kind: load(Run.open(runs / f"{kind}-s0")) for kind in found}
    samples = {kind: drawn(module) for kind, module in modules.items()}
    images = test_images(Run.open(runs / "ae-s0"))
    torch.manual_seed(SEED)
    with torch.no_grad():
        made = {name: modules[kind](images) for kind, name in RECONSTRUCTED.items()}
    usual = {DRAWN[kind]: samples[kind] for kind in USUAL}
    rows({"test images": images, **made, **usual}).save(FOLDER / "mnist.png")
    rows({DRAWN[kind]: samples[kind] for kind in found}).save(FOLDER / "mnist_seven.png")


def drawn(module: Any) -> Tensor:
    """A row of samples (COLUMNS, 1, 28, 28), of an AE too, which has no p(z): its network decodes
    z ~ N(0, I).
    """
    torch.manual_seed(SEED)
    with torch.no_grad():
        sampler = module.net if module.kind in RECONSTRUCTED else module
        return sampler.sample(COLUMNS)  # type: ignore[no-any-return]


def test_images(run: Run) -> Tensor:
    """The first of the test split, (COLUMNS, 1, 28, 28) in [-1, 1]."""
    experiment = run.experiment()
    data = ImageDataModule(experiment.data, experiment.seed)
    data.setup()
    return to_float(data.splits["test"].first(COLUMNS))


def rows(named: Mapping[str, Tensor]) -> Image.Image:
    """Rows of images with their names at the left."""
    return with_names(grid_image(torch.cat([*named.values()]), COLUMNS), [*named])


if __name__ == "__main__":
    main(Path(*sys.argv[1:]))
