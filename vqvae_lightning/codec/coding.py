"""`compress(model, images)` and `decompress(data, model)`: images to bytes and back.

```
images ──► tokenizer ──► codes ──► prior, or static table ──► range coder ──► bytes
bytes  ──► range coder ──► codes, checked by CRC32 ──► tokenizer ──► images, lossy
lossless: the pixels follow the codes, by p(x|z) of these codes
```
"""

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vqvae_lightning.codec.coded import Coded, check_model
from vqvae_lightning.codec.codes import Codes, static_table, uniform_table
from vqvae_lightning.codec.container import (
    LARGEST_GROUP,
    LARGEST_IMAGES,
    LOSSLESS,
    LOSSY,
    CodecError,
    Container,
    Header,
    pack,
    unpack,
)
from vqvae_lightning.codec.groups import GroupCoder
from vqvae_lightning.codec.pixels import Pixels
from vqvae_lightning.codec.streams import coder_version
from vqvae_lightning.data.images import to_uint8
from vqvae_lightning.models.modes import evaluating
from vqvae_lightning.models.tokenizer import Tokenizer
from vqvae_lightning.training.given import images_of

BATCH = 256  # images that the tokenizer sees at once
LARGEST_STEPS = 2**28  # bytes of a group's logits on the grid: N · T · K


def compress(
    model: Any, images: Any, labels: Any = None, group: int = 256, lossless: bool = False
) -> bytes:
    """Images as a file of a few bytes each, which `decompress` turns back by the same model.

    Args:
        model: a VQVAE, whose codes go by a table of how often each occurs, or a CodePrior with its
            tokenizer, which codes them by what it knows of them.
        images: uint8, or floats in [-1, 1], (N, C, H, W), numpy or torch.
        labels: their classes (N,), of a class-conditional prior; by default those that make the
            file shortest. They are coded with the images.
        group: images that share a stream and a CRC32, at most. With 1 each image is decoded alone
            and checked alone, and takes about 10 bytes more.
        lossless: whether the images come back as they were given, not as the model reconstructs
            them. Needs a likelihood of pixel levels, and takes many more bytes.

    Returns:
        The content of a `.vqz` file.

    Raises:
        ConfigError: a model without codes, or one that cannot be lossless, a package that is
            missing.
        ValueError: images or labels that do not fit.
    """
    coded, version_of_coder = Coded.of(model), coder_version()
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
        mode=LOSSLESS if lossless else LOSSY,
        model=coded.names()[0],
        prior=coded.names()[1],
        images=len(x),
        shape=list(tokenizer.image_shape),
        group=max(1, min(group, largest, len(x))),
        table=list(table.shape),
        library=version("vqvae_lightning"),
        coder=version_of_coder,
    )
    coder, pixels = GroupCoder(coded, table, lossless), to_uint8(x).numpy()
    groups = []
    for start in progress(range(0, len(x), header.group), header.sizes()):
        rows = slice(start, start + header.group)
        of_rows = None if of_images is None else of_images[rows]
        groups.append(coder.write(codes[rows], of_rows, pixels[rows]))
    return pack(Container(header, table, groups))


def decompress(data: bytes, model: Any) -> Tensor:
    """The images that `compress` was given, uint8 (N, C, H, W): the same ones where the file is
    lossless, and otherwise as the model reconstructs them.

    Args:
        data: the content of a `.vqz` file.
        model: the model that it was made by.

    Raises:
        CodecError: damaged bytes, those of another model or of another version, or a machine
            whose arithmetic is another than promised.
        ConfigError: a model without codes, a package that is missing.
    """
    try:
        return images_in(unpack(data), model)
    except CodecError as error:
        raise CodecError(f"decompress: the data {error}") from error


def images_in(container: Container, model: Any) -> Tensor:
    """The images of a file, uint8 (N, C, H, W). Raises CodecError."""
    tokenizer = Coded.of(model).tokenizer
    return torch.cat(
        [
            to_uint8(_decoded(tokenizer, codes)) if pixels is None else torch.from_numpy(pixels)
            for codes, pixels in decoded_groups(container, model)
        ]
    )


def decoded_groups(container: Container, model: Any) -> Iterator[tuple[Codes, Pixels | None]]:
    """The codes (n, T) of each group, and the pixels of a lossless file. Raises CodecError."""
    coded = Coded.of(model)
    check_model(container, coded)
    coder, done = GroupCoder(coded, container.table, container.header.mode == LOSSLESS), 0
    sizes = container.header.sizes()
    for size, group in progress(list(zip(sizes, container.groups, strict=True)), sizes):
        try:
            found = coder.read(group, size)
        except ValueError as error:
            raise CodecError(
                f"images {done} to {done + size - 1} are not decoded to what was coded: this"
                " machine's float64 differs by more than is promised"
            ) from error
        done += size
        yield found


def progress(items: Sequence[Any], sizes: Sequence[int]) -> Iterator[Any]:
    """Groups, with a bar of images on a terminal."""
    from tqdm import tqdm

    with tqdm(total=sum(sizes), unit="image", disable=None, leave=False) as bar:
        for item, size in zip(items, sizes, strict=True):
            yield item
            bar.update(size)


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
