"""`trainer.accumulate`: a step in several passes is the step in one, or the setting is refused."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import small
import torch
from pytorch_lightning.callbacks import Callback
from untrained import workplace

from vqvae_lightning.config import ConfigError, merge_overrides
from vqvae_lightning.data.rows import MemoryRows
from vqvae_lightning.experiment import load_experiment
from vqvae_lightning.kinds import KINDS
from vqvae_lightning.models.build import build_autoencoder
from vqvae_lightning.models.first_stage import FrozenLatents
from vqvae_lightning.models.parts import PRIORS, QUANTIZERS
from vqvae_lightning.training.build import ANY_TOKENIZER, build
from vqvae_lightning.training.flow import AEFlow, VAEFlow
from vqvae_lightning.training.prior import CodePrior
from vqvae_lightning.training.trainer import silence_known_warnings

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step`")

STEPS = 2
K = ["model.quantizer.codebook_size=16"]
# so that codes are reset in the second step
VQ = [*K, "model.quantizer.reset_below=0.9", "model.quantizer.decay=0.5"]
SMALL_QUANTIZER = {"fsq": ["model.quantizer.levels=[4,4]"], "simvq": K, "lfq": K}
SMALL_PRIOR: dict[str, list[str]] = {"pixelcnn": []}

# A new quantizer or prior is in the table by its name. A new bottleneck or option costs one line
# here.
MEMBERS: dict[str, tuple[str, list[str]]] = {
    "ae": ("ae", []),
    "ae, mirrored images": ("ae", ["data.flip=true"]),
    "vae": ("vae", []),
    "vae, warm-up": ("vae", ["model.kl_warmup_steps=4", "model.beta=2"]),
    "vae, importance weighted": ("vae", ["model.importance_samples=3"]),
    "vae, binary images": ("vae", ["data.binarize=dynamic", "model.likelihood.name=bernoulli"]),
    "vae, free bits": ("vae", ["model.free_bits=0.1"]),
    **{
        name: ("vqvae", [f"model.quantizer.name={name}", *SMALL_QUANTIZER.get(name, VQ)])
        for name in QUANTIZERS
    },
    "lfq without entropy": (
        "vqvae",
        ["model.quantizer.name=lfq", *K, "model.quantizer.entropy=0"],
    ),
    "lfq, grouped": ("vqvae", ["model.quantizer.name=lfq", *K, "model.groups=2"]),
    "residual products": ("vqvae", [*VQ, "model.groups=2", "model.quantizer.residual_levels=2"]),
    "projected, rotation": (
        "vqvae",
        [*VQ, "model.quantizer.lookup_dim=2", "model.quantizer.estimator=rotation"],
    ),
    **{
        name: (
            "prior",
            [
                f"model.network.name={name}",
                "model.network.dropout=0",
                *SMALL_PRIOR.get(name, ["model.network.heads=4"]),
            ],
        )
        for name in PRIORS
    },
    "flow": ("ae_flow", ["model.label_dropout=0.5"]),
    "flow, z of a VAE": ("vae_flow", ["model.label_dropout=0.5"]),
}
REFUSED = {
    "vae, free bits": "model.free_bits",
    "lfq": "model.quantizer.entropy",
    "lfq, grouped": "model.quantizer.entropy",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("accumulate")
    silence_known_warnings()
    with workplace(root):
        yield root


class Gradients(Callback):
    """The gradients of the first optimizer step, by parameter, before they are clipped."""

    found: dict[str, torch.Tensor] | None = None

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, module: pl.LightningModule, optimizer: Any
    ) -> None:
        if self.found is None:
            self.found = {
                name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None
            }


def without_members_own(words: list[str]) -> list[str]:
    """The settings that every member of the part has: not the others' size, which MEMBERS give."""
    own = ("model.quantizer.codebook_size=", "model.network.heads=")
    return [word for word in words if not word.startswith(own)]


def made_up(kind: str, model: Any, images: Any) -> tuple[Any, Any]:
    """A module of stage 2, and made-up records in the place of images, in batches of the same
    order.
    """
    labels, generator = torch.arange(280) % 10, torch.Generator().manual_seed(1)
    if kind == "prior":
        described = {**ANY_TOKENIZER, "codebook_size": 16, "grid": (2, 4)}
        module: Any = CodePrior(model, described, 10)
        records = torch.randint(16, (280, 8), generator=generator)
    else:
        source = kind.removesuffix("_flow")
        config = small.model_config(source, *small.KINDS[source])
        first_stage = FrozenLatents(build_autoencoder(config, (1, 28, 28)))
        module = {"ae_flow": AEFlow, "vae_flow": VAEFlow}[kind](model, first_stage, 10)
        module.net.fit_statistics(torch.zeros(4), torch.ones(4))
        records = torch.randn(280, *first_stage.record_shape, generator=generator).double()
    return module, images.train_loader(MemoryRows(records, labels), 0, 1)


def trained(
    root: Path, member: str, passes: int
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """First gradients and last state of STEPS steps of 24 rows in float64."""
    kind, words = MEMBERS[member]
    settings = [
        f"kind={kind}",
        f"data.root={root / 'data'}",
        "data.batch_size=24",
        "data.validation_size=40",
        "trainer.precision=64-true",
        f"trainer.accumulate={passes}",
        *without_members_own(small.KINDS[kind]),
    ]
    experiment = load_experiment(None, merge_overrides(settings, words))
    if KINDS[kind].stage == 2:
        data, _ = build(load_experiment(None, ["kind=ae", *settings[1:6]]))
        module, loader = made_up(kind, experiment.model, data)
    else:
        data, module = build(experiment)
        data.prepare_data()
        loader = None
    gradients = Gradients()
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        precision="64-true",
        max_steps=STEPS,
        accumulate_grad_batches=passes,
        callbacks=[gradients],
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    if loader is None:
        trainer.fit(module.double(), datamodule=data)
    else:
        trainer.fit(module.double(), loader)
    assert gradients.found
    return gradients.found, module.net.state_dict()


@pytest.mark.parametrize("member", [name for name in MEMBERS if name not in REFUSED])
def test_a_step_in_three_passes_is_the_step_in_one(root, member):
    gradients, state = trained(root, member, 1)
    assert any(gradient.any() for gradient in gradients.values())
    cut_gradients, cut_state = trained(root, member, 3)
    for name, gradient in gradients.items():
        torch.testing.assert_close(cut_gradients[name], gradient, rtol=1e-12, atol=1e-12, msg=name)
    for name, value in state.items():
        torch.testing.assert_close(cut_state[name], value, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize("member", REFUSED)
def test_a_term_over_the_whole_batch_is_refused_in_passes(root, member):
    kind, words = MEMBERS[member]
    settings = [f"kind={kind}", *small.KINDS[kind], *words]
    load_experiment(None, merge_overrides(settings, ["trainer.accumulate=1"]))
    line = (
        f"trainer.accumulate: got 2 with {REFUSED[member]}=.*whole batch.*wanted 1, or"
        f" {REFUSED[member]}=0"
    )
    with pytest.raises(ConfigError, match=line):
        load_experiment(None, merge_overrides(settings, ["trainer.accumulate=2"]))
