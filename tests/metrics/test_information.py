"""Nats, bits and savings of codes, by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vqvae_lightning.metrics.information import (
    bits_per_dim,
    code_information,
    code_rate,
    cross_entropy_bits,
    entropy_ratio,
    kl_bits,
    prior_savings,
    smoothed,
)

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


class TestUnits:
    def test_bits_per_dim_of_numbers_and_of_tensors(self):
        """16 ln 2 nats are 16 bits: a quarter of a bit for each of 64 values."""
        nats = 16 * math.log(2)
        assert bits_per_dim(nats, 64) == pytest.approx(0.25)
        assert bits_per_dim(torch.tensor(nats), 64).item() == pytest.approx(0.25)

    def test_the_rate_of_codes(self):
        values = code_rate(8 * math.log(2), 4)
        assert values == pytest.approx(
            {"loss": 2 * math.log(2), "rate": 8 * math.log(2), "bits_per_code": 2}
        )

    def test_a_prior_of_codes_that_never_vary_has_no_ratio(self):
        assert entropy_ratio(1.0, 4.0) == {"entropy_ratio": 0.25}
        assert entropy_ratio(0.0, 0.0) == {}
