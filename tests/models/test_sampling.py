"""Drawing a code from logits: exactly the codes that top-k and top-p leave, and guidance by its
formula.
"""

from collections import Counter

import pytest
import torch

from vqvae_lightning.models.priors.sampling import draw, guide


@pytest.mark.parametrize("k", [1, 2, 4])
def test_exactly_k_are_kept_under_ties(k):
    codes = draw(torch.zeros(2000, 4), 1.0, k, None, None)
    assert Counter(codes.tolist()).keys() == set(range(k))


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.01, 1), (0.49, 1), (0.51, 2), (0.79, 2), (0.81, 3), (1.0, 4)]
)
def test_top_p_keeps_the_smallest_set_that_reaches_p(top_p, kept):
    logits = torch.tensor([0.15, 0.5, 0.05, 0.3]).log().expand(5000, -1)
    drawn = set(draw(logits, 1.0, None, top_p, None).tolist())
    assert drawn == set([1, 3, 0, 2][:kept])


def test_a_code_of_probability_0_is_never_drawn():
    logits = torch.tensor([-torch.inf, 0.0, -torch.inf, 1.0])
    codes = draw(logits.expand(1_000_000, -1), 1.0, None, None, None)
    assert set(codes.tolist()) == {1, 3}


@pytest.mark.parametrize("temperature", [0, 1e-46, 1e-40, 1e-38, 1e-30])
@pytest.mark.parametrize("top_p", [None, 0.5])
def test_however_cold_it_draws_the_likeliest_code(temperature, top_p):
    logits = torch.tensor([[5.0, 4.0, -30.0], [-200.0, -torch.inf, -100.0]])
    assert draw(logits, temperature, None, top_p, None).tolist() == [0, 2]


def test_sampling_does_not_write_into_its_logits():
    logits = torch.randn(10, 4)
    before = logits.clone()
    draw(logits, 1.0, 2, 0.5, None)
    assert torch.equal(logits, before)


@pytest.mark.parametrize("guidance", [0.0, 1.0, 3.0])
def test_guidance_moves_along_the_line_from_without_to_with_the_label(guidance):
    conditional, unconditional = torch.randn(2, 5, 4, dtype=torch.float64)
    found = guide(torch.cat([conditional, unconditional]), guidance)
    wanted = conditional.softmax(-1) ** guidance * unconditional.softmax(-1) ** (1 - guidance)
    torch.testing.assert_close(found.softmax(-1), wanted / wanted.sum(-1, keepdim=True))
