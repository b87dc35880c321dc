"""Images by their codes: those of a VQ-VAE, or of a prior over them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vqvae_lightning.codec.coded import Coded, Decoded, Plan, Wanted
from vqvae_lightning.codec.codes import CodeCoder, Codes, static_table, uniform_table
from vqvae_lightning.codec.container import LOSSLESS, LOSSY, Container, Group, Header
from vqvae_lightning.codec.groups import GroupCoder
from vqvae_lightning.codec.pixels import PixelCoder, has_tables
from vqvae_lightning.codec.progress import progress
from vqvae_lightning.codec.stepping import coding_copy, nats_of_passes
from vqvae_lightning.codec.tables import Steps
from vqvae_lightning.data.images import to_uint8
from vqvae_lightning.models.first_stage import fingerprint
from vqvae_lightning.models.modes import evaluating
from vqvae_lightning.models.priors.prior import PriorNetwork
from vqvae_lightning.models.tokenizer import Tokenizer

BATCH = 256  # images that the tokenizer sees at once
LARGEST_LOGITS = 2**25  # logits of a group, N · T · K: 256 MiB of float64


@dataclass(frozen=True)
class ByCodes(Coded):
    """A tokenizer and perhaps a prior over its codes."""

    kind: str
    tokenizer: Tokenizer
    prior: PriorNetwork | None = None  # as it was trained
    classes: int = 0  # labels that the prior wants

    usual_group = 256

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.tokenizer.image_shape

    @property
    def largest_group(self) -> int:
        layout = self.tokenizer.layout
        return max(1, LARGEST_LOGITS // (layout.length * layout.codebook_size))

    def names(self) -> tuple[str, str | None]:
        prior = None if self.prior is None else fingerprint(self.prior)
        return self.tokenizer.fingerprint, prior

    @property
    def modes(self) -> tuple[str, ...]:
        return (LOSSY, LOSSLESS) if has_tables(type(self.tokenizer.likelihood)) else (LOSSY,)

    def fits(self, header: Header) -> bool:
        layout = self.tokenizer.layout
        table = [layout.num_codebooks, layout.codebook_size]
        return header.mode in (LOSSY, LOSSLESS) and (header.table, header.grid) == (table, None)

    def plan(self, x: Tensor, wanted: Wanted) -> Plan:
        self.refuse_step(wanted)
        codes, pixels = _encoded(self.tokenizer, x), to_uint8(x).numpy()
        of_images, layout = _labels(self, codes, wanted.labels), self.tokenizer.layout
        table = static_table(codes, layout) if self.prior is None else uniform_table(layout)
        coder = self._coder(table, wanted.lossless)

        def write(rows: slice) -> Group:
            of_rows = None if of_images is None else of_images[rows]
            return coder.write(codes[rows], of_rows, pixels[rows])

        return Plan(table, write)

    def reader(self, container: Container) -> Callable[[Group, int], Decoded]:
        return self._coder(container.table, container.header.mode == LOSSLESS).read

    def images(self, codes: Codes, header: Header) -> Tensor:
        parts = torch.from_numpy(codes).split(BATCH)
        return torch.cat([to_uint8(self.tokenizer.decode(part)) for part in parts])

    def _coder(self, table: Steps, lossless: bool) -> GroupCoder:
        """The coder of groups, with this static table.

        Raises ConfigError for a likelihood that cannot be lossless.
        """
        net = None if self.prior is None else coding_copy(self.prior)
        codes = CodeCoder(self.tokenizer.layout, table, net, self.classes)
        return GroupCoder(codes, PixelCoder(self.tokenizer.copied_net()) if lossless else None)


def _encoded(tokenizer: Tokenizer, x: Tensor) -> Codes:
    """Codes (N, T) of images (N, C, H, W) in [-1, 1]."""
    found = [tokenizer.encode(part).numpy() for part in x.split(BATCH)]
    return np.ascontiguousarray(np.concatenate(found).astype(np.int64))


def _labels(coded: ByCodes, codes: Codes, given: Any) -> Codes | None:
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
def _best_labels(coded: ByCodes, codes: Codes) -> Codes:
    """The labels (N,) under which codes (N, T) cost least."""
    assert coded.prior is not None
    # The rate of a masked prior is a bound of random orders, and its codes go in a fixed one.
    exact = coded.prior.bound_draws is None
    net, found = coded.prior if exact else coding_copy(coded.prior), []
    parts = torch.from_numpy(codes).split(BATCH)
    with evaluating(net):
        for part in progress(parts, list(map(len, parts)), "labels"):
            labels = [torch.full((len(part),), label) for label in range(coded.classes)]
            nats = [net.rate(part, of) if exact else nats_of_passes(net, of, part) for of in labels]
            found.append(torch.stack(nats).argmin(0).numpy())
    return np.concatenate(found)
