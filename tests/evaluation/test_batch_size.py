"""A figure of an evaluation does not depend on how many images are looked at at once."""

import pytest
import pytorch_lightning as pl
import small
import torch
from untrained import make_run, workplace

from vqvae_lightning.config import merge_overrides
from vqvae_lightning.evaluation.densities import TrainLatents
from vqvae_lightning.evaluation.likelihood import iwae_metrics, two_stage_metrics
from vqvae_lightning.experiment import load_experiment
from vqvae_lightning.training.build import build
from vqvae_lightning.training.trainer import silence_known_warnings

BINARY = ["data.binarize=dynamic", "model.likelihood.name=bernoulli"]
RUNS = {
    "ae": ("ae", []),
    "vae": ("vae", []),
    "vae of binary images": ("vae", BINARY),
    "vqvae of binary images": ("vqvae", BINARY),
    "prior": ("prior", []),
    "masked prior": ("prior", ["model.network.name=masked"]),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("batch-size")
    silence_known_warnings()
    with workplace(root):
        make_run(root, "vqvae")
        yield root


def opened(root, name, size):
    """Data and module of an untrained run, the same module for every `eval_batch_size`."""
    kind, words = RUNS[name]
    settings = [
        f"kind={kind}",
        f"data.root={root / 'data'}",
        "data.batch_size=20",
        "data.validation_size=40",
        f"data.eval_batch_size={size}",
        *small.KINDS[kind],
        *words,
    ]
    if kind == "prior":
        settings.append(f"model.tokenizer={root / 'runs' / 'vqvae'}")
    experiment = load_experiment(None, merge_overrides(settings))
    data, module = build(experiment)
    data.prepare_data()
    return data, module


def figures(root, name, size):
    data, module = opened(root, name, size)
    trainer = pl.Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
                         enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    (measured,) = trainer.test(module, datamodule=data, verbose=False)
    if RUNS[name][0] == "prior":
        found = two_stage_metrics(data.first_stage, data.images, "test", measured["test/rate"])
    else:
        found = iwae_metrics(module.eval().net, data, "test", 3) if name != "ae" else {}
    return {**measured, **found}


@pytest.mark.parametrize("name", RUNS)
def test_every_figure_is_the_same_for_every_batch_size(root, name):
    expected = figures(root, name, 500)
    assert len(expected) >= 5
    for size in (30, 7):
        assert figures(root, name, size) == pytest.approx(expected, rel=1e-6)


def test_the_latents_that_a_sampler_is_fitted_to_are_the_same_for_every_batch_size(root):
    latents = []
    for size in (500, 7):
        data, module = opened(root, "vae of binary images", size)
        latents.append(TrainLatents(module.eval().net, data).encoded[0])
    torch.testing.assert_close(latents[1], latents[0], rtol=0, atol=1e-5)


def test_a_picture_of_an_image_is_the_same_beside_any_others(root):
    module = opened(root, "vae", 30)[1].eval()
    x = torch.rand(32, 1, 28, 28) * 2 - 1
    torch.manual_seed(0)
    many, few = (module.pictures(x[:n])["reconstructions"][0] for n in (32, 16))
    # a row of originals, a row of reconstructions
    torch.testing.assert_close(many[:32], few, rtol=0, atol=1e-5)
