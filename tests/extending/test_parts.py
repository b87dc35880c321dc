"""The example files of own parts: each is trained, evaluated, sampled and compared, by its name."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import small
from extending.walked import PAGE, PARTS, Walked, experiment
from torch import nn

from vqvae_lightning.config import plugins, use_plugins
from vqvae_lightning.experiment import load_experiment
from vqvae_lightning.models.parts import TRUNKS
from vqvae_lightning.training.loading import load_run

Walk = Callable[..., Walked]


def named(part: str) -> tuple[str, ...]:
    return (f"plugins={PARTS / part}.py",)


@pytest.fixture(autouse=True)
def _no_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test leaves no file named."""
    monkeypatch.setattr(plugins, "_named", [])


def opened(walked: Walked, part: str) -> Any:
    use_plugins(PARTS / f"{part}.py")
    return load_run(walked.run)


@pytest.mark.parametrize("part", ["quantizer", "likelihood"])
def test_the_code_of_a_page_is_that_of_the_file_it_names(part: str) -> None:
    assert f"```python\n{(PARTS / part).with_suffix('.py').read_text()}```\n" in PAGE.read_text()


def test_a_quantizer_of_an_own_file_goes_through_every_command(walk: Walk) -> None:
    chosen = (
        "model.quantizer.name=quantizer.py:RandomCodebook",
        "model.quantizer.codebook_size=16",
    )
    settings = (*small.NETWORK, *chosen)
    walked = walk(experiment("vqvae"), *settings, sample=("sampler=all",), named=named("quantizer"))
    assert type(opened(walked, "quantizer").net.bottleneck).__name__ == "RandomCodebook"
    # K = 16 codes on a grid of 7×7, of which each costs log 16
    assert walked.test("rate") == pytest.approx(49 * math.log(16))
    assert 1 <= walked.test("codes_used") <= 16
    assert walked.pictures() >= {"reconstructions", "codes", "samples-uniform", "samples-unigram"}
    # among the settings in which the two runs differ
    assert ">quantizer.py:RandomCodebook<" in walked.page


def test_a_trunk_of_an_own_file_goes_through_every_command(walk: Walk) -> None:
    chosen = ("model.trunk.name=trunk.py:Patches", "model.trunk.side=14", "model.latent=grid")
    walked = walk(
        experiment("ae"),
        *chosen,
        "model.latent_dim=4",
        sample=("sampler=all",),
        named=named("trunk"),
    )
    net = opened(walked, "trunk").net
    assert net.grid == (2, 2)
    assert isinstance(net.encoder, nn.Conv2d)
    assert walked.pictures() >= {"samples-normal", "samples-gaussian", "samples-mixture"}


@pytest.mark.parametrize(("latent", "grid"), [("vector", (1, 1)), ("grid", (7, 7))])
def test_a_trunk_is_in_the_table_by_one_line(
    latent: str, grid: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    (module,) = use_plugins(PARTS / "trunk.py")
    monkeypatch.setitem(TRUNKS, "patches", module.Patches)
    words = ["model.trunk.name=patches", f"model.latent={latent}", "model.latent_dim=4"]
    model = load_experiment(experiment("ae"), words).model
    assert model.build_trunk((1, 28, 28)).grid == grid


def test_a_likelihood_of_an_own_file_goes_through_every_command(walk: Walk) -> None:
    chosen = ("model.likelihood.name=likelihood.py:Laplace", "model.likelihood.scale=0.5")
    walked = walk(
        experiment("vae"),
        *small.NETWORK,
        "model.latent_dim=4",
        *chosen,
        evaluate=("iwae_samples=2",),
        named=named("likelihood"),
    )
    assert opened(walked, "likelihood").net.likelihood.scale == 0.5
    # errors are at least 0, so that log(2·scale) of each of 784 pixels bounds it; here it is 0
    assert walked.test("distortion") > 784 * math.log(2 * 0.5)
    assert math.isfinite(walked.test("iwae_nats"))
    # of a density there are no bits
    assert "test/bits_per_dim" not in walked.run.record.test
    assert "p(x|z): likelihood.py:Laplace" in walked.page


def test_a_bottleneck_of_an_own_file_goes_through_every_command(walk: Walk) -> None:
    chosen = ("model.bottleneck.name=bottleneck.py:FixedWidth", "model.bottleneck.scale=0.25")
    walked = walk(
        experiment("vae"),
        *small.NETWORK,
        "model.latent_dim=4",
        "model.free_bits=0.1",
        *chosen,
        sample=("sampler=all",),
        named=named("bottleneck"),
    )
    assert opened(walked, "bottleneck").net.bottleneck.scale == 0.25
    # D = 4 dimensions, each at least KL(N(0, s²) ‖ N(0, 1))
    assert walked.test("rate") >= 4 * (0.5 * (0.25**2 - 1) - math.log(0.25))
    assert len(walked.run.record.kl_per_dim) == 4
    assert walked.pictures() >= {"samples-normal", "samples-mixture"}


def test_a_prior_network_of_an_own_file_goes_through_every_command(walk: Walk, place: Path) -> None:
    tokenizer = f"model.tokenizer={place / 'runs' / 'tokenizer'}"
    chosen = ("model.network.name=prior.py:Bigram", "model.network.width=4", tokenizer)
    walked = walk(
        experiment("prior"), *chosen, sample=("temperature=0.5", "label=3"), named=named("prior")
    )
    prior = opened(walked, "prior").net
    assert type(prior).__name__ == "Bigram"
    assert prior.head.in_features == 4
    assert walked.test("bits_per_code") == pytest.approx(
        walked.test("rate") / 49 / math.log(2), rel=1e-5
    )
    assert walked.test("seconds_per_image") > 0
