"""Muon: which weights it moves, where to, and that AdamW moves the rest."""

import copy
from pathlib import Path
from typing import Any

import pytest
import small
import torch
import untrained
from torch import nn

from vqvae_lightning import cli
from vqvae_lightning.config import OptimizerConfig, merge_overrides, section_config
from vqvae_lightning.experiment import load_experiment
from vqvae_lightning.training.muon import RMS, Muon, orthogonalized
from vqvae_lightning.training.optimization import configure_optimizer
from vqvae_lightning.verified import read_checkpoint

RECIPE = Path(__file__).parents[2] / "experiments" / "mnist" / "vqvae.yaml"
MUON = OptimizerConfig(name="muon", lr=0.1, warmup_steps=0, schedule="constant", momentum=0.5)


def muon(module: nn.Module, config: OptimizerConfig = MUON) -> Muon:
    optimizer = configure_optimizer(module, config, steps=None)["optimizer"]
    assert isinstance(optimizer, Muon)
    # The schedule, which is gone here, has put a wrapper of its own around `step`.
    vars(optimizer).pop("step")
    return optimizer


def step(module: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    """One step of gradients that are drawn."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    optimizer.step()
    optimizer.zero_grad()


def moved(group: dict[str, Any]) -> bool:
    """Whether a group is moved by Muon, not by AdamW."""
    return group["out_axis"] is not None


def train(root: Path, name: str, *more: str) -> Path:
    """A VQ-VAE by the quick recipe, small and on generated data; returns its run folder."""
    own = ["optimizer.schedule=constant", "optimizer.warmup_steps=0", *more]
    places = [f"data.root={root / 'data'}", f"runs={root / 'runs'}", f"name={name}"]
    words = merge_overrides(small.DATA, small.TRAINER, small.KINDS["vqvae"], own, places)
    cli.main(["train", str(RECIPE), *words])
    assert load_experiment(RECIPE, words).optimizer.name == "muon"
    return root / "runs" / name


class TestOrthogonalized:
    @pytest.mark.parametrize("shape", [(8, 8), (4, 60), (60, 4), (1, 5)])
    def test_singular_values_come_near_one_and_the_directions_stay(self, shape):
        torch.manual_seed(0)
        matrix = torch.randn(shape, dtype=torch.float64)
        u, _, v = torch.linalg.svd(matrix, full_matrices=False)
        found = u.T @ orthogonalized(matrix) @ v.T
        assert found.diagonal().min() > 0.6
        assert found.diagonal().max() < 1.25
        off = found - torch.diag(found.diagonal())
        assert off.abs().max() < 1e-9

    def test_does_not_depend_on_the_size_of_the_gradient(self):
        matrix = torch.randn(4, 6, dtype=torch.float64)
        torch.testing.assert_close(
            orthogonalized(1e3 * matrix), orthogonalized(matrix), rtol=1e-4, atol=1e-4
        )

    def test_no_gradient_is_no_step(self):
        assert orthogonalized(torch.zeros(3, 5)).abs().sum() == 0


class TestMuon:
    def test_a_matrix_steps_as_torchs_own_muon_does(self):
        """torch.optim.Muon, which iterates in bfloat16 and takes matrices alone."""
        torch.manual_seed(0)
        ours, theirs = nn.Linear(16, 8, bias=False), nn.Linear(16, 8, bias=False)
        theirs.load_state_dict(ours.state_dict())
        own = muon(
            ours,
            OptimizerConfig(name="muon", lr=0.1, warmup_steps=0, weight_decay=0.5, momentum=0.95),
        )
        other = torch.optim.Muon(
            theirs.parameters(), lr=0.1, weight_decay=0.5, adjust_lr_fn="match_rms_adamw"
        )
        before = ours.weight.detach().clone()
        for seed in range(3):
            step(ours, own, seed)
            step(theirs, other, seed)
        moved, reference = ours.weight - before, theirs.weight - before
        assert (moved - reference).norm() < 0.02 * reference.norm()

    @pytest.mark.parametrize("layer", [nn.Conv2d(3, 6, 4), nn.Conv1d(6, 3, 5)])
    def test_a_kernel_is_the_matrix_that_it_is_to_a_patch(self, layer):
        as_matrix = nn.Linear(layer.weight[0].numel(), layer.weight.shape[0], bias=False)
        as_matrix.weight.data.copy_(layer.weight.flatten(1))
        one, other = muon(layer), muon(as_matrix)
        layer.weight.grad = torch.randn_like(layer.weight)
        as_matrix.weight.grad = layer.weight.grad.flatten(1).clone()
        one.step()
        other.step()
        torch.testing.assert_close(layer.weight.flatten(1), as_matrix.weight)

    def test_a_transposed_convolution_steps_as_the_convolution_of_its_swapped_kernel(self):
        transposed, plain = nn.ConvTranspose2d(3, 6, 4), nn.Conv2d(3, 6, 4)
        plain.weight.data.copy_(transposed.weight.transpose(0, 1))
        one, other = muon(transposed), muon(plain)
        transposed.weight.grad = torch.randn_like(transposed.weight)
        plain.weight.grad = transposed.weight.grad.transpose(0, 1).clone()
        one.step()
        other.step()
        torch.testing.assert_close(transposed.weight.transpose(0, 1), plain.weight)

    def test_a_step_has_the_root_mean_square_of_adamw(self):
        layer = nn.Conv2d(8, 16, 3)
        before = layer.weight.detach().clone()
        step(layer, muon(layer), 0)
        moved = (layer.weight - before).square().mean().sqrt().item()
        assert moved == pytest.approx(0.1 * RMS, rel=0.3)

    def test_biases_and_layers_of_one_channel_are_left_to_adamw(self):
        network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.ConvTranspose2d(4, 1, 3))
        alone = nn.ModuleList([nn.Conv2d(1, 4, 3), nn.ConvTranspose2d(4, 1, 3)])
        alone[0].load_state_dict(network[0].state_dict())
        alone[1].load_state_dict(network[2].state_dict())
        adamw = torch.optim.AdamW(alone.parameters(), lr=0.1, weight_decay=0)
        optimizer = muon(network)
        for seed in range(2):
            generator = torch.Generator().manual_seed(seed)
            for own, other in zip(
                [*network[0].parameters(), *network[2].parameters()],
                alone.parameters(),
                strict=True,
            ):
                own.grad = torch.randn(own.shape, generator=generator)
                other.grad = own.grad.clone()
            optimizer.step()
            adamw.step()
        torch.testing.assert_close(network[0].weight, alone[0].weight)
        torch.testing.assert_close(network[2].weight, alone[1].weight)
        torch.testing.assert_close(network[2].bias, alone[1].bias)

    def test_goes_on_from_its_state_as_if_it_had_never_stopped(self):
        torch.manual_seed(0)
        straight, resumed = nn.Conv2d(2, 4, 3), nn.Conv2d(2, 4, 3)
        resumed.load_state_dict(straight.state_dict())
        first, second = muon(straight), muon(resumed)
        step(straight, first, 0)
        step(resumed, second, 0)
        later = muon(resumed)
        later.load_state_dict(second.state_dict())
        step(straight, first, 1)
        step(resumed, later, 1)
        for own, other in zip(straight.parameters(), resumed.parameters(), strict=True):
            assert torch.equal(own, other)

    def test_a_resumed_training_goes_on_bit_for_bit(self, tmp_path):
        with untrained.workplace(tmp_path):
            whole = train(tmp_path, "whole", "trainer.steps=6")
            part = train(tmp_path, "part", "trainer.steps=3")
            cli.main(["train", f"resume={part}", "trainer.steps=6"])
        one, other = (read_checkpoint(run / "checkpoints" / "last.ckpt") for run in (whole, part))
        for name, value in one["state_dict"].items():
            assert torch.equal(value, other["state_dict"][name]), name

    def test_a_copy_steps_as_the_original(self):
        torch.manual_seed(0)
        layer = nn.Conv2d(2, 4, 3)
        optimizer = Muon([{"params": [layer.weight], "out_axis": 0}], 0.1, 0.5)
        other, copied = copy.deepcopy((layer, optimizer))
        step(layer, optimizer, 0)
        step(other, copied, 0)
        assert torch.equal(layer.weight, other.weight)

    def test_grouped_convolutions_and_tied_embeddings_are_left_to_adamw(self):
        tied = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5), nn.Conv2d(4, 4, 3, groups=2))
        tied[1].weight = tied[0].weight
        assert all(not group["params"] for group in muon(tied).param_groups if moved(group))
        assert any(group["params"] for group in muon(nn.Linear(4, 5)).param_groups if moved(group))

    def test_a_closure_is_called_once_and_its_loss_returned(self):
        layer = nn.Linear(3, 2)
        calls = []

        def closure():
            calls.append(1)
            loss = layer(torch.ones(1, 3)).square().sum()
            loss.backward()
            return loss

        before, optimizer = (
            layer.weight.detach().clone(),
            Muon([{"params": [layer.weight]}], 0.1, 0.9),
        )
        loss = optimizer.step(closure)
        assert len(calls) == 1
        assert loss.requires_grad
        assert not torch.equal(layer.weight, before)

    def test_adamw_has_no_momentum(self):
        with pytest.raises(ValueError, match=r"optimizer.momentum: got 0.5"):
            section_config(OptimizerConfig, {"momentum": 0.5}, "optimizer")
