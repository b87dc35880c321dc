"""The codes of a group of images, to a stream and back.

```
 no prior:  codes n,T ──► the static table of their codebook
 a prior:   label, grid of each image, then pass by pass P(z_t | z_<t, label)
            grid: the first on which another build is sure to round all logits alike;
            an image for which there is none goes by the static table
```
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from vqvae_lightning.codec.container import deflated
from vqvae_lightning.codec.stepping import Pass, passes
from vqvae_lightning.codec.streams import Reader, Symbols, Writer
from vqvae_lightning.codec.tables import (
    BY_TABLE,
    GRIDS,
    SHIFTS,
    Steps,
    Weights,
    histogram_steps,
    nats_of,
    steps_of,
    weights_of,
)
from vqvae_lightning.models.layout import CodeLayout
from vqvae_lightning.models.priors.prior import PriorNetwork

Codes = NDArray[np.int64]


def static_table(codes: Codes, layout: CodeLayout) -> Steps:
    """The table (M, K) of codes (N, T): their histogram, or a uniform one if that is shorter.

    The histogram is that of the coded images, and the file holds it.
    """
    of_codebook = codes.reshape(len(codes), -1, layout.num_codebooks)
    size = layout.codebook_size
    counts = np.stack(
        [
            np.bincount(of_codebook[..., m].ravel(), minlength=size)
            for m in range(layout.num_codebooks)
        ]
    )
    found, uniform = histogram_steps(counts), uniform_table(layout)
    nats = {8 * len(deflated(t)) * np.log(2) + nats_of(counts, t): t for t in (found, uniform)}
    return nats[min(nats)]


def uniform_table(layout: CodeLayout) -> Steps:
    """The table (M, K) of codes that are equally likely."""
    return np.zeros((layout.num_codebooks, layout.codebook_size), np.uint8)


def grids_of(found: Sequence[Pass], n: int) -> NDArray[np.int64]:
    """The grid of each of n images, (n,), by all passes: the first that is certain, or BY_TABLE."""
    grids = np.full(n, BY_TABLE)
    for number, shift in enumerate(SHIFTS):
        rows = np.flatnonzero(grids == BY_TABLE)
        if not len(rows):
            break
        sure = [steps_of(logits[rows], shift)[1].all(1) for _, logits in found]
        grids[rows[np.all(sure, 0)]] = number
    return grids


class CodeCoder:
    """Codes (n, T) of groups of images, by a static table, or by a prior with it as fallback."""

    def __init__(
        self, layout: CodeLayout, table: Steps, net: PriorNetwork | None, classes: int
    ) -> None:
        """A coder.

        Args:
            layout: how codes lie in a sequence.
            table: the static table (M, K).
            net: the prior, what `coding_copy` gave; None: the static table codes everything.
            classes: how many labels the prior wants; 0: none.
        """
        self.layout, self.net, self.classes = layout, net, classes
        self.static = weights_of(table)  # M,K
        self.labels = weights_of(np.zeros(max(classes, 1), np.uint8))

    def write(self, writer: Writer, codes: Codes, labels: Codes | None) -> int:
        """Appends codes (n, T), of images with labels (n,); how many went by the static table."""
        if self.net is None:
            for position in range(self.layout.length):
                writer.write(codes[:, position].astype(np.int32), self._static(position))
            return len(codes)
        if labels is not None:
            writer.write(labels.astype(np.int32), self.labels)
        known = torch.from_numpy(codes)
        of_labels = None if labels is None else torch.from_numpy(labels)
        found = list(passes(self.net, of_labels, known))
        grids = grids_of(found, len(codes))
        writer.write(grids.astype(np.int32), GRIDS)
        certain = grids != BY_TABLE
        for positions, logits in found:
            steps, _ = steps_of(logits[certain], SHIFTS[grids[certain], None, None])  # n,P,K
            for number, position in enumerate(positions):
                symbols = codes[:, position].astype(np.int32)
                writer.write(symbols[certain], weights_of(steps[:, number]))
                writer.write(symbols[~certain], self._static(position))
        return int((~certain).sum())

    def read(self, reader: Reader, n: int) -> Codes:
        """The next codes (n, T)."""
        codes = np.zeros((n, self.layout.length), np.int64)
        if self.net is None:
            for position in range(self.layout.length):
                codes[:, position] = reader.read(n, self._static(position))
            return codes
        labels = reader.read(n, self.labels) if self.classes else None
        grids = reader.read(n, GRIDS)
        of_labels = None if labels is None else torch.from_numpy(labels.astype(np.int64))
        for found in passes(self.net, of_labels, torch.from_numpy(codes)):
            self._read_pass(reader, found, grids, codes)
        return codes

    def _read_pass(self, reader: Reader, found: Pass, grids: Symbols, codes: Codes) -> None:
        """Fills in the positions of a pass, in `codes` (n, T), whose memory the prior reads."""
        positions, logits = found
        certain = grids != BY_TABLE
        steps, _ = steps_of(logits[certain], SHIFTS[grids[certain], None, None])
        for number, position in enumerate(positions):
            rows = weights_of(steps[:, number])
            codes[certain, position] = reader.read(int(certain.sum()), rows)
            codes[~certain, position] = self._read_static(reader, ~certain, position)

    def _read_static(self, reader: Reader, chosen: NDArray[np.bool_], position: int) -> Symbols:
        return reader.read(int(chosen.sum()), self._static(position))

    def _static(self, position: int) -> Weights:
        """The static weights (K,) of a position, those of its codebook."""
        found: Weights = self.static[position % self.layout.num_codebooks]
        return found
