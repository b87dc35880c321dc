"""A prior's logits, pass by pass in one fixed way on both sides: float64 on the CPU.

```
 codes so far ──► (positions, logits N,P,K) ──► the caller codes these positions ──► next pass
```
"""

import copy
from collections.abc import Iterator
from typing import cast

import numpy as np
import torch
from torch import Tensor

from vqvae_lightning.codec.tables import Floats
from vqvae_lightning.config import ConfigError
from vqvae_lightning.models.priors.autoregressive import AutoregressivePrior
from vqvae_lightning.models.priors.masked import MaskedTransformer
from vqvae_lightning.models.priors.prior import PriorNetwork
from vqvae_lightning.models.priors.unmasking import left

MASKED_PASSES = 16  # of a masked prior: more of them code better, and take longer
Pass = tuple[list[int], Floats]


def coding_copy(net: PriorNetwork) -> PriorNetwork:
    """The network as it codes: float64, on the CPU, in evaluation mode.

    Raises ConfigError for a network that has no order of positions to code in.
    """
    if not isinstance(net, AutoregressivePrior | MaskedTransformer):
        raise ConfigError(
            f"codec: a prior of class {type(net).__name__} has no known order of positions, wanted"
            " an autoregressive or a masked one"
        )
    return copy.deepcopy(net).to("cpu", torch.float64).eval()


def passes(net: PriorNetwork, labels: Tensor | None, codes: Tensor) -> Iterator[Pass]:
    """Positions, and their logits (n, P, K) given all positions of earlier passes.

    Args:
        net: what `coding_copy` gave.
        labels: classes (n,), or None.
        codes: (n, T) int64, of which the caller fills in the positions of a pass before it asks
            for the next one.
    """
    if isinstance(net, AutoregressivePrior):
        return _in_order(net, labels, codes)
    return _unmasked(cast(MaskedTransformer, net), labels, codes)


def nats_of_passes(net: PriorNetwork, labels: Tensor | None, codes: Tensor) -> Tensor:
    """What codes (n, T) cost in nats, (n,), in the order of `passes`."""
    nats = torch.zeros(len(codes), dtype=torch.float64)
    for positions, logits in passes(net, labels, codes):
        likelihood = torch.from_numpy(logits).log_softmax(-1)  # n,P,K
        nats -= likelihood.gather(-1, codes[:, positions, None]).sum((1, 2))
    return nats


def _in_order(net: AutoregressivePrior, labels: Tensor | None, codes: Tensor) -> Iterator[Pass]:
    n, length = codes.shape
    cache, previous = net.new_cache(n), None
    for position in range(length):
        with torch.no_grad():
            logits = net.next_logits(previous, labels, n, cache)  # n,K
        yield [position], logits[:, None].numpy()
        previous = codes[:, position]


def _unmasked(net: MaskedTransformer, labels: Tensor | None, codes: Tensor) -> Iterator[Pass]:
    """The positions in their Halton order, several at a pass, each given those before."""
    length = codes.shape[1]
    known, start = torch.zeros(length, dtype=torch.bool), 0
    count = min(MASKED_PASSES, length)
    for number in range(1, count + 1):
        end = length - int(left(torch.tensor(length), number, count))
        positions = net.halton[start:end]
        with torch.no_grad():
            logits = net.logits(codes.masked_fill(~known, net.codebook_size), labels)  # n,T,K
        yield positions.tolist(), np.ascontiguousarray(logits[:, positions].numpy())
        known[positions], start = True, end
