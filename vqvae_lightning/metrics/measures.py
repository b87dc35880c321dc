"""Every measure by its name: what it is called, its unit, which way is better, where it is shown.

metrics.jsonl and run.json hold `<split>/<key>`. W&B's summary and dashboard, the terminal's line of
a validation, the comparison's tables and its page read this table. A new measure is one line here
and the code that computes it.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

# results: the comparison's table of runs. page: that table as the HTML page has it, where the other
# measures have a place of their own. health: the page's table of codebooks. samplers: the tables of
# what was measured of samples.
Table = Literal["results", "page", "health", "samplers"]

# Attributes of a row of the comparison, in which two rows must agree to be ranked together.
Agreement = Literal[
    "likelihood", "conditional", "draws", "codes", "exact", "train_images", "vocoder"
]
Agreements = tuple[Agreement, ...]


@dataclass(frozen=True)
class Panel:
    """A measure's learning curve on the W&B dashboard."""

    section: str
    title: str
    split: Literal["train", "val"] = "val"


@dataclass(frozen=True)
class Measure:
    """One measured number."""

    key: str
    title: str = ""
    unit: str = ""  # of the number as it is shown
    better: Literal["", "higher", "lower"] = ""
    format: str = ".3f"
    tables: tuple[Table, ...] = ()
    ranked: bool = True  # False: no value of it is marked as the best in a table
    # Values are ranked only among rows that agree in all of these.
    comparable: Agreements = ()
    # How the value relates to the exact one where the rate of codes is an upper bound on −log p.
    bound: Literal["", "≤", "≥"] = ""
    scale: int = 1  # shown is the measured number times this
    per_dim: bool = False  # shown is the measured number, of an image, by its dimensions
    progress: int = 0  # its position in the terminal's line of a validation; 0: it is not there
    panel: Panel | None = None
    curve: str = ""  # axis of its learning curves on the page; empty: the page draws none

    @property
    def is_ranked(self) -> bool:
        return self.ranked and bool(self.better)

    def shown(self, value: float, dims: int = 1) -> float:
        """A measured value of an image of `dims` dimensions in the unit that is shown."""
        return value / dims if self.per_dim else value * self.scale


BOTH: tuple[Table, ...] = ("results", "page")
LOSSES: Agreements = ("likelihood",)  # distortions under two p(x|z) are on two scales
SUMS: Agreements = ("likelihood", "conditional")  # a rate given the label bounds no −log p(x)
DRAWS: Agreements = (*SUMS, "draws")  # an importance-weighted bound rises with the draws
# Bits per code of one tokenizer. A bound is no rank among exact ones.
CODES: Agreements = ("codes", "conditional", "exact")
LATENTS: Agreements = ("codes", "conditional")  # densities of the z of one first stage
HEARD: Agreements = ("vocoder",)  # two vocoders lose different things
TRAIN: Agreements = ("train_images",)  # classifiers that were fitted to as many images

GRADIENTS = "Gradients"
RECONSTRUCTION, CODEBOOK, PRIOR, SPEED = "Reconstruction", "Codebook", "Prior", "Speed"
LEDGER = "Ledger: what is lost, and what the latent costs"
NATS, BITS, CODE_BITS = "nats/dim", "bits/dim", "bits/code"
AT_MOST = "−log p(x) ≤"

# In the order in which tables and panels show them.
MEASURES: dict[str, Measure] = {
    measure.key: measure
    for measure in (
        # Reconstructions.
        Measure("psnr", "PSNR", "dB", "higher", ".2f", BOTH, progress=4,
                panel=Panel(RECONSTRUCTION, "PSNR, dB"), curve="PSNR, dB"),
        Measure("ssim", "SSIM", "", "higher", ".3f", BOTH, panel=Panel(RECONSTRUCTION, "SSIM")),
        Measure("mse", "MSE", "×10⁻³", "lower", ".2f", ("results",), scale=1000,
                panel=Panel(RECONSTRUCTION, "MSE")),
        Measure("log_spectral_distance", "LSD", "dB", "lower", ".2f", BOTH, progress=5,
                panel=Panel(RECONSTRUCTION, "Log-spectral distance, dB"), curve="LSD, dB"),
        Measure("stoi", "STOI", "", "higher", ".3f", BOTH, comparable=HEARD),
        Measure("pesq", "PESQ", "narrow band", "higher", ".2f", BOTH, comparable=HEARD),
        Measure("stoi_vocoded", "STOI", "of vocoded originals", "", ".3f", ("results",)),
        Measure("pesq_vocoded", "PESQ", "of vocoded originals", "", ".2f", ("results",)),
        Measure("recognized", "Recognized", "share", "higher", ".3f", BOTH),
        Measure("recognized_heard", "… after the vocoder", "share", "higher", ".3f", BOTH,
                comparable=HEARD),
        Measure("recognized_original", "Recognized", "share of originals", "", ".3f",
                ("results",)),
        Measure("recognized_vocoded", "… after the vocoder", "share of originals", "", ".3f",
                ("results",)),
        Measure("converted", "Converted", "share taken for the new class", "higher", ".3f", BOTH,
                comparable=HEARD),
        Measure("kept", "… and kept", "share taken for what was said", "higher", ".3f", BOTH,
                comparable=HEARD),
        Measure("loss", "Loss", "", "lower", bound="≤", progress=1,
                panel=Panel(RECONSTRUCTION, "Loss")),
        Measure("tokenizer_psnr", "PSNR of the first stage", "dB", "higher", ".2f"),
        # The ledger. Logged in nats per image.
        Measure("distortion", "Distortion", NATS, "lower", ".4f", BOTH, comparable=LOSSES,
                per_dim=True, progress=2,
                panel=Panel(LEDGER, "Distortion −log p(x|z), nats per image")),
        Measure("rate", "Rate", NATS, "lower", ".4f", ("results",), ranked=False, per_dim=True,
                bound="≤", progress=3, panel=Panel(LEDGER, "Rate, nats per image")),
        Measure("rate_bits", "Rate", "bits/image", "lower", ".1f", BOTH, ranked=False,
                bound="≤"),
        Measure("uniform", "Rate if all codes were equally likely", NATS, per_dim=True),
        Measure("uniform_bits", "Rate if all codes were equally likely", "bits/image"),
        Measure("total", "Sum", NATS, "lower", ".4f", BOTH, comparable=SUMS, bound="≤"),
        Measure("bits_per_dim", AT_MOST, BITS, "lower", ".4f", BOTH, comparable=("conditional",),
                panel=Panel(LEDGER, "−log p(x) ≤, bits per dimension")),
        Measure("iwae_nats", AT_MOST, "nats, IWAE", "lower", ".2f", BOTH, comparable=DRAWS),
        Measure("iwae_bits_per_dim", AT_MOST, "bits/dim, IWAE", "lower", ".4f", BOTH,
                comparable=DRAWS),
        Measure("iwae_samples", "Draws of the IWAE bound"),
        Measure("kl", "KL(q(z|x) ‖ p(z))", "nats/image"),
        Measure("beta", "β"),
        # The ledger proven: a file of the split, as `vqvae compress` makes it.
        Measure("bytes_per_image", "Bytes per image", "", "lower", ".2f", BOTH, ranked=False),
        Measure("disk_psnr", "… decoded", "dB", "higher", ".2f", BOTH, ranked=False),
        Measure("disk_bits_per_dim", "On disk, lossless", BITS, "lower", ".4f", BOTH),
        # Latents and codes.
        Measure("active_units", "Active units", "", "higher", ".0f", BOTH, ranked=False,
                panel=Panel("VAE", "Active units")),
        Measure("perplexity", "Perplexity", "codes", "higher", ".1f", BOTH, ranked=False,
                progress=6, panel=Panel(CODEBOOK, "Perplexity")),
        Measure("codes_used", "Codes used", "of K", "higher", ".0f", ("results",), ranked=False,
                progress=7, panel=Panel(CODEBOOK, "Codes used")),
        Measure("oldest_code", "Steps since the most idle code was used",
                panel=Panel(CODEBOOK, "Steps since the most idle code was used", "train")),
        Measure("commitment", "Commitment"),
        Measure("assignment_entropy", "Entropy of an assignment", "nats"),
        Measure("usage_divergence", "KL(codes ‖ uniform)", "nats"),
        Measure("code_entropy_bits", "Histogram", CODE_BITS, "", ".2f", (*BOTH, "health")),
        Measure("unigram_bits_per_code", "Unigram", CODE_BITS, "", ".3f", ("results", "health")),
        # Priors.
        Measure("bits_per_code", "Prior", CODE_BITS, "lower", ".3f", BOTH, comparable=CODES,
                bound="≤", progress=8, panel=Panel(PRIOR, "Bits per code"), curve="bits per code"),
        Measure("bound_draws", "Bound on −log P", "draws", "", ".0f", ("results",)),
        Measure("entropy_ratio", "Of the histogram's entropy", "", "lower", bound="≤",
                panel=Panel(PRIOR, "Of the histogram's entropy")),
        Measure("saved_vs_uniform_bits", "Saved", CODE_BITS, "higher", ".3f", BOTH,
                comparable=CODES, bound="≥"),
        Measure("saved_vs_unigram_bits", "… of unigram", CODE_BITS, "higher", ".3f", BOTH,
                comparable=CODES, bound="≥"),
        Measure("latent_nats", "−log p(z)", "nats/number", "lower", ".3f", BOTH,
                comparable=LATENTS),
        Measure("density_error", "log p(z) with half the steps", "± nats/image", "", ".3f",
                ("results",)),
        Measure("trace_probes", "log p(z) estimated", "probes", "", ".0f", ("results",)),
        Measure("evaluations_per_image", "Network evaluations", "per image", "", ".0f",
                ("results",)),
        Measure("seconds_per_image", "Sampling", "s/image", "", ".4f", BOTH),
        # How much the use of codes differs between splits.
        Measure("code_kl_train_test_bits", "KL(train‖test)", "bits", "", ".4f",
                ("results", "health")),
        Measure("code_kl_test_train_bits", "KL(test‖train)", "bits", "", ".4f",
                ("results", "health")),
        # What latents are good for.
        Measure("probe_accuracy", "Linear probe", "accuracy", "higher", ".3f", BOTH,
                comparable=TRAIN),
        Measure("knn_accuracy", "10-NN", "accuracy", "higher", ".3f", BOTH, comparable=TRAIN),
        Measure("representation_images", "Train images of probe and 10-NN"),
        # The run itself.
        Measure("steps", "Steps", "", "", ",.0f", BOTH),
        Measure("images_seen", "Images seen", "", "", ",.0f", BOTH),
        Measure("parameters", "Parameters", "", "", ",.0f", BOTH),
        Measure("images_per_second", "Images per second",
                panel=Panel(SPEED, "Images per second", "train")),
        Measure("lr", "Learning rate", panel=Panel(SPEED, "Learning rate", "train")),
        Measure("gradient_norm", "Norm of the gradient",
                panel=Panel(GRADIENTS, "Norm of the gradient", "train")),
        Measure("gradient_norm_encoder", "Norm of the encoder's gradient",
                panel=Panel(GRADIENTS, "Norm of the encoder's gradient", "train")),
        # Only where it has parameters: a codebook that learns by gradients, or projections.
        Measure("gradient_norm_bottleneck", "Norm of the bottleneck's gradient"),
        Measure("gradient_norm_decoder", "Norm of the decoder's gradient",
                panel=Panel(GRADIENTS, "Norm of the decoder's gradient", "train")),
        # Samples against real images. Values of one protocol, which the table names.
        Measure("frechet", "Fréchet distance", "", "lower", ".2f", ("samplers",)),
        Measure("kid", "KID", "×10⁻³", "lower", ".2f", ("samplers",), scale=1000),
        Measure("kid_std", "Standard deviation of KID"),
        Measure("precision", "Precision", "", "higher", ".3f", ("samplers",)),
        Measure("recall", "Recall", "", "higher", ".3f", ("samplers",)),
        Measure("class_accuracy", "Of the class", "accuracy", "higher", ".3f", ("samplers",)),
    )
}  # fmt: skip


def sign(key: str, known: Collection[str]) -> str:
    """The sign before the value of a measure, "≤ " or "≥ ", among the measures that are `known`.

    It is empty where the rate is exact: that of a bound comes with the number of its draws.
    """
    bound = MEASURES[key].bound if key in MEASURES and "bound_draws" in known else ""
    return f"{bound} " if bound else ""


def in_table(table: Table) -> tuple[Measure, ...]:
    """The measures that a table of the comparison may have a column for, in order."""
    return tuple(measure for measure in MEASURES.values() if table in measure.tables)


def in_progress() -> tuple[str, ...]:
    """Keys of the measures in the terminal's line of a validation, in order."""
    found = [measure for measure in MEASURES.values() if measure.progress]
    return tuple(measure.key for measure in sorted(found, key=lambda measure: measure.progress))


def dashboard_curves() -> dict[str, dict[str, str]]:
    """Sections of the W&B dashboard → titles and logged names of their learning curves."""
    sections: dict[str, dict[str, str]] = {}
    for measure in MEASURES.values():
        if panel := measure.panel:
            logged = f"{panel.split}/{measure.key}"
            sections.setdefault(panel.section, {})[panel.title] = logged
    return sections


def best_values() -> dict[str, Literal["min", "max"]]:
    """Logged names in the W&B summary → which of their values is the best, for every model."""
    return {
        f"{measure.panel.split}/{measure.key}": "max" if measure.better == "higher" else "min"
        for measure in MEASURES.values()
        if measure.panel and measure.better
    }
