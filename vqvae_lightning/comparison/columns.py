"""The columns of the comparison's tables: what is measured, in which unit, and where a best value
may be marked.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

MISSING = "–"


class Measured(Protocol):
    """A row of a table. `values` holds only what exists: a number that is not there is not zero."""

    @property
    def number(self) -> int: ...

    @property
    def values(self) -> dict[str, float]: ...

    @property
    def limits(self) -> dict[str, int]: ...


@dataclass(frozen=True)
class Column:
    """One measured quantity. Its best value is marked only among rows that agree in
    `comparable`.
    """

    key: str
    title: str
    unit: str = ""
    better: Literal["", "higher", "lower"] = ""
    format: str = ".3f"
    comparable: Callable[[Any], Any] = lambda row: None
    on_page: bool = True  # False: the page has another place for it

    def text(self, row: Measured) -> str:
        value = row.values.get(self.key)
        if value is None:
            return MISSING
        limit = f" / {row.limits[self.key]:,}" if self.key in row.limits else ""
        return format(value, self.format) + limit

    def best(self, rows: Sequence[Measured]) -> set[int]:
        """Numbers of the rows that show the best value; none where there is nothing to compare."""
        known = [row for row in rows if math.isfinite(row.values.get(self.key, math.nan))]
        if (
            not self.better
            or len(known) < 2
            or any(self.comparable(r) != self.comparable(known[0]) for r in known)
        ):
            return set()
        winner = (max if self.better == "higher" else min)(
            known, key=lambda row: row.values[self.key]
        )
        return {row.number for row in known if self.text(row) == self.text(winner)}


def present(columns: Sequence[Column], rows: Sequence[Measured]) -> tuple[Column, ...]:
    """The columns for which some row has a value."""
    return tuple(column for column in columns if any(column.key in row.values for row in rows))


def _likelihood(row: Any) -> Any:
    return row.likelihood, row.conditional


def _draws(row: Any) -> Any:
    return row.likelihood, row.values.get("iwae_samples")


def _codes(row: Any) -> Any:
    return row.info.get("tokenizer", {}).get("fingerprint"), row.conditional


def _train_images(row: Any) -> Any:
    return row.values.get("representation_images")


# Of runs.
RESULTS = (
    Column("psnr", "PSNR", "dB", "higher", ".2f"),
    Column("ssim", "SSIM", "", "higher"),
    Column("mse", "MSE", "×10⁻³", "lower", ".2f", on_page=False),
    Column("distortion", "Distortion", "nats/dim", "lower", ".4f", lambda row: row.likelihood),
    Column("rate", "Rate", "nats/dim", "", ".4f", on_page=False),
    Column("rate_bits", "Rate", "bits/image", "", ".1f"),
    Column("total", "Sum", "nats/dim", "lower", ".4f", _likelihood),
    Column("bits_per_dim", "−log p(x) ≤", "bits/dim", "lower", ".4f", lambda row: row.conditional),
    Column("iwae_nats", "−log p(x) ≤", "nats, IWAE", "lower", ".2f", _draws),
    Column("iwae_bits_per_dim", "−log p(x) ≤", "bits/dim, IWAE", "lower", ".4f", _draws),
    Column("active_units", "Active units", "", "", ".0f"),
    Column("perplexity", "Perplexity", "codes", "", ".1f"),
    Column("codes_used", "Codes used", "of K", "", ".0f", on_page=False),
    Column("code_entropy_bits", "Histogram", "bits/code", "", ".2f"),
    Column("unigram_bits_per_code", "Unigram", "bits/code", "", ".3f", on_page=False),
    Column("bits_per_code", "Prior", "bits/code", "lower", ".3f", _codes),
    Column("saved", "Saved", "bits/code", "higher", ".3f", _codes),
    Column("saved_vs_unigram_bits", "… of unigram", "bits/code", "higher", ".3f", _codes),
    Column("seconds_per_image", "Sampling", "s/image", "", ".4f"),
    Column("code_kl_train_test_bits", "KL(train‖test)", "bits", "", ".4f", on_page=False),
    Column("code_kl_test_train_bits", "KL(test‖train)", "bits", "", ".4f", on_page=False),
    Column("probe_accuracy", "Linear probe", "accuracy", "higher", ".3f", _train_images),
    Column("knn_accuracy", "10-NN", "accuracy", "higher", ".3f", _train_images),
    Column("parameters", "Parameters", "", "", ",.0f", on_page=False),
)

# Of samplers. Fréchet distance and KID of one protocol, which the table names.
GENERATION = (
    Column("frechet", "Fréchet distance", "", "lower", ".2f"),
    Column("kid", "KID", "×10⁻³", "lower", ".2f"),
    Column("precision", "Precision", "", "higher"),
    Column("recall", "Recall", "", "higher"),
    Column("class_accuracy", "Of the class", "accuracy", "higher"),
)
