"""Bits-back coding of a VAE: the same pixels again, at the bytes of the ELBO."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from coded_models import LIKELIHOODS, images, joint, vae
from scipy.stats import norm

from vqvae_lightning import CodecError, compress, decompress
from vqvae_lightning.codec import bitsback, locations, normal, pixels
from vqvae_lightning.codec.bitsback import latent_keys, steps_of_chain
from vqvae_lightning.codec.container import Group, pack, unpack
from vqvae_lightning.codec.locations import location_keys
from vqvae_lightning.codec.normal import BINS, NormalBins
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
    # The first image is not paid back: 3 latents of 12 bits each at most.
    first = 3 * 12 / 8
    assert -0.01 < streams / (nats / np.log(2) / 8) - 1 < 0.01 + first / streams


def test_the_bits_of_z_are_had_back(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = given("bernoulli", 160)
    chained = len(compress(model, x, lossless=True))
    # That there are bits enough for any z is no condition: they are tried.
    monkeypatch.setattr(bitsback, "PRECISION", 10**9)
    assert len(compress(model, x, lossless=True)) == chained
    monkeypatch.setattr(bitsback, "LEAST_BITS", 10**9)  # never so many are left
    data = compress(model, x, lossless=True)
    assert len(data) - chained > 400
    assert torch.equal(decompress(data, model), x)


@pytest.mark.parametrize("n", [1, 31, 33])
def test_any_number_of_images_comes_back(n: int) -> None:
    model, x = given("one scale", n)
    assert torch.equal(decompress(compress(model, x, lossless=True), model), x)


def test_the_number_of_threads_changes_no_pixel() -> None:
    model, x = given("mixture", 40)
    data, threads = compress(model, x, lossless=True), torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        assert torch.equal(decompress(data, model), x)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_a_stream_of_other_bytes_is_refused(name: str) -> None:
    model, x = given(name, 40)
    container = unpack(compress(model, x, lossless=True))
    (group,) = container.groups
    for seed in range(5):
        drawn = np.random.default_rng(seed).bytes(len(group.data))
        other = replace(container, groups=[Group(drawn, group.check)])
        with pytest.raises(CodecError, match="are not decoded to what was coded"):
            decompress(pack(other), model)


def disturbed(relative: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoder and decoder as another build of torch would have them."""
    rng = np.random.default_rng(1)

    def other(mean: torch.Tensor, log_scale: torch.Tensor, shift: Any) -> Any:
        noise = torch.from_numpy(rng.uniform(-1, 1, mean.shape))
        return location_keys(mean * (1 + relative * noise), log_scale, shift)

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


@pytest.mark.parametrize(
    ("margin", "longer"),
    [
        (5e-6, 1.01),  # few images are certain on the first grid, and all are on another
        (1e-4, 2.0),  # some go without z
        (1e-3, 2.0),  # all do
    ],
)
def test_an_image_beside_a_rounding_edge_goes_by_another_grid_or_without_z(
    margin: float, longer: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = given("one scale", 64)
    usual = len(compress(model, x, lossless=True))
    monkeypatch.setattr(locations, "NETWORK_MARGIN", margin)
    data = compress(model, x, lossless=True)
    assert usual != len(data) < longer * usual
    # The reader has no margin: the file says which grids these are.
    monkeypatch.setattr(locations, "NETWORK_MARGIN", 2e-10)
    assert torch.equal(decompress(data, model), x)


@pytest.mark.parametrize("n", [1, 2, 3, 32, 33, 100, 4096])
def test_batches_of_the_chain_grow_with_what_is_coded_already(n: int) -> None:
    rows = steps_of_chain(n)
    assert [row for part in rows for row in range(n)[part]] == list(range(n))
    assert all(part.stop - part.start <= max(part.start // 8, 1) for part in rows)
    assert max(part.stop - part.start for part in rows) <= bitsback.BATCH


def test_bins_have_the_same_mass_and_their_medians_lie_inside() -> None:
    bins = NormalBins()
    assert np.abs(bins.edges - norm.ppf(np.arange(1, BINS) / BINS)).max() < 1e-4
    assert np.abs(np.diff(norm.cdf(bins.edges)) * BINS - 1).max() < 1e-3
    assert (bins.medians[1:] > bins.edges).all()
    assert (bins.medians[:-1] < bins.edges).all()


def test_the_posteriors_table_is_its_mass_in_each_bin() -> None:
    bins = NormalBins()
    mean, log_scale = torch.tensor([[0.5, -3.0, 9.0]]), torch.tensor([[-1.0, -4.0, 0.5]])
    keys, _ = latent_keys(mean.double(), log_scale.double(), 0.0)
    probabilities = joint(bins, keys[0])
    # The mean is rounded to an eighth of a scale.
    for row, mu, log in zip(probabilities, mean[0].tolist(), log_scale[0].tolist(), strict=True):
        sigma = np.exp(log)
        rounded = np.rint(mu / sigma * locations.MEANS) / locations.MEANS * sigma
        wanted = norm.cdf((bins.edges - rounded) / sigma)
        assert np.abs(np.cumsum(row)[:-1] - wanted).max() < 4e-4


def test_a_lossy_file_of_a_vae_is_refused() -> None:
    with pytest.raises(ConfigError, match="a vae has no codes for a lossy file"):
        compress(given("one scale", 2)[0], images(2))
    assert normal.BINS == 4096  # a number of the format
