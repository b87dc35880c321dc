"""Compressed images as files: written by a run, and read by the run that a file names.

A file names its models by the SHA-256 of their weights. Which folder holds them is looked up.
"""

import io
import math
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from vqvae_lightning.codec.coded import Coded, check_model
from vqvae_lightning.codec.coding import coded_of, compress, images_in
from vqvae_lightning.codec.container import (
    LOSSLESS,
    CodecError,
    Container,
    Header,
    deflated,
    unpack,
)
from vqvae_lightning.codec.places import images_at
from vqvae_lightning.codec.streams import coder_version
from vqvae_lightning.config import (
    CompressOptions,
    ConfigError,
    DecompressOptions,
    check_free,
    own_command,
    visible,
)
from vqvae_lightning.data.own.folders import IMAGE_ENDINGS, ending
from vqvae_lightning.kinds import KINDS
from vqvae_lightning.storage import check_writable, new_folder, write_atomic
from vqvae_lightning.training.folders import read_each
from vqvae_lightning.training.loading import load_run
from vqvae_lightning.training.runs import Run
from vqvae_lightning.training.search import find_runs

ENDING, ARRAY_ENDING = ".vqz", ".npz"
LARGEST_FILE = 2**31  # bytes


class Found(NamedTuple):
    """The run that a file was made by."""

    run: Run
    model: Any


def compress_run(run: Run, places: Sequence[str], options: CompressOptions) -> Path:
    """Writes images at places, or those of a split, as one file; returns its path.

    Raises ConfigError, before an image is read, for a file that exists or cannot be written, and
    a run that cannot code so; then whatever `images_at` and `compress` raise.
    """
    target = Path(options.to or f"{run.name}{ENDING}")
    check_free(target, "the name of a new file")
    check_writable(target, "to")
    kind = KINDS[run.record.kind]
    if kind.is_vocoder:
        raise ConfigError(
            f"compress: {run.path} is a run of kind {kind.name}, which has no latents; wanted an"
            " autoencoder, or a prior over codes"
        )
    if kind.stage == 2 and not kind.has_codes:
        raise ConfigError(
            f"compress: {run.path} is a run of kind {kind.name}, whose p(z) no file is coded with;"
            " wanted a prior over codes, or its first stage"
        )
    if options.lossless and not kind.has_density:
        raise ConfigError(
            f"lossless: got true, but {run.path} is a run of kind {kind.name}, which has neither"
            " codes nor p(z); its files are lossy"
        )
    if kind.has_density and not (kind.has_codes or options.lossless):
        raise ConfigError(
            f"lossless: got false, but {run.path} is a run of kind {kind.name}, which has no codes"
            " for a lossy file"
        )
    if options.step is not None and kind.has_density:
        raise ConfigError(
            f"step: got {options.step:g}, but {run.path} is a run of kind {kind.name}, whose z goes"
            " on no grid; wanted none"
        )
    coder_version()
    model = load_run(run)
    if options.lossless and LOSSLESS not in coded_of(model).modes:
        raise ConfigError(
            f"lossless: got true, but the likelihood of {run.path} gives no probabilities of pixel"
            " levels, wanted discretized_logistic, logistic_mixture or bernoulli"
        )
    images = images_at(run, places, options)
    group, lossless, step = options.group, options.lossless, options.step
    write_atomic(target, compress(model, *images, group, lossless, step))
    return target


def decompress_file(file: Path, options: DecompressOptions) -> Path:
    """Writes the images of a file as PNG files of a new folder, or as one .npz; returns its path.

    Raises ConfigError for a place that exists or cannot be written, or where no run is the file's;
    CodecError for a file that is damaged, or not of that run. Nothing is then written.
    """
    target = Path(options.to or file.name.removesuffix(ENDING))
    named_so = options.to is not None and ending(target.name) in {*IMAGE_ENDINGS, "npz"}
    if named_so and target.suffix != ARRAY_ENDING:
        raise ConfigError(
            f"to: got {visible(target.name)}, wanted a folder for PNG files, or a name that ends in"
            f" {ARRAY_ENDING}"
        )
    check_free(target, "a new name")
    check_writable(target / "0.png", "to")
    with named(file):
        container = unpack(read_file(file))
        found = run_of(container, options)
        images = images_in(container, found.model, options.only)
    if target.suffix == ARRAY_ENDING:
        write_atomic(target, arrays_of(images))
    else:
        write_pictures(target, images, options.only or 0, container.header.images)
    return target


def describe(file: Path, runs: str) -> list[tuple[str, str]]:
    """What a file holds, and of which run, in lines of a label and a text. Raises CodecError."""
    with named(file):
        header = unpack(read_file(file)).header
    found = find_run(header, runs)
    return [
        *sizes(file),
        ("kind", KINDS[header.kind].title if header.kind in KINDS else header.kind),
        ("model", header.model),
        ("prior", header.prior or "none"),
        ("run", str(found.run.path) if found else f"none in {runs}/"),
        ("made by", f"vqvae_lightning {header.library}, constriction {header.coder}"),
    ]


def sizes(file: Path) -> list[tuple[str, str]]:
    """How many images a file holds in how many bytes, in lines of a label and a text.

    No run is looked for. Raises CodecError.
    """
    with named(file):
        data = read_file(file)
        container = unpack(data)
    header, size = container.header, len(data)
    shape = "×".join(map(str, header.shape))
    streams = sum(len(group.data) for group in container.groups)
    table = len(deflated(container.table))
    bits = 8 * size / (header.images * math.prod(header.shape))
    step = "" if header.grid is None else f", z in steps of {header.grid[0]:g}"
    held = f"{header.images:,} of {shape}, {header.mode}{step}, in groups of {header.group}"
    return [
        ("images", held),
        ("bytes", f"{size:,}: {size / header.images:.2f} an image, {bits:.4f} bits/dim"),
        ("parts", f"streams {streams:,}, table {table:,}, the rest {size - streams - table:,}"),
    ]


@contextmanager
def named(file: Path) -> Iterator[None]:
    """Puts the name of a file before what is said of it."""
    try:
        yield
    except CodecError as error:
        raise CodecError(f"{file} {error}") from error


def read_file(file: Path) -> bytes:
    """The bytes of a regular file. Raises CodecError."""
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            raise CodecError("is no regular file, wanted one of `vqvae compress`")
        if status.st_size > LARGEST_FILE:
            raise CodecError(f"has {status.st_size:,} bytes, wanted at most {LARGEST_FILE:,}")
        return file.read_bytes()
    except OSError as error:
        raise CodecError(f"cannot be read ({error.strerror})") from error


def run_of(container: Container, options: DecompressOptions) -> Found:
    """The run that is named, or else the one that made a file. Raises ConfigError, CodecError."""
    if options.run is not None:
        run = Run.open(options.run)
        model = load_run(run)
        check_model(container, coded_of(model))
        return Found(run, model)
    found = find_run(container.header, options.runs)
    if found is None:
        header = container.header
        again = own_command("decompress", "FILE", "run=RUN")
        raise CodecError(
            f"is of a {header.kind} with fingerprint {header.model[:16]}, and no finished run in"
            f" {options.runs}/ is that; name its folder: {again}"
        )
    return found


def find_run(header: Header, runs: str) -> Found | None:
    """The newest finished run whose weights are those that a file names.

    A run that cannot be opened is named and left out.
    """
    for run in reversed(find_runs(runs)):
        record = run.record
        known = (record.source or record).fingerprint
        if (record.kind, known) != (header.kind, header.model):
            continue
        # A stranger's record may claim the weights of this file, and its model may not code.
        for _, (model, coded) in read_each([run], _coded_run):
            if coded.names() == (header.model, header.prior):
                return Found(run, model)
    return None


def _coded_run(run: Run) -> tuple[Any, Coded]:
    model = load_run(run)
    try:
        return model, coded_of(model)
    except ConfigError as error:
        raise ConfigError(f"{run.path}: {error}") from error


def arrays_of(images: Tensor) -> bytes:
    """An .npz of images uint8 (N, H, W), or (N, H, W, 3)."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, images=_channels_last(images))
    return buffer.getvalue()


def write_pictures(target: Path, images: Tensor, first: int, count: int) -> None:
    """Writes images (N, C, H, W) as PNG files of a new folder, numbered as in their file.

    Args:
        target: the folder.
        images: some images of a file.
        first: the number of the first of them.
        count: how many the file holds.
    """
    digits = len(str(count - 1))
    with new_folder(target.parent, target.name) as folder:
        for number, pixels in enumerate(_channels_last(images), first):
            Image.fromarray(pixels).save(folder / f"{number:0{digits}d}.png")
        folder.rename(target)


def _channels_last(images: Tensor) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """uint8 (N, H, W) of grey images, (N, H, W, C) of others."""
    found = images.permute(0, 2, 3, 1).numpy()  # N,H,W,C
    return found[..., 0] if found.shape[-1] == 1 else found
