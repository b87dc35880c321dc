"""A quantizer in a model of one's own: it takes vectors, sequences and grids, and it learns."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from vqvae_lightning import (
    FSQ,
    LFQ,
    ConfigError,
    CosineVectorQuantizer,
    EMAVectorQuantizer,
    ProductQuantizer,
    ResidualQuantizer,
    SimVQ,
    VectorQuantizer,
)
from vqvae_lightning.models.quantizers import codebooks
from vqvae_lightning.models.quantizers.quantizer import Quantizer

K, D = 16, 6
MAKERS: dict[str, Callable[[], Quantizer]] = {
    "ema": lambda: EMAVectorQuantizer(K, D),
    "gradient": lambda: VectorQuantizer(K, D),
    "cosine": lambda: CosineVectorQuantizer(K, D),
    "simvq": lambda: SimVQ(K, D),
    "fsq": lambda: FSQ([3] * D),
    "lfq": lambda: LFQ(D),
    "residual": lambda: ResidualQuantizer([EMAVectorQuantizer(K, D) for _ in range(2)]),
    "product": lambda: ProductQuantizer([EMAVectorQuantizer(K, D // 2) for _ in range(2)]),
}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("name", MAKERS)
def test_vectors_sequences_and_grids_have_the_same_codes(name):
    quantizer = MAKERS[name]().eval()
    grid = torch.randn(3, D, 4, 5)
    sequence = grid.flatten(2).transpose(1, 2)  # N,T,D
    whole, of_sequence = quantizer(grid), quantizer(sequence)
    vectors = quantizer(sequence.flatten(0, 1))
    m = [quantizer.num_codebooks] if quantizer.num_codebooks > 1 else []
    assert whole.codes.shape == (3, 4, 5, *m)
    assert of_sequence.codes.shape == (3, 20, *m)
    assert vectors.codes.shape == (60, *m)
    assert torch.equal(whole.codes.flatten(), of_sequence.codes.flatten())
    assert torch.equal(whole.codes.flatten(), vectors.codes.flatten())
    assert of_sequence.z.shape == sequence.shape
    assert torch.equal(whole.z.flatten(2).transpose(1, 2), of_sequence.z)
    torch.testing.assert_close(vectors.rate.sum(), whole.rate.sum())
    for latent in (whole, of_sequence, vectors):
        assert torch.equal(quantizer.codes_to_latents(latent.codes), latent.z)


@pytest.mark.parametrize("shape", [(D,), (3, D + 1), (3, D, 4), (3, 4, 5, D), (1, 1, 1, 1, D)])
def test_another_number_of_channels_is_one_line(shape):
    with pytest.raises(ValueError, match=rf"^EMAVectorQuantizer: got shape .*wanted \(N, {D}\)"):
        EMAVectorQuantizer(K, D)(torch.randn(shape))


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: EMAVectorQuantizer(-3, D), "EMAVectorQuantizer.codebook_size: got -3"),
        (lambda: EMAVectorQuantizer(K, 0), "EMAVectorQuantizer.dim: got 0"),
        (lambda: VectorQuantizer(K, D, decay=1.0), "VectorQuantizer.decay: got 1.0"),
        (lambda: SimVQ(K, D, commitment=-1), "SimVQ.commitment: got -1"),
        (lambda: SimVQ(K, D, estimator="turn"), "SimVQ.estimator: got 'turn', wanted one of"),
        (lambda: LFQ(D, entropy=-1), "LFQ.entropy: got -1"),
    ],
)
def test_a_setting_out_of_range_is_one_line(make, line):
    with pytest.raises(ConfigError) as error:
        make()
    assert str(error.value).startswith(line)


def train(
    quantizer: Quantizer, steps: int, updates: bool, passes: int = 1, seed: int = 0
) -> list[Tensor]:
    """A loop of one's own; the codebook after each step, with or without calls of `update`."""
    generator = torch.Generator().manual_seed(seed)
    encoder = nn.Linear(D, D, bias=False)
    nn.init.eye_(encoder.weight)
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.0)
    found = []
    for _ in range(steps):
        for _ in range(passes):
            latent = quantizer(encoder(torch.randn(64, D, generator=generator)))
            (latent.z.square().mean() + latent.penalty).backward()
        if updates:
            quantizer.update()
        optimizer.step()
        found.append(next(iter(quantizer.buffers())).clone())
    return found


@pytest.mark.parametrize("name", ["ema", "residual", "product"])
@pytest.mark.parametrize("passes", [1, 3])
def test_a_codebook_learns_without_a_call_of_update_one_step_later(name, passes, monkeypatch):
    # Without the reset of codes and k-means nothing is drawn, and the two loops are comparable.
    monkeypatch.setattr(codebooks, "kmeans", lambda rows, k: rows[:k].clone())
    torch.manual_seed(1)
    called = MAKERS[name]()
    torch.manual_seed(1)
    left_out = MAKERS[name]()
    for module in (*called.modules(), *left_out.modules()):
        if isinstance(module, codebooks.CodebookQuantizer):
            module.reset_below = 0.0
    train(called, 6, updates=True, passes=passes)
    train(left_out, 6, updates=False, passes=passes)
    left_out(torch.randn(64, D))  # the pass that finds the last step
    learned, caught_up = called.state_dict(), left_out.state_dict()
    for key in learned:
        assert torch.equal(learned[key], caught_up[key]), key


def test_a_call_of_update_leaves_nothing_to_catch_up_with(monkeypatch):
    quantizer, calls = EMAVectorQuantizer(K, D), []
    real = quantizer.update
    monkeypatch.setattr(quantizer, "update", lambda: calls.append(1) or real())
    train(quantizer, 4, updates=True)
    assert len(calls) == 4
    quantizer.eval()(torch.randn(8, D))
    assert len(calls) == 4


def test_catching_up_leaves_the_random_state_alone():
    quantizer = EMAVectorQuantizer(K, D)
    train(quantizer, 3, updates=False)
    before = torch.get_rng_state()
    with torch.no_grad():
        quantizer(torch.randn(8, D, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_codebook_in_training_that_nothing_updates_says_so_once():
    quantizer = EMAVectorQuantizer(K, D)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(codebooks.MOST_PASSES + 5):
            quantizer(torch.randn(4, D))
    assert ["passes in training without an optimizer step" in str(w.message) for w in seen] == [
        True
    ]


def test_accumulated_batches_of_one_step_may_differ_in_size():
    quantizer = EMAVectorQuantizer(K, D)
    for sizes in ((32, 32, 7), (32, 5)):
        for n in sizes:
            quantizer(torch.randn(n, D))
        quantizer.update()
    assert quantizer.is_initialized


def test_a_small_model_of_ones_own_learns_to_reconstruct():
    data = torch.randn(512, 2) @ torch.randn(2, 10)
    encoder, decoder, quantizer = nn.Linear(10, D), nn.Linear(D, 10), EMAVectorQuantizer(64, D)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=3e-3)
    losses = []
    for _ in range(300):
        latent = quantizer(encoder(data))
        error = (decoder(latent.z) - data).square().mean()
        optimizer.zero_grad()
        (error + latent.penalty).backward()
        optimizer.step()
        losses.append(float(error.detach()))
    assert losses[-1] < 0.25 * losses[0]
    assert quantizer.eval()(encoder(data)).codes.unique().numel() > 20
