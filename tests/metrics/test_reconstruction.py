"""Reconstructions: measured by hand, and the same however a split is cut into batches."""

import math

import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from vqvae_lightning.metrics.reconstruction import ReconstructionMetrics, structural_similarity
from vqvae_lightning.models.autoencoder import Objective
from vqvae_lightning.models.bottlenecks import Latent

SHAPE = (1, 16, 16)
DIMS = math.prod(SHAPE)


def objective(reconstruction, distortion, rate):
    """An Objective with loss = (distortion + rate) / dims."""
    z = reconstruction.new_zeros(len(rate), 2, 1, 1)
    loss = (distortion + rate).mean() / DIMS
    return Objective(loss, distortion, reconstruction, Latent(z, z, rate, rate.new_zeros(())))


def measured(metric, split, size):
    """The metric's values over the rows of a `split`, given in batches of `size`."""
    x, reconstruction, distortion, rate = split
    for start in range(0, len(x), size):
        rows = slice(start, start + size)
        metric.update(x[rows], objective(reconstruction[rows], distortion[rows], rate[rows]))
    return metric.compute()


@pytest.fixture
def split():
    """37 images and what a model made of them: x, reconstruction, distortion, rate."""
    torch.manual_seed(0)
    x = 2 * torch.rand(37, *SHAPE) - 1
    reconstruction = (x + 0.3 * torch.randn_like(x) * torch.rand(37, 1, 1, 1)).clamp(-1, 1)
    return x, reconstruction, 100 * torch.rand(37), 10 * torch.rand(37)


class TestReconstruction:
    def test_bits_by_hand(self):
        """Distortion 12 ln 2 and rate 4 ln 2 nats are 16 bits: 1/16 bit for each of 256
        dimensions.
        """
        x, nats = torch.zeros(2, *SHAPE), math.log(2) * torch.ones(2)
        values = measured(ReconstructionMetrics(DIMS, True), (x, x, 12 * nats, 4 * nats), 2)
        assert values["bits_per_dim"].item() == pytest.approx(1 / 16)
        assert values["distortion"].item() == pytest.approx(12 * math.log(2))
        assert values["rate"].item() == pytest.approx(4 * math.log(2))
        assert values["loss"].item() == pytest.approx(math.log(2) / 16)

    def test_no_bits_where_there_is_no_bound(self, split):
        assert "bits_per_dim" not in measured(ReconstructionMetrics(DIMS, False), split, 37)

    def test_psnr_of_a_known_error(self):
        """An error of 0.2 in [-1, 1] is 0.1 in [0, 1]: MSE 0.01, PSNR 20 dB."""
        x, zero = torch.zeros(2, *SHAPE), torch.zeros(2)
        values = measured(ReconstructionMetrics(DIMS, False), (x, x + 0.2, zero, zero), 2)
        assert values["mse"].item() == pytest.approx(0.01, rel=1e-6)
        assert values["psnr"].item() == pytest.approx(20.0, rel=1e-6)

    def test_psnr_is_that_of_the_splits_error(self):
        """Two images of MSE 0.01 and 0.0001: the split's is 0.00505, whatever the batches."""
        x, zero = torch.zeros(2, *SHAPE), torch.zeros(2)
        reconstruction = x + torch.tensor([0.2, 0.02]).view(2, 1, 1, 1)
        values = measured(ReconstructionMetrics(DIMS, False), (x, reconstruction, zero, zero), 1)
        assert values["psnr"].item() == pytest.approx(-10 * math.log10(0.00505), rel=1e-6)

    def test_perfect_images_have_ssim_1(self, split):
        x, _, distortion, rate = split
        values = measured(ReconstructionMetrics(DIMS, False), (x, x, distortion, rate), 37)
        assert values["ssim"].item() == pytest.approx(1.0, abs=1e-5)

    def test_ssim_under_autocast_is_that_without(self, split):
        """Lightning validates under autocast with trainer.precision=bf16-mixed."""
        without = measured(ReconstructionMetrics(DIMS, False), split, 37)
        with torch.autocast("cpu", torch.bfloat16):
            within = measured(ReconstructionMetrics(DIMS, False), split, 37)
        assert within["ssim"] == without["ssim"]

    def test_ssim_of_a_shade_by_hand(self):
        """Flat images a and b in [0, 1]: SSIM = (2ab + c)/(a² + b² + c), c = 0.01² (Wang et al.
        2004).
        """
        x, zero = torch.zeros(2, *SHAPE), torch.zeros(2)  # 0.5 in [0, 1]
        values = measured(ReconstructionMetrics(DIMS, False), (x, x + 0.5, zero, zero), 2)  # 0.75
        c = 0.01**2
        assert values["ssim"].item() == pytest.approx(
            (2 * 0.5 * 0.75 + c) / (0.5**2 + 0.75**2 + c), abs=1e-3
        )

    @pytest.mark.parametrize("size", [1, 5, 36])
    def test_reconstruction_metrics_do_not_depend_on_the_batch_size(self, split, size):
        whole, cut = (measured(ReconstructionMetrics(DIMS, True), split, n) for n in (37, size))
        assert whole.keys() == cut.keys()
        for name, value in whole.items():
            # loss is the mean of a float32 batch mean, SSIM is summed in float32; the rest in
            # float64
            assert cut[name].item() == pytest.approx(
                value.item(), rel=1e-5 if name == "ssim" else 1e-6
            ), name

    def test_reset_forgets_everything(self, split):
        """Every validation of a run uses the same object."""
        x, _, distortion, rate = split
        metric = ReconstructionMetrics(DIMS, True)
        measured(metric, (x, -x, 2 * distortion, 3 * rate), 37)
        metric.reset()
        expected = measured(ReconstructionMetrics(DIMS, True), split, 37)
        for name, value in measured(metric, split, 37).items():
            assert value.item() == pytest.approx(expected[name].item()), name

    def test_reconstruction_metrics_are_no_part_of_a_checkpoint(self):
        assert not ReconstructionMetrics(DIMS, True).state_dict()


@pytest.mark.parametrize("shape", [(4, 1, 28, 28), (3, 3, 32, 32), (2, 3, 8, 13)])
@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_structural_similarity_is_that_of_a_two_dimensional_window(shape, noise):
    """Separable filters against torchmetrics' convolution, whatever the layout in memory."""
    x = torch.rand(shape, dtype=torch.float64)
    y = (x + noise * torch.randn_like(x)).clamp(0, 1)
    slow = structural_similarity_index_measure(y, x, data_range=1.0, reduction="none")
    fast = structural_similarity(y.contiguous(memory_format=torch.channels_last), x)
    torch.testing.assert_close(fast, slow, rtol=0, atol=1e-12)
