"""Parts of a model that the package does not know: each is trained, evaluated, sampled and compared
by its name.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import small
import torch
from extending.walked import Walked, example, experiment
from torch import Tensor, nn

from vqvae_lightning.config import ConfigError, setting
from vqvae_lightning.experiment import load_experiment
from vqvae_lightning.models.build import LIKELIHOODS, PRIORS, QUANTIZERS, TRUNKS
from vqvae_lightning.models.layout import CodeLayout
from vqvae_lightning.models.priors.autoregressive import AutoregressivePrior
from vqvae_lightning.models.trunks.trunk import ImageShape, Trunk
from vqvae_lightning.training.loading import load_run

Walk = Callable[..., Walked]


class Patches(Trunk):
    """One linear map for each patch of an image, and one back."""

    @dataclass
    class Config:
        side: int = setting(4, "sides of a patch, in pixels", at_least=1)

    def __init__(self, config: Config, image_shape: ImageShape, vector: bool) -> None:
        channels, height, width = image_shape
        if height % config.side or width % config.side:
            raise ConfigError(f"model.trunk.side: {config.side} divides no image of {image_shape}")
        self.channels = channels
        self.kernel = (height, width) if vector else (config.side, config.side)
        self.grid = (height // self.kernel[0], width // self.kernel[1])

    def encoder(self, out_channels: int) -> nn.Module:
        return nn.Conv2d(self.channels, out_channels, self.kernel, stride=self.kernel)

    def decoder(self, in_channels: int, channels: int) -> nn.Module:
        return nn.ConvTranspose2d(in_channels, channels, self.kernel, stride=self.kernel)


class Bigram(AutoregressivePrior):
    """P(code | the code before it, label): two tables that are added."""

    @dataclass
    class Config:
        width: int = setting(8, "channels of an embedding", at_least=1)

    def __init__(
        self, layout: CodeLayout, classes: int, config: Config, label_dropout: float
    ) -> None:
        super().__init__(layout, classes, config.width, label_dropout)
        self.head = nn.Linear(config.width, layout.codebook_size)

    def logits(self, codes: Tensor, labels: Tensor | None) -> Tensor:
        start = self.start(labels, len(codes))[:, None]  # N,1,width
        before = self.code_embedding(codes[:, :-1]) + start  # N,T−1,width
        logits: Tensor = self.head(torch.cat([start, before], 1))  # N,T,K
        return logits

    def new_cache(self, n: int) -> Any:
        return SimpleNamespace(length=0)

    def step(self, previous: Tensor | None, start: Tensor, cache: Any) -> Tensor:
        seen = start if previous is None else self.code_embedding(previous) + start
        logits: Tensor = self.head(seen)  # N,K
        return logits


def test_a_quantizer_from_outside_goes_through_every_command(
    walk: Walk, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = example("quantizer")["RandomCodebook"]
    monkeypatch.setitem(QUANTIZERS, "random", random)
    chosen = ("model.quantizer.name=random", "model.quantizer.codebook_size=16")
    walked = walk(experiment("vqvae"), *small.NETWORK, *chosen, sample=("sampler=all",))
    net: Any = load_run(walked.run).net
    assert isinstance(net.bottleneck, random)
    # K = 16 codes on a grid of 7×7, of which each costs log 16
    assert walked.test("rate") == pytest.approx(49 * math.log(16))
    assert 1 <= walked.test("codes_used") <= 16
    assert walked.pictures() >= {"reconstructions", "codes", "samples-uniform", "samples-unigram"}
    assert ">random<" in walked.page  # among the settings in which the two runs differ


@pytest.mark.parametrize(("latent", "grid"), [("vector", (1, 1)), ("grid", (7, 7))])
def test_a_trunk_is_built_by_its_name(
    latent: str, grid: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TRUNKS, "patches", Patches)
    words = ["model.trunk.name=patches", f"model.latent={latent}", "model.latent_dim=4"]
    model = load_experiment(experiment("ae"), words).model
    assert Patches(model.trunk, (1, 28, 28), latent == "vector").grid == grid


def test_a_trunk_from_outside_goes_through_every_command(
    walk: Walk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TRUNKS, "patches", Patches)
    chosen = ("model.trunk.name=patches", "model.trunk.side=14", "model.latent=grid")
    walked = walk(experiment("ae"), *chosen, "model.latent_dim=4", sample=("sampler=all",))
    net: Any = load_run(walked.run).net
    assert net.grid == (2, 2)
    assert isinstance(net.encoder, nn.Conv2d)
    assert walked.pictures() >= {"samples-normal", "samples-gaussian", "samples-mixture"}


def test_a_likelihood_from_outside_goes_through_every_command(
    walk: Walk, monkeypatch: pytest.MonkeyPatch
) -> None:
    laplace = example("likelihood")["Laplace"]
    monkeypatch.setitem(LIKELIHOODS, "laplace", laplace)
    chosen = ("model.likelihood.name=laplace", "model.likelihood.scale=0.5")
    walked = walk(
        experiment("vae"),
        *small.NETWORK,
        "model.latent_dim=4",
        *chosen,
        evaluate=("iwae_samples=2",),
    )
    net: Any = load_run(walked.run).net
    assert net.likelihood.scale == 0.5
    # errors are at least 0, so that log(2·scale) of each of 784 pixels bounds it; here it is 0
    assert walked.test("distortion") > 784 * math.log(2 * 0.5)
    assert math.isfinite(walked.test("iwae_nats"))
    # of a density there are no bits
    assert "test/bits_per_dim" not in walked.run.record.test
    assert "p(x|z): laplace" in walked.page


def test_a_prior_from_outside_goes_through_every_command(
    walk: Walk, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRIORS, "bigram", Bigram)
    tokenizer = f"model.tokenizer={place / 'runs' / 'tokenizer'}"
    chosen = ("model.network.name=bigram", "model.network.width=4", tokenizer)
    walked = walk(experiment("prior"), *chosen, sample=("temperature=0.5", "label=3"))
    prior = load_run(walked.run).net
    assert isinstance(prior, Bigram)
    assert prior.head.in_features == 4
    assert walked.test("bits_per_code") == pytest.approx(
        walked.test("rate") / 49 / math.log(2), rel=1e-5
    )
    assert walked.test("seconds_per_image") > 0
