"""The runs whose files are measured: each has a folder of its name, and is trained if it lacks."""

from collections.abc import Mapping
from pathlib import Path

from vqvae_lightning.experiment import load_experiment
from vqvae_lightning.training.runs import Run
from vqvae_lightning.training.train import train

RECIPES = Path(__file__).parents[1] / "mnist"
PIXELS = "model.likelihood.per_pixel=true"
LOSSY = {"codec_ae": ["ae"], "codec_vqvae": ["vqvae"], "codec_prior": ["prior"]}
QUICK = {
    "codec_vqvae_lossless": ["vqvae_bits", PIXELS],
    "codec_prior_lossless": ["prior"],
    "codec_vae_lossless": ["vae_bits", PIXELS],
}
FULL = {
    "codec_vqvae_lossless": ["vqvae_lossless"],
    "codec_prior_lossless": ["prior_full"],
    "codec_vae_lossless": ["vae_lossless"],
}
TOKENIZERS = {"codec_prior": "codec_vqvae", "codec_prior_lossless": "codec_vqvae_lossless"}
NAMES = (*LOSSY, *QUICK)


def run_of(name: str, folder: Path, root: Path, full: bool) -> Run:
    """The finished run of a name, trained here unless it is there. A stopped one goes on."""
    path = folder / name
    if (path / "run.json").is_file() and Run(path).record.status == "finished":
        return Run(path)
    recipe, *more = _recipes(full)[name]
    settings = [f"name={name}", f"runs={folder}", f"data.root={root}", "resume=auto", *more]
    if tokenizer := TOKENIZERS.get(name):
        run_of(tokenizer, folder, root, full)
        settings.append(f"model.tokenizer={folder / tokenizer}")
    train(load_experiment(RECIPES / f"{recipe}.yaml", settings))
    return Run(path)


def _recipes(full: bool) -> Mapping[str, list[str]]:
    return LOSSY | (FULL if full else QUICK)
