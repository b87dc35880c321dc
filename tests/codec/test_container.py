"""The file: whole, or one line that says why not."""

import json
import struct
import zlib
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from vqvae_lightning.codec import container
from vqvae_lightning.codec.container import (
    CHECK,
    MAGIC,
    START,
    VERSION,
    CodecError,
    Container,
    Group,
    Header,
    pack,
    unpack,
)

HEADER = Header(
    kind="vqvae", mode="lossy", model="a" * 64, prior=None, images=5, shape=[1, 28, 28], group=2,
    table=[1, 16], grid=None, library="0.1.0", coder="0.5.0",
)  # fmt: skip
STREAMS = [Group(b"abcd", 1), Group(b"efghijkl", 2), Group(b"", 3)]
WHOLE = Container(HEADER, np.arange(16, dtype=np.uint8)[None], STREAMS)


def with_header(**changed: Any) -> bytes:
    """A file with a right checksum whose header says something else."""
    text = json.dumps({**asdict(HEADER), **changed}).encode()
    data = pack(WHOLE)
    _, _, size = START.unpack_from(data)
    body = START.pack(MAGIC, VERSION, len(text)) + text + data[START.size + size : -CHECK.size]
    return body + CHECK.pack(zlib.crc32(body))


def test_a_file_gives_back_what_it_was_made_of() -> None:
    found = unpack(pack(WHOLE))
    assert (found.header, found.groups) == (HEADER, STREAMS)
    assert (found.table == WHOLE.table).all()
    assert HEADER.sizes() == [2, 2, 1]


def test_no_flipped_byte_is_accepted() -> None:
    data, rng = pack(WHOLE), np.random.default_rng(0)
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= int(rng.integers(1, 256))
        with pytest.raises(CodecError):
            unpack(bytes(damaged))


def test_no_truncated_or_extended_file_is_accepted() -> None:
    data = pack(WHOLE)
    for size in range(len(data)):
        with pytest.raises(CodecError):
            unpack(data[:size])
    with pytest.raises(CodecError):
        unpack(data + b"\0")


def test_a_file_of_another_version_is_named_as_one() -> None:
    data = bytearray(pack(WHOLE))
    data[len(MAGIC)] = 1
    with pytest.raises(CodecError, match="is of version 1 of the format, wanted 3"):
        unpack(bytes(data))


@pytest.mark.parametrize(
    "changed",
    [
        {"images": 10**9},
        {"images": 10**6, "group": 1},
        {"images": 0},
        {"images": True, "group": "2"},
        {"images": -1},
        {"images": 4, "group": 4096},
        {"group": 10**6},
        {"shape": [1, 10**5, 10**5]},
        {"shape": [1, 28]},
        {"shape": [1, 28, 28, 1]},
        {"shape": []},
        {"table": [1, 10**9]},
        {"table": [1, 17]},
        {"table": [1, 15]},
        {"table": []},
        {"model": "é"},
        {"model": None},
        {"kind": "x" * 65},
        {"prior": 3},
        {"grid": 0.5},
        {"grid": [0.5]},
        {"grid": [1, 0]},
        {"grid": [0.0, 0]},
        {"grid": [float("nan"), 0]},
        {"grid": [float("inf"), 0]},
        {"grid": [0.5, 0.5]},
        {"grid": [0.5, 10**12]},
    ],
)
def test_a_header_that_claims_something_else_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(CodecError) as refused:
        unpack(with_header(**changed))
    assert "\n" not in str(refused.value)


def test_a_header_that_is_right_in_another_spelling_is_read() -> None:
    assert unpack(with_header()).header == HEADER


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b"null", b"\xff", b"[" * 5000])
def test_a_header_that_is_no_header_is_refused(text: bytes) -> None:
    body = START.pack(MAGIC, VERSION, len(text)) + text + b"\0" * 40
    with pytest.raises(CodecError, match="its header cannot be read"):
        unpack(body + CHECK.pack(zlib.crc32(body)))


def test_a_header_longer_than_the_file_is_refused_before_it_is_read() -> None:
    with pytest.raises(CodecError, match="its header claims 4,294,967,295 bytes"):
        unpack(struct.pack("<4sBI", MAGIC, VERSION, 2**32 - 1) + b"\0" * 40)


def test_more_images_than_bytes_can_hold_are_neither_written_nor_believed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    many = replace(WHOLE, header=replace(HEADER, images=3 * 4096, group=4096))
    with pytest.raises(ValueError, match=r"12,288 images take 2.. bytes, wanted at least one"):
        pack(many)
    monkeypatch.setattr(container, "PER_BYTE", 100)
    data = pack(many)
    assert len(unpack(data).groups) == 3
    monkeypatch.setattr(container, "PER_BYTE", 16)
    with pytest.raises(CodecError, match=r"claims 12,288 images, which its 2.. bytes are not"):
        unpack(data)


def test_a_table_that_unfolds_without_end_is_refused_before_it_costs_memory() -> None:
    bomb = pack(replace(WHOLE, table=np.zeros((1, 10**8), np.uint8)))
    assert len(bomb) < 10**6
    with pytest.raises(CodecError, match="has not 16 entries"):
        unpack(bomb)
