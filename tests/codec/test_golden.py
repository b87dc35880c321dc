"""Files of an earlier day are still read: tests/codec/golden/*.vqz pin the format.

A file that is no longer decoded means that the format has changed. Then raise VERSION in
codec/container.py, and write the files anew: `python tests/programs/make_golden.py`.
"""

from typing import Any

import numpy as np
import pytest
import torch
from golden_models import FOLDER, GOLDEN, IMAGES, Golden, images

from vqvae_lightning import CodecError, decompress
from vqvae_lightning.codec import (
    bitsback,
    blocks,
    codes,
    locations,
    pixels,
    stepping,
    tables,
)
from vqvae_lightning.codec.container import LOSSLESS, VERSION, unpack
from vqvae_lightning.codec.normal import NormalBins
from vqvae_lightning.codec.pixels import LogisticTables

CHANGED = (
    "the format has changed: raise VERSION of codec/container.py and run"
    " tests/programs/make_golden.py"
)
CODES = ["transformer", "masked"]
CHAINED = ["vae_lossless", "vae_binary"]
RARE = tables.weights_of(np.minimum(24 * np.arange(16), tables.CLIP).astype(np.uint8))


def read(name: str) -> torch.Tensor:
    return decompress((FOLDER / f"{name}.vqz").read_bytes(), GOLDEN[name].model())


@pytest.mark.parametrize(("name", "golden"), GOLDEN.items(), ids=GOLDEN)
def test_a_file_of_an_earlier_day_decodes_to_what_was_coded(name: str, golden: Golden) -> None:
    header = unpack((FOLDER / f"{name}.vqz").read_bytes()).header
    assert header.images == IMAGES
    try:
        # What its codes or pixels were is said by the CRC32 of each group.
        found = read(name)
    except CodecError as error:
        pytest.fail(f"{CHANGED}: {error}")
    if header.mode == LOSSLESS:
        assert torch.equal(found, images(golden.shape, golden.levels))


def test_there_is_a_file_of_each_model_and_of_this_version_only() -> None:
    files = sorted(FOLDER.iterdir())
    assert [path.stem for path in files] == sorted(GOLDEN)
    assert {path.read_bytes()[4] for path in files} == {VERSION}


@pytest.mark.parametrize(
    ("module", "name", "value", "files"),
    [
        (stepping, "MASKED_PASSES", 8, ["masked"]),
        (stepping, "MASKED_PASSES", 20, ["masked"]),
        (codes, "GRIDS", RARE, CODES),
        (tables, "GRID", 16, CODES),
        (codes, "SHIFTS", tables.SHIFTS + 0.25, CODES),
        (pixels, "BATCH", 16, ["vqvae_lossless"]),
        (pixels, "BATCH", 64, ["vqvae_lossless"]),
        (locations, "MEANS", 16, ["vqvae_lossless", "vae_lossless"]),
        (pixels, "GRIDS", RARE, ["vqvae_lossless"]),
        (bitsback, "BATCH", 16, CHAINED),
        (bitsback, "BATCH", 24, CHAINED),
        (bitsback, "GRIDS", RARE, CHAINED),
        (blocks, "CHUNK", 256, ["vqvae_lossless", "vae_lossless"]),
        (NormalBins, "blocks", (32, 128), CHAINED),
        (LogisticTables, "blocks", (8, 32), ["vqvae_lossless", "vae_lossless"]),
    ],
)
def test_a_change_of_a_number_of_the_format_is_seen(
    module: Any, name: str, value: Any, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, name, value)
    for file in files:
        with pytest.raises((CodecError, ValueError, IndexError)):
            read(file)
