"""Run folders as training leaves them, without the training, and what a comparison of them
shows.
"""

import io
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from untrained import FIRST_STAGE, TOKENIZER, record

from vqvae_lightning.comparison.compare import Comparison
from vqvae_lightning.comparison.report import write_report
from vqvae_lightning.comparison.table import print_table
from vqvae_lightning.experiment import describe, load_experiment
from vqvae_lightning.kinds import KINDS
from vqvae_lightning.training.runs import Run

PIXELS = {"mnist": 784, "cifar10": 3072, "fsdd": 4096}
TESTED = {
    "ae": {"psnr": 24.0, "ssim": 0.90, "mse": 0.0040, "distortion": 100.0, "rate": 0.0},
    "vae": {
        "psnr": 20.0,
        "ssim": 0.80,
        "mse": 0.0100,
        "distortion": 200.0,
        "rate": 20.0,
        "active_units": 7.0,
    },
    "vqvae": {
        "psnr": 25.0,
        "ssim": 0.92,
        "mse": 0.0032,
        "distortion": 90.0,
        "rate": 49 * math.log(512),
        "perplexity": 300.0,
        "codes_used": 500.0,
        "code_entropy_bits": 8.2,
    },
    "prior": {
        "rate": 49 * 4.0 * math.log(2),
        "bits_per_code": 4.0,
        "entropy_ratio": 0.5,
        "perplexity": 300.0,
        "codes_used": 500.0,
        "code_entropy_bits": 8.2,
    },
    "ae_flow": {"loss": 0.8, "latent_nats": 1.2},
    "vae_flow": {"loss": 0.8, "latent_nats": 1.3, "rate": 18.0},
}


def write_run(
    root: Path,
    kind: str,
    *overrides: str,
    name: str = "",
    dataset: str = "mnist",
    tokenizer: str = "tok",
    **test: float,
) -> Run:
    """A finished run folder, as training leaves it, without the training."""
    name = name or f"{kind}-run"
    run = Run(root / re.sub(r"\W", "_", name))
    run.images.mkdir(parents=True)
    experiment = load_experiment(None, [f"kind={kind}", f"data.name={dataset}", *overrides])
    (run.path / "config.yaml").write_text(describe(experiment))
    of_kind: dict[str, Any] = {}
    if kind == "vqvae":
        of_kind = {"fingerprint": "f" * 64}
    if kind in ("ae", "vae"):
        of_kind = {"fingerprint": "e" * 64 if kind == "vae" else "d" * 64}
    if kind == "prior":
        of_kind = {"tokenizer": {**TOKENIZER, "run": tokenizer, "dims": PIXELS[dataset]}}
    if kind.endswith("flow"):
        of_first = {**FIRST_STAGE, "dims": PIXELS[dataset]}
        fingerprint = "e" * 64 if kind == "vae_flow" else "d" * 64
        of_kind = {"first_stage": {**of_first, "fingerprint": fingerprint}}
    day = "2026-01-02" if KINDS[kind].stage == 2 else "2026-01-01"
    record(
        run.path,
        name=name,
        kind=kind,
        dataset=dataset,
        created=f"{day}T00:00:00+00:00",
        finished=f"{day}T01:00:00+00:00",
        command=["/somewhere/bin/vqvae", "train", f"kind={kind}"],
        versions={"torch": "2.13.0", "python": "3.11", "commit": "abc123"},
        parameters=1234567,
        test={f"test/{key}": value for key, value in {"loss": 1.0, **TESTED[kind], **test}.items()},
        **of_kind,
    )
    metric = {1: "val/psnr", 2: "val/bits_per_code" if kind == "prior" else "val/loss"}[
        KINDS[kind].stage
    ]
    lines = [{"step": step, "train/loss": 1.0} for step in (0, 25)]
    lines += [
        {"step": step, metric: value} for step, value in ((49, 5.0), (99, math.nan), (149, 10.0))
    ]
    run.metrics_path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    picture = Image.fromarray(
        np.kron(np.eye(30, dtype=np.uint8) * 255, np.ones((2, 2), dtype=np.uint8))
    )
    for grid in ("reconstructions", "samples") if KINDS[kind].stage == 1 else ("samples",):
        picture.save(run.images / f"{grid}.png")
    return run


def figure(sampler: str, frechet: float) -> dict[str, Any]:
    """What `vqvae evaluate` keeps of a sampler."""
    return {
        "sampler": sampler,
        "network": "inception-2015",
        "weights_sha256": "7ff4" * 16,
        "preprocessing": "none",
        "checkpoint_sha256": "c" * 64,
        "samples": 10_000,
        "reference": "test",
        "reference_images": 10_000,
        "seed": 0,
        "frechet": frechet,
        "kid": 0.002,
        "kid_std": 0.001,
        "precision": 0.5,
        "recall": 0.25,
    }


def terminal(comparison: Comparison, width: int = 400) -> str:
    output = io.StringIO()
    print_table(comparison, Console(file=output, width=width))
    return output.getvalue()


def page(comparison: Comparison, folder: Path) -> str:
    return write_report(comparison, folder / "report.html").read_text()


class Checker(HTMLParser):
    """Tags that are closed in order, and every attribute that could fetch something."""

    void = frozenset({"meta", "img", "br", "wbr", "link", "hr", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.void:
            self.open.append(tag)
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        self.sources += [
            value or ""
            for name, value in attrs
            if name in ("src", "href", "srcset", "data", "action")
        ]
        if tag == "img":
            assert dict(attrs)["alt"]

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.void:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check(html: str) -> Checker:
    checker = Checker()
    checker.feed(html)
    checker.close()
    assert checker.open == []
    return checker
