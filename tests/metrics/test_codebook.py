"""Use of a codebook: by hand, and the same however the split is cut into batches."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vqvae_lightning.metrics.codebook import CodebookUsage


def usage(codes, k):
    metric = CodebookUsage(k)
    metric.update(torch.as_tensor(codes))
    return {name: value.item() for name, value in metric.compute().items()}


class TestCodebookUsage:
    def test_one_code_is_exactly_1(self):
        assert usage([3] * 10, 8) == {
            "perplexity": 1.0,
            "codes_used": 1.0,
            "code_entropy_bits": 0.0,
        }

    @pytest.mark.parametrize("k", [1, 2, 7, 512])
    def test_all_codes_alike_are_k(self, k):
        values = usage(torch.arange(k).repeat(3), k)
        assert values["perplexity"] == pytest.approx(k, rel=1e-9)
        assert values["codes_used"] == k
        assert values["code_entropy_bits"] == pytest.approx(math.log2(k), abs=1e-9)

    def test_codebook_usage_is_that_by_hand(self):
        """Shares 1/2, 1/4, 1/4: 1.5 bits."""
        values = usage([0, 0, 1, 2], 8)
        assert values["code_entropy_bits"] == pytest.approx(1.5)
        assert values["perplexity"] == pytest.approx(2**1.5)
        assert values["codes_used"] == 3

    def test_comes_from_summed_counts(self):
        """Two batches, each of its own single code, use two codes: a mean over batches would say
        one.
        """
        metric = CodebookUsage(4)
        for code in (0, 3):
            metric.update(torch.full((2, 5, 5), code, dtype=torch.int32))
        assert metric.compute()["perplexity"].item() == pytest.approx(2.0)

    def test_each_of_several_codebooks_has_its_own_histogram(self):
        """Map 0 is always code 1, map 1 is 0 or 3: 0 and 1 bit. Pooled, it would be three codes."""
        # N,w,M
        codes = torch.stack(
            [torch.ones(2, 4, dtype=torch.int64), torch.tensor([[0, 3, 3, 0]] * 2)], dim=-1
        )
        for shaped in (codes, codes.flatten(1), codes.int()):
            metric = CodebookUsage(5, num_codebooks=2)
            metric.update(shaped)
            values = metric.compute()
            assert values["code_entropy_bits"].item() == pytest.approx(0.5)
            assert values["perplexity"].item() == pytest.approx(2**0.5)
            assert values["codes_used"].item() == 1.5

    @settings(max_examples=30, deadline=None)
    @given(
        st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(1, 7), st.integers(0, 99)
    )
    def test_bounds_names_and_batches_do_not_matter(self, codes, size, seed):
        torch.manual_seed(seed)
        values = usage(codes, 10)
        assert 1 - 1e-12 <= values["perplexity"] <= values["codes_used"] + 1e-9 <= 10 + 1e-9
        assert usage(torch.randperm(10)[codes], 10) == pytest.approx(values)
        metric = CodebookUsage(10)
        for start in range(0, len(codes), size):
            metric.update(torch.tensor(codes[start : start + size]))
        assert {name: value.item() for name, value in metric.compute().items()} == values
