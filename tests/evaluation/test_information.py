"""Pictures of a codebook, and what `evaluate` keeps of both."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import small
import torch
from PIL import Image, ImageDraw
from untrained import workplace

from vqvae_lightning import cli
from vqvae_lightning.config import merge_overrides
from vqvae_lightning.data.codes import CodeDataModule
from vqvae_lightning.data.images import ImageDataModule
from vqvae_lightning.evaluation import information
from vqvae_lightning.evaluation.codebook import (
    cells_of,
    codes_picture,
    mean_patches,
    usage_picture,
)
from vqvae_lightning.evaluation.information import code_counts
from vqvae_lightning.metrics.codebook import CodebookUsage
from vqvae_lightning.models.autoencoder import Autoencoder
from vqvae_lightning.models.build import build_autoencoder
from vqvae_lightning.models.layout import CodeLayout
from vqvae_lightning.models.quantizers.codebooks import EMAVectorQuantizer
from vqvae_lightning.models.settings import VQVAEConfig
from vqvae_lightning.models.trunks.conv import ConvTrunk
from vqvae_lightning.training.build import build
from vqvae_lightning.training.loading import load_run
from vqvae_lightning.training.runs import Run


class TestPictures:
    @pytest.mark.parametrize(
        ("k", "size"), [(16, (4, 4)), (40, (4, 4)), (3, (4, 8)), (600, (4, 4))]
    )
    def test_two_patches_for_each_code(self, k, size):
        torch.manual_seed(0)
        network = ConvTrunk.Config(hidden=4, residual_hidden=2, residual_blocks=1)
        shape = (1, 4 * size[0], 4 * size[1])
        quantizer = EMAVectorQuantizer.Config(k)
        config = VQVAEConfig(quantizer=quantizer, latent_dim=2, trunk=network)
        net = build_autoencoder(config, shape).eval()
        pairs = [(torch.zeros(5, *shape), torch.randint(k, (5, *size)))]
        means, counts = mean_patches(pairs, CodeLayout(size, k), *cells_of(net))
        picture = codes_picture(net, counts, means)
        shown, columns = min(k, 512), min(k, 32)
        assert picture.size == (
            2 * (14 * columns + 2),
            2 * (2 * 14 * math.ceil(shown / columns) + 2),
        )

    def test_a_vector_latent_is_shown_whole(self):
        network = ConvTrunk.Config(hidden=4, residual_hidden=2, residual_blocks=1)
        quantizer = EMAVectorQuantizer.Config(3)
        config = VQVAEConfig(quantizer=quantizer, latent="vector", latent_dim=2, trunk=network)
        net = build_autoencoder(config, (3, 8, 8)).eval()
        pairs = [(torch.zeros(3, 3, 8, 8), torch.tensor([0, 0, 2]).view(3, 1, 1))]
        means, counts = mean_patches(pairs, CodeLayout((1, 1), 3), *cells_of(net))
        assert counts.tolist() == [[2, 0, 1]]
        picture = codes_picture(net, counts, means)
        assert picture.size == (2 * (10 * 3 + 2), 2 * (10 * 2 + 2))

    def test_mean_patches_by_hand(self):
        """Cells of 2 × 2 pixels filled with one value each: a patch's middle is the mean over a
        code's places.
        """
        values = torch.arange(9.0).view(1, 1, 3, 3)
        x = values.repeat_interleave(2, 2).repeat_interleave(2, 3)
        codes = torch.tensor([[[0, 0, 1], [1, 1, 1], [1, 1, 3]]])
        layout = CodeLayout((3, 3), 4)
        alone, counts = mean_patches([(x, codes)], layout, (2, 2), 1)
        assert counts.tolist() == [[2, 6, 0, 1]]
        assert alone.shape == (4, 1, 2, 2)
        assert alone[:, 0, 0, 0].tolist() == [0.5, pytest.approx(27 / 6), 0, 8]
        around, _ = mean_patches([(x, codes)], layout, (2, 2), 3)
        assert torch.equal(
            around[3, 0, ::2, ::2], torch.tensor([[4.0, 5, 5], [7, 8, 8], [7, 8, 8]])
        )
        parts, twice = mean_patches([(x, codes), (x + 2, codes)], layout, (2, 2), 3)
        assert torch.equal(twice, 2 * counts)
        torch.testing.assert_close(parts, around + torch.tensor([1.0, 1, 0, 1]).view(4, 1, 1, 1))

    @pytest.mark.parametrize("counts", [[1], [0, 5, 0, 1], [10_000] * 3, [0, 1] * 1000])
    def test_usage_of_any_number_of_codes(self, counts):
        assert usage_picture(torch.tensor(counts), "test").size == (1000, 460)

    # its counts are set, not updated
    @pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
    @pytest.mark.parametrize("shape", [(16,), (1, 16), (3, 16)])
    def test_the_perplexity_shown_is_that_of_the_metrics(self, shape, monkeypatch):
        texts = []
        monkeypatch.setattr(
            ImageDraw.ImageDraw, "text", lambda self, place, text, **_: texts.append(text)
        )
        counts = torch.randint(0, 50, shape, generator=torch.Generator().manual_seed(0))
        usage = CodebookUsage(16, shape[0] if len(shape) > 1 else 1)
        usage.counts += counts.view_as(usage.counts)
        usage_picture(counts, "test")
        expected = usage.compute()["perplexity"].item()
        assert expected <= 16
        assert any(text.endswith(f"codes used, perplexity {expected:.1f}") for text in texts)

    def test_a_bar_for_each_used_code(self):
        """4 codes, one never used: the last quarter of the plot is empty."""
        picture = usage_picture(torch.tensor([5, 0, 100, 1]), "test")
        bars = [picture.getpixel((90 + 220 * i + 100, 387)) for i in range(4)]
        assert bars == [(66, 105, 208)] * 3 + [(255, 255, 255)]


TWO_STEPS = ["trainer.steps=2", "trainer.validate_every=2", "trainer.log_every=2"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A trained tokenizer and a prior on it, on generated images."""
    root = tmp_path_factory.mktemp("information")
    with workplace(root):
        for kind in ("vqvae", "prior"):
            file = Path(__file__).parents[2] / "experiments" / "mnist" / f"{kind}.yaml"
            places = [f"data.root={root / 'data'}", f"runs={root / 'runs'}", f"name={kind}"]
            settings = merge_overrides(
                small.DATA, small.TRAINER, small.KINDS[kind], TWO_STEPS, places
            )
            cli.main(["train", str(file), *settings])
        yield {kind: Run.open(root / "runs" / kind) for kind in ("vqvae", "prior")}


def test_a_tokenizer_is_measured_and_shown(runs):
    run = runs["vqvae"]
    measured = cli.evaluate([str(run.path)])
    assert run.record.test.items() >= measured.items()
    assert measured["test/unigram_bits_per_code"] >= measured["test/code_entropy_bits"] - 1e-5
    assert (
        min(measured["test/code_kl_train_test_bits"], measured["test/code_kl_test_train_bits"]) >= 0
    )
    for name in ("codes", "usage"):
        with Image.open(run.images / f"{name}.png") as picture:
            picture.verify()
    assert {"val/unigram_bits_per_code", "val/code_kl_val_train_bits"} <= set(
        cli.evaluate([str(run.path), "split=val"])
    )


def test_a_prior_is_measured_by_subtraction(runs):
    run = runs["prior"]
    measured = cli.evaluate([str(run.path)])
    assert run.record.test.items() >= measured.items()
    bits = measured["test/bits_per_code"]
    assert measured["test/saved_vs_uniform_bits"] == pytest.approx(4 - bits, abs=1e-6)
    assert measured["test/saved_vs_unigram_bits"] == pytest.approx(
        measured["test/unigram_bits_per_code"] - bits, abs=1e-6
    )


def test_a_tokenizer_and_its_prior_count_the_same_codes(runs):
    images, codes = (build(run.experiment())[0] for run in runs.values())
    assert isinstance(images, ImageDataModule)
    assert isinstance(codes, CodeDataModule)
    net: Any = load_run(runs["vqvae"]).net
    images.setup()
    codes.prepare_data()
    codes.setup()
    for split, n in {"train": 280, "test": 64}.items():
        counts = code_counts(net, images, split)
        assert torch.equal(counts, codes.code_counts(split))
        assert counts.sum() == 49 * n


def test_training_codes_that_a_prior_stored_are_counted_and_not_made_again(runs, monkeypatch):
    run, encoded = runs["vqvae"], information.encoded
    before, splits = cli.evaluate([str(run.path)]), []

    def seen(
        net: Autoencoder, images: ImageDataModule, split: str
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        splits.append(split)
        return encoded(net, images, split)

    monkeypatch.setattr(information, "encoded", seen)
    assert cli.evaluate([str(run.path)]) == before
    assert splits == ["test"]
    splits.clear()
    stored = run.path / "codes"
    stored.rename(run.path / "elsewhere")
    try:
        assert cli.evaluate([str(run.path)]) == before
        assert splits == ["test", "train"]
        assert not stored.exists()
    finally:
        (run.path / "elsewhere").rename(stored)


def test_the_age_of_codes_is_logged_at_steps_that_log(runs):
    rows = [row for row in runs["vqvae"].metrics() if "train/oldest_code" in row]
    assert len(rows) == 1
    assert 0 <= rows[0]["train/oldest_code"] <= 2
    assert "train/loss" in rows[0]
