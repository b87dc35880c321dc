"""Latents of a split: by hand, and the same however the split is cut into batches."""

import pytest
import torch

from vqvae_lightning.metrics.latents import ActiveUnits, Mean


class TestActiveUnits:
    def active(self, means, size=1000):
        metric = ActiveUnits(means[0].numel())
        for part in means.split(size):
            metric.update(part)
        return metric.compute()["active_units"].item()

    def test_active_units_are_those_by_hand(self):
        """±a has variance a²: 0.09 does not pass 0.01, 0.11 does; a constant never does."""
        means = torch.tensor([[0.09, 0.11, 5.0, 0.0], [-0.09, -0.11, 5.0, 0.0]])
        assert self.active(means[:, :, None, None]) == 1

    def test_every_place_of_a_grid_is_a_unit(self):
        means = torch.zeros(2, 2, 3, 3)
        means[0, 1, :, 2] = 1
        assert self.active(means) == 3

    @pytest.mark.parametrize("size", [1, 7])
    def test_active_units_do_not_depend_on_the_batch_size(self, size):
        torch.manual_seed(0)
        means = torch.randn(37, 20, 1, 1) * torch.linspace(0, 0.3, 20).view(20, 1, 1) + 100
        assert self.active(means, size) == self.active(means)
        assert self.active(means) == (means.double().var(0, correction=0) > 0.01).sum()


@pytest.mark.parametrize("size", [1, 5, 37])
def test_mean_is_over_rows_in_float64(size):
    # float32 would round them to multiples of 64
    values = torch.arange(37, dtype=torch.float64) + 1e9
    metric = Mean()
    for part in values.split(size):
        metric.update(part)
    assert metric.compute().item() == pytest.approx(1e9 + 18, rel=1e-15)
