"""A few generated clips in a package like that of the prompts, so that tests run the whole path
without a download.
"""

import hashlib
import io
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
from fake_sounds import wav

from vqvae_lightning.data import prompts, sources
from vqvae_lightning.data.prompts import FOLDER, PROMPTS, SPLITS, Prompts

NAMES = [
    *(f"digits/{number}" for number in range(20)),
    *(f"letters/{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"),
    *(f"phonetic/{letter}_p" for letter in "abcdefghijklmnopqrstuvwxyz"),
    *(f"vm-word{number}" for number in range(40)),
]
NOT_SPOKEN = ["silence/1", "beep"]


def clip(name: str) -> bytes:
    """A WAV file of a tone whose pitch is the name's; every fourth is longer than a piece."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    samples = 30_000 if seed % 4 == 0 else 4_000 + seed % 8_000
    times = np.arange(samples) / prompts.RATE
    return wav(0.5 * np.sin(2 * np.pi * (200 + seed % 2_000) * times))


def tar(members: Mapping[str, bytes], mode: str = "w:xz") -> bytes:
    """A tar file of members by name."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def deb(data: bytes, member: str = "data.tar.xz") -> bytes:
    """A package of Debian that holds a tar file."""
    parts = [b"!<arch>\n"]
    for name, content in (("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), (member, data)):
        header = f"{name:16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n"
        parts += [header.encode(), content, b"\n" * (len(content) % 2)]
    return b"".join(parts)


def package() -> dict[str, bytes]:
    """The members of the package."""
    return {f"{FOLDER}{name}.wav": clip(name) for name in [*NAMES, *NOT_SPOKEN]} | {
        "./usr/share/doc/copyright": b"CC BY-SA",
        "../outside.wav": clip("outside"),
    }


@contextmanager
def installed(root: Path) -> Iterator[Prompts]:
    """Writes the files under root/prompts, which `prompts` means until the block ends."""
    folder = root / "prompts"
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / "placed.deb"
    archive.write_bytes(deb(tar(package(), "w")))
    files = dict(prompts.members(archive, FOLDER, {}))
    for file, data in files.items():
        (folder / file).write_bytes(data)
    counts = {split: files[f"{split}-names.txt"].count(b"\n") for split in SPLITS}
    fake = replace(
        PROMPTS,
        train_size=counts["train"],
        validation_size=counts["val"],
        test_size=counts["test"],
        files={file: hashlib.sha256(data).hexdigest() for file, data in files.items()},
        sources=(),
    )
    of_files = {file: len(data) for file, data in files.items()}
    with (
        mock.patch.dict(prompts.SIZES, of_files),
        mock.patch.dict(prompts.LABELS, prompts.labels_of(NAMES)),
        mock.patch.dict(sources.DATASETS, {"prompts": fake}),
    ):
        yield fake
