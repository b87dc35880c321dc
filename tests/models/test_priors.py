"""Every autoregressive prior is a distribution (sums to one), causal, and sampled from as it says:
one contract for all of them. That of the masked prior is in test_masked.py.
"""

import pytest
import torch
from sequences import (
    all_sequences,
    chi_square_p,
    counts,
    filtered,
    some_codes,
    some_labels,
    with_label,
)

from vqvae_lightning.models.build import build_prior
from vqvae_lightning.models.layout import CodeLayout
from vqvae_lightning.models.parts import PRIORS
from vqvae_lightning.models.priors import prior
from vqvae_lightning.models.priors.autoregressive import AutoregressivePrior
from vqvae_lightning.models.priors.prior import Known
from vqvae_lightning.models.settings import PriorConfig

CLASSES = 2
GRID = (2, 3)

# One line per prior: what makes it small.
SMALL = {
    "transformer": {"heads": 2},
    "pixelcnn": {"kernel": 5},
    "pixelsnail": {"heads": 2, "kernel": 3},
}


def test_every_autoregressive_prior_is_here_and_can_be_named():
    assert [name for name in PRIORS if issubclass(PRIORS[name], AutoregressivePrior)] == [*SMALL]


def begin(model, codes):
    """Known codes (n, t) at the beginning."""
    return Known.beginning(codes, model.length)


@pytest.fixture(params=SMALL)
def architecture(request):
    return request.param


@pytest.fixture(params=[CLASSES, 0], ids=["conditional", "unconditional"])
def classes(request):
    return request.param


@pytest.fixture
def untrained(architecture):
    """(K, grid, classes, fields of the config …) → a new prior."""

    def untrained(k, grid, classes, label_dropout=0.0, **fields):
        size = {"layers": 2, "width": 8, **SMALL[architecture], **fields}
        network = PRIORS[architecture].Config(**size)
        config = PriorConfig(network=network, label_dropout=label_dropout)
        return build_prior(config, CodeLayout(grid, k), classes)

    return untrained


@pytest.fixture
def build(untrained):
    """(K, grid, classes, …) → a prior in evaluation mode, with weights so large that its
    predictions differ.
    """

    def build(k=5, grid=GRID, classes=CLASSES, dtype=torch.float64, dropout=0.0, **fields):
        model = untrained(k, grid, classes, dropout=dropout, **fields)
        for parameter in model.parameters():
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 8
            torch.nn.init.normal_(parameter, std=1.5 * fan_in**-0.5)
        return model.to(dtype).eval()

    return build


@pytest.mark.parametrize(("k", "grid"), [(3, (2, 2)), (2, (2, 3)), (2, (5, 1)), (5, (1, 1))])
@pytest.mark.parametrize("label", range(CLASSES))
def test_probabilities_sum_to_one(build, classes, k, grid, label):
    model = build(k, grid, classes)
    sequences = all_sequences(k, model.length)
    log_prob = -model.rate(sequences, with_label(model, label, len(sequences)))
    assert abs(log_prob.exp().sum() - 1) < 1e-10


def test_chain_rule(build, classes):
    """One pass over the sequence, T passes over its beginnings, and T steps through the cache say
    the same.
    """
    model = build(classes=classes)
    codes, other, labels = some_codes(model), some_codes(model), some_labels(model)
    logits = model.logits(codes, labels)
    for _ in range(2):  # nothing is left over from one sequence for the next
        cache, previous = model.new_cache(3), None
        for t in range(model.length):
            beginning = model.logits(torch.cat([codes[:, :t], other[:, t:]], dim=1), labels)[:, t]
            cached = model.next_logits(previous, labels, 3, cache)
            previous = codes[:, t]
            torch.testing.assert_close(beginning, logits[:, t], rtol=0, atol=1e-10)
            torch.testing.assert_close(cached, logits[:, t], rtol=0, atol=1e-10)
    nll = -logits.log_softmax(-1).gather(-1, codes[..., None])[..., 0]
    torch.testing.assert_close(model.nll(codes, labels), nll, rtol=0, atol=1e-10)
    torch.testing.assert_close(-model.rate(codes, labels), -nll.sum(1), rtol=0, atol=1e-10)


def test_no_code_is_free(build, classes):
    """torch takes a target of −100 for one to be ignored."""
    prior, labels = build(classes=classes), torch.zeros(1, dtype=torch.int64)
    codes = torch.zeros(1, prior.length, dtype=torch.int64)
    codes[0, -1] = -100
    with pytest.raises((IndexError, RuntimeError)):
        prior.nll(codes, labels if classes else None)


def test_rows_that_are_taken_some_at_a_time_have_the_same_probability(build, classes, monkeypatch):
    model = build(classes=classes)
    codes, labels = some_codes(model, 7), some_labels(model, 7)
    together, sizes, nll = -model.rate(codes, labels), [], model.nll
    monkeypatch.setattr(prior, "LARGEST_LOGITS", 3 * model.length * model.codebook_size)
    monkeypatch.setattr(model, "nll", lambda x, y: sizes.append(len(x)) or nll(x, y))
    torch.testing.assert_close(-model.rate(codes, labels), together, rtol=0, atol=1e-10)
    assert sizes == [3, 3, 1]


def test_a_grid_of_32_by_32_is_learnt_and_drawn_from(untrained):
    """T = 1024, as of images of 128 pixels with two halvings: nothing is made for fewer."""
    model = untrained(64, (32, 32), CLASSES, dropout=0.0, layers=1)
    codes = torch.randint(64, (2, 32, 1)).expand(2, 32, 32).flatten(1)  # a code per row
    labels = some_labels(model, 2)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = model.nll(codes, labels).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    drawn = model.double().generate(2, labels, temperature=0.0)
    assert drawn.shape == (2, 1024)
    with torch.no_grad():
        assert torch.equal(drawn, model.eval().logits(drawn, labels).argmax(-1))


class TestCausality:
    @pytest.mark.parametrize("grid", [(1, 2), (1, 5), (5, 1), (3, 5), (4, 4)])
    @pytest.mark.parametrize("training", [False, True])
    def test_a_changed_code_changes_only_what_comes_after(self, build, classes, grid, training):
        model = build(grid=grid, classes=classes, dropout=0.3).train(training)
        codes, labels = some_codes(model), some_labels(model)

        def logits(codes):
            torch.manual_seed(4)  # the same dropout
            return model.logits(codes, labels)

        before = logits(codes)
        for t in range(model.length):
            changed = codes.clone()
            changed[:, t] = (codes[:, t] + 1) % model.codebook_size
            after = logits(changed)
            assert torch.equal(after[:, : t + 1], before[:, : t + 1])
            # of a row a ReLU may hide it
            assert (after[:, t + 1 :] != before[:, t + 1 :]).any(2).any(0).all()

    def test_gradient_flows_from_before_only(self, build, classes):
        model = build(classes=classes)
        embedded = []

        def record(_module, _inputs, output):
            embedded.append(output)

        model.code_embedding.register_forward_hook(record)
        logits = model.logits(some_codes(model), some_labels(model))
        for t in range(model.length):
            (gradient,) = torch.autograd.grad(
                logits[:, t].square().sum(), embedded, retain_graph=True
            )
            reached = (gradient != 0).any(-1).any(0)  # T, or T-1
            assert reached[:t].all()
            assert not reached[t:].any()

    def test_the_first_prediction_depends_on_the_label_only(self, build):
        model = build()
        first = model.logits(some_codes(model, 8), torch.arange(8) % CLASSES)[:, 0]
        assert torch.equal(first, first[:CLASSES].repeat(8 // CLASSES, 1))
        assert not torch.allclose(first[0], first[1])


class TestCache:
    def test_greedy_codes_are_those_without_a_cache(self, build, classes):
        model = build(classes=classes)
        labels = some_labels(model)
        codes = torch.zeros(3, 0, dtype=torch.int64)
        for _ in range(model.length):
            t = codes.shape[1]
            padded = torch.cat([codes, codes.new_zeros(3, model.length - t)], dim=1)
            codes = torch.cat(
                [codes, model.logits(padded, labels)[:, t].argmax(-1, keepdim=True)], dim=1
            )
        for _ in range(2):  # nothing is left over from one generation for the next
            assert torch.equal(model.generate(3, labels, temperature=0.0), codes)

    def test_none_are_drawn_if_none_are_asked_for(self, build):
        model = build()
        assert model.generate(0, some_labels(model, 0)).shape == (0, model.length)

    def test_a_row_does_not_depend_on_its_batch(self, build):
        model = build()
        labels = some_labels(model, 4)
        together = model.generate(4, labels, temperature=0.0)
        alone = [model.generate(1, labels[i : i + 1], temperature=0.0) for i in range(4)]
        assert torch.equal(together, torch.cat(alone))

    def test_agrees_in_float32(self, build):
        model = build(dtype=torch.float32)
        codes, labels = some_codes(model), some_labels(model)
        cache, previous, steps = model.new_cache(3), None, []
        for t in range(model.length):
            steps.append(model.next_logits(previous, labels, 3, cache))
            previous = codes[:, t]
        torch.testing.assert_close(
            torch.stack(steps, 1), model.logits(codes, labels), rtol=1e-5, atol=1e-5
        )
        assert cache.length == model.length

    def test_a_cache_refuses_to_overflow(self, build):
        model = build(grid=(1, 2))
        cache, labels = model.new_cache(3), some_labels(model)
        for previous in (None, torch.zeros(3, dtype=torch.int64)):
            model.next_logits(previous, labels, 3, cache)
        with pytest.raises(ValueError, match="cache"):
            model.next_logits(torch.zeros(3, dtype=torch.int64), labels, 3, cache)

    def test_generates_under_autocast(self, build):
        model = build(dtype=torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            assert model.generate(3, some_labels(model)).shape == (3, model.length)


class TestSampler:
    @pytest.mark.parametrize(
        "settings",
        [
            {},
            {"temperature": 0.5},
            {"temperature": 3.0},
            {"top_k": 2},
            {"top_p": 0.8},
            {"temperature": 3.0, "top_k": 2, "top_p": 0.8},
        ],
        ids=str,
    )
    def test_a_prior_draws_from_the_exact_distribution(self, build, classes, settings):
        k, n = 3, 8_000
        model = build(k, (2, 2), classes)
        sequences = all_sequences(k, model.length)
        logits = model.logits(sequences, with_label(model, 1, len(sequences))).detach()
        allowed = filtered(logits.flatten(0, 1), **settings).view_as(logits)
        expected = n * allowed.gather(-1, sequences[..., None])[..., 0].prod(1)
        assert abs(expected.sum() / n - 1) < 1e-9
        codes = model.generate(n, with_label(model, 1, n), **settings)
        observed = counts(codes, k)
        assert (observed[expected == 0] == 0).all()
        assert chi_square_p(observed, expected) > 1e-4

    def test_labels_choose_the_distribution(self, build):
        model = build(3, (1, 1))
        labels = torch.arange(20_000) % CLASSES
        codes = model.generate(20_000, labels)[:, 0]
        probability = model.logits(
            torch.zeros(CLASSES, 1, dtype=torch.int64), torch.arange(CLASSES)
        )[:, 0].softmax(-1)
        for label in range(CLASSES):
            observed = torch.bincount(codes[labels == label], minlength=3).double()
            assert chi_square_p(observed, 10_000 * probability[label].detach()) > 1e-4

    @pytest.mark.parametrize(
        "settings", [{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-6}], ids=str
    )
    def test_the_narrowest_settings_are_greedy(self, build, classes, settings):
        model = build(classes=classes)
        labels = some_labels(model, 50)
        assert torch.equal(
            model.generate(50, labels, **settings), model.generate(50, labels, temperature=0.0)
        )

    def test_the_widest_settings_change_nothing(self, build, classes):
        model = build(classes=classes)
        labels = some_labels(model, 50)
        drawn = []
        for settings in ({}, {"top_k": model.codebook_size, "top_p": 1.0}):
            drawn.append(
                model.generate(50, labels, generator=torch.Generator().manual_seed(0), **settings)
            )
        assert torch.equal(*drawn)

    def test_one_seed_gives_one_result(self, build, classes):
        model = build(classes=classes)
        labels = some_labels(model, 20)
        same, again, other = (
            model.generate(20, labels, generator=torch.Generator().manual_seed(seed))
            for seed in (0, 0, 1)
        )
        assert torch.equal(same, again)
        assert not torch.equal(same, other)

    def test_codes_are_in_range_and_as_long_as_the_prior(self, build, classes):
        model = build(classes=classes)
        codes = model.generate(9, some_labels(model, 9))
        assert codes.shape == (9, model.length)
        assert codes.dtype == torch.int64
        assert 0 <= codes.min() <= codes.max() < model.codebook_size

    @pytest.mark.parametrize("training", [True, False])
    def test_a_prior_samples_without_dropout_and_leaves_the_mode(self, build, training):
        model = build(dropout=0.5).train(training)
        labels = some_labels(model)
        assert torch.equal(
            model.generate(3, labels, temperature=0.0), model.generate(3, labels, temperature=0.0)
        )
        assert model.training == training

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            *[("temperature", value) for value in (-1.0, float("nan"))],
            *[("top_k", value) for value in (-1, 0, 6)],
            *[("top_p", value) for value in (-0.1, 0.0, 1.1, float("nan"))],
            *[("guidance", value) for value in (-0.1, 1001.0, float("inf"), float("nan"))],
        ],
    )
    def test_sampling_settings_out_of_range_are_refused(self, build, name, value):
        model = build(k=5, label_dropout=0.1)
        with pytest.raises(ValueError, match=name):
            model.generate(3, some_labels(model), **{name: value})


class TestLabels:
    def test_a_conditional_prior_needs_them(self, build):
        model = build()
        with pytest.raises(ValueError, match="labels"):
            model.nll(some_codes(model), None)
        with pytest.raises(ValueError, match="labels"):
            model.generate(3)

    @pytest.mark.parametrize("label", [-1, CLASSES])
    def test_out_of_range_are_refused(self, build, label):
        model = build()
        with pytest.raises(ValueError, match="labels"):
            model.generate(3, torch.full((3,), label))

    def test_an_unconditional_prior_ignores_them(self, build):
        model = build(classes=0)
        codes = some_codes(model)
        assert torch.equal(model.nll(codes, torch.arange(3)), model.nll(codes, None))


class TestGuidance:
    """A prior that has seen codes without their label knows p(codes), and can exaggerate what the
    label says.
    """

    @pytest.mark.parametrize(
        ("guidance", "settings"),
        [(0.0, {}), (0.5, {}), (1.0, {}), (2.5, {}), (2.5, {"temperature": 2.0, "top_k": 2})],
        ids=str,
    )
    def test_a_guided_prior_draws_from_the_formula(self, build, guidance, settings):
        k, n = 3, 5_000
        model = build(k, (2, 2), label_dropout=0.1)
        sequences = all_sequences(k, 4)
        with_it, without = (
            model.logits(sequences, torch.full((len(sequences),), label)).detach().log_softmax(-1)
            for label in (1, CLASSES)
        )
        assert not torch.allclose(with_it, without)
        logits = (1 - guidance) * without + guidance * with_it
        allowed = filtered(logits.flatten(0, 1), **settings).view_as(logits)
        expected = n * allowed.gather(-1, sequences[..., None])[..., 0].prod(1)
        codes = model.generate(n, with_label(model, 1, n), guidance=guidance, **settings)
        assert chi_square_p(counts(codes, k), expected) > 1e-4

    def test_a_guided_prior_goes_on_from_a_prefix(self, build):
        model = build(label_dropout=0.1)
        codes, labels = some_codes(model), some_labels(model)
        whole = model.generate(3, labels, temperature=0.0, guidance=3.0)
        assert torch.equal(
            whole,
            model.generate(
                3, labels, temperature=0.0, guidance=3.0, known=begin(model, whole[:, :4])
            ),
        )
        assert torch.equal(
            codes, model.generate(3, labels, guidance=3.0, known=begin(model, codes))
        )

    def test_guidance_needs_label_dropout(self, build, classes):
        model = build(classes=classes)
        with pytest.raises(
            ValueError, match=r"guidance: got 2.0, wanted 1: .* model.label_dropout=0"
        ):
            model.generate(3, some_labels(model), guidance=2.0)

    def test_training_forgets_its_share_of_the_labels(self, build):
        model, n = build(label_dropout=0.3), 2000
        codes, labels = some_codes(model, 1).expand(n, -1), torch.arange(n) % CLASSES
        kept = -model.rate(codes, labels)
        forgotten = -model.rate(codes, torch.full((n,), CLASSES))
        found = -model.train().rate(codes, labels)
        was_forgotten = found == forgotten
        assert (was_forgotten | (found == kept)).all()
        assert abs(was_forgotten.double().mean() - 0.3) < 0.05

    def test_a_prior_without_label_dropout_has_no_row_for_it_and_draws_nothing(self, build):
        """Checkpoints and random numbers of priors that were made before there was label_dropout
        stay what they are.
        """
        model = build().train()
        codes, labels, before = some_codes(model), some_labels(model), torch.get_rng_state()
        model.nll(codes, labels)
        assert torch.equal(torch.get_rng_state(), before)
        assert model.start_embedding.weight.shape[0] == CLASSES


@pytest.mark.parametrize("length", [5, 7])
def test_a_prior_refuses_sequences_of_another_length(build, length):
    model = build()
    with pytest.raises(ValueError, match="codes"):
        model.nll(torch.zeros(3, length, dtype=torch.int64), some_labels(model))


def test_nll_is_float32_under_autocast(build):
    model = build(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert model.nll(some_codes(model), some_labels(model)).dtype == torch.float32


@pytest.mark.parametrize("seed", range(4))
def test_a_new_prior_charges_about_the_uniform_rate(untrained, seed):
    """Of log 64 = 4.16 nats; over 12 seeds the excess is at most 0.24."""
    torch.manual_seed(seed)
    model = untrained(64, (3, 3), 0, width=32)
    nll = model.eval().nll(some_codes(model, 16), None).mean()
    assert abs(nll - torch.tensor(64.0).log()) < 0.5


def test_every_prior_has_the_right_gradient(build):
    model = build(k=3, grid=(2, 2))
    codes, labels = some_codes(model), some_labels(model)
    names, values = zip(*model.named_parameters(), strict=True)

    def nll(*parameters):
        settings = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(
            _Nll(model), {f"model.{n}": p for n, p in settings.items()}, (codes, labels)
        )

    assert torch.autograd.gradcheck(
        nll, tuple(v.detach().requires_grad_() for v in values), fast_mode=True
    )


class _Nll(torch.nn.Module):
    """`nll` as a forward pass, for functional_call."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, codes, labels):
        return self.model.nll(codes, labels)


def test_a_prior_learns_a_constant_grid(untrained):
    model = untrained(8, (3, 3), 0, layers=1, width=16, dropout=0.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    codes = torch.full((4, 9), 5)
    for _ in range(60):
        optimizer.zero_grad()
        model.nll(codes, None).mean().backward()
        optimizer.step()
    assert model.nll(codes, None).mean() < 0.01


class TestPrefix:
    @pytest.mark.parametrize("given", [0, 1, 3, 4])
    def test_the_rest_is_drawn_from_the_exact_conditional(self, build, classes, given):
        """By brute force over all sequences: p(rest | prefix) = p(prefix, rest) / Σ over every
        other rest.
        """
        k, n = 3, 8_000
        model = build(k, (2, 2), classes)
        labels = with_label(model, 1, n)
        prefix = torch.tensor([2, 0, 1, 1])[:given]
        sequences = all_sequences(k, 4)
        joint = torch.exp(
            -model.nll(sequences, with_label(model, 1, len(sequences))).sum(1)
        ).detach()
        joint = torch.where((sequences[:, :given] == prefix).all(1), joint, 0)
        codes = model.generate(n, labels, known=begin(model, prefix.expand(n, -1)))
        assert torch.equal(codes[:, :given], prefix.expand(n, -1))
        observed = counts(codes, k)
        assert (observed[joint == 0] == 0).all()
        if given < 4:
            assert chi_square_p(observed, n * joint / joint.sum()) > 1e-4

    def test_each_row_goes_on_from_its_own(self, build, classes):
        model = build(classes=classes)
        codes, labels = some_codes(model, 4), some_labels(model, 4)
        together = model.generate(4, labels, temperature=0.0, known=begin(model, codes[:, :3]))
        alone = [
            model.generate(
                1,
                labels if labels is None else labels[i : i + 1],
                temperature=0.0,
                known=begin(model, codes[i : i + 1, :3]),
            )
            for i in range(4)
        ]
        assert torch.equal(together, torch.cat(alone))

    def test_greedy_codes_go_on_from_their_own_beginning(self, build, classes):
        model = build(classes=classes)
        labels = some_labels(model)
        whole = model.generate(3, labels, temperature=0.0)
        for t in range(model.length + 1):
            assert torch.equal(
                model.generate(3, labels, temperature=0.0, known=begin(model, whole[:, :t])), whole
            )

    def test_nothing_given_changes_nothing(self, build, classes):
        model = build(classes=classes)
        labels = some_labels(model, 20)
        drawn = [
            model.generate(20, labels, generator=torch.Generator().manual_seed(0), **given)
            for given in ({}, {"known": begin(model, torch.zeros(20, 0, dtype=torch.int64))})
        ]
        assert torch.equal(*drawn)

    def test_everything_given_is_returned(self, build, classes):
        model = build(classes=classes)
        codes = some_codes(model)
        assert torch.equal(model.generate(3, some_labels(model), known=begin(model, codes)), codes)

    def test_rows_may_know_beginnings_of_different_lengths(self, build, classes):
        model = build(classes=classes)
        labels = some_labels(model)
        whole = model.generate(3, labels, temperature=0.0)
        mask = torch.arange(model.length) < torch.tensor([0, 2, 6])[:, None]
        found = model.generate(3, labels, temperature=0.0, known=(whole.where(mask, -9), mask))
        assert torch.equal(found, whole)

    def test_a_code_behind_an_unknown_one_is_refused(self, build):
        model = build()
        mask = torch.tensor([True, False, True, False, False, False]).expand(3, -1)
        with pytest.raises(ValueError, match="name=masked completes any mask"):
            model.generate(3, some_labels(model), known=(some_codes(model), mask))

    @pytest.mark.parametrize(
        "codes",
        [
            torch.zeros(6, dtype=torch.int64),
            torch.zeros(2, 6, dtype=torch.int64),
            torch.zeros(3, 7, dtype=torch.int64),
            torch.zeros(3, 6),
            torch.full((3, 6), 5),
            torch.full((3, 6), -1),
        ],
        ids=[
            "no rows",
            "too few rows",
            "too long",
            "not integer",
            "code too large",
            "code negative",
        ],
    )
    def test_what_are_no_codes_are_refused(self, build, codes):
        model = build(k=5)
        with pytest.raises(ValueError, match=r"known: got .*, wanted "):
            model.generate(3, some_labels(model), known=(codes, torch.ones_like(codes).bool()))

    @pytest.mark.parametrize("mask", [torch.ones(3, 6), torch.ones(3, 5, dtype=torch.bool)])
    def test_what_is_no_mask_is_refused(self, build, mask):
        model = build(k=5)
        with pytest.raises(ValueError, match=r"known: got a mask .*, wanted torch.bool"):
            model.generate(3, some_labels(model), known=(some_codes(model), mask))


def test_a_setting_of_another_family_is_refused(build):
    model = build()
    with pytest.raises(ValueError, match="steps: got 8, but this prior has temperature, top_k"):
        model.generate(3, some_labels(model), steps=8)
