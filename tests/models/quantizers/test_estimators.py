"""Gradient estimators: the value is the code's, the gradient is that of the paper's formula."""

import pytest
import torch

from vqvae_lightning.models.quantizers.codebooks import VectorQuantizer
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
    (jacobian,) = torch.autograd.functional.jacobian(lambda z: straight_through(z, pair[1]), (pair[0],))
    assert torch.equal(jacobian.view(30, 30), torch.eye(30, dtype=torch.float64))


def test_rotation_is_scaled_orthogonal_and_takes_z_e_to_z_q():
    """The Jacobian is the R of the formula times λ, by explicit matrices; R turns in the plane of ê and q̂ alone."""
    for d in (2, 3, 8):
        z_e, z_q = torch.randn(2, d, dtype=torch.float64)
        jacobian = torch.autograd.functional.jacobian(lambda z, z_q=z_q: rotation(z[None], z_q[None])[0], z_e)
        e, q = z_e / z_e.norm(), z_q / z_q.norm()
        r = (e + q) / (e + q).norm()
        formula = torch.eye(d, dtype=torch.float64) - 2 * torch.outer(r, r) + 2 * torch.outer(q, e)
        scale = z_q.norm() / z_e.norm()
        torch.testing.assert_close(jacobian, scale * formula)
        torch.testing.assert_close(formula @ formula.T, torch.eye(d, dtype=torch.float64))
        torch.testing.assert_close(torch.linalg.det(formula).item(), 1.0)
        torch.testing.assert_close(jacobian @ z_e, z_q)
        across = torch.randn(d, dtype=torch.float64)
        across -= torch.stack([e, q]).T @ torch.linalg.lstsq(torch.stack([e, q]).T, across[:, None]).solution[:, 0]
        torch.testing.assert_close(formula @ across, across)


@pytest.mark.parametrize("z_q", [[-3.0, 0.0], [-3.0, 1e-7], [0.0, 0.0], [3.0, 0.0]])
@pytest.mark.parametrize("z_e", [[2.0, 0.0], [0.0, 0.0]])
def test_rotation_is_finite_where_it_is_not_defined(z_e, z_q):
    z_e, z_q = torch.tensor([z_e], requires_grad=True), torch.tensor([z_q])
    z = rotation(z_e, z_q)
    z.sum().backward()
    torch.testing.assert_close(z.detach(), z_q)
    assert torch.isfinite(z_e.grad).all()


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
        torch.testing.assert_close(latent.z, module.lookup(latent.codes))
    (one, gradient), (other, turned) = found.values()
    assert torch.equal(one.codes, other.codes)
    assert torch.equal(one.penalty, other.penalty)
    assert torch.equal(gradient, weights)
    assert not torch.allclose(turned, weights)
