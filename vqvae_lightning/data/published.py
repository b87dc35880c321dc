"""Published files in a folder, identified by their SHA-256.

A file that differs may be the user's, so it is never replaced.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

from vqvae_lightning.data.formats import DataError
from vqvae_lightning.storage import file_hash, write_atomic

# In the folder, of files without a published hash: computed at the first download.
SUMS = "SHA256SUMS"
LARGEST_SUMS = 2**16  # bytes of SUMS that are read


class DifferentFileError(DataError):
    """A file is there that is not the published one: damaged, or the user's own."""

    def __init__(self, differing: Mapping[Path, str]) -> None:
        """`differing` maps each file to its difference."""
        each = "; ".join(
            f"{path} differs from the published file ({how})" for path, how in differing.items()
        )
        them = "it" if len(differing) == 1 else "them"
        self.differing = differing
        super().__init__(
            f"data: {each}: damaged, or your own; move {them} away to fetch {them} again, or name"
            " another folder by data.root"
        )


class PublishedFiles:
    """The decoded files of a release in a folder, by name: SHA-256 (None: not published) and size
    in bytes.
    """

    def __init__(
        self, hashes: Mapping[str, str | None], sizes: Mapping[str, int], folder: Path
    ) -> None:
        self.hashes, self.sizes, self.folder = hashes, sizes, folder

    def expected(self) -> dict[str, str | None]:
        """SHA-256 of each file: as published, else as computed at the first download, else None."""
        computed = self._sums() if None in self.hashes.values() else {}
        return {name: published or computed.get(name) for name, published in self.hashes.items()}

    def all_there(self) -> bool:
        """Whether there is a file of each name, with a known hash; none is verified."""
        return all(
            (self.folder / name).is_file() and sha256 for name, sha256 in self.expected().items()
        )

    def missing(self) -> list[str]:
        """Names of the files that are not there, or whose hash is not known.

        Raises DifferentFileError.
        """
        missing: list[str] = []
        differing: dict[Path, str] = {}
        for name, sha256 in self.expected().items():
            path = self.folder / name
            if not os.path.lexists(path) or sha256 is None:
                missing.append(name)
                continue
            try:
                _check(path, sha256)
            except DifferentFileError as error:
                differing |= error.differing
        if differing:
            raise DifferentFileError(differing)
        return missing

    def store(self, name: str, data: bytes) -> None:
        """Puts one verified file in place. Raises DifferentFileError if another one is there."""
        if len(data) != self.sizes[name]:
            raise DataError(f"{name} has {len(data)} bytes, wanted {self.sizes[name]}")
        sha256, published = hashlib.sha256(data).hexdigest(), self.hashes[name]
        if published not in (None, sha256):
            raise DataError(f"sha256 of {name} is {sha256}, wanted {published}")
        if os.path.lexists(self.folder / name):
            _check(self.folder / name, sha256)
        else:
            write_atomic(self.folder / name, data)
        if published is None:
            sums = self._sums() | {name: sha256}
            write_atomic(
                self.folder / SUMS, "".join(f"{sums[name]}  {name}\n" for name in sums).encode()
            )

    def read(self, name: str) -> bytearray:
        """The verified file; no more than its size is read, whatever is there. Raises DataError."""
        path, size, sha256 = self.folder / name, self.sizes[name], self.expected()[name]
        if sha256 is None or not path.is_file():
            raise DataError(
                f"data: cannot read {path}: it is not there, or its hash is not known; `vqvae data`"
                " fetches it"
            )
        # A buffer that an array can be a view of, so that no copy is needed.
        data = bytearray(size)
        with path.open("rb") as file:
            whole = file.readinto(data) == size and not file.read(1)
        if not whole or hashlib.sha256(data).hexdigest() != sha256:
            _check(path, sha256)
            raise DataError(f"data: {path} was changed while it was read")
        return data

    def _sums(self) -> dict[str, str]:
        """Name → SHA-256 of what SUMS lists, as sha256sum writes it: hash, two blanks, name.

        Raises DifferentFileError for a file of that name that holds something else.
        """
        path, sums = self.folder / SUMS, {}
        if not path.is_file():
            return {}
        with path.open("rb") as file:
            text = file.read(LARGEST_SUMS).decode(errors="replace")
        for line in text.splitlines():
            if not re.fullmatch(r"[0-9a-f]{64}  .+", line):
                raise DifferentFileError({path: "it is no list of SHA-256 sums"})
            sums[line[66:]] = line[:64]
        return sums


def _check(path: Path, sha256: str) -> None:
    """Raises DifferentFileError unless the file at `path`, which is there, has that hash; DataError
    if none is read.
    """
    if not path.is_file():
        raise DifferentFileError({path: "it is no regular file"})
    try:
        got = file_hash(path)
    except OSError as error:
        raise DataError(f"data: cannot read {path} ({error.strerror})") from error
    if got != sha256:
        raise DifferentFileError({path: f"sha256 {got}, wanted {sha256}"})
