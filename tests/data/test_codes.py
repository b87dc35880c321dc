"""Codes are those of the tokenizer and the images, or they are computed anew; what is stored is
never just believed.
"""

import logging
import os
import shutil
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
import untrained

from vqvae_lightning.config import DataConfig
from vqvae_lightning.data import latents as module_under_test
from vqvae_lightning.data import shards
from vqvae_lightning.data.codes import CodeDataModule
from vqvae_lightning.data.formats import DataError
from vqvae_lightning.data.images import ImageDataModule
from vqvae_lightning.data.shards import Column, StoreWriter, read_store, shard_path
from vqvae_lightning.models import distributed
from vqvae_lightning.training.loading import load_first_stage

SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with generated data, and its tokenizer of K = 16."""
    root = tmp_path_factory.mktemp("codes")
    with untrained.workplace(root):
        yield root, load_first_stage(untrained.make_run(root, "vqvae").best)


@pytest.fixture
def module(made, tmp_path):
    """settings → a new CodeDataModule that keeps its codes in tmp_path/codes."""
    root, tokenizer = made

    def module(seed=0, **settings):
        config = DataConfig(
            root=str(root / "data"),
            validation_size=40,
            batch_size=20,
            eval_batch_size=64,
            **settings,
        )
        return CodeDataModule(ImageDataModule(config, seed), tokenizer, tmp_path)

    return module


@pytest.fixture
def stored(module):
    """The description of the stored codes, and the codes."""
    data = module()
    data.prepare_data()
    return data.path, read(data.splits)


def read(splits):
    """Codes and labels of each split."""
    return {name: (rows.first(len(rows)), rows.labels) for name, rows in splits.items()}


def prepared(data):
    data.prepare_data()
    data.setup()
    return read(data.splits)


def assert_equal(found, wanted):
    for split in SPLITS:
        for a, b in zip(found[split], wanted[split], strict=True):
            assert a.dtype == b.dtype
            assert torch.equal(a, b)


def forge(data, **changes):
    """Stores other arrays as the program would, with hashes that agree."""
    layout = data._layout()
    arrays = {
        name: np.fromfile(file_of(data, name), column.dtype).reshape(-1, *column.shape)
        for name, (_, column) in layout.items()
    }
    arrays |= changes
    columns = {name: Column(array.shape[1:], array.dtype) for name, array in arrays.items()}
    writer = StoreWriter(data.folder, columns, data.stem)
    for name, array in arrays.items():
        writer.append(name, array)
    writer.finish(data.of)


def file_of(data, name):
    return shard_path(data.folder, data.stem, name, 0)


@pytest.mark.parametrize("flip", [False, True])
def test_codes_are_those_of_the_images_and_read_back_as_they_were(module, made, flip):
    data = module(flip=flip)
    first = prepared(data)
    images = data.images.splits
    for split in SPLITS:
        x = images[split].first(len(images[split])).float() / 127.5 - 1
        x = torch.cat([x, x.flip(-1)]) if flip and split == "train" else x
        assert torch.equal(first[split][0], made[1].encode(x).int())
        labels = images[split].labels
        assert torch.equal(first[split][1][: len(labels)], labels)
    assert_equal(prepared(module(flip=flip)), first)


def test_codes_that_are_stored_are_neither_computed_nor_written_again(module, stored, monkeypatch):
    monkeypatch.setattr(CodeDataModule, "_encoded", lambda *_: pytest.fail("computed again"))
    monkeypatch.setattr(
        module_under_test, "FileLock", lambda path: pytest.fail("the lock was taken")
    )
    assert_equal(prepared(module()), stored[1])


def test_codes_are_read_and_verified_once(module, stored, monkeypatch):
    reads = []
    monkeypatch.setattr(
        module_under_test, "read_store", lambda *a: reads.append(a) or read_store(*a)
    )
    data = module()
    for step in (data.prepare_data, data.setup, data.prepare_data, data.setup, data.setup):
        step()
    assert len(reads) == 1


def rows_less(data):
    forge(
        data,
        train_codes=np.zeros((10, data.first_stage.length), np.uint8),
        train_labels=np.zeros(10, np.uint8),
    )


def flipped(data):
    path = file_of(data, "train_codes")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def of_another_seed(data, other):
    other.prepare_data()
    for path in other.folder.glob(f"{other.stem}*n"):  # .json and .bin
        target = data.folder / path.name.replace(other.stem, data.stem)
        target.write_bytes(path.read_bytes().replace(other.stem.encode(), data.stem.encode()))


def linked(data):
    path = file_of(data, "val_codes")
    path.rename(path.with_suffix(".elsewhere"))
    path.symlink_to(path.with_suffix(".elsewhere"))


# How the files came to be wrong, and what the line says.
WRONG = {
    "a bit flipped": (flipped, "damaged"),
    "cut short": (lambda data: os.truncate(file_of(data, "train_codes"), 99), "99 bytes, wanted"),
    "empty": (lambda data: file_of(data, "val_codes").write_bytes(b""), "0 bytes, wanted"),
    "a file gone": (lambda data: file_of(data, "test_codes").unlink(), "there is no"),
    "a link": (linked, "is no regular file"),
    "no description": (lambda data: data.path.write_bytes(b""), "is no description"),
    "a description of something else": (
        lambda data: data.path.write_text('{"of": "x", "arrays": {}}'),
        "is of something else",
    ),
    "fewer rows, with a hash": (rows_less, "other arrays"),
    "signed codes, with a hash": (
        lambda data: forge(data, val_codes=np.full((40, 49), -1, np.int8)),
        "is no description",
    ),
    "codes that are none, with a hash": (
        lambda data: forge(data, val_codes=np.full((40, 49), 16, np.uint8)),
        "0 to 15",
    ),
    "labels that are none, with a hash": (
        lambda data: forge(data, test_labels=np.full(64, 10, np.uint8)),
        "0 to 9",
    ),
    "a large file": (
        lambda data: os.truncate(file_of(data, "train_codes"), 2**40),
        "1,099,511,627,776 bytes, wanted",
    ),
    "a file much larger than it says": (
        lambda data: os.truncate(data.path, 2**40),
        "more than",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_codes_that_are_wrong_are_computed_anew_and_one_line_says_so(module, stored, caplog, wrong):
    change, said = WRONG[wrong]
    change(module())
    caplog.clear()
    assert_equal(prepared(module()), stored[1])
    (record,) = (record for record in caplog.records if record.levelno >= logging.WARNING)
    assert record.getMessage().startswith("codes: ")
    assert str(stored[0].parent) in record.getMessage()
    assert said in record.getMessage()
    assert "computing them anew" in record.getMessage()
    assert "\n" not in record.getMessage()
    caplog.clear()
    assert_equal(prepared(module()), stored[1])
    assert not caplog.records


def test_codes_of_another_split_are_not_taken_for_these(module, stored, caplog):
    """Another seed holds out other images, in arrays of the same shapes."""
    of_another_seed(module(), module(seed=1))
    assert_equal(prepared(module()), stored[1])
    assert "is of something else" in caplog.text


def test_any_flipped_bit_gives_the_same_codes(module, stored, monkeypatch):
    """What is stored is put back each time, without the network."""
    data, random = module(), Random(0)
    names = list(data._layout())

    def encoded(self, split):
        return [stored[1][split]]

    monkeypatch.setattr(CodeDataModule, "_encoded", encoded)
    for number in range(40):
        path = file_of(data, names[number % len(names)])
        content = path.read_bytes()
        changed, at = bytearray(content), random.randrange(len(content))
        changed[at] ^= 1 << random.randrange(8)
        path.write_bytes(changed)
        assert_equal(prepared(module()), stored[1])
        assert path.read_bytes() == content


def test_files_that_have_not_changed_are_hashed_once(module, stored, monkeypatch):
    prepared(module())
    monkeypatch.setattr(shards, "file_hash", lambda path: pytest.fail("hashed again"))
    assert_equal(prepared(module()), stored[1])


@pytest.mark.parametrize("there", ["wrong", "absent"])
def test_codes_that_cannot_be_stored_are_refused_in_one_line_before_any_is_computed(
    module, stored, monkeypatch, there
):
    path = stored[0]
    path.write_bytes(b"x") if there == "wrong" else shutil.rmtree(path.parent)
    monkeypatch.setattr(os, "access", lambda folder, mode: False)
    monkeypatch.setattr(CodeDataModule, "_encoded", lambda *_: pytest.fail("computed"))
    with pytest.raises(
        ValueError, match=r"^codes: .*json cannot be made, for .* is no folder that can be written"
    ) as e:
        prepared(module())
    assert "\n" not in str(e.value)
    assert ("is no description" in str(e.value)) == (there == "wrong")


def test_codes_in_a_folder_that_cannot_be_written_are_read(module, stored, monkeypatch):
    monkeypatch.setattr(os, "access", lambda folder, mode: False)
    assert_equal(prepared(module()), stored[1])


def test_codes_are_not_written_through_a_link_out_of_the_run(module, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "codes").symlink_to("elsewhere")
    with pytest.raises(ValueError, match=r"codes: .*codes is a link"):
        module().prepare_data()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_without_prepare_data_codes_are_only_read(module, stored):
    data = module()
    data.setup()
    assert_equal(read(data.splits), stored[1])
    stored[0].write_bytes(b"x")
    with pytest.raises(
        ValueError, match=r"^codes: .*is no description.*; prepare_data computes them"
    ):
        module().setup()
    assert Path(stored[0]).read_bytes() == b"x"


def test_ranks_with_different_tokenizers_are_told(module, stored, monkeypatch):
    monkeypatch.setattr(distributed, "gathered", lambda own: [own, "f" * 64])
    with pytest.raises(DataError, match=r"^codes: the ranks have different first stages: rank 0 "):
        module().setup()
