"""Gradient estimators: the value is the code's, the gradient is that of the paper's formula."""

import pytest
import torch

from vqvae_lightning.models.quantizers.codebooks import CosineVectorQuantizer, VectorQuantizer
from vqvae_lightning.models.quantizers.estimators import ESTIMATORS, rotation, straight_through


@pytest.fixture
def pair():
    """z_e and z_q, float64 (2, 5, 3)."""
    z_e, z_q = torch.randn(2, 2, 5, 3, dtype=torch.float64)
    return z_e.requires_grad_(), z_q.requires_grad_()


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_value_is_the_codes_and_the_code_has_no_gradient(name, pair):
    z_e, z_q = pair
    z = ESTIMATORS[name](z_e, z_q)
    torch.testing.assert_close(z, z_q)
    z.square().sum().backward()
    assert z_q.grad is None
    assert z_e.grad.abs().min() > 0


def test_straight_through_is_the_identity(pair):
    (jacobian,) = torch.autograd.functional.jacobian(
        lambda z: straight_through(z, pair[1]), (pair[0],)
    )
    assert torch.equal(jacobian.view(30, 30), torch.eye(30, dtype=torch.float64))


def test_rotation_is_scaled_orthogonal_and_takes_z_e_to_z_q():
    """The Jacobian is the R of the formula times λ, by explicit matrices; R turns in the plane of ê
    and q̂ alone.
    """
    for d in (2, 3, 8):
        z_e, z_q = torch.randn(2, d, dtype=torch.float64)
        jacobian = torch.autograd.functional.jacobian(
            lambda z, z_q=z_q: rotation(z[None], z_q[None])[0], z_e
        )
        e, q = z_e / z_e.norm(), z_q / z_q.norm()
        r = (e + q) / (e + q).norm()
        formula = torch.eye(d, dtype=torch.float64) - 2 * torch.outer(r, r) + 2 * torch.outer(q, e)
        scale = z_q.norm() / z_e.norm()
        torch.testing.assert_close(jacobian, scale * formula)
        torch.testing.assert_close(formula @ formula.T, torch.eye(d, dtype=torch.float64))
        torch.testing.assert_close(torch.linalg.det(formula).item(), 1.0)
        torch.testing.assert_close(jacobian @ z_e, z_q)
        across = torch.randn(d, dtype=torch.float64)
        across -= (
            torch.stack([e, q]).T
            @ torch.linalg.lstsq(torch.stack([e, q]).T, across[:, None]).solution[:, 0]
        )
        torch.testing.assert_close(formula @ across, across)


@pytest.mark.parametrize("z_q", [[-3.0, 0.0], [-3.0, 1e-7], [0.0, 0.0], [3.0, 0.0]])
@pytest.mark.parametrize("z_e", [[2.0, 0.0], [0.0, 0.0]])
def test_rotation_is_finite_where_it_is_not_defined(z_e, z_q):
    z_e, z_q = torch.tensor([z_e], requires_grad=True), torch.tensor([z_q])
    z = rotation(z_e, z_q)
    z.sum().backward()
    torch.testing.assert_close(z.detach(), z_q)
    assert torch.isfinite(z_e.grad).all()


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("length", [0.0, 1e-30, 1e-12, 1e-6, 1e-3, 0.03, 1.0])
@pytest.mark.parametrize("kind", [CosineVectorQuantizer, VectorQuantizer])
def test_no_gradient_grows_beyond_bounds_next_to_a_zero_vector(kind, length, dtype, estimator):
    """dz/dz_e, and the penalty's gradient, of encoder outputs and of codes: a zero vector has no
    direction.
    """
    torch.manual_seed(0)
    module = kind(6, 3, 0.25, 0.9, 0.0, ESTIMATORS[estimator]).to(dtype)
    module.codebook.data[0] *= length
    h = length * torch.nn.functional.normalize(torch.randn(50, 3, 1, 1, dtype=dtype), dim=1)
    weights = torch.nn.functional.normalize(torch.randn_like(h), dim=1)
    h.requires_grad_()
    latent = module(h)
    (passed,) = torch.autograd.grad((latent.z * weights).sum(), h, retain_graph=True)
    assert torch.isfinite(passed).all()
    assert passed.flatten(1).norm(dim=1).max() <= 1000
    for gradient in torch.autograd.grad(latent.penalty, (h, module.codebook)):
        assert torch.isfinite(gradient).all()
        assert gradient.norm() <= 1000


def test_the_rotation_is_the_formula_up_to_its_largest_gain():
    """At ‖z_q‖ = 29‖z_e‖ the gradient is lengthened 29 times, at 31 it is straight-through's."""
    weights = torch.tensor([[0.6, 0.8]])
    for ratio, gain in ((29.0, 29.0), (31.0, 1.0)):
        z_e = torch.tensor([[1.0, 0.0]], requires_grad=True)
        (gradient,) = torch.autograd.grad(
            (rotation(z_e, torch.tensor([[0.0, ratio]])) * weights).sum(), z_e
        )
        assert gradient.norm().item() == pytest.approx(gain, rel=1e-5)


def test_the_estimator_is_all_that_differs_between_two_quantizers():
    h = torch.randn(4, 3, 2, 2, dtype=torch.float64)
    weights, found = torch.randn_like(h), {}
    for name, estimator in ESTIMATORS.items():
        torch.manual_seed(1)
        module = VectorQuantizer(6, 3, 0.25, 0.9, 0.0, estimator).double()
        x = h.clone().requires_grad_()
        latent = module(x)
        (gradient,) = torch.autograd.grad((latent.z * weights).sum(), x, retain_graph=True)
        found[name] = latent, gradient
        torch.testing.assert_close(latent.z, module.codes_to_latents(latent.codes))
    (one, gradient), (other, turned) = found.values()
    assert torch.equal(one.codes, other.codes)
    assert torch.equal(one.penalty, other.penalty)
    assert torch.equal(gradient, weights)
    assert not torch.allclose(turned, weights)
