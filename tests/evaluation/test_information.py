"""Bits of codes by hand, pictures of a codebook, and what `evaluate` keeps of both."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import small
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from untrained import workplace

from vqvae_lightning import cli
from vqvae_lightning.config import NetworkConfig, VQVAEConfig, last_words
from vqvae_lightning.evaluation import codebook
from vqvae_lightning.evaluation.codebook import codes_picture, mean_patches, usage_picture
from vqvae_lightning.evaluation.information import (
    code_counts,
    code_information,
    cross_entropy_bits,
    kl_bits,
    prior_savings,
    smoothed,
)
from vqvae_lightning.models.autoencoder import Autoencoder
from vqvae_lightning.training.build import build
from vqvae_lightning.training.loading import load_run
from vqvae_lightning.training.metrics import CodebookUsage
from vqvae_lightning.training.runs import Run

HISTOGRAMS = st.integers(1, 20).flatmap(
    lambda k: st.tuples(*[st.lists(st.integers(0, 50), min_size=k, max_size=k).filter(any)] * 2)
)


def share(*values):
    return torch.tensor(values, dtype=torch.float64)


class TestBits:
    @pytest.mark.parametrize("k", [1, 2, 7, 512])
    def test_uniform_codes_cost_log2_k(self, k):
        counts = torch.full((k,), 3)
        assert cross_entropy_bits(counts, smoothed(counts)) == pytest.approx(
            math.log2(k), abs=1e-12
        )

    def test_smoothing_by_hand(self):
        """Counts 0, 1, 5 and one more of each: 1/9, 2/9, 6/9."""
        torch.testing.assert_close(smoothed(torch.tensor([0, 1, 5])), share(1, 2, 6) / 9)

    def test_cross_entropy_by_hand(self):
        """Codes 0, 0, 1, 2 under shares 1/4, 1/2, 1/4 take 2 + 2 + 1 + 2 bits."""
        assert cross_entropy_bits(torch.tensor([2, 1, 1]), share(0.25, 0.5, 0.25)) == pytest.approx(
            7 / 4
        )

    def test_kl_by_hand_differs_between_the_directions(self):
        """p = 1/2, 1/2 and q = 1/4, 3/4: 1 − log2(3)/2 bits one way, 3/4 log2 3 − 1 the other."""
        p, q = share(0.5, 0.5), share(0.25, 0.75)
        assert kl_bits(p, q) == pytest.approx(1 - math.log2(3) / 2)
        assert kl_bits(q, p) == pytest.approx(0.75 * math.log2(3) - 1)

    def test_what_never_occurs_costs_infinitely_unless_smoothed(self):
        p, q = share(0.5, 0.5), share(1, 0)
        assert kl_bits(p, q) == math.inf
        assert math.isnan(kl_bits(torch.tensor([math.nan, 1.0]), q))
        assert kl_bits(q, p) == pytest.approx(1)
        assert math.isfinite(
            cross_entropy_bits(torch.tensor([1, 1]), smoothed(torch.tensor([9, 0])))
        )

    @settings(max_examples=60, deadline=None)
    @given(HISTOGRAMS)
    def test_counting_costs_at_least_the_entropy(self, histograms):
        train, test = (torch.tensor(counts) for counts in histograms)
        entropy = cross_entropy_bits(test, test.double() / test.sum())
        values = code_information(train, test, "test")
        assert values.keys() == {
            "unigram_bits_per_code",
            "code_kl_train_test_bits",
            "code_kl_test_train_bits",
        }
        assert all(0 <= value < math.inf for value in values.values())
        assert values["unigram_bits_per_code"] >= entropy - 1e-12
        same = code_information(test, test, "test")
        assert same["code_kl_train_test_bits"] == same["code_kl_test_train_bits"] == 0

    def test_directions_are_named_from_first_to_second(self):
        train, test = torch.tensor([7, 0]), torch.tensor([1, 1])  # smoothed: 8/9, 1/9 and 1/2, 1/2
        values = code_information(train, test, "val")
        assert values["code_kl_train_val_bits"] == pytest.approx(
            kl_bits(share(8, 1) / 9, share(1, 1) / 2)
        )
        assert values["code_kl_val_train_bits"] == pytest.approx(
            kl_bits(share(1, 1) / 2, share(8, 1) / 9)
        )

    def test_savings_of_a_prior_by_hand(self):
        """K = 4, test codes all of share 1/2: 2 bits uniform, 1 bit counted; a prior at 0.75 saves
        1.25 and 0.25.
        """
        values = prior_savings(torch.tensor([3, 1, 0, 0]), torch.tensor([5, 0, 0, 0]), 0.75)
        assert values == pytest.approx(
            {
                "unigram_bits_per_code": 1,
                "saved_vs_uniform_bits": 1.25,
                "saved_vs_unigram_bits": 0.25,
            }
        )


class TestPictures:
    @pytest.mark.parametrize(
        ("k", "size"), [(16, (4, 4)), (40, (4, 4)), (3, (4, 8)), (600, (4, 4))]
    )
    def test_two_patches_for_each_code(self, k, size):
        torch.manual_seed(0)
        network = NetworkConfig(hidden=4, residual_hidden=2, residual_blocks=1)
        shape = (1, 4 * size[0], 4 * size[1])
        net = Autoencoder(shape, VQVAEConfig(codebook_size=k, latent_dim=2, network=network)).eval()
        codes = torch.randint(k, (5, *size))
        picture = codes_picture(
            net, codes.flatten().bincount(minlength=k), [(torch.zeros(5, *shape), codes)]
        )
        shown, columns = min(k, 512), min(k, 32)
        assert picture.size == (
            2 * (14 * columns + 2),
            2 * (2 * 14 * math.ceil(shown / columns) + 2),
        )

    def test_a_vector_latent_is_shown_whole(self):
        network = NetworkConfig(hidden=4, residual_hidden=2, residual_blocks=1)
        config = VQVAEConfig(codebook_size=3, latent="vector", latent_dim=2, network=network)
        codes = torch.tensor([0, 0, 2]).view(3, 1, 1)
        picture = codes_picture(
            Autoencoder((3, 8, 8), config).eval(),
            torch.tensor([2, 0, 1]),
            [(torch.zeros(3, 3, 8, 8), codes)],
        )
        assert picture.size == (2 * (10 * 3 + 2), 2 * (10 * 2 + 2))

    def test_mean_patches_by_hand(self):
        """Cells of 2 × 2 pixels filled with one value each: a patch's middle is the mean over a
        code's places.
        """
        values = torch.arange(9.0).view(1, 1, 3, 3)
        x = values.repeat_interleave(2, 2).repeat_interleave(2, 3)
        codes = torch.tensor([[[0, 0, 1], [1, 1, 1], [1, 1, 3]]])
        alone = mean_patches([(x, codes)], 4, (2, 2), 1)
        assert alone.shape == (4, 1, 2, 2)
        assert alone[:, 0, 0, 0].tolist() == [0.5, pytest.approx(27 / 6), 0, 8]
        around = mean_patches([(x, codes)], 4, (2, 2), 3)
        assert torch.equal(
            around[3, 0, ::2, ::2], torch.tensor([[4.0, 5, 5], [7, 8, 8], [7, 8, 8]])
        )
        parts = mean_patches([(x, codes), (x + 2, codes)], 4, (2, 2), 3)
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
            codebook.ImageDraw.ImageDraw, "text", lambda self, place, text, **_: texts.append(text)
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
            settings = last_words(small.DATA, small.TRAINER, small.KINDS[kind], TWO_STEPS, places)
            cli.main(["train", str(file), *settings])
        yield {kind: Run.open(root / "runs" / kind) for kind in ("vqvae", "prior")}


def test_a_tokenizer_is_measured_and_shown(runs):
    run = runs["vqvae"]
    measured = cli.evaluate([str(run.path)])
    assert run.info["test"].items() >= measured.items()
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
    assert run.info["test"].items() >= measured.items()
    bits = measured["test/bits_per_code"]
    assert measured["test/saved_vs_uniform_bits"] == pytest.approx(4 - bits, abs=1e-6)
    assert measured["test/saved_vs_unigram_bits"] == pytest.approx(
        measured["test/unigram_bits_per_code"] - bits, abs=1e-6
    )


def test_a_tokenizer_and_its_prior_count_the_same_codes(runs):
    images, codes = (build(run.experiment())[0] for run in runs.values())
    images.setup()
    codes.prepare_data()
    codes.setup()
    for split, n in {"train": 280, "test": 64}.items():
        counts = code_counts(load_run(runs["vqvae"]), images, split)
        assert torch.equal(counts, code_counts(SimpleNamespace(kind="prior"), codes, split))
        assert counts.sum() == 49 * n


def test_the_age_of_codes_is_logged_at_steps_that_log(runs):
    rows = [row for row in runs["vqvae"].metrics() if "train/oldest_code" in row]
    assert len(rows) == 1
    assert 0 <= rows[0]["train/oldest_code"] <= 2
    assert "train/loss" in rows[0]
