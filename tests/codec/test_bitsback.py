"""Bits-back coding of a VAE: the same pixels again, at the bytes of the ELBO."""

from typing import Any

import numpy as np
import pytest
import torch
from coded_models import LIKELIHOODS, images, vae
from scipy.stats import norm

from vqvae_lightning import CodecError, compress, decompress
from vqvae_lightning.codec import bitsback, normal, pixels
from vqvae_lightning.codec.container import unpack
from vqvae_lightning.codec.normal import BINS, NormalBins
from vqvae_lightning.codec.pixels import location_keys
from vqvae_lightning.codec.tables import PRECISION
from vqvae_lightning.config import ConfigError


def given(name: str, n: int) -> tuple[Any, torch.Tensor]:
    x = images(n)
    return vae(*LIKELIHOODS[name]), ((x > 127) * 255).to(torch.uint8) if name == "bernoulli" else x


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_every_pixel_comes_back_at_the_bytes_of_the_elbo(name: str) -> None:
    model, x = given(name, 100)
    data = compress(model, x, lossless=True)
    assert torch.equal(decompress(data, model), x)
    with torch.no_grad():
        found = model.net(x / 127.5 - 1)
    nats = float((found.distortion + found.latent.rate).double().sum())
    streams = sum(len(group.data) for group in unpack(data).groups)
    # The first batch is not paid back: 3 latents of 12 bits each at most.
    first = 32 * 3 * 12 / 8
    assert -0.01 < streams / (nats / np.log(2) / 8) - 1 < 0.01 + first / streams


def test_the_bits_of_z_are_had_back_from_the_second_batch_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, x = given("bernoulli", 160)
    chained = len(compress(model, x, lossless=True))
    alone = len(compress(model, x, group=32, lossless=True))
    assert alone - chained > 100
    assert torch.equal(decompress(compress(model, x[:40], group=32, lossless=True), model), x[:40])


@pytest.mark.parametrize("n", [1, 31, 33])
def test_any_number_of_images_comes_back(n: int) -> None:
    model, x = given("one scale", n)
    assert torch.equal(decompress(compress(model, x, lossless=True), model), x)


def disturbed(relative: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoder and decoder as another build of torch would have them."""
    rng = np.random.default_rng(1)

    def other(mean: torch.Tensor, log_scale: torch.Tensor) -> Any:
        noise = torch.from_numpy(rng.uniform(-1, 1, mean.shape))
        return location_keys(mean * (1 + relative * noise), log_scale)

    for module in (bitsback, pixels):
        monkeypatch.setattr(module, "location_keys", other)


def test_a_build_that_differs_by_1e_10_decodes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = given("a scale per pixel", 64)
    data = compress(model, x, lossless=True)
    disturbed(1e-10, monkeypatch)
    assert torch.equal(decompress(data, model), x)
    disturbed(1e-4, monkeypatch)
    with pytest.raises(CodecError, match="are not decoded to what was coded"):
        decompress(data, model)


@pytest.mark.parametrize("margin", [1e-8, 1e-6, 1e-3])
def test_an_image_beside_a_rounding_edge_goes_without_z(
    margin: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = given("one scale", 64)
    usual = len(compress(model, x, lossless=True))
    monkeypatch.setattr(pixels, "DECODER_MARGIN", margin)
    data = compress(model, x, lossless=True)
    assert margin < 1e-6 or len(data) != usual
    monkeypatch.setattr(pixels, "DECODER_MARGIN", 2e-10)
    assert torch.equal(decompress(data, model), x)


def test_bins_have_the_same_mass_and_their_medians_lie_inside() -> None:
    bins = NormalBins()
    assert np.abs(bins.edges - norm.ppf(np.arange(1, BINS) / BINS)).max() < 1e-4
    assert np.abs(np.diff(norm.cdf(bins.edges)) * BINS - 1).max() < 1e-3
    assert (bins.medians[1:] > bins.edges).all()
    assert (bins.medians[:-1] < bins.edges).all()


def test_the_posteriors_table_is_its_mass_in_each_bin() -> None:
    bins = NormalBins()
    mean, log_scale = torch.tensor([[0.5, -3.0, 9.0]]), torch.tensor([[-1.0, -4.0, 0.5]])
    keys, _ = location_keys(mean.double(), log_scale.double())
    weights = bins.weights(keys.ravel())
    assert (weights >= 0).all()
    assert (weights.sum(1) == 2**PRECISION - BINS).all()
    # The mean is rounded to an eighth of a scale.
    for row, mu, log in zip(weights, mean[0].tolist(), log_scale[0].tolist(), strict=True):
        sigma = np.exp(log)
        rounded = np.rint(mu / sigma * pixels.MEANS) / pixels.MEANS * sigma
        wanted = norm.cdf((bins.edges - rounded) / sigma)
        assert np.abs(np.cumsum(row)[:-1] / 2**PRECISION - wanted).max() < 3e-4


def test_a_lossy_file_of_a_vae_is_refused() -> None:
    with pytest.raises(ConfigError, match="a vae has no codes for a lossy file"):
        compress(given("one scale", 2)[0], images(2))
    assert normal.BINS == 4096  # a number of the format
