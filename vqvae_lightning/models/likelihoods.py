"""p(x|z): what distortion means. Each gives −log p(x|z) in nats per image and the mean image."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvae_lightning.config import ConfigError, documented, setting

# Log scales of a pixel: from an eighth of a level's width (Salimans et al.) to a flat density.
LOG_SCALES = (-7.0, 7.0)


class Likelihood(nn.Module, ABC):
    """A distribution over images x (N, C, H, W) in [-1, 1], given what the decoder says of them,
    (N, P·C, H, W).

    A member of `LIKELIHOODS` is built as `Member(config)` and owns a dataclass `Config`.
    """

    Config: ClassVar[type[Any]]
    # Levels of a pixel that the probabilities are of; None for a density.
    levels: ClassVar[int | None]
    parts = 1  # P, numbers that the decoder gives for each of a pixel's channels

    @property
    def discrete(self) -> bool:
        """Whether p is a probability of pixel levels, so that bits per dimension compare across
        models.
        """
        return self.levels is not None

    @abstractmethod
    def nll(self, x: Tensor, decoded: Tensor) -> Tensor:
        """−log p(x|z) in nats, summed per image, (N,)."""

    @abstractmethod
    def mean(self, decoded: Tensor) -> Tensor:
        """E[x|z] (N, C, H, W) in [-1, 1]: the reconstruction."""


class GaussianLikelihood(Likelihood):
    """N(x; decoded, scale²) per pixel, a density. One scale for all pixels, fixed or learned.

    `bounded`: N(x; clamp(decoded, −1, 1), scale²), so that what is black or white can be so
    exactly. Its gradient passes the clamp: a pixel beyond the edge gets none if the edge is right,
    and comes back if it is not. (With tanh in its place a VQ-VAE of MNIST was black within 400
    steps and stayed so.)

    `growth` = k > 0: N(g(x); decoded, scale²) · g'(x) with g(x) = (exp(kx) − 1)/k, the Gaussian of
    values that grow exponentially in x, as a density of x. High values are then told apart more
    finely, and a decoder that hedges takes the mean of g(x), not of x. Levels of recordings are dB:
    with k = 2.77 g is the 0.6th power of the amplitude, loudness by Stevens' power law, and with
    half of it the 0.3rd. What the Gaussian gives to values that no x has, below −1/k, is lost: the
    density adds up to a little less than 1.

    With scale² = half the data's variance, −log p per dimension is, up to a constant, the squared
    error divided by the data's variance: the normalised recipe of DeepMind's VQ-VAE example
    (Sonnet, vqvae_example).
    """

    levels = None

    @documented
    @dataclass
    class Config:
        """The scale and the range of the mean."""

        scale: float = setting(
            0.4,
            "standard deviation in units of the pixel range [-1, 1]; the initial one, if learned",
            above=0,
        )
        learned: bool = setting(False, "learn the scale")
        bounded: bool = setting(
            False, "clamp the mean to [-1, 1] in training too, so that black can be black"
        )
        growth: float = setting(
            0.0,
            "k: the Gaussian is of (exp(kx) - 1)/k, so that high values of x are told apart more"
            " finely; 0: of x itself",
            at_least=0,
            at_most=20,
        )

        def __post_init__(self) -> None:
            if self.bounded and self.growth:
                raise ConfigError(
                    f"model.likelihood.bounded: got true with growth={self.growth}, wanted false,"
                    " or model.likelihood.growth=0"
                )

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.bounded, self.growth = config.bounded, config.growth
        log_scale = torch.tensor(math.log(config.scale))
        self.log_scale = nn.Parameter(log_scale, requires_grad=config.learned)

    def nll(self, x: Tensor, decoded: Tensor) -> Tensor:
        centre = decoded + (self.mean(decoded) - decoded).detach() if self.bounded else decoded
        error = ((self._grown(x) - centre) * torch.exp(-self.log_scale)).square()
        nats = 0.5 * error + self.log_scale + 0.5 * math.log(2 * math.pi) - self.growth * x
        return nats.flatten(1).sum(1)

    def _grown(self, x: Tensor) -> Tensor:
        """g(x)."""
        return torch.expm1(self.growth * x) / self.growth if self.growth else x

    def mean(self, decoded: Tensor) -> Tensor:
        """The x whose g(x) is the mean, in [-1, 1]; without growth the mean itself."""
        if self.growth:
            lowest = math.expm1(-self.growth)
            decoded = torch.log1p((self.growth * decoded).clamp_min(lowest)) / self.growth
        return decoded.clamp(-1, 1)


def log_mass(x: Tensor, centre: Tensor, log_scale: Tensor) -> Tensor:
    """log of the mass that logistics put on levels x of pixels, −1 + 2k/255; shapes broadcast."""
    inverse = torch.exp(-log_scale)
    # 0 … 255: so that two neighbours have the same border, bit for bit
    level = ((x + 1) * 127.5).round()
    # σ(b) − σ(a) = σ(b) σ(−a) (1 − exp(a − b)): no difference of nearly equal numbers, however
    # small the scale
    below_upper = F.logsigmoid(((2 * level + 1) / 255 - 1 - centre) * inverse)  # log σ(b)
    above_lower = F.logsigmoid((centre - ((2 * level - 1) / 255 - 1)) * inverse)  # log σ(−a)
    width = torch.log(-torch.expm1(-2 / 255 * inverse))  # log(1 − exp(a − b))
    inner = below_upper + above_lower + width
    return torch.where(level == 0, below_upper, torch.where(level == 255, above_lower, inner))


def mean_level(centre: Tensor, log_scale: Tensor) -> Tensor:
    """The mean level of a pixel by logistics, in [-1, 1] up to rounding.

    −1 + ∫ P(X > t) dt over [-1, 1]: the sum over the 256 levels is this integral's midpoint rule.
    """
    scale = torch.exp(log_scale)
    return scale * (F.softplus((centre + 1) / scale) - F.softplus((centre - 1) / scale)) - 1


class DiscretizedLogistic(Likelihood):
    """The mass that a logistic at `decoded` puts on each of the 256 pixel levels −1 + 2k/255.

    Level x gets σ((x + 1/255 − μ)/s) − σ((x − 1/255 − μ)/s); the edges −1 and 1 get all that lies
    beyond them, so that the levels' probabilities sum to one (Salimans et al. 2017, arXiv
    1701.05517, eq. 2, one component). One scale s for all pixels, fixed or learned. With
    `per_pixel` the decoder multiplies it by a factor for each pixel, so that a smooth sky need not
    be coded as coarsely as grass. x must be pixel levels: see `data.binarize`.
    """

    levels = 256

    @documented
    @dataclass
    class Config:
        """The scale, of all pixels or of each."""

        scale: float = setting(
            0.4,
            "scale in units of the pixel range [-1, 1]; the initial one, if learned",
            above=0,
        )
        learned: bool = setting(False, "learn the scale")
        per_pixel: bool = setting(
            False, "the decoder says every pixel's scale beside its mean; needs learned"
        )

        def __post_init__(self) -> None:
            if self.per_pixel and not self.learned:
                raise ConfigError(
                    "model.likelihood.per_pixel: got true with learned=false, wanted learned=true"
                )

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.parts = 2 if config.per_pixel else 1
        log_scale = torch.tensor(math.log(config.scale))
        self.log_scale = nn.Parameter(log_scale, requires_grad=config.learned)

    def split(self, decoded: Tensor) -> tuple[Tensor, Tensor]:
        """μ (N, C, H, W), and log s of the same shape, or () where it is one for all."""
        if self.parts == 1:
            return decoded, self.log_scale
        centre, log_scale = decoded.chunk(2, dim=1)
        return centre, (self.log_scale + log_scale).clamp(*LOG_SCALES)

    def nll(self, x: Tensor, decoded: Tensor) -> Tensor:
        return -log_mass(x, *self.split(decoded)).flatten(1).sum(1)

    def mean(self, decoded: Tensor) -> Tensor:
        return mean_level(*self.split(decoded)).clamp(-1, 1)


class LogisticMixture(Likelihood):
    """A mixture of discretized logistics per pixel (Salimans et al. 2017, arXiv 1701.05517, eq. 2).

    The decoder says weight, location and scale of each component, of each channel alone: the
    channels of a pixel are independent given z. (There green is given red, and blue both.) What it
    says is added to a learned location and scale of each component, which start evenly spread over
    the pixel range, so that black and white need not be found first. x must be pixel levels: see
    `data.binarize`.
    """

    levels = 256

    @documented
    @dataclass
    class Config:
        """How many components, and their initial scale."""

        components: int = setting(5, "logistics of a pixel", at_least=2, at_most=64)
        scale: float = setting(0.1, "initial scale in units of the pixel range [-1, 1]", above=0)

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.parts = 3 * config.components
        one = (config.components, 1, 1, 1)  # M,C,H,W
        self.location = nn.Parameter(torch.linspace(-1, 1, config.components).view(one))
        self.log_scale = nn.Parameter(torch.full(one, math.log(config.scale)))

    def split(self, decoded: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the weights, locations and log scales, (N, M, C, H, W) each."""
        n, channels, h, w = decoded.shape
        told = decoded.view(n, 3, self.parts // 3, channels // self.parts, h, w)
        logits, centre, log_scale = told.unbind(1)
        return logits, self.location + centre, (self.log_scale + log_scale).clamp(*LOG_SCALES)

    def nll(self, x: Tensor, decoded: Tensor) -> Tensor:
        logits, centre, log_scale = self.split(decoded)
        log_p = logits.log_softmax(1) + log_mass(x[:, None], centre, log_scale)  # N,M,C,H,W
        return -log_p.logsumexp(1).flatten(1).sum(1)

    def mean(self, decoded: Tensor) -> Tensor:
        logits, centre, log_scale = self.split(decoded)
        means = mean_level(centre, log_scale)  # N,M,C,H,W
        return (logits.softmax(1) * means).sum(1).clamp(-1, 1)


class BernoulliLikelihood(Likelihood):
    """Bernoulli per pixel with logits from the decoder. x must be binary, -1 or 1: see
    `data.binarize`.
    """

    levels = 2

    @dataclass
    class Config:
        """No settings: the logits say everything."""

    def __init__(self, config: Config) -> None:
        super().__init__()

    def nll(self, x: Tensor, decoded: Tensor) -> Tensor:
        bits = (x + 1) / 2
        return F.binary_cross_entropy_with_logits(decoded, bits, reduction="none").flatten(1).sum(1)

    def mean(self, decoded: Tensor) -> Tensor:
        return torch.tanh(decoded / 2)  # 2 sigmoid(l) − 1
