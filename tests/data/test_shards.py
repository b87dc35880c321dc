"""Stored arrays: what is appended is read back, whatever files it lies in, and nothing else is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vqvae_lightning.data import shards
from vqvae_lightning.data.shards import (
    Column,
    StoreWriter,
    fingerprint,
    read_description,
    read_store,
    shard_path,
)
from vqvae_lightning.verified import StoredError

WIDE = Column((3,), np.dtype(np.uint8))
PROGRAM = Path(__file__).parents[1] / "programs" / "read_limited.py"
ROWS = np.arange(60, dtype=np.uint8).reshape(20, 3)


def write(folder, rows=ROWS, column=WIDE, parts=1):
    folder.mkdir(exist_ok=True)
    writer = StoreWriter(folder, {"rows": column})
    for part in np.array_split(rows, parts):
        writer.append("rows", part)
    return writer.finish("rows")


@pytest.fixture
def small_files(monkeypatch):
    """Files of 7 records."""
    monkeypatch.setattr(shards, "SHARD", 21)


@pytest.mark.parametrize("parts", [1, 3, 20])
def test_records_are_read_back_from_as_many_files_as_they_need(small_files, tmp_path, parts):
    found = write(tmp_path, parts=parts)
    assert list(found["arrays"]["rows"]["files"]) == [f"rows-0000{n}.bin" for n in range(3)]
    array = read_store(tmp_path, "rows")["rows"]
    assert len(array) == 20
    index = torch.tensor([19, 0, 6, 7, 6, 13, 14])
    assert torch.equal(array.take(index), torch.from_numpy(ROWS[index]))
    assert torch.equal(torch.cat(list(array.blocks())), torch.from_numpy(ROWS))


def test_how_records_were_appended_makes_no_difference_to_the_fingerprint(small_files, tmp_path):
    one, many = write(tmp_path / "one"), write(tmp_path / "many", parts=9)
    assert fingerprint(one) == fingerprint(many)
    assert fingerprint(write(tmp_path / "other", rows=ROWS + 1)) != fingerprint(one)


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
def test_wide_numbers_are_read_as_int32(tmp_path, dtype):
    rows = np.array([0, 65_535], dtype=dtype)
    write(tmp_path, rows, Column((), np.dtype(dtype)))
    found = read_store(tmp_path, "rows")["rows"].take(torch.tensor([1, 0]))
    assert found.dtype == torch.int32
    assert found.tolist() == [65_535, 0]


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_floats_that_are_not_finite_are_refused(tmp_path, wrong):
    write(tmp_path, np.array([0.5, wrong, 1.5], np.float32), Column((), np.dtype(np.float32)))
    with pytest.raises(StoredError, match="holds numbers that are not finite"):
        read_store(tmp_path, "rows")


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(0, 20), more=st.integers(0, 20))
def test_a_writer_goes_on_after_any_number_of_records(tmp_path_factory, rows, more):
    """Whatever a killed writer had written beyond them."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD", 21)
        killed = StoreWriter(folder, {"rows": WIDE})
        killed.append("rows", ROWS[: max(rows, more)])
        again = StoreWriter(folder, {"rows": WIDE})
        again.go_on(rows)
        again.append("rows", ROWS[rows:])
        again.finish("rows")
        found = read_store(folder, "rows")["rows"]
        assert torch.equal(torch.cat(list(found.blocks())), torch.from_numpy(ROWS))


def test_records_that_are_not_there_cannot_be_gone_on_from(tmp_path):
    writer = StoreWriter(tmp_path, {"rows": WIDE})
    writer.append("rows", ROWS[:3])
    with pytest.raises(StoredError, match="is cut off"):
        StoreWriter(tmp_path, {"rows": WIDE}).go_on(4)


def test_without_finish_there_is_no_store(tmp_path):
    StoreWriter(tmp_path, {"rows": WIDE}).append("rows", ROWS)
    with pytest.raises(StoredError, match=r"there is no .*store\.json"):
        read_store(tmp_path, "rows")


def test_a_new_writer_ends_the_old_store_before_its_first_record(tmp_path):
    write(tmp_path)
    StoreWriter(tmp_path, {"rows": WIDE})
    with pytest.raises(StoredError, match="there is no"):
        read_store(tmp_path, "rows")


def test_nothing_is_written_through_a_link(tmp_path):
    outside = tmp_path / "outside"
    outside.write_bytes(b"mine")
    folder = tmp_path / "store"
    folder.mkdir()
    shard_path(folder, "", "rows", 0).symlink_to(outside)
    write(folder)
    assert outside.read_bytes() == b"mine"
    assert not shard_path(folder, "", "rows", 0).is_symlink()


def test_every_changed_byte_is_found(small_files, tmp_path):
    write(tmp_path)
    for path in sorted(tmp_path.glob("*.bin")):
        content = path.read_bytes()
        for place in range(len(content)):
            changed = bytearray(content)
            changed[place] ^= 1 << (place % 8)
            path.write_bytes(changed)
            with pytest.raises(StoredError, match="is damaged"):
                read_store(tmp_path, "rows")
            path.write_bytes(content)
    read_store(tmp_path, "rows")


def test_a_file_that_became_shorter_while_it_was_open_is_an_error_and_no_crash(tmp_path):
    """A memory map would end the process by SIGBUS."""
    write(tmp_path)
    array = read_store(tmp_path, "rows")["rows"]
    os.truncate(shard_path(tmp_path, "", "rows", 0), 30)
    assert array.take(torch.tensor([9])).tolist() == [[27, 28, 29]]
    with pytest.raises(StoredError, match="ends before record 10"):
        array.take(torch.tensor([10]))


DESCRIPTIONS = {
    "no JSON": "x",
    "no mapping": "[]",
    "no arrays": "{}",
    "a negative number of rows": {"rows": -1},
    "as many rows as nobody has": {"rows": 2**60},
    "rows that are no number": {"rows": True},
    "a side of 0": {"shape": [0]},
    "a side that is text": {"shape": ["3"]},
    "a type that is none": {"dtype": "no such type"},
    "objects": {"dtype": "object"},
    "another number of files": {"files": {}},
    "files of other names": {"files": {"../rows-00000.bin": "0" * 64}},
}


@pytest.mark.parametrize("wrong", DESCRIPTIONS)
def test_a_description_that_no_writer_wrote_is_refused_in_a_line(tmp_path, wrong):
    found, change = write(tmp_path), DESCRIPTIONS[wrong]
    if isinstance(change, str):
        (tmp_path / "store.json").write_text(change)
    else:
        found["arrays"]["rows"] |= change
        (tmp_path / "store.json").write_text(json.dumps(found))
    with pytest.raises(StoredError, match=r"store\.json is no description of a store") as error:
        read_description(tmp_path)
    assert "\n" not in str(error.value)


def test_a_store_of_something_else_is_refused(tmp_path):
    write(tmp_path)
    with pytest.raises(StoredError, match="is of something else, wanted codes"):
        read_store(tmp_path, "codes")


@pytest.mark.parametrize("mib", [600])
def test_reading_needs_no_more_memory_however_large_the_store_is(tmp_path, mib):
    """The process may have less memory than a third of what it reads."""
    column = Column((2**20,), np.dtype(np.uint8))
    writer = StoreWriter(tmp_path, {"rows": column})
    block = np.random.default_rng(0).integers(256, size=(50, 2**20), dtype=np.uint8)
    for _ in range(mib // 50):
        writer.append("rows", block)
    writer.finish("rows")
    limit = 2**20 * (mib // 3 - 50)
    said = subprocess.run(
        [sys.executable, str(PROGRAM), str(tmp_path), str(limit)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(said.stdout) < 100 * 1024  # KiB: a few batches
