"""A quantizer in a model of one's own: it takes vectors, sequences and grids, and it learns."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

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
from vqvae_lightning.config import MOST_PASSES
from vqvae_lightning.models.quantizers.codebook import CodebookQuantizer
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
        (lambda: LFQ(-1), "LFQ.bits: got -1, wanted 1 to 20"),
        (lambda: LFQ(21), "LFQ.bits: got 21, wanted 1 to 20"),
        (lambda: LFQ(D, entropy=-1), "LFQ.entropy: got -1"),
    ],
)
def test_a_setting_out_of_range_is_one_line(make, line):
    with pytest.raises(ConfigError) as error:
        make()
    assert str(error.value).startswith(line)


def test_without_a_lattice_a_quantizer_has_that_of_its_settings(monkeypatch):
    @dataclass
    class Changed(FSQ.Config):
        levels: list[int] = field(default_factory=lambda: [3, 4])

    assert LFQ().codebook_size == LFQ.Config().codebook_size
    monkeypatch.setattr(FSQ, "Config", Changed)
    assert FSQ().codebook_size == 12


def test_a_codebook_learns_from_all_passes_of_a_step_and_only_in_update():
    encoder, quantizer = nn.Linear(D, D), EMAVectorQuantizer(K, D)
    unrelated = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)
    before, batches = quantizer.codebook.clone(), [torch.randn(K, D) for _ in range(2)]
    for x in batches:
        quantizer(encoder(x))
        unrelated.step()  # no step of the codebook's model
    assert torch.equal(quantizer.codebook, before)
    (rows,) = quantizer.statistics()
    assert torch.equal(rows, encoder(torch.cat(batches)).flatten())


def test_two_loops_of_one_process_and_one_seed_learn_the_same():
    def learned() -> Tensor:
        torch.manual_seed(0)
        quantizer = EMAVectorQuantizer(K, D)
        optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)
        for _ in range(3):
            quantizer(torch.randn(64, D))
            optimizer.step()
            quantizer.update()
        quantizer(torch.randn(64, D))
        return quantizer.codebook

    assert torch.equal(learned(), learned())


@pytest.mark.parametrize("name", ["ema", "gradient", "residual"])
def test_a_codebook_in_training_that_nothing_updates_says_so_once(name):
    quantizer = MAKERS[name]()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(MOST_PASSES):  # as many as a run may accumulate
            quantizer(torch.randn(4, D))
        assert not seen
        for _ in range(5):
            quantizer(torch.randn(4, D))
    books = [one for one in quantizer.modules() if isinstance(one, CodebookQuantizer)]
    assert ["passes in training without update()" in str(w.message) for w in seen] == [True] * len(
        books
    )


def test_of_passes_that_nothing_updates_only_the_last_are_kept():
    quantizer = EMAVectorQuantizer(K, D)
    passes = torch.randn(MOST_PASSES + 3, 1, D)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for x in passes:
            quantizer(x)
    (rows,) = quantizer.statistics()
    assert torch.equal(rows, passes[3:].flatten())


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
        quantizer.update()
        losses.append(float(error.detach()))
    assert losses[-1] < 0.25 * losses[0]
    assert quantizer.eval()(encoder(data)).codes.unique().numel() > 20


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (EMAVectorQuantizer(16, 4), "EMAVectorQuantizer(codebook_size=16, dim=4)"),
        (FSQ([8, 5]), "FSQ(codebook_size=40, dim=2)"),
        (LFQ(3), "LFQ(codebook_size=8, dim=3)"),
        (
            ProductQuantizer([VectorQuantizer(16, 4), VectorQuantizer(16, 4)]),
            "  codebook_size=16, dim=8, num_codebooks=2",
        ),
        (
            ResidualQuantizer([SimVQ(16, 4), SimVQ(16, 4), SimVQ(16, 4)]),
            "  codebook_size=16, dim=4, num_codebooks=3",
        ),
    ],
)
def test_a_quantizer_shows_its_number_of_codes_and_of_channels(made, says):
    assert says in repr(made).splitlines()
