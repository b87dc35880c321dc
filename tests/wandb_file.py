"""The records of a .wandb file: LevelDB's log format, with protocol buffers of W&B inside."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

# Made when it is imported, so that mypy does not know it.
RECORD: Any = vars(wandb_internal_pb2)["Record"]

BLOCK, HEADER = 32_768, 7  # bytes of a block, and of a chunk's checksum, length and type
FULL, LAST = 1, 4


def records(path: Path) -> list[Any]:
    """Every record of a run that has ended, in order.

    W&B's own process writes the last ones, a little after the run has finished on a busy machine.
    """
    until = time.monotonic() + 10
    while not (found := list(written(path))) or found[-1].WhichOneof("record_type") != "exit":
        assert time.monotonic() < until, f"{path} has no end"
        time.sleep(0.05)
    return found


def written(path: Path) -> Iterator[Any]:
    """The records that the file holds by now, in order."""
    data, position, parts = path.read_bytes(), HEADER, b""  # after the file's own header
    while position + HEADER <= len(data):
        if BLOCK - position % BLOCK < HEADER:
            position += BLOCK - position % BLOCK
            continue
        length = int.from_bytes(data[position + 4 : position + 6], "little")
        kind = data[position + 6]
        if position + HEADER + length > len(data):
            return  # being written
        parts += data[position + HEADER : position + HEADER + length]
        position += HEADER + length
        if kind in (FULL, LAST):
            record = RECORD()
            record.ParseFromString(parts)
            parts = b""
            yield record


def history(path: Path) -> dict[str, list[Any]]:
    """Logged names → their values, in order."""
    found: dict[str, list[Any]] = {}
    for record in records(path):
        if record.WhichOneof("record_type") == "history":
            for item in record.history.item:
                name = item.key or "/".join(item.nested_key)
                found.setdefault(name, []).append(json.loads(item.value_json))
    return found
