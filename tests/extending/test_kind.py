"""A bottleneck that the package does not know, as a kind of run of its own."""

import ast
import math
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import small
import torch
from extending.walked import ROOT, Walked
from own_process import command, environment
from torch import Tensor

from vqvae_lightning.config import ConfigError, setting
from vqvae_lightning.evaluation.samplers import samplers_of
from vqvae_lightning.evaluation.show import check_show
from vqvae_lightning.kinds import KINDS, Kind, Note
from vqvae_lightning.models.bottlenecks import (
    Bottleneck,
    Latent,
    Noise,
    at_least_float32,
    fresh_noise,
)
from vqvae_lightning.models.settings import AutoencoderConfig, ModelConfig
from vqvae_lightning.training.autoencoders import AutoencoderModule
from vqvae_lightning.training.loading import load_run


class UnitVariance(Bottleneck):
    """q(z|x) = N(h, s²I) of a fixed s, charged against p(z) = N(0, I)."""

    random = True

    def __init__(self, latent_dim: int, scale: float) -> None:
        super().__init__()
        self.in_channels = self.out_channels = latent_dim
        self.scale = scale

    def forward(self, h: Tensor, noise: Noise = fresh_noise) -> Latent:
        mean = at_least_float32(h)
        kl = 0.5 * (mean.square() + self.scale**2 - 1) - math.log(self.scale)  # N,D,h,w
        return Latent(
            z=mean + self.scale * noise(mean),
            mean=mean,
            rate=kl.flatten(1).sum(1),
            penalty=mean.new_zeros(()),
            rate_per_dim=kl,
        )

    def rsample(self, h: Tensor, k: int, noise: Noise = fresh_noise) -> tuple[Tensor, Tensor]:
        mean = at_least_float32(h)
        drawn = torch.stack([noise(mean) for _ in range(k)])  # k,N,D,h,w
        z = mean + self.scale * drawn
        ratio = 0.5 * (drawn.square() - z.square()) + math.log(self.scale)
        return z, ratio.flatten(2).sum(2)

    def sample(self, n: int, grid: tuple[int, int], device: torch.device) -> Tensor:
        return torch.randn(n, self.out_channels, *grid, device=device)


@dataclass
class ToyConfig(AutoencoderConfig):
    """An autoencoder whose q(z|x) has one width."""

    scale: float = setting(0.5, "standard deviation of q(z|x)", above=0)

    def build_bottleneck(self) -> Bottleneck:
        return UnitVariance(self.latent_dim, self.scale)


class Toy(AutoencoderModule):
    kind = "toy"
    Config = ToyConfig


TOY = Kind(
    "toy",
    "Toy",
    f"{__name__}:ToyConfig",
    f"{__name__}:Toy",
    stage=1,
    has_density=True,
    has_codes=False,
    artifact="model",
    mark="diamond",
    colours=("#123456", "#abcdef"),
    required=("distortion", "rate"),
    notes=(Note("Toy: of one width."),),
    price="a toy pays for its mean",
    samples="normal: drawn by hand.",
)


def test_the_table_of_kinds_names_classes_that_are_there() -> None:
    assert [kind.name for kind in KINDS.values()] == list(KINDS)
    modules: list[Any] = [kind.module for kind in KINDS.values()]
    assert [module.kind for module in modules] == list(KINDS)
    assert all(issubclass(kind.config, ModelConfig) for kind in KINDS.values())


def test_settings_are_read_without_lightning() -> None:
    done = subprocess.run(
        command("read_settings"), capture_output=True, text=True, check=True, env=environment()
    )
    assert done.stdout == "False\n"


def test_nothing_is_compared_with_the_name_of_a_kind() -> None:
    """What a run can be asked is what its record offers, never what its kind is called."""
    found = []
    for file in sorted((ROOT / "vqvae_lightning").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Compare | ast.match_case):
                constants = [part for part in ast.walk(node) if isinstance(part, ast.Constant)]
                found += [(file.name, part.value) for part in constants if part.value in KINDS]
    assert found == []


def test_a_bottleneck_as_a_new_kind_goes_through_every_command(
    walk: Callable[..., Walked], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(KINDS, "toy", TOY)
    monkeypatch.setenv("WANDB_MODE", "offline")
    file = tmp_path / "toy.yaml"
    file.write_text("kind: toy\nmodel:\n  latent_dim: 4\n  scale: 0.25\n")
    words = ("iwae_samples=3", "representation=true", "representation_images=100")
    walked = walk(file, *small.NETWORK, evaluate=words, sample=("sampler=all",))
    net: Any = load_run(walked.run).net
    assert net.bottleneck.scale == 0.25
    # D = 4 dimensions, each at least KL(N(0, s²) ‖ N(0, 1))
    assert walked.test("rate") >= 4 * (0.5 * (0.25**2 - 1) - math.log(0.25))
    assert walked.test("iwae_nats") <= walked.test("distortion") + walked.test("rate") + 1
    assert len(walked.run.record.kl_per_dim) == 4
    assert 0 <= walked.test("knn_accuracy") <= 1
    assert walked.pictures() >= {"samples-normal", "samples-mixture"}
    assert ["toy", "Toy"] in [line.split()[:2] for line in walked.printed.splitlines()]
    assert "Toy: of one width." in walked.printed
    assert ".kind-toy { --c: #123456 }" in walked.page
    prices = "a VQ-VAE pays log\u00a0K for each of its T codes; a toy pays for its mean"
    assert f"is the price of z: {prices}." in walked.page
    assert "normal: drawn by hand." in walked.page


def test_what_a_run_can_be_asked_follows_from_its_record() -> None:
    assert samplers_of(TOY) == ["normal", "mixture"]
    check_show(TOY, "interpolation")
    with pytest.raises(ConfigError, match="or ae_flow or vae_flow, got one of kind toy"):
        check_show(TOY, "completion")
