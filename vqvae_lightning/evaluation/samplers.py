"""Named samplers: the ways to draw images from a finished run, those that work and those that
theory says cannot.

```
                    ┌── normal, uniform: the p(z) of the rate ────────────┐
 train images ──► z ┴── gaussian, mixture, unigram: fitted later ─────────┴──► z, codes ──► Decoder
 label ──► CodePrior ── prior: P(codes | label) ──► codes ─────────────────────────────► Tokenizer
```

A sampler fitted after training ("ex-post density estimation", Ghosh et al. 2020, arXiv 1903.12436)
replaces the p(z) that the model was trained with; what it draws says nothing about that p(z), and
the ledger does not count it.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from vqvae_lightning.config import ConfigError, Drawing, Experiment, SampleOptions
from vqvae_lightning.data.images import ImageDataModule
from vqvae_lightning.data.sources import DATASETS
from vqvae_lightning.models.autoencoder import Autoencoder
from vqvae_lightning.models.bottlenecks import Latent
from vqvae_lightning.models.build import AEConfig, VAEConfig, build_trunk

TRAIN_IMAGES = 10_000  # of the training split, its first: enough for a fit, seconds on a CPU
LARGEST_LATENT = 512  # D·h·w: a full covariance has D·h·w squared entries
COMPONENTS = 10
BATCH = 500  # images decoded at once
TIMED = 100  # images drawn at once to see what one costs


class TrainLatents:
    """What an autoencoder makes of the first TRAIN_IMAGES training images, encoded in evaluation
    mode when first asked.

    Images are not augmented. Of a VAE, z is one sample of q(z|x) per image, not its mean: the fit
    is then to the aggregate posterior, which is what the decoder was trained on. Raises DataError
    if the images cannot be had.
    """

    def __init__(self, net: Autoencoder, experiment: Experiment) -> None:
        self.net, self.experiment = net, experiment

    @cached_property
    def encoded(self) -> tuple[Tensor, Tensor | None]:
        """z (N, D, h, w) and codes, or None without a codebook; on the CPU, the same at every
        call.
        """
        data = ImageDataModule(self.experiment.data, self.experiment.seed)
        data.prepare_data()
        data.setup()
        device = next(self.net.parameters()).device
        latents: list[Latent] = []
        with torch.inference_mode():
            for batch in islice(
                data.batches("train", device), -(-TRAIN_IMAGES // data.config.eval_batch_size)
            ):
                latents.append(self.net.encode(batch.x, batch.row_noise("latent").normal))
        z = torch.cat([latent.z.cpu() for latent in latents])[:TRAIN_IMAGES]
        codes = [latent.codes.cpu() for latent in latents if latent.codes is not None]
        return z, torch.cat(codes)[:TRAIN_IMAGES] if codes else None

    @property
    def rows(self) -> Tensor:
        """z as float64 rows (N, D·h·w)."""
        return self.encoded[0].flatten(1).double()

    @property
    def codes(self) -> Tensor:
        """Codes (N, h, w) or (N, h, w, M) int64."""
        codes = self.encoded[1]
        assert codes is not None  # the table offers samplers of codes only where there are codes
        return codes


@dataclass(frozen=True)
class GaussianMixture:
    """Σ_m weight_m · N(mean_m, factor_m factor_mᵀ) over rows of length D, in float64."""

    weights: Tensor  # M
    means: Tensor  # M,D
    factors: Tensor  # M,D,D

    def sample(self, n: int) -> Tensor:
        """n rows (n, D), by torch's global random state."""
        component = torch.multinomial(self.weights, n, replacement=True)  # n
        rows = torch.randn(n, self.means.shape[1], dtype=self.means.dtype)
        for m, (mean, factor) in enumerate(zip(self.means, self.factors, strict=True)):
            rows[component == m] = mean + rows[component == m] @ factor.T
        return rows


def fit_gaussian(rows: Tensor) -> GaussianMixture:
    """The Gaussian with the mean and the covariance of float64 rows (N, D), N at least 2."""
    covariance = torch.atleast_2d(rows.T.cov())
    return GaussianMixture(
        torch.ones(1, dtype=rows.dtype), rows.mean(0)[None], square_root(covariance)[None]
    )


def fit_mixture(rows: Tensor, components: int = COMPONENTS) -> GaussianMixture:
    """A mixture of full-covariance Gaussians fitted to float64 rows (N, D) by EM, started at
    k-means.

    The settings of Ghosh et al. 2020 (RAE): 10 components, tolerance 1e-3, at most 2000 iterations.
    The fit has a seed of its own, so that the seed of a picture changes what is drawn, not what it
    is drawn from.
    """
    from sklearn.mixture import GaussianMixture as Fit  # takes a second to import

    fit = Fit(components, covariance_type="full", tol=1e-3, max_iter=2000, random_state=0).fit(
        rows.numpy()
    )
    factors = torch.stack(
        [square_root(torch.from_numpy(covariance)) for covariance in fit.covariances_]
    )
    return GaussianMixture(torch.from_numpy(fit.weights_), torch.from_numpy(fit.means_), factors)


def square_root(covariance: Tensor) -> Tensor:
    """A (D, D) with A Aᵀ = covariance (D, D), which may be singular: a latent that never varies has
    no variance.
    """
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp_min(0).sqrt()


# A sampler makes options.n images (n, C, H, W) in [-1, 1] of a module; `train` is encoded only if
# it is looked at. The class of each image, labels (n,), matters to a class-conditional prior only.
Sampler = Callable[[Any, TrainLatents, SampleOptions, Tensor], Tensor]


def own_prior(module: Any, train: TrainLatents, options: SampleOptions, labels: Tensor) -> Tensor:
    """z from the p(z) that the bottleneck charges its rate against; for an AE, N(0, I), which
    nothing made true.
    """
    net: Autoencoder = module.net
    return decode(net, net.bottleneck.sample(options.n, net.grid, module.device))


def gaussian(module: Any, train: TrainLatents, options: SampleOptions, labels: Tensor) -> Tensor:
    """z from one Gaussian with the mean and the covariance of the training latents."""
    return decode_rows(module.net, fit_gaussian(train.rows).sample(options.n))


def mixture(module: Any, train: TrainLatents, options: SampleOptions, labels: Tensor) -> Tensor:
    """z from a mixture of Gaussians fitted to the training latents."""
    return decode_rows(module.net, fit_mixture(train.rows).sample(options.n))


def unigram(module: Any, train: TrainLatents, options: SampleOptions, labels: Tensor) -> Tensor:
    """Codes drawn i.i.d. from their histogram over the training images: no spatial structure."""
    net: Autoencoder = module.net
    layout = net.layout
    assert layout is not None  # the table offers this sampler only where there are codes
    counts = layout.histogram(train.codes).double()  # M,K
    drawn = torch.multinomial(counts, options.n * layout.cells, replacement=True)  # M,n·h·w
    codes = layout.from_cells(drawn.T)  # n,h,w or n,h,w,M
    return decode(net, net.bottleneck.codes_to_latents(codes.to(module.device)))


def prior(module: Any, train: TrainLatents, options: SampleOptions, labels: Tensor) -> Tensor:
    """Codes from the learned prior, P(codes | label) or P(codes)."""
    return torch.cat([module.sample(part, **sampling(options)) for part in labels.split(BATCH)])


def seconds_per_image(module: Any) -> float:
    """Wall-clock seconds for an image of a prior, codes and decoding: TIMED at once, the faster of
    two times.
    """
    labels = torch.arange(TIMED) % module.classes
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        module.sample(labels).cpu()
        seconds.append(time.perf_counter() - started)
    return min(seconds) / TIMED


# kind of run → its samplers by name, the default first
SAMPLERS: dict[str, dict[str, Sampler]] = {
    "ae": {"normal": own_prior, "gaussian": gaussian, "mixture": mixture},
    "vae": {"normal": own_prior, "mixture": mixture},
    "vqvae": {"uniform": own_prior, "unigram": unigram},
    "prior": {"prior": prior},
}

DESCRIPTIONS = {
    "normal": "z ~ N(0, I)",
    "gaussian": "z from a Gaussian fitted to the training latents",
    "mixture": f"z from a mixture of {COMPONENTS} Gaussians fitted to the training latents",
    "uniform": "codes drawn uniformly",
    "unigram": "codes drawn in their shares, without order",
    "prior": "codes from the learned prior",
}


COVARIANCES = ("gaussian", "mixture")  # samplers that fit a full one


def sampler_names(experiment: Experiment, name: str | None, also: Sequence[str] = ()) -> list[str]:
    """The samplers that `name` means for such a run: one, `all` that it can have, or the default.
    Raises ConfigError.

    `also` may be named beside them. A latent of more than LARGEST_LATENT numbers can have no full
    covariance.
    """
    kind, size = experiment.kind, latent_size(experiment)
    known = [*SAMPLERS[kind], *also]
    if name not in (None, "all", *known):
        raise ConfigError(
            f"sampler: got '{name}', but a {kind} run has {', '.join(known)}; wanted one of them,"
            " or all"
        )
    if size > LARGEST_LATENT:
        if name in COVARIANCES:
            raise ConfigError(
                f"sampler: a full covariance of {size} latent numbers is too large, wanted at most"
                f" {LARGEST_LATENT}; use sampler=normal, or train with model.latent=vector"
            )
        known = [sampler for sampler in known if sampler not in COVARIANCES]
    return known if name == "all" else [name or known[0]]


def latent_size(experiment: Experiment) -> int:
    """D·h·w of the z of an AE or a VAE; 0 of a run that has codes."""
    model = experiment.model
    if not isinstance(model, AEConfig | VAEConfig):
        return 0
    grid = build_trunk(model, DATASETS[experiment.data.name].shape).grid
    return model.latent_dim * math.prod(grid)


def draw(
    module: Any,
    train: TrainLatents,
    name: str,
    options: SampleOptions,
    labels: Tensor | None = None,
) -> Tensor:
    """options.n images (n, C, H, W) in [-1, 1] of one of the samplers of the module's kind, the
    same for a seed.

    A class-conditional prior draws images of `labels` (n,), if none are given a row of the grid per
    class. Raises ConfigError for a label or top_k that a prior does not have.
    """
    torch.manual_seed(options.seed)
    if labels is None:
        labels = labels_of(options, getattr(module, "classes", 1))
    return SAMPLERS[module.kind][name](module, train, options, labels)


def decode(net: Autoencoder, z: Tensor) -> Tensor:
    """Mean images (N, C, H, W) in [-1, 1] of latents z (N, D, h, w), a part of them at a time."""
    with torch.inference_mode():
        return torch.cat([net.decode(part) for part in z.split(BATCH)])


def decode_rows(net: Autoencoder, rows: Tensor) -> Tensor:
    """Mean images (N, C, H, W) in [-1, 1] of latents as rows (N, D·h·w) on the CPU."""
    z = rows.view(len(rows), -1, *net.grid)  # N,D,h,w
    return decode(net, z.float().to(next(net.parameters()).device))


def sampling(options: Drawing) -> dict[str, Any]:
    """What `AutoregressivePrior.generate` is told."""
    return {field.name: getattr(options, field.name) for field in fields(Drawing)}


def changed_sampling(given: Mapping[str, Any]) -> dict[str, Any]:
    """Of settings, or of a figure with its protocol: what makes a prior's samples others than its
    P(codes | label).
    """
    return {
        name: given[name]
        for name, usual in sampling(Drawing()).items()
        if given.get(name, usual) != usual
    }


def labels_of(options: SampleOptions, classes: int) -> Tensor:
    """The class of each image of the grid, (n,): one row after another.

    Raises ConfigError for a label that is none.
    """
    if options.label is not None:
        if not 0 <= options.label < classes:
            raise ConfigError(f"label: got {options.label}, wanted 0 to {classes - 1}")
        return torch.full((options.n,), options.label)
    return (torch.arange(options.n) // options.columns) % classes
