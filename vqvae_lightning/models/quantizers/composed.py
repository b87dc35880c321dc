"""Quantizers made of quantizers: after each other, beside each other, and in a space of fewer
dimensions.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from vqvae_lightning.config import ConfigError
from vqvae_lightning.models.quantizers.estimators import Estimator, straight_through
from vqvae_lightning.models.quantizers.quantizer import Quantized, Quantizer


class ComposedQuantizer(Quantizer):
    """Passes on to its parts, all of one K and D, what they learn from; M is the sum of theirs.

    Raises ConfigError for no parts, and for parts of different sizes.
    """

    parts: Sequence[Quantizer]

    def __init__(
        self, parts: Sequence[Quantizer], dim: int, estimator: Estimator = straight_through
    ) -> None:
        sizes = {(part.codebook_size, part.in_channels) for part in parts}
        if len(sizes) != 1:
            got = ", ".join(f"{k} codes of {d} dimensions" for k, d in sorted(sizes)) or "no parts"
            raise ConfigError(
                f"{type(self).__name__}: got {got}, wanted one part at least, and all of one size"
            )
        num_codebooks = sum(part.num_codebooks for part in parts)
        super().__init__(parts[0].codebook_size, dim, num_codebooks, estimator)
        # nn.ModuleList does not say what it holds
        self.parts = nn.ModuleList(parts)  # type: ignore[assignment]

    def statistics(self) -> list[Tensor]:
        return [own for part in self.parts for own in part.statistics()]

    def apply_statistics(self, summed: Iterator[Tensor]) -> None:
        for part in self.parts:
            part.apply_statistics(summed)

    def diagnostics(self) -> dict[str, Tensor]:
        """The largest of the parts' measures."""
        found = [part.diagnostics() for part in self.parts]
        return {name: torch.stack([values[name] for values in found]).amax() for name in found[0]}

    def join(self, codes: Sequence[Tensor]) -> Tensor:
        """Codes (N, h, w, M) of the parts' codes, in their order."""
        return torch.cat(
            [part.unflatten(2, (-1, 1)) if part.dim() == 3 else part for part in codes], dim=-1
        )

    def parted(self, codes: Tensor) -> Iterator[tuple[Quantizer, Tensor]]:
        """Each part with its share of codes (N, h, w, M); undoes `join`."""
        shares = codes.split([part.num_codebooks for part in self.parts], dim=-1)
        for part, share in zip(self.parts, shares, strict=True):
            yield part, share.squeeze(-1) if part.num_codebooks == 1 else share


class ResidualQuantizer(ComposedQuantizer):
    """Each level quantizes the residual of the levels before it; z is the sum (Zeghidour et al.
    2021, algorithm 1).

    ```
    z_e N,h,w,D ──► level 1 ──► z_1 ; z_e − z_1 ──► level 2 ──► z_2 ; …
    codes N,h,w,M, coarse to fine
    z = estimate(z_e, z_1 + … + z_M);  penalty = the sum of the levels' penalties
    ```

    SoundStream, arXiv 2107.03312; on images: Lee et al. 2022, arXiv 2203.01941 (RQ-VAE). The
    estimator stands around the sum: around each level it would count the gradient M times.
    """

    def __init__(self, parts: Sequence[Quantizer], estimator: Estimator = straight_through) -> None:
        super().__init__(parts, parts[0].in_channels if parts else 0, estimator)

    def quantize(self, z_e: Tensor) -> Quantized:
        residual, found = z_e, []
        for part in self.parts:
            found.append(part.quantize(residual))
            residual = residual - part.decode(found[-1].codes).detach()
        codes = self.join([level.codes for level in found])
        logs = {
            name: torch.stack([level.logs[name] for level in found]).sum() for name in found[0].logs
        }
        penalty = torch.stack([level.penalty for level in found]).sum()
        return Quantized(self.estimate(z_e, self.decode(codes)), codes, penalty, logs)

    def statistics(self) -> list[Tensor]:
        """Statistics of the levels up to and including the first uninitialized one.

        Its residual is meaningless to later levels.
        """
        own, uninitialized = [], False
        for part in self.parts:
            found = part.statistics()
            own += [] if uninitialized else found
            uninitialized = uninitialized or not part.is_initialized
        return own

    def apply_statistics(self, summed: Iterator[Tensor]) -> None:
        for part in self.parts:
            uninitialized = not part.is_initialized
            part.apply_statistics(summed)
            if uninitialized:
                break

    def decode(self, codes: Tensor) -> Tensor:
        return torch.stack([part.decode(share) for part, share in self.parted(codes)]).sum(0)


class ProductQuantizer(ComposedQuantizer):
    """Groups of channels, each with a quantizer of its own (product quantization: Jégou et al.
    2011, TPAMI 33(1)).

    ```
    z_e N,h,w,D ──► M groups of D/M channels ──► a code each ──► z N,h,w,D; codes N,h,w,M
    ```

    With M = 10 on a grid of 8×8 this is the CIFAR-10 latent of van den Oord et al. 2017 (§4.1). The
    penalty is the mean over groups, so that squared errors are means over the D channels, as with
    one group.
    """

    def __init__(self, parts: Sequence[Quantizer]) -> None:
        super().__init__(parts, sum(part.in_channels for part in parts))

    def quantize(self, z_e: Tensor) -> Quantized:
        groups = z_e.chunk(len(self.parts), dim=-1)
        found = [part.quantize(group) for part, group in zip(self.parts, groups, strict=True)]
        codes = self.join([group.codes for group in found])
        logs = {
            name: torch.stack([group.logs[name] for group in found]).mean()
            for name in found[0].logs
        }
        penalty = torch.stack([group.penalty for group in found]).mean()
        return Quantized(torch.cat([group.z for group in found], dim=-1), codes, penalty, logs)

    def decode(self, codes: Tensor) -> Tensor:
        return torch.cat([part.decode(share) for part, share in self.parted(codes)], dim=-1)


class ProjectedQuantizer(ComposedQuantizer):
    """Codes are looked up in a space of d dimensions, between two linear projections (Yu et al.
    2022, §3.2).

    ```
    z_e N,h,w,D ──► linear ──► N,h,w,d ──► quantizer ──► N,h,w,d ──► linear ──► z N,h,w,D
    ```

    ViT-VQGAN's factorised codes, arXiv 2110.04627: few dimensions to look up in keep the codebook
    alive.
    """

    def __init__(self, part: Quantizer, dim: int) -> None:
        super().__init__([part], dim)
        self.project_in = nn.Linear(dim, part.in_channels)
        self.project_out = nn.Linear(part.out_channels, dim)

    def quantize(self, z_e: Tensor) -> Quantized:
        found = self.parts[0].quantize(self.project_in(z_e))
        return Quantized(self.project_out(found.z), found.codes, found.penalty, found.logs)

    def decode(self, codes: Tensor) -> Tensor:
        z: Tensor = self.project_out(self.parts[0].decode(codes))
        return z
