"""The order of batches is a function of (seed, epoch), whatever the number of ranks and wherever a
run stopped.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vqvae_lightning.data.loader import EvalLoader, TrainLoader
from vqvae_lightning.data.randomness import RowNoise, derive_seed, seed_torch
from vqvae_lightning.data.rows import MemoryRows

ROWS = 37
X, LABELS = 10 * torch.arange(ROWS)[:, None], 100 * torch.arange(ROWS)
HELD = MemoryRows(X, LABELS)


def loader(batch_size=6, seed=0, rank=0, world=1, micro_batches=1):
    return TrainLoader(HELD, batch_size, seed, rank, world, micro_batches)


def epoch(train, number=0):
    train.sampler.set_epoch(number)
    return list(train)


def rows_of(batches):
    return torch.cat([batch.rows for batch in batches]).tolist()


def check_rows(batches):
    """A batch holds the images and labels of the rows that it names."""
    for batch in batches:
        assert torch.equal(batch.x, X[batch.rows])
        assert torch.equal(batch.labels, LABELS[batch.rows])


class TestTrain:
    @pytest.mark.parametrize("number", [0, 1, 7])
    @pytest.mark.parametrize("batch_size", [1, 5, 6, 37])
    def test_an_epoch_is_a_permutation_less_the_remainder(self, batch_size, number):
        train = loader(batch_size)
        batches = epoch(train, number)
        check_rows(batches)
        assert len(batches) == len(train) == ROWS // batch_size
        assert all(len(batch.rows) == batch_size for batch in batches)
        drawn = rows_of(batches)
        assert len(set(drawn)) == len(drawn) == ROWS - ROWS % batch_size

    def test_differs_between_epochs_and_seeds_and_is_repeatable(self):
        orders = [rows_of(epoch(loader(seed=seed), number)) for seed in (0, 1) for number in (0, 1)]
        assert len({tuple(order) for order in orders}) == 4
        assert rows_of(epoch(loader(seed=1), 1)) == orders[3]

    def test_over_many_epochs_every_row_is_seen(self):
        train = loader(30)
        assert {i for number in range(20) for i in rows_of(epoch(train, number))} == set(
            range(ROWS)
        )

    @settings(max_examples=20, deadline=None)
    @given(
        world=st.integers(1, 3),
        share=st.integers(1, 6),
        seed=st.integers(0, 99),
        number=st.integers(0, 9),
    )
    def test_the_ranks_slices_make_up_the_global_batch(self, world, share, seed, number):
        whole = epoch(loader(world * share, seed), number)
        ranks = [epoch(loader(world * share, seed, rank, world), number) for rank in range(world)]
        assert all(len(batches) == len(whole) for batches in ranks)
        for batch, *parts in zip(whole, *ranks, strict=True):
            assert torch.equal(torch.cat([part.rows for part in parts]), batch.rows)
            assert torch.equal(torch.cat([part.x for part in parts]), batch.x)
            assert all(part.seed == batch.seed for part in parts)

    @pytest.mark.parametrize("micro_batches", [2, 3, 6])
    def test_micro_batches_make_up_the_batches_and_no_more(self, micro_batches):
        """37 rows are 12 micro-batches of 3, or 37 of 1; the epoch ends with the sixth batch."""
        train = loader(micro_batches=micro_batches)
        cut = epoch(train, 2)
        assert len(cut) == len(train) == 6 * micro_batches
        together = [rows_of(cut[i : i + micro_batches]) for i in range(0, len(cut), micro_batches)]
        assert together == [batch.rows.tolist() for batch in epoch(loader(), 2)]
        assert [batch.seed for batch in cut[::micro_batches]] == [
            batch.seed for batch in epoch(loader(), 2)
        ]
        assert [(batch.part, batch.parts) for batch in cut] == [
            (p, micro_batches) for p in range(micro_batches)
        ] * 6

    def test_an_epoch_ends_with_a_whole_batch_of_passes(self):
        """37 rows are 4 batches of 8, but 9 micro_batches of 4."""
        assert rows_of(epoch(loader(8, micro_batches=2))) == rows_of(epoch(loader(8)))

    def test_every_batch_has_its_own_seed(self):
        seeds = [
            batch.seed
            for seed in (0, 1)
            for number in range(5)
            for batch in epoch(loader(seed=seed), number)
        ]
        assert len(set(seeds)) == len(seeds) == 2 * 5 * 6

    @pytest.mark.parametrize("world", [1, 2])
    @pytest.mark.parametrize("stop", range(1, 7))
    def test_resumes_in_mid_epoch_with_the_batches_that_are_left(self, stop, world):
        uninterrupted = loader(rank=world - 1, world=world)
        expected = epoch(uninterrupted, 3) + epoch(uninterrupted, 4)
        stopped = loader(rank=world - 1, world=world)
        stopped.sampler.set_epoch(3)
        iterator = iter(stopped)
        before = [next(iterator) for _ in range(stop)]
        resumed = loader(rank=world - 1, world=world)
        resumed.load_state_dict(stopped.state_dict())
        after = epoch(resumed, 3) if stop < len(stopped) else []
        after += epoch(resumed, 4)
        assert rows_of(before + after) == rows_of(expected)
        assert [batch.seed for batch in before + after] == [batch.seed for batch in expected]

    def test_state_is_plain(self):
        assert loader().state_dict() == {"next_micro_batch": 0}


class TestEvaluation:
    @staticmethod
    def batches(batch_size, rank=0, world=1, seed=0):
        loader = EvalLoader(HELD, batch_size, seed, rank, world)
        batches = list(loader)
        assert len(batches) == len(loader)
        check_rows(batches)
        return batches

    @pytest.mark.parametrize("batch_size", [1, 5, 20, 37, 100])
    def test_every_row_once_in_order(self, batch_size):
        assert rows_of(self.batches(batch_size)) == list(range(ROWS))

    @pytest.mark.parametrize("world", [1, 2, 3])
    @pytest.mark.parametrize("batch_size", [1, 5, 20, 100])
    def test_ranks_share_the_batches_of_one_process(self, batch_size, world):
        """Each row once, and each batch with the rows and the seed that it has in one process."""
        dealt = [batch for rank in range(world) for batch in self.batches(batch_size, rank, world)]
        assert sorted(rows_of(dealt)) == list(range(ROWS))
        expected = [(batch.seed, batch.rows.tolist()) for batch in self.batches(batch_size)]
        assert (
            sorted(((batch.seed, batch.rows.tolist()) for batch in dealt), key=lambda b: b[1])
            == expected
        )

    def test_ranks_differ_by_at_most_one_batch(self):
        counts = [len(self.batches(5, rank, 3)) for rank in range(3)]
        assert max(counts) - min(counts) <= 1

    def test_evaluation_noise_is_the_same_at_every_validation(self):
        loader = EvalLoader(HELD, 5, 0, 0, 1)
        assert [batch.seed for batch in loader] == [batch.seed for batch in loader]


class TestStepNoise:
    @pytest.mark.parametrize("micro_batches", [1, 2, 3])
    @pytest.mark.parametrize("world", [1, 2])
    def test_noise_of_a_step_is_the_same_however_the_step_is_cut(self, micro_batches, world):
        def noise(batch):
            seed_torch(batch.seed)
            return [batch.step_noise(batch.x.double()) for _ in range(2)]  # it goes on

        (whole,) = epoch(loader(36))
        ranks = [
            epoch(loader(36, rank=rank, world=world, micro_batches=micro_batches))
            for rank in range(world)
        ]
        cut = [noise(ranks[rank][p]) for p in range(micro_batches) for rank in range(world)]
        for expected, parts in zip(noise(whole), zip(*cut, strict=True), strict=True):
            assert torch.equal(torch.cat(parts), expected)
            assert len(expected.unique()) == 36


class TestRowNoise:
    ROWS = torch.arange(40)

    def draws(self, rows, seed=1, name="a", shape=(3, 2)):
        noise = RowNoise(seed, name, rows)
        x = torch.empty(len(rows), *shape, dtype=torch.float64)
        return torch.stack([noise.normal(x), noise.normal(x)], dim=1)  # rows,2,…

    @pytest.mark.parametrize("shape", [(1,), (3, 2), (16,), (5, 7)])
    @pytest.mark.parametrize("size", [1, 7, 30, 40])
    def test_noise_of_a_row_is_the_same_whatever_stands_beside_it(self, size, shape):
        whole = self.draws(self.ROWS, shape=shape)
        assert torch.equal(
            torch.cat([self.draws(part, shape=shape) for part in self.ROWS.split(size)]), whole
        )
        assert torch.equal(self.draws(self.ROWS.flip(0), shape=shape).flip(0), whole)

    def test_differs_between_rows_calls_names_and_seeds(self):
        drawn = torch.cat([self.draws(self.ROWS, seed, name) for seed in (1, 2) for name in "ab"])
        assert len(drawn.unique()) == drawn.numel()

    def test_noise_of_rows_is_standard_normal_and_uniform(self):
        """Over rows, for every row is a stream of its own: mean and variance to five standard
        errors.
        """
        noise, x = RowNoise(3, "a", torch.arange(4000)), torch.empty(4000, 2, dtype=torch.float64)
        drawn = noise.normal(x)
        assert (drawn.mean(0).abs() < 5 / 4000**0.5).all()
        assert ((drawn.var(0) - 1).abs() < 5 * (2 / 4000) ** 0.5).all()
        assert abs(drawn[:-1, 0] @ drawn[1:, 0]) < 5 * 4000**0.5  # rows beside each other
        uniform = noise.uniform(x)
        assert uniform.dtype == torch.float32
        assert 0 <= uniform.min() <= uniform.max() < 1
        assert ((uniform.mean(0) - 0.5).abs() < 5 * (1 / 12 / 4000) ** 0.5).all()

    def test_noise_of_rows_leaves_the_global_random_state(self):
        before = torch.get_rng_state()
        self.draws(self.ROWS)
        assert torch.equal(torch.get_rng_state(), before)


class TestDeriveSeed:
    def test_a_derived_seed_is_the_same_on_every_machine(self):
        """The first 8 bytes of SHA-256("0/order/1"), halved: changing it changes every run."""
        assert derive_seed(0, "order", 1) == 4489457307835839548

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=4))
    def test_a_derived_seed_is_one_that_torch_accepts(self, parts):
        seed = derive_seed(*parts)
        assert 0 <= seed < 2**63
        torch.Generator().manual_seed(seed)

    def test_depends_on_every_part_and_their_order(self):
        seeds = [
            derive_seed(*parts)
            for parts in [(0,), (1,), (0, 1), (1, 0), (0, "a"), (0, "b"), (0, 1, 2), (0, 12)]
        ]
        assert len(set(seeds)) == len(seeds)


def test_seeding_gives_torchs_draws_and_queues_nothing():
    torch.manual_seed(5)
    expected = torch.rand(3)
    queued = len(torch.cuda._queued_calls)
    for seed in (1, 2, 5):
        seed_torch(seed)
    assert torch.equal(torch.rand(3), expected)
    assert len(torch.cuda._queued_calls) == queued
