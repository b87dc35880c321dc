"""Lossless files: the same pixels again, at the bytes of p(x|z)."""

import hashlib
from typing import Any

import numpy as np
import pytest
import torch
from coded_models import LIKELIHOODS, coded, images, joint, prior, vqvae

from vqvae_lightning import CodecError, compress, decompress
from vqvae_lightning.codec import locations, pixels
from vqvae_lightning.codec.codes import static_table
from vqvae_lightning.codec.container import unpack
from vqvae_lightning.codec.locations import exponential, location_keys, on_first_grids
from vqvae_lightning.codec.pixels import LogisticTables, MixtureTables
from vqvae_lightning.codec.tables import BY_TABLE, SHIFTS, nats_of
from vqvae_lightning.config import ConfigError
from vqvae_lightning.models.likelihoods import (
    DiscretizedLogistic,
    Likelihood,
    LogisticMixture,
)

SIZE = "model.quantizer.codebook_size=16"


def given(name: str, n: int = 24) -> tuple[Any, torch.Tensor]:
    """A VQ-VAE with this likelihood, and images that it can code."""
    x = images(n)
    return vqvae(SIZE, *LIKELIHOODS[name]), (x > 127) * 255 if name == "bernoulli" else x


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_every_pixel_comes_back_at_the_bytes_of_the_ledger(name: str) -> None:
    model, x = given(name)
    x = x.to(torch.uint8)
    data = compress(model, x, group=10, lossless=True)
    assert torch.equal(decompress(data, model), x)
    with torch.no_grad():
        nats = float(model.net(x / 127.5 - 1).distortion.double().sum())
    codes, layout = coded(model, x), model.net.layout
    nats += nats_of(layout.histogram(torch.from_numpy(codes)).numpy(), static_table(codes, layout))
    streams = sum(len(group.data) for group in unpack(data).groups)
    assert abs(streams / (nats / np.log(2) / 8) - 1) < 0.01


def test_a_prior_codes_the_codes_of_a_lossless_file() -> None:
    model, x = given("one scale", 6)
    module = prior("transformer", model)
    assert torch.equal(decompress(compress(module, x, lossless=True), module), x)


def test_random_pixels_far_from_what_the_decoder_says_come_back_too() -> None:
    model, _ = given("a scale per pixel")
    x = torch.randint(256, (6, 1, 28, 28), dtype=torch.uint8)
    with torch.no_grad():
        model.net.likelihood.log_scale.fill_(-20.0)
    assert torch.equal(decompress(compress(model, x, lossless=True), model), x)


def disturbed(relative: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder as another build of torch would have it."""
    generator = torch.Generator().manual_seed(1)
    keys = LogisticTables.keys

    def other(self: LogisticTables, likelihood: Any, decoded: torch.Tensor, shift: Any) -> Any:
        noise = torch.randn(decoded.shape, generator=generator, dtype=decoded.dtype).clamp(-1, 1)
        return keys(self, likelihood, decoded * (1 + relative * noise), shift)

    monkeypatch.setattr(LogisticTables, "keys", other)


def test_a_build_whose_decoder_differs_by_1e_10_decodes_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, x = given("a scale per pixel")
    data = compress(model, x, lossless=True)
    disturbed(1e-10, monkeypatch)
    assert torch.equal(decompress(data, model), x)
    disturbed(1e-4, monkeypatch)
    with pytest.raises(CodecError, match="are not decoded to what was coded"):
        decompress(data, model)


@pytest.mark.parametrize(
    ("margin", "by_table"),
    [
        (5e-6, False),  # few images are certain on the first grid, and all are on another
        (1e-3, True),  # none is on any, and a uniform table codes it
    ],
)
def test_an_image_beside_a_rounding_edge_goes_by_another_grid_or_a_uniform_table(
    margin: float, by_table: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = given("one scale", 6)
    usual = len(compress(model, x, lossless=True))
    monkeypatch.setattr(locations, "NETWORK_MARGIN", margin)
    data = compress(model, x, lossless=True)
    # These images cost more than 8 bits a pixel by the model.
    assert abs(len(data) - (x.numel() if by_table else usual)) < 500 < usual - x.numel()
    assert len(data) != usual
    # The reader has no margin: the file says which grids these are.
    monkeypatch.setattr(locations, "NETWORK_MARGIN", 2e-10)
    assert torch.equal(decompress(data, model), x)


@pytest.mark.parametrize("numbers", [784, 11_760, 50_000])
def test_of_images_as_sharp_as_can_be_each_finds_a_grid(numbers: int) -> None:
    generator = torch.Generator().manual_seed(0)
    mean = torch.rand(100, numbers // 2, generator=generator, dtype=torch.float64) * 2 - 1
    log_scale = torch.full_like(mean, -6.9)

    def keys(rows: Any, shift: Any) -> Any:
        steps, _, certain = location_keys(mean[rows], log_scale[rows], shift)
        return steps, certain.all(1)

    steps, grids = on_first_grids(keys, len(mean))
    assert (grids < BY_TABLE).all()
    assert numbers < 10_000 or grids.any()
    # A build that differs as much as it may finds the same on these grids.
    other = mean + (torch.rand(mean.shape, generator=generator) - 0.5) * 3.9e-10 * (1 + mean.abs())
    assert (location_keys(other, log_scale, SHIFTS[grids])[0] == steps).all()


def test_tables_are_the_probabilities_of_the_likelihood() -> None:
    config = DiscretizedLogistic.Config(scale=0.1, learned=True, per_pixel=True)
    likelihood = DiscretizedLogistic(config).double().requires_grad_(False)
    centre = torch.linspace(-1.3, 1.3, 40, dtype=torch.float64).repeat(9)
    log_scale = torch.linspace(-4, 3, 9, dtype=torch.float64).repeat_interleave(40)
    decoded = torch.stack([centre, log_scale], 0).view(1, 2, 9, 40)
    check_tables(LogisticTables(), likelihood, decoded)


def test_tables_of_a_mixture_are_the_probabilities_of_the_likelihood() -> None:
    config = LogisticMixture.Config(components=3)
    likelihood = LogisticMixture(config).double().requires_grad_(False)
    torch.manual_seed(0)
    decoded = 2 * torch.randn(1, 9, 9, 40, dtype=torch.float64)
    check_tables(MixtureTables(), likelihood, decoded)


def check_tables(tables: pixels.PixelTables, likelihood: Likelihood, decoded: torch.Tensor) -> None:
    """Of decoded (1, P, 9, 40): the tables are distributions, and those of the likelihood."""
    keys, _ = tables.keys(likelihood, decoded, 0.0)
    levels = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    one = decoded.flatten(2).permute(2, 1, 0)[..., None]  # 360,P,1,1
    nll = torch.stack([likelihood.nll(x.expand(360, 1, 1, 1), one) for x in levels], 1)
    p, q = torch.exp(-nll).numpy(), joint(tables, keys[0])
    kl = (p * (-nll.numpy() - np.log(q))).sum(1)
    assert kl.max() < 2e-3
    assert kl.mean() < 5e-4


def test_the_exponential_is_that_of_the_format_to_the_last_bit() -> None:
    x = np.linspace(-80, 80, 10_001)
    assert np.abs(exponential(x) / np.exp(x) - 1).max() < 1e-14
    digest = hashlib.sha256(exponential(x).astype("<f8").tobytes()).hexdigest()
    assert digest[:16] == "f934dd9e7ea7ba97"


def test_what_cannot_be_lossless_is_refused() -> None:
    with pytest.raises(ConfigError, match="GaussianLikelihood gives no probabilities of pixel"):
        compress(vqvae(), images(2), lossless=True)
    with pytest.raises(ValueError, match="got grey levels between 0 and 255, wanted binary"):
        compress(given("bernoulli")[0], images(2), lossless=True)
