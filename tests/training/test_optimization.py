"""AdamW: what decays, the learning rate at the steps that matter, and clipping."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vqvae_lightning.config import OptimizerConfig
from vqvae_lightning.data.loader import Batch
from vqvae_lightning.models.bottlenecks import NonFiniteError
from vqvae_lightning.models.build import build_autoencoder, build_prior
from vqvae_lightning.models.layout import CodeLayout
from vqvae_lightning.models.likelihoods import GaussianLikelihood
from vqvae_lightning.models.parts import PRIORS
from vqvae_lightning.models.quantizers.codebooks import EMAVectorQuantizer, VectorQuantizer
from vqvae_lightning.models.settings import AEConfig, PriorConfig, VAEConfig, VQVAEConfig
from vqvae_lightning.models.trunks.conv import ConvTrunk
from vqvae_lightning.training.optimization import (
    StepRecord,
    clip_gradients,
    configure_optimizer,
    learning_rate_factor,
    logs_now,
    parameter_groups,
)

NETWORK = ConvTrunk.Config(hidden=4, residual_hidden=2, residual_blocks=1)
MODELS = {
    "ae": AEConfig(trunk=NETWORK),
    "vae": VAEConfig(trunk=NETWORK, likelihood=GaussianLikelihood.Config(learned=True)),
    "vq-ema": VQVAEConfig(trunk=NETWORK, quantizer=EMAVectorQuantizer.Config()),
    "vq-gradient": VQVAEConfig(trunk=NETWORK, quantizer=VectorQuantizer.Config()),
}


@pytest.fixture(params=[*MODELS, *PRIORS])
def model(request):
    if request.param in PRIORS:
        config = PriorConfig(network=PRIORS[request.param].Config(layers=1, width=8))
        return build_prior(config, CodeLayout((2, 2), 5), 3)
    return build_autoencoder(MODELS[request.param], (1, 8, 8))


class TestParameterGroups:
    def test_each_trainable_parameter_is_in_exactly_one(self, model):
        grouped = [id(p) for group in parameter_groups(model, 0.1) for p in group["params"]]
        assert sorted(grouped) == sorted(id(p) for p in model.parameters() if p.requires_grad)

    def test_only_weights_of_linear_and_convolution_layers_decay(self, model):
        decays = {
            id(p): group["weight_decay"]
            for group in parameter_groups(model, 0.1)
            for p in group["params"]
        }
        never = ("bias", "norm", "embedding", "position", "codebook", "log_scale")
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                assert decays[id(parameter)] == (
                    0.0 if any(part in name for part in never) else 0.1
                ), name

    def test_the_convolutions_of_a_vocoder_decay_too(self):
        layer = torch.nn.Conv1d(1, 1, 1)
        decayed, kept = parameter_groups(layer, 0.1)
        assert [id(p) for p in decayed["params"]] == [id(layer.weight)]
        assert [id(p) for p in kept["params"]] == [id(layer.bias)]

    def test_a_step_without_gradient_shrinks_the_decayed_weights_only(self, model):
        optimizer = torch.optim.AdamW(parameter_groups(model, 0.5), lr=0.1)
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        decayed = {id(p) for p in optimizer.param_groups[0]["params"]}
        for name, parameter in model.named_parameters():
            factor = 1 - 0.1 * 0.5 if id(parameter) in decayed else 1.0
            torch.testing.assert_close(parameter.detach(), factor * before[name])


class TestSchedule:
    @pytest.mark.parametrize(
        ("step", "factor"),
        [(0, 0.1), (4, 0.5), (9, 1.0), (10, 1.0), (60, 0.5), (110, 0.0)],
    )
    def test_cosine_by_hand(self, step, factor):
        config = OptimizerConfig(warmup_steps=10, schedule="cosine")
        assert learning_rate_factor(step, config, 110) == pytest.approx(factor, abs=1e-12)

    @pytest.mark.parametrize(("step", "factor"), [(0, 0.1), (9, 1.0), (10, 1.0), (110, 1.0)])
    def test_constant_by_hand(self, step, factor):
        config = OptimizerConfig(warmup_steps=10, schedule="constant")
        assert learning_rate_factor(step, config, 110) == pytest.approx(factor)

    @pytest.mark.parametrize("schedule", ["cosine", "constant"])
    @pytest.mark.parametrize(("warmup", "steps"), [(0, 1), (0, 20), (5, 20), (20, 20), (100, 20)])
    def test_rises_then_never_rises_and_stays_in_range(self, schedule, warmup, steps):
        config = OptimizerConfig(warmup_steps=warmup, schedule=schedule)
        factors = [learning_rate_factor(step, config, steps) for step in range(steps)]
        top = max(0, min(warmup, steps) - 1)
        assert max(factors) == factors[top] == 1.0
        assert all(0 < factor <= 1 for factor in factors)
        assert factors[: top + 1] == sorted(factors[: top + 1])
        assert factors[top:] == sorted(factors[top:], reverse=True)

    def test_the_optimizer_uses_it_every_step(self):
        config = OptimizerConfig(lr=0.2, warmup_steps=2, schedule="cosine")
        configured = configure_optimizer(torch.nn.Linear(2, 2), config, steps=6)
        optimizer, schedule = configured["optimizer"], configured["lr_scheduler"]
        assert schedule["interval"] == "step"
        rates = []
        for _ in range(7):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule["scheduler"].step()
        cosine = [0.1 * (1 + math.cos(math.pi * i / 4)) for i in range(5)]
        assert rates == pytest.approx([0.1, 0.2, *cosine], abs=1e-12)


class TestClipping:
    @pytest.fixture
    def module(self):
        module = torch.nn.Linear(1, 2)
        module.unused = torch.nn.Parameter(torch.ones(1))
        module.weight.grad, module.bias.grad = (
            torch.tensor([[3.0], [0.0]]),
            torch.tensor([0.0, 4.0]),
        )
        return module

    @pytest.mark.parametrize(
        ("largest", "after"), [(1.0, 1.0), (5.0, 5.0), (10.0, 5.0), (0.0, 5.0)]
    )
    def test_scales_down_to_the_largest_norm_and_tells_the_old_one(self, module, largest, after):
        assert clip_gradients(module, largest).item() == pytest.approx(5.0)
        assert torch.cat(
            [module.weight.grad.flatten(), module.bias.grad]
        ).norm().item() == pytest.approx(after)
        assert module.weight.grad[0, 0].item() == pytest.approx(0.6 * after)  # the direction stays

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_a_gradient_that_is_not_finite_is_refused_and_left_as_it_is(self, module, value):
        module.bias.grad[0] = value
        with pytest.raises(NonFiniteError, match="gradient of bias is not finite"):
            clip_gradients(module, 1.0)
        assert module.weight.grad.flatten().tolist() == [3.0, 0.0]

    def test_what_was_not_finite_is_named_by_its_row_in_the_data(self):
        x = torch.zeros(3, 1, 2, 2)
        x[1, 0, 0, 1] = math.nan
        step_record = StepRecord()
        step_record.append(
            Batch(x, torch.zeros(3), torch.tensor([7, 42, 9]), 0), torch.tensor(math.nan)
        )
        assert step_record.describe() == "loss nan, input of image 42 is not finite"
        step_record.clear()
        assert step_record.describe() == "loss "


def test_logs_at_every_nth_step():
    def module(step: int) -> Any:
        return SimpleNamespace(trainer=SimpleNamespace(global_step=step, log_every_n_steps=4))

    steps = [step for step in range(12) if logs_now(module(step))]
    assert steps == [3, 7, 11]
