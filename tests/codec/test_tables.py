"""Integer tables: the same on every machine whose logits agree, and what the coder really uses."""

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqvae_lightning.codec.streams import Reader, Writer, coder_series
from vqvae_lightning.codec.tables import (
    CLIP,
    EXPONENTIALS,
    GRID,
    MARGIN,
    PRECISION,
    histogram_steps,
    nats_of,
    steps_of,
    weights_of,
)

TABLES = st.lists(st.integers(0, CLIP), min_size=2, max_size=40).map(
    lambda steps: np.array([0, *steps], np.uint8)
)


def test_the_exponentials_are_numbers_of_the_format() -> None:
    # Another value would make every file of another machine unreadable.
    assert EXPONENTIALS[GRID] == round(2**30 / math.e)
    digest = hashlib.sha256(EXPONENTIALS.astype("<i8").tobytes()).hexdigest()
    assert digest[:16] == "6795b3313df8c0fe"


@given(TABLES)
def test_weights_are_whole_and_sum_to_what_the_coder_leaves_free(steps: np.ndarray) -> None:
    weights = weights_of(steps)
    assert weights.min() >= 0
    assert weights.sum() == 2**PRECISION - len(steps)
    order = np.argsort(steps, kind="stable")
    assert (np.diff(weights[order]) <= 0).all()


@pytest.mark.parametrize("symbol", [0, 1, 2, 3])
def test_the_coder_takes_a_weight_plus_one_as_the_frequency(symbol: int) -> None:
    weights, n = weights_of(np.array([0, 5, 60, CLIP], np.uint8)), 20_000
    wanted = n * (PRECISION - math.log2(weights[symbol] + 1))
    for given_weights in (weights, np.repeat(weights[None], n, 0)):
        writer = Writer()
        writer.write(np.full(n, symbol), given_weights)
        assert abs(8 * len(writer.data()) - wanted) < 65
        assert (Reader(writer.data()).read(n, weights) == symbol).all()


@given(st.integers(0, 2**32 - 1))
def test_certain_steps_are_the_same_for_logits_that_another_build_could_give(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 4, (64, 50))
    other = logits + rng.uniform(-1, 1, logits.shape) * MARGIN * 0.99
    (steps, certain), (again, _) = steps_of(logits), steps_of(other)
    assert certain.mean() > 0.9
    assert (steps[certain] == again[certain]).all()


def test_a_logit_beside_a_rounding_edge_is_not_certain() -> None:
    edge = -0.5 / GRID
    logits = np.array([[0.0, edge + 2 * MARGIN], [0.0, edge + MARGIN / 2], [0.0, edge]])
    assert steps_of(logits)[1].tolist() == [True, False, False]
    # A symbol far beyond CLIP has no weight on either side of an edge.
    assert steps_of(np.array([[0.0, -30 + edge]]))[1].tolist() == [True]


def test_logits_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        steps_of(np.array([[0.0, np.nan]]))


def test_rounding_to_the_grid_costs_less_than_a_thousandth_of_a_nat() -> None:
    logits = np.random.default_rng(0).normal(0, 3, (200, 64))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    q = (weights_of(steps_of(logits)[0]) + 1) / 2**PRECISION
    assert (p * np.log(p / q)).sum(1).mean() < 1e-3


def test_a_histogram_codes_its_symbols_at_their_entropy() -> None:
    counts = np.array([1000, 400, 30, 0, 1])
    p = counts[counts > 0] / counts.sum()
    entropy = -(counts[counts > 0] * np.log(p)).sum()
    assert entropy <= nats_of(counts, histogram_steps(counts)) < 1.002 * entropy
    assert (histogram_steps(np.zeros(3)) == 0).all()


def test_a_version_of_the_coder_is_told_by_what_guards_its_bits() -> None:
    assert [coder_series(v) for v in ("0.5.0", "0.5.3", "1.2.0")] == ["0.5", "0.5", "1"]
