"""`compress(model, images)` and `decompress(data, model)`: images to bytes and back.

```
images ──► tokenizer ──► codes ──► prior, or static table ──► range coder ──► bytes
bytes  ──► range coder ──► codes, checked by CRC32 ──► tokenizer ──► images, lossy
lossless: the pixels follow the codes, by p(x|z) of these codes; of a VAE by bits-back
an AE: z on a grid in the place of codes
```
"""

import copy
from collections.abc import Iterator
from importlib.metadata import version
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from vqvae_lightning.codec.by_chain import ByChain
from vqvae_lightning.codec.by_codes import ByCodes
from vqvae_lightning.codec.by_grid import ByGrid
from vqvae_lightning.codec.coded import Coded, Decoded, Wanted, check_model
from vqvae_lightning.codec.container import (
    LARGEST_GROUP,
    LARGEST_IMAGES,
    LARGEST_STEP,
    LOSSLESS,
    LOSSY,
    CodecError,
    Container,
    Header,
    group_with,
    pack,
    unpack,
)
from vqvae_lightning.codec.progress import progress
from vqvae_lightning.codec.streams import coder_version
from vqvae_lightning.config import ConfigError
from vqvae_lightning.models.first_stage import FrozenLatents
from vqvae_lightning.models.tokenizer import Tokenizer
from vqvae_lightning.surroundings import own_surroundings
from vqvae_lightning.training.given import images_of
from vqvae_lightning.training.image_model import ImageModel
from vqvae_lightning.training.prior import CodePrior


def coded_of(model: object) -> Coded:
    """A copy of a model on the CPU, as a codec sees it.

    Raises ConfigError for one that cannot code.
    """
    autoencoder = model.tokenizer if isinstance(model, CodePrior) else getattr(model, "net", None)
    if getattr(autoencoder, "classes", 0):
        raise ConfigError(
            "codec: the decoder of this model is given the label, which no file holds; wanted one"
            " with model.class_conditional=false"
        )
    if isinstance(model, CodePrior):
        if model.tokenizer is None:
            raise ConfigError("codec: this prior has no tokenizer; call attach(tokenizer)")
        classes = model.classes if model.config.class_conditional else 0
        tokenizer = Tokenizer(model.tokenizer.copied_net().cpu())
        return ByCodes(model.kind, tokenizer, copy.deepcopy(model.net).cpu(), classes)
    if isinstance(model, ImageModel):
        net = copy.deepcopy(model.net).cpu()
        if net.layout is not None:
            return ByCodes(model.kind, Tokenizer(net))
        if net.bottleneck.random:
            return ByChain(model.kind, net)
        return ByGrid(model.kind, FrozenLatents(net))
    name = getattr(model, "kind", type(model).__name__)
    raise ConfigError(
        f"codec: a model of kind {name} codes no images, wanted an autoencoder, or a prior over"
        " codes"
    )


@own_surroundings()
def compress(
    model: Any,
    images: Any,
    labels: Any = None,
    group: int | None = None,
    lossless: bool = False,
    step: float | None = None,
) -> bytes:
    """Images as a file of a few bytes each, which `decompress` turns back by the same model.

    Args:
        model: a VQVAE, whose codes go by their histogram, or a CodePrior with its
            tokenizer, which codes them by what it knows of them. A VAE is lossless only, an AE
            lossy only.
        images: uint8, or floats in [-1, 1], (N, C, H, W), numpy or torch.
        labels: their classes (N,), of a class-conditional prior; by default those that make the
            file shortest. They are coded with the images.
        group: images that share a stream and a CRC32, at most; by default 256, of a VAE 4096.
            With 1 each image is decoded alone and checked alone, and takes about 10 bytes more; of
            a VAE far more.
        lossless: whether the images come back as they were given, not as the model reconstructs
            them. Needs a likelihood of pixel levels, and takes many more bytes.
        step: the grid of an AE's z, in units of z: the smaller, the better the images and the
            longer the file; by default 0.5.

    Returns:
        The content of a `.vqz` file.

    Raises:
        ConfigError: a model that codes no images, or not so, a package that is missing.
        ValueError: images, labels or settings that do not fit.
    """
    coded, version_of_coder = coded_of(model), coder_version()
    x = images_of(images, coded.image_shape, torch.empty(0))
    group = coded.usual_group if group is None else group
    _check_sizes(x, group, step)
    group = int(group)
    plan = coded.plan(x, Wanted(labels, lossless, None if step is None else float(step)))
    header = Header(
        kind=coded.kind,
        mode=LOSSLESS if lossless else LOSSY,
        model=coded.names()[0],
        prior=coded.names()[1],
        images=len(x),
        shape=list(coded.image_shape),
        group=min(group, coded.largest_group, len(x)),
        table=list(plan.table.shape),
        grid=plan.grid,
        library=version("vqvae_lightning"),
        coder=version_of_coder,
    )
    starts = progress(range(0, len(x), header.group), header.sizes())
    groups = [plan.write(slice(start, start + header.group)) for start in starts]
    return pack(Container(header, plan.table, groups))


def _check_sizes(x: Tensor, group: int, step: float | None) -> None:
    """Raises ValueError for numbers that no file has."""
    whole = isinstance(group, Integral) and not isinstance(group, bool)
    if not len(x) or not whole or not 1 <= group <= LARGEST_GROUP:
        raise ValueError(
            f"compress: got {len(x)} images in groups of {group}, wanted 1 at least, in groups of 1"
            f" to {LARGEST_GROUP}"
        )
    if x.numel() > LARGEST_IMAGES:
        raise ValueError(f"compress: got {x.numel():,} pixels, wanted at most {LARGEST_IMAGES:,}")
    if step is not None and not (isinstance(step, Real) and 0 < step < LARGEST_STEP):
        raise ValueError(f"step: got {step!r}, wanted a number above 0, in units of z")


@own_surroundings()
def decompress(data: bytes, model: Any, only: int | None = None) -> Tensor:
    """The images that `compress` was given, uint8 (N, C, H, W): the same ones where the file is
    lossless, and otherwise as the model reconstructs them.

    Args:
        data: the content of a `.vqz` file.
        model: the model that it was made by.
        only: the number of one image, from 0. Its group alone is decoded, and it alone returned.

    Raises:
        CodecError: damaged bytes, those of another model or of another version, or a machine
            whose arithmetic is another than promised.
        ConfigError: a model that codes no images, a package that is missing.
        ValueError: `only` is no whole number.
    """
    if only is not None and (not isinstance(only, Integral) or isinstance(only, bool)):
        raise ValueError(f"only: got {only!r}, wanted the number of an image")
    try:
        return images_in(unpack(data), model, only)
    except CodecError as error:
        raise CodecError(f"decompress: the data {error}") from error


def images_in(container: Container, model: Any, only: int | None = None) -> Tensor:
    """The images of a file, uint8 (N, C, H, W), or one of them. Raises CodecError."""
    if only is not None:
        group, position = group_with(container, only)
        return images_in(group, model)[position : position + 1]
    coded, header, done = coded_of(model), container.header, 0
    # Memory is taken as it is written to, so that a damaged file takes little.
    found = torch.empty(header.images, *header.shape, dtype=torch.uint8)
    for codes, pixels in decoded_groups(container, coded):
        rows = slice(done, done + len(codes))
        found[rows] = coded.images(codes, header) if pixels is None else torch.from_numpy(pixels)
        done = rows.stop
    return found


def decoded_groups(container: Container, coded: Coded) -> Iterator[Decoded]:
    """What each group holds, checked. Raises CodecError."""
    check_model(container, coded)
    read, sizes, done = coded.reader(container), container.header.sizes(), 0
    for size, group in progress(list(zip(sizes, container.groups, strict=True)), sizes):
        try:
            found = read(group, size)
        except ValueError as error:
            raise CodecError(
                f"images {done} to {done + size - 1} are not decoded to what was coded: the file"
                " was altered, or this machine's float64 differs by more than is promised"
            ) from error
        done += size
        yield found
