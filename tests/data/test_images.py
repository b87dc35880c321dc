"""Images between uint8 and [-1, 1], the validation split, and draws that do not depend on the
number of ranks.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vqvae_lightning.config import DataConfig
from vqvae_lightning.data.dataset import Dataset
from vqvae_lightning.data.images import ImageDataModule, to_float, to_uint8
from vqvae_lightning.data.loader import Batch
from vqvae_lightning.data.rows import spread, stratified_split

SHAPE = (3, 8, 8)


@pytest.fixture
def batch():
    torch.manual_seed(0)
    x = torch.randint(0, 256, (12, *SHAPE), dtype=torch.uint8)
    return Batch(x, torch.arange(12), torch.arange(12), seed=123)


@pytest.fixture
def stored(monkeypatch):
    """What lies on disk: 60 training and 20 test images, in six classes."""
    random = np.random.default_rng(0)
    arrays = {
        split: (random.integers(0, 256, (n, *SHAPE), dtype=np.uint8), np.arange(n) % 6)
        for split, n in (("train", 60), ("test", 20))
    }
    monkeypatch.setattr(Dataset, "load", lambda dataset, root, split: arrays[split])
    return arrays


def module(seed=0, **fields):
    return ImageDataModule(
        DataConfig(name="cifar10", **{"validation_size": 12, "batch_size": 6, **fields}), seed
    )


class TestRange:
    def test_uint8_survives(self):
        levels = torch.arange(256, dtype=torch.uint8)
        assert torch.equal(to_uint8(to_float(levels)), levels)

    def test_ends_and_middle(self):
        assert to_float(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1.0, 1.0]
        assert to_uint8(torch.tensor([-7.0, -1.0, 1.0, 7.0])).tolist() == [0, 0, 255, 255]
        assert to_float(torch.zeros(1, dtype=torch.uint8)).dtype == torch.float32

    def test_scaling_alone_changes_nothing_else(self, batch):
        scaled = module().scale(batch)
        assert torch.equal(to_uint8(scaled.x), batch.x)
        assert torch.equal(scaled.labels, batch.labels)
        assert torch.equal(scaled.rows, batch.rows)
        assert scaled.seed == batch.seed


class TestStratifiedSplit:
    @settings(max_examples=50, deadline=None)
    @given(
        data=st.data(),
        sizes=st.lists(st.integers(45, 55), min_size=1, max_size=10),
        seed=st.integers(0, 99),
    )
    def test_size_is_exact_and_each_label_has_its_share(self, data, sizes, seed):
        """For labels of about equal size, as all our datasets have."""
        labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
        size = data.draw(st.integers(1, len(labels) - 1))
        mask = stratified_split(labels, size, seed)
        assert mask.dtype == bool
        assert mask.shape == labels.shape
        assert mask.sum() == size
        for label in np.unique(labels):
            share = size * (labels == label).mean()
            assert abs((mask & (labels == label)).sum() - share) <= 1

    def test_a_split_is_a_function_of_the_seed(self):
        labels = np.arange(1000) % 10
        first, again, other = (stratified_split(labels, 100, seed) for seed in (0, 0, 1))
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)

    def test_a_split_does_not_take_the_first_rows_of_a_label(self):
        labels = np.zeros(1000, dtype=int)
        assert 0.3 < np.flatnonzero(stratified_split(labels, 100, 0)).mean() / 1000 < 0.7


def pixels(data, split):
    """All images of a split, uint8 (N, C, H, W)."""
    return data.splits[split].first(len(data.splits[split]))


class TestSplits:
    def test_training_and_validation_share_the_training_set(self, stored):
        data = module()
        data.setup()
        assert {name: len(rows) for name, rows in data.splits.items()} == {
            "train": 48,
            "val": 12,
            "test": 20,
        }
        rows = np.concatenate([pixels(data, name).numpy() for name in ("train", "val")])
        assert sorted(map(bytes, rows)) == sorted(map(bytes, stored["train"][0]))
        assert np.bincount(data.splits["val"].labels).tolist() == [2] * 6
        assert np.array_equal(pixels(data, "test"), stored["test"][0])

    def test_the_split_is_the_seeds(self, stored):
        same, again, other = (module(seed) for seed in (0, 0, 1))
        for data in (same, again, other):
            data.setup()
        assert torch.equal(pixels(same, "val"), pixels(again, "val"))
        assert not torch.equal(pixels(same, "val"), pixels(other, "val"))

    def test_a_pass_is_a_share_of_the_batch(self, stored):
        data = ImageDataModule(DataConfig(batch_size=12, validation_size=12), 0, accumulate=4)
        data.setup()
        assert next(iter(data.train_dataloader())).x.shape[0] == 3

    @pytest.mark.parametrize(
        ("name", "fields"),
        [
            ("data.validation_size", {"validation_size": 50_000}),
            ("data.batch_size", {"batch_size": 49_989}),
        ],
    )
    def test_splits_that_the_training_set_cannot_fill_are_refused(self, name, fields):
        """CIFAR-10 has 50 000 training images, 12 of which are held out here."""
        with pytest.raises(ValueError, match=name):
            module(**fields)

    @pytest.mark.parametrize("eval_batch_size", [5, 500])
    @pytest.mark.parametrize("n", [1, 12])
    def test_references_are_the_first_images(self, stored, eval_batch_size, n):
        data = module(eval_batch_size=eval_batch_size)
        data.setup()
        assert torch.equal(data.references("val", n), to_float(pixels(data, "val")[:n]))


class TestFlip:
    @pytest.fixture
    def data(self):
        return module(flip=True)

    def test_mirrors_whole_images_left_to_right_and_about_half_of_them(self, data, batch):
        x = batch.x.repeat(40, 1, 1, 1)
        flipped = to_uint8(data.scale(batch._replace(x=x), augment=True).x)
        kept, mirrored = ((flipped == y).flatten(1).all(1) for y in (x, x.flip(-1)))
        assert (kept ^ mirrored).all()
        assert 0.4 < mirrored.float().mean() < 0.6

    def test_a_flip_is_a_function_of_the_batchs_seed(self, data, batch):
        first, again, other = (
            data.scale(batch._replace(seed=seed), augment=True).x for seed in (1, 1, 2)
        )
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_a_flip_leaves_the_global_random_state(self, data, batch):
        before = torch.get_rng_state()
        data.scale(batch, augment=True)
        assert torch.equal(torch.get_rng_state(), before)

    def test_evaluation_is_not_augmented(self, data, batch):
        assert torch.equal(to_uint8(data.scale(batch).x), batch.x)


class TestBinarization:
    def test_pixels_are_minus_1_or_1(self, batch):
        x = module(binarize="dynamic").scale(batch).x
        assert x.dtype == torch.float32
        assert set(x.unique().tolist()) == {-1.0, 1.0}

    def test_the_grey_value_is_the_probability(self, batch):
        levels = torch.tensor([0, 1, 64, 128, 254, 255], dtype=torch.uint8)
        x = levels.view(6, 1, 1, 1).expand(6, 1, 200, 200)
        share = (
            (module(binarize="dynamic").scale(batch._replace(x=x, rows=torch.arange(6))).x + 1) / 2
        ).mean((1, 2, 3))
        p = levels.double() / 255
        assert ((share - p).abs() <= 5 * (p * (1 - p) / 200**2).sqrt()).all()  # exact at 0 and 255

    def test_dynamic_draws_anew_for_every_batch_seed(self, batch):
        data = module(binarize="dynamic")
        first, again, other = (data.scale(batch._replace(seed=seed)).x for seed in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_static_is_drawn_once_and_for_all(self, stored):
        """The test set is the same binary images in every run."""
        first, other = module(seed=0, binarize="static"), module(seed=1, binarize="static")
        for data in (first, other):
            data.setup()
            assert set(pixels(data, "train").unique().tolist()) == {0, 255}
            assert pixels(data, "train").dtype == torch.uint8
        assert torch.equal(pixels(first, "test"), pixels(other, "test"))
        again = module(seed=0, binarize="static")
        again.setup()
        for name in first.splits:
            assert torch.equal(pixels(first, name), pixels(again, name))

    def test_static_leaves_the_next_step_nothing_to_draw(self, stored):
        data = module(binarize="static")
        data.setup()
        batch = next(iter(data.val_dataloader()))
        assert torch.equal(to_uint8(data.scale(batch).x), batch.x)


@pytest.mark.parametrize(
    "fields", [{"flip": True}, {"binarize": "dynamic"}, {"flip": True, "binarize": "dynamic"}]
)
@pytest.mark.parametrize("world", [1, 2, 3])
def test_draws_of_training_do_not_depend_on_how_a_batch_is_cut(batch, world, fields):
    data = module(**fields)
    share = len(batch.x) // world
    parts = [
        data.scale(
            batch._replace(x=batch.x[r * share : (r + 1) * share], part=r, parts=world),
            augment=True,
        ).x
        for r in range(world)
    ]
    assert torch.equal(torch.cat(parts), data.scale(batch, augment=True).x)


def test_images_and_labels_of_an_evaluation_are_on_its_device(stored, monkeypatch):
    device, data = torch.device("meta"), module()
    monkeypatch.setattr(data, "scale", lambda batch: batch)  # looks at values, which meta has not
    for batch in data.batches("test", device):
        assert batch.x.device == batch.labels.device == device


@pytest.mark.parametrize("size", [1, 5, 12, 500])
def test_dynamic_binarization_of_an_evaluation_is_the_images(stored, size):
    data, other = (module(binarize="dynamic", eval_batch_size=n) for n in (20, size))
    whole, cut = (
        torch.cat([batch.x for batch in d.batches("test", torch.device("cpu"))])
        for d in (data, other)
    )
    assert torch.equal(whole, cut)
    assert torch.equal(other.references("test", 7), whole[:7])
    assert not torch.equal(
        whole, torch.cat([b.x for b in module(1, binarize="dynamic").batches("test", whole.device)])
    )


@pytest.mark.parametrize(
    ("count", "total", "positions"),
    [
        (4, 4, [0, 1, 2, 3]),
        (2, 6, [0, 3]),
        (4, 6, [0, 1, 3, 4]),
        (7, 3, [0, 1, 2, 0, 1, 2, 0]),
        (0, 3, []),
    ],
)
def test_some_rows_stand_for_all_where_class_follows_on_class(count, total, positions):
    assert spread(count, total).tolist() == positions
