"""`compress(model, images)` and `decompress(data, model)`: images to bytes and back.

```
images ──► tokenizer ──► codes ──► prior, or static table ──► range coder ──► bytes
bytes  ──► range coder ──► codes, checked by CRC32 ──► tokenizer ──► images
```
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vqvae_lightning.codec.codes import CodeCoder, Codes, static_table, uniform_table
from vqvae_lightning.codec.container import (
    LARGEST_GROUP,
    LARGEST_IMAGES,
    CodecError,
    Container,
    Group,
    Header,
    pack,
    unpack,
)
from vqvae_lightning.codec.stepping import coding_copy
from vqvae_lightning.codec.streams import Reader, Writer, coder_series, coder_version
from vqvae_lightning.codec.tables import Steps
from vqvae_lightning.config import ConfigError
from vqvae_lightning.data.images import to_uint8
from vqvae_lightning.models.modes import evaluating
from vqvae_lightning.models.priors.prior import PriorNetwork
from vqvae_lightning.models.tokenizer import Tokenizer, fingerprint
from vqvae_lightning.training.given import images_of
from vqvae_lightning.training.image_model import ImageModel
from vqvae_lightning.training.prior import CodePrior

BATCH = 256  # images that the tokenizer sees at once
LARGEST_STEPS = 2**28  # bytes of a group's logits on the grid: N · T · K


@dataclass(frozen=True)
class Coded:
    """A model as a codec sees it."""

    kind: str
    tokenizer: Tokenizer
    prior: PriorNetwork | None  # as it was trained
    classes: int  # labels that the prior wants

    @classmethod
    def of(cls, model: object) -> "Coded":
        """Raises ConfigError for a model that has no codes."""
        if isinstance(model, CodePrior):
            if model.tokenizer is None:
                raise ConfigError("codec: this prior has no tokenizer; call attach(tokenizer)")
            classes = model.classes if model.config.class_conditional else 0
            return cls(model.kind, model.tokenizer, model.net, classes)
        if isinstance(model, ImageModel) and model.net.layout is not None:
            return cls(model.kind, model.tokenizer(), None, 0)
        name = getattr(model, "kind", type(model).__name__)
        raise ConfigError(f"codec: a model of kind {name} has no codes, wanted vqvae or prior")

    def names(self) -> tuple[str, str | None]:
        """SHA-256 of the weights of the tokenizer and of the prior."""
        prior = None if self.prior is None else fingerprint(self.prior)
        return self.tokenizer.fingerprint, prior

    def coder(self, table: Steps) -> CodeCoder:
        """The coder of its codes, with this static table."""
        net = None if self.prior is None else coding_copy(self.prior)
        return CodeCoder(self.tokenizer.layout, table, net, self.classes)


def compress(model: Any, images: Any, labels: Any = None, group: int = 256) -> bytes:
    """Images as a file of a few bytes each, which `decompress` turns back by the same model.

    Args:
        model: a VQVAE, whose codes go by a table of how often each occurs, or a CodePrior with its
            tokenizer, which codes them by what it knows of them.
        images: uint8, or floats in [-1, 1], (N, C, H, W), numpy or torch.
        labels: their classes (N,), of a class-conditional prior; by default those that make the
            file shortest. They are coded with the images.
        group: images that share a stream and a CRC32, at most. With 1 each image is decoded alone
            and checked alone, and takes about 10 bytes more.

    Returns:
        The content of a `.vqz` file.

    Raises:
        ConfigError: a model without codes, a package that is missing.
        ValueError: images or labels that do not fit.
    """
    coded, coder = Coded.of(model), coder_version()
    tokenizer = coded.tokenizer
    x = images_of(images, tokenizer.image_shape, torch.empty(0))
    if not len(x) or not 1 <= group <= LARGEST_GROUP:
        raise ValueError(
            f"compress: got {len(x)} images in groups of {group}, wanted 1 at least, in groups of 1"
            f" to {LARGEST_GROUP}"
        )
    if x.numel() > LARGEST_IMAGES:
        raise ValueError(f"compress: got {x.numel():,} pixels, wanted at most {LARGEST_IMAGES:,}")
    codes = _encoded(tokenizer, x)
    of_images = _labels(coded, codes, labels)
    layout = tokenizer.layout
    table = static_table(codes, layout) if coded.prior is None else uniform_table(layout)
    largest = LARGEST_STEPS // (layout.length * layout.codebook_size)
    header = Header(
        kind=coded.kind,
        mode="lossy",
        model=coded.names()[0],
        prior=coded.names()[1],
        images=len(x),
        shape=list(tokenizer.image_shape),
        group=max(1, min(group, largest, len(x))),
        table=list(table.shape),
        library=version("vqvae_lightning"),
        coder=coder,
    )
    groups = list(_groups(header, coded.coder(table), codes, of_images))
    return pack(Container(header, table, groups))


def decompress(data: bytes, model: Any) -> Tensor:
    """The images that `compress` was given, as the model's decoder has them, uint8 (N, C, H, W).

    Args:
        data: the content of a `.vqz` file.
        model: the model that it was made by.

    Raises:
        CodecError: damaged bytes, those of another model or of another version, or a machine
            whose arithmetic is another than promised.
        ConfigError: a model without codes, a package that is missing.
    """
    try:
        return images_of_codes(unpack(data), model)
    except CodecError as error:
        raise CodecError(f"decompress: the data {error}") from error


def images_of_codes(container: Container, model: Any) -> Tensor:
    """The images of a file, uint8 (N, C, H, W). Raises CodecError."""
    tokenizer = Coded.of(model).tokenizer
    found = [to_uint8(_decoded(tokenizer, codes)) for codes in codes_of(container, model)]
    return torch.cat(found)


def codes_of(container: Container, model: Any) -> Iterator[Codes]:
    """The codes (n, T) of each group, checked. Raises CodecError."""
    coded = Coded.of(model)
    check_model(container, coded)
    coder, done = coded.coder(container.table), 0
    sizes = container.header.sizes()
    for size, group in progress(list(zip(sizes, container.groups, strict=True)), sizes):
        try:
            codes = coder.read(Reader(group.data), size)
        except ValueError:
            codes = None
        if codes is None or check_of(codes) != group.check:
            raise CodecError(
                f"images {done} to {done + size - 1} are not decoded to what was coded: this"
                " machine's float64 differs by more than is promised"
            )
        done += size
        yield codes


def check_model(container: Container, coded: Coded) -> None:
    """Raises CodecError unless a file was made by this model, and by a coder like this one."""
    header = container.header
    model, prior = coded.names()
    for name, found, wanted in (("tokenizer", model, header.model), ("prior", prior, header.prior)):
        if found != wanted:
            raise CodecError(
                f"was made by the {name} {_short(wanted)}, and this run has {_short(found)}"
            )
    layout = coded.tokenizer.layout
    shapes = [list(coded.tokenizer.image_shape), [layout.num_codebooks, layout.codebook_size]]
    if shapes != [header.shape, header.table] or header.mode != "lossy":
        raise CodecError("is damaged: it does not fit the model that it names")
    if coder_series(header.coder) != coder_series(coder_version()):
        raise CodecError(
            f"was coded by constriction {header.coder}, whose bits {coder_version()} does not read"
        )


def _short(name: str | None) -> str:
    return "none" if name is None else name[:16]


def check_of(codes: Codes) -> int:
    """The CRC32 of the codes of a group."""
    return zlib.crc32(codes.astype("<i4").tobytes())


def progress(items: Sequence[Any], sizes: Sequence[int]) -> Iterator[Any]:
    """Groups, with a bar of images on a terminal."""
    from tqdm import tqdm

    with tqdm(total=sum(sizes), unit="image", disable=None, leave=False) as bar:
        for item, size in zip(items, sizes, strict=True):
            yield item
            bar.update(size)


def _groups(
    header: Header, coder: CodeCoder, codes: Codes, labels: Codes | None
) -> Iterator[Group]:
    """The streams of codes (N, T)."""
    starts = range(0, header.images, header.group)
    for start in progress(starts, header.sizes()):
        rows, writer = slice(start, start + header.group), Writer()
        coder.write(writer, codes[rows], None if labels is None else labels[rows])
        yield Group(writer.data(), check_of(codes[rows]))


def _encoded(tokenizer: Tokenizer, x: Tensor) -> Codes:
    """Codes (N, T) of images (N, C, H, W) in [-1, 1]."""
    found = [tokenizer.encode(part).numpy() for part in x.split(BATCH)]
    return np.ascontiguousarray(np.concatenate(found).astype(np.int64))


def _decoded(tokenizer: Tokenizer, codes: Codes) -> Tensor:
    """Images (n, C, H, W) in [-1, 1] of codes (n, T)."""
    return torch.cat([tokenizer.decode(part) for part in torch.from_numpy(codes).split(BATCH)])


def _labels(coded: Coded, codes: Codes, given: Any) -> Codes | None:
    """Labels (N,) to be coded: the given ones, or those that code the images best; or None."""
    if not coded.classes:
        return None
    if given is None:
        return _best_labels(coded, codes)
    labels = np.asarray(given)
    if labels.shape != (len(codes),) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"labels: got {labels.dtype} of shape {labels.shape}, wanted whole numbers"
            f" ({len(codes)},)"
        )
    if not 0 <= labels.min() <= labels.max() < coded.classes:
        raise ValueError(
            f"labels: got {labels.min()} to {labels.max()}, wanted 0 to {coded.classes - 1}"
        )
    return np.ascontiguousarray(labels.astype(np.int64))


@torch.no_grad()
def _best_labels(coded: Coded, codes: Codes) -> Codes:
    """The labels (N,) under which the prior's rate of codes (N, T) is least."""
    assert coded.prior is not None
    net, found = coded.prior, []
    with evaluating(net):
        for part in torch.from_numpy(codes).split(BATCH):
            rates = [
                net.rate(part, torch.full((len(part),), label)) for label in range(coded.classes)
            ]
            found.append(torch.stack(rates).argmin(0).numpy())
    return np.concatenate(found)
