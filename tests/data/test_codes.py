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
from vqvae_lightning.data import codes as module_under_test
from vqvae_lightning.data.codes import CodeDataModule
from vqvae_lightning.data.images import ImageDataModule
from vqvae_lightning.training.loading import load_tokenizer
from vqvae_lightning.verified import hash_path, read_arrays, write_arrays

SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with generated data, and its tokenizer of K = 16."""
    root = tmp_path_factory.mktemp("codes")
    with untrained.workplace(root):
        yield root, load_tokenizer(untrained.make_run(root, "vqvae", lambda *_: None).best)


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
        return CodeDataModule(ImageDataModule(config, seed), tokenizer, tmp_path / "codes")

    return module


@pytest.fixture
def stored(module):
    """The file of codes, and the codes."""
    data = module()
    data.prepare_data()
    return data.path, data.splits


def prepared(data):
    data.prepare_data()
    data.setup()
    return data.splits


def assert_equal(found, wanted):
    for split in SPLITS:
        for a, b in zip(found[split], wanted[split], strict=True):
            assert a.dtype == b.dtype
            assert torch.equal(a, b)


def forge(data, **changes):
    """Stores other arrays as the program would, with a hash that agrees."""
    with np.load(data.path) as opened:
        arrays = {name: opened[name] for name in opened.files if name != "of"}
    write_arrays(data.path, data.of, arrays | changes)


@pytest.mark.parametrize("flip", [False, True])
def test_codes_are_those_of_the_images_and_read_back_as_they_were(module, made, flip):
    data = module(flip=flip)
    first = prepared(data)
    images = data.images.splits
    for split in SPLITS:
        x = images[split][0].float() / 127.5 - 1
        x = torch.cat([x, x.flip(-1)]) if flip and split == "train" else x
        assert torch.equal(first[split][0], made[1].encode(x).int())
        assert torch.equal(first[split][1][: len(images[split][1])], images[split][1])
    assert_equal(prepared(module(flip=flip)), first)


def test_codes_that_are_stored_are_neither_computed_nor_written_again(module, stored, monkeypatch):
    monkeypatch.setattr(CodeDataModule, "_extract", lambda self: pytest.fail("computed again"))
    monkeypatch.setattr(
        module_under_test, "FileLock", lambda path: pytest.fail("the lock was taken")
    )
    assert_equal(prepared(module()), stored[1])


def test_codes_are_read_and_verified_once(module, stored, monkeypatch):
    reads = []
    monkeypatch.setattr(
        module_under_test, "read_arrays", lambda *a: reads.append(a) or read_arrays(*a)
    )
    data = module()
    for step in (data.prepare_data, data.setup, data.prepare_data, data.setup, data.setup):
        step()
    assert len(reads) == 1


def rows_less(data):
    forge(
        data,
        train_codes=np.zeros((10, data.tokenizer.length), np.uint8),
        train_labels=np.zeros(10, np.uint8),
    )


def flipped(data):
    content = bytearray(data.path.read_bytes())
    content[len(content) // 2] ^= 4
    data.path.write_bytes(content)


def earlier_format(data):
    splits = {f"{name}_codes": pair[0].numpy() for name, pair in prepared(data).items()}
    np.savez_compressed(data.path, fingerprint=np.array(data.tokenizer.fingerprint), **splits)
    hash_path(data.path).unlink()


def of_another_seed(data, other):
    other.prepare_data()
    for suffix in ("", ".sha256"):
        shutil.copy(f"{other.path}{suffix}", f"{data.path}{suffix}")


# How the file came to be wrong, and what the line says.
WRONG = {
    "a bit flipped": (flipped, "damaged"),
    "cut short": (lambda data: data.path.write_bytes(data.path.read_bytes()[:-99]), "damaged"),
    "empty": (lambda data: data.path.write_bytes(b""), "damaged"),
    "no hash": (lambda data: hash_path(data.path).unlink(), "cannot be verified"),
    "fewer rows, with a hash": (rows_less, "another train_codes"),
    "signed codes, with a hash": (
        lambda data: forge(data, val_codes=np.full((40, 49), -1, np.int8)),
        "val_codes",
    ),
    "codes that are none, with a hash": (
        lambda data: forge(data, val_codes=np.full((40, 49), 16, np.uint8)),
        "0 to 15",
    ),
    "labels that are none, with a hash": (
        lambda data: forge(data, test_labels=np.full(64, 10, np.uint8)),
        "0 to 9",
    ),
    "earlier format": (earlier_format, "cannot be verified"),
    "a large file": (lambda data: os.truncate(data.path, 2**40), "wanted at most"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_codes_that_are_wrong_are_computed_anew_and_one_line_says_so(module, stored, caplog, wrong):
    change, said = WRONG[wrong]
    change(module())
    caplog.clear()
    assert_equal(prepared(module()), stored[1])
    (record,) = (record for record in caplog.records if record.levelno >= logging.WARNING)
    assert record.getMessage().startswith(f"codes: {stored[0]} ")
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
    content, random = stored[0].read_bytes(), Random(0)
    monkeypatch.setattr(CodeDataModule, "_extract", lambda self: stored[1])
    for _ in range(40):
        changed, at = bytearray(content), random.randrange(len(content))
        changed[at] ^= 1 << random.randrange(8)
        stored[0].write_bytes(changed)
        assert_equal(prepared(module()), stored[1])
        assert stored[0].read_bytes() == content


@pytest.mark.parametrize("there", ["wrong", "absent"])
def test_codes_that_cannot_be_stored_are_refused_in_one_line_before_any_is_computed(
    module, stored, monkeypatch, there
):
    path = stored[0]
    path.write_bytes(b"x") if there == "wrong" else shutil.rmtree(path.parent)
    monkeypatch.setattr(os, "access", lambda folder, mode: False)
    monkeypatch.setattr(CodeDataModule, "_extract", lambda self: pytest.fail("computed"))
    with pytest.raises(
        ValueError, match=r"^codes: .*npz cannot be made, for .* is no folder that can be written"
    ) as e:
        prepared(module())
    assert "\n" not in str(e.value)
    assert ("is damaged" in str(e.value)) == (there == "wrong")


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
    assert_equal(data.splits, stored[1])
    stored[0].write_bytes(b"x")
    with pytest.raises(ValueError, match=r"^codes: .*is damaged.*; prepare_data computes them"):
        module().setup()
    assert Path(stored[0]).read_bytes() == b"x"
