"""The masked prior: its loss is a bound, by enumeration of all orders on a small grid, and it draws
from what the bound is of; known codes are never changed.
"""

import itertools
import math

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

from vqvae_lightning.data.loader import Batch
from vqvae_lightning.data.randomness import RowNoise
from vqvae_lightning.models.build import build_prior
from vqvae_lightning.models.layout import CodeLayout
from vqvae_lightning.models.priors import prior
from vqvae_lightning.models.priors.masked import MaskedTransformer
from vqvae_lightning.models.priors.unmasking import first, halton_order, left
from vqvae_lightning.models.settings import PriorConfig
from vqvae_lightning.training.given import as_batch

CLASSES = 2
ORDERS = ("halton", "confidence", "random")


def untrained(layout, classes=CLASSES, label_dropout=0.0, **fields):
    size = {"layers": 2, "width": 8, "heads": 2, "dropout": 0.0, **fields}
    config = PriorConfig(network=MaskedTransformer.Config(**size), label_dropout=label_dropout)
    return build_prior(config, layout, classes)


def build(k=3, grid=(1, 3), classes=CLASSES, codebooks=1, **fields):
    """A prior in evaluation mode, with weights so large that its predictions differ."""
    model = untrained(CodeLayout(grid, k, codebooks), classes, **fields)
    for parameter in model.parameters():
        fan_in = parameter[0].numel() if parameter.dim() > 1 else 8
        torch.nn.init.normal_(parameter, std=1.5 * fan_in**-0.5)
    return model.double().eval()


def conditionals(model, label, guidance=1.0, **settings):
    """p(z_t | known codes, label) for each sequence of known codes, K where unknown: T,K by
    sequence.
    """
    k = model.codebook_size
    given = all_sequences(k + 1, model.length)
    logits = model.logits(given, with_label(model, label, len(given))).detach().log_softmax(-1)
    if guidance != 1:
        without = model.logits(given, torch.full((len(given),), CLASSES)).detach().log_softmax(-1)
        logits = (1 - guidance) * without + guidance * logits
    p = filtered(logits.flatten(0, 1), **settings).view_as(logits)
    return {tuple(row.tolist()): table for row, table in zip(given, p, strict=True)}


def probability(p, k, codes, order):
    """∏_i p(z_σ(i) | z_σ(<i)) of one sequence in one order; positions not in it are known."""
    seen = [k if t in order else code for t, code in enumerate(codes)]
    found = 1.0
    for t in order:
        found *= p[tuple(seen)][t, codes[t]].item()
        seen[t] = codes[t]
    return found


def orders(length):
    return list(itertools.permutations(range(length)))


def enumerated_bound(model, codes, labels):
    """The bound (N,) as a mean over all numbers n of masked positions, and all sets of n."""
    length, of_counts = model.length, []
    for n in range(1, length + 1):
        sets = list(itertools.combinations(range(length), n))
        nats = []
        for chosen in sets:
            order = torch.tensor([0.0 if t in chosen else 1.0 for t in range(length)])
            time = torch.full((len(codes),), (n - 0.5) / length)
            nats.append(model.masked_nll(codes, labels, time, order.expand(len(codes), -1)).sum(1))
        of_counts.append(torch.stack(nats).mean(0))
    return torch.stack(of_counts).mean(0).detach()


class TestBound:
    """P(z) is the mixture over uniformly random orders σ of ∏_i p(z_σ(i) | z_σ(<i))."""

    @pytest.mark.parametrize(("k", "grid"), [(2, (1, 3)), (3, (3, 1)), (2, (2, 2))])
    @pytest.mark.parametrize("classes", [CLASSES, 0])
    def test_the_loss_is_the_mean_over_orders_and_above_minus_log_p(self, k, grid, classes):
        """E_n,m[T/n Σ_m −log p] = E_σ[−log P_σ] ≥ −log E_σ[P_σ], strictly where orders differ."""
        model = build(k, grid, classes)
        p, sequences = conditionals(model, 1), all_sequences(k, model.length)
        of_orders = torch.tensor(
            [
                [probability(p, k, codes, order) for order in orders(model.length)]
                for codes in sequences.tolist()
            ],
            dtype=torch.float64,
        )
        torch.testing.assert_close(of_orders.sum(0), torch.ones_like(of_orders[0]))
        bound = enumerated_bound(model, sequences, with_label(model, 1, len(sequences)))
        torch.testing.assert_close(bound, -of_orders.log().mean(1), rtol=1e-10, atol=0)
        assert (bound > -of_orders.mean(1).log()).all()

    def test_it_is_exact_for_independent_codes(self):
        model = build()
        model.code_embedding.weight.data.zero_()  # no code says anything
        p, sequences = conditionals(model, 1), all_sequences(3, 3)
        exact = [-math.log(probability(p, 3, codes, (0, 1, 2))) for codes in sequences.tolist()]
        bound = enumerated_bound(model, sequences, torch.ones(len(sequences), dtype=torch.int64))
        torch.testing.assert_close(
            bound, torch.tensor(exact, dtype=bound.dtype), rtol=1e-10, atol=0
        )

    @pytest.mark.parametrize("method", ["nll", "rate"])
    def test_what_is_drawn_has_it_as_its_mean(self, method):
        model, n = build(bound_draws=2), 20_000
        codes, labels = torch.tensor([[2, 0, 1]]), torch.tensor([1])
        drawn = getattr(model, method)(codes.expand(n, -1), labels.expand(n)).detach()
        drawn = drawn.sum(1) if method == "nll" else drawn
        error = (drawn.mean() - enumerated_bound(model, codes, labels)).abs()
        assert error < 4 * drawn.std() / n**0.5

    def test_draws_of_an_image_differ_in_how_much_they_mask(self, monkeypatch):
        model, seen = build(grid=(1, 4), bound_draws=4), []
        logits = model.logits
        monkeypatch.setattr(model, "logits", lambda x, y: seen.append(x == 3) or logits(x, y))
        model.rate(some_codes(model, 20), some_labels(model, 20))
        hidden = torch.stack(seen).sum(2)  # 4 draws, 20 images
        assert (hidden.sort(0).values == torch.arange(1, 5)[:, None]).all()

    def test_the_mean_of_the_loss_is_that_of_masked_codes(self):
        """So that learning rates and clipping carry over from the autoregressive priors."""
        model = build()
        model.head.weight.data.zero_()
        model.head.bias.data.zero_()
        nll = model.nll(some_codes(model, 9), some_labels(model, 9))
        torch.testing.assert_close(nll.mean(1), torch.full((9,), math.log(3)).double())

    def test_only_what_is_not_masked_is_seen(self):
        model = build(grid=(2, 3))
        codes, labels = some_codes(model), some_labels(model)
        time, order = torch.full((3,), 0.5), torch.rand(3, 6)
        before = model.masked_nll(codes, labels, time, order) > 0
        hidden = before.sum(1) == 4
        assert hidden.all()
        other = torch.where(before, (codes + 1) % 3, codes)
        seen = [x.where(~before, 3) for x in (codes, other)]
        assert torch.equal(*seen)


class TestNoise:
    def test_the_bound_depends_neither_on_batches_nor_on_parts(self, monkeypatch):
        model = build(grid=(2, 2))
        codes, labels, rows = some_codes(model, 10), some_labels(model, 10), torch.arange(10)

        def rates(size):
            parts = [rows[i : i + size] for i in range(0, 10, size)]
            noise = [RowNoise(5, "masks", part).uniform for part in parts]
            found = zip(parts, noise, strict=True)
            return torch.cat([model.rate(codes[r], labels[r], u) for r, u in found])

        together = rates(10)
        for size in (1, 3, 7):
            torch.testing.assert_close(rates(size), together, rtol=1e-12, atol=0)
        monkeypatch.setattr(prior, "LARGEST_LOGITS", 4 * model.length * 3)
        torch.testing.assert_close(rates(10), together, rtol=1e-12, atol=0)
        other = model.rate(codes, labels, RowNoise(6, "masks", rows).uniform)
        assert not torch.allclose(other, together)

    def test_a_step_spreads_each_number_evenly_over_its_rows_however_it_is_cut(self):
        x, y = torch.zeros(12, 5), torch.zeros(12)
        whole = Batch(x, y, y, seed=3).step_uniform(x)
        assert ((whole * 12).long().sort(0).values == torch.arange(12)[:, None]).all()
        parts = [Batch(x[:4], y, y, 3, part, 3).step_uniform(x[:4]) for part in range(3)]
        assert torch.equal(torch.cat(parts), whole)
        assert not torch.equal(Batch(x, y, y, seed=4).step_uniform(x), whole)
        assert whole.min() >= 0
        assert whole.max() < 1

    def test_a_row_of_a_step_is_uniform(self):
        x, y = torch.zeros(4, 2), torch.zeros(4)
        drawn = torch.stack([Batch(x, y, y, seed=s).step_uniform(x)[2] for s in range(4000)])
        cells = (drawn * 3).long()
        observed = torch.bincount(cells[:, 0] * 3 + cells[:, 1], minlength=9).double()
        assert chi_square_p(observed, torch.full((9,), 4000 / 9).double()) > 1e-4

    def test_a_loader_of_ones_own_gives_other_masks_at_every_step(self):
        batch = as_batch(torch.zeros(4, 6), 0)
        assert not torch.equal(batch.step_uniform(batch.x), batch.step_uniform(batch.x))


class TestSampler:
    @pytest.mark.parametrize(
        "settings",
        [{}, {"temperature": 0.5, "top_k": 2}, {"top_p": 0.8}, {"guidance": 2.0}],
        ids=str,
    )
    @pytest.mark.parametrize("order", ["random", "halton"])
    def test_one_code_at_a_time_draws_from_the_enumerated_distribution(self, settings, order):
        k, n, label_dropout = 3, 8_000, 0.1
        model = build(k, label_dropout=label_dropout)
        p = conditionals(model, 1, **settings)
        paths = orders(3) if order == "random" else [tuple(model.halton.tolist())]
        expected = torch.tensor(
            [
                sum(probability(p, k, codes, path) for path in paths) / len(paths)
                for codes in all_sequences(k, 3).tolist()
            ],
            dtype=torch.float64,
        )
        assert abs(expected.sum() - 1) < 1e-9
        codes = model.generate(n, with_label(model, 1, n), steps=3, order=order, **settings)
        observed = counts(codes, k)
        assert (observed[expected == 0] == 0).all()
        assert chi_square_p(observed, n * expected) > 1e-4

    def test_fewer_steps_draw_from_another(self):
        """Negative control: codes that are drawn together do not know of each other."""
        k, n = 3, 8_000
        model = build(k)
        p = conditionals(model, 1)
        path = tuple(model.halton.tolist())
        expected = torch.tensor(
            [probability(p, k, codes, path) for codes in all_sequences(k, 3).tolist()],
            dtype=torch.float64,
        )
        codes = model.generate(n, with_label(model, 1, n), steps=1)
        assert chi_square_p(counts(codes, k), n * expected) < 1e-6

    @pytest.mark.parametrize("known", [[0], [1], [0, 2], [0, 1, 2]])
    def test_any_known_codes_leave_the_enumerated_rest(self, known):
        k, n = 3, 8_000
        model, value = build(k), torch.tensor([2, 0, 1])
        mask = torch.tensor([t in known for t in range(3)])
        p = conditionals(model, 1)
        paths = list(itertools.permutations([t for t in range(3) if t not in known]))
        sequences = all_sequences(k, 3)
        fits = (sequences[:, mask] == value[mask]).all(1)
        expected = torch.tensor(
            [
                fit * sum(probability(p, k, codes, path) for path in paths) / len(paths)
                for codes, fit in zip(sequences.tolist(), fits.tolist(), strict=True)
            ],
            dtype=torch.float64,
        )
        given = (value.where(mask, -5).expand(n, -1), mask.expand(n, -1))
        codes = model.generate(n, with_label(model, 1, n), known=given, steps=3, order="random")
        observed = counts(codes, k)
        assert (observed[~fits] == 0).all()
        if len(known) < 3:
            assert chi_square_p(observed, n * expected) > 1e-4

    @pytest.mark.parametrize("order", ORDERS)
    @pytest.mark.parametrize("steps", [1, 3, 8, 100])
    @pytest.mark.parametrize("guidance", [1.0, 3.0])
    def test_known_codes_never_change_and_no_code_stays_masked(self, order, steps, guidance):
        model = build(5, (3, 4), label_dropout=0.1)
        codes = some_codes(model, 40)
        mask = torch.rand(codes.shape) < torch.linspace(0, 1, 40)[:, None]
        found = model.generate(
            40,
            some_labels(model, 40),
            known=(codes, mask),
            steps=steps,
            order=order,
            guidance=guidance,
        )
        assert torch.equal(found[mask], codes[mask])
        assert 0 <= found.min() <= found.max() < 5
        assert found.dtype == torch.int64

    @pytest.mark.parametrize("order", ORDERS)
    @pytest.mark.parametrize(("steps", "passes"), [(1, 1), (5, 5), (12, 12), (50, 12)])
    def test_a_step_is_one_pass_for_all_images(self, order, steps, passes, monkeypatch):
        model, seen = build(5, (3, 4)), []
        logits = model.logits
        monkeypatch.setattr(model, "logits", lambda x, y: seen.append(len(x)) or logits(x, y))
        model.generate(6, some_labels(model, 6), steps=steps, order=order)
        assert seen == [6] * passes

    @pytest.mark.parametrize("order", ORDERS)
    def test_one_seed_gives_one_result(self, order):
        model = build(5, (3, 4))
        labels = some_labels(model, 20)
        same, again, other = (
            model.generate(20, labels, order=order, generator=torch.Generator().manual_seed(seed))
            for seed in (0, 0, 1)
        )
        assert torch.equal(same, again)
        assert not torch.equal(same, other)

    def test_a_random_order_is_another_for_each_image(self, monkeypatch):
        model, seen = build(5, (3, 4)), []
        logits = model.logits
        monkeypatch.setattr(model, "logits", lambda x, y: seen.append(x == 5) or logits(x, y))
        model.generate(50, some_labels(model, 50), order="random", steps=12)
        assert len(seen[6].unique(dim=0)) > 40

    def test_confident_codes_come_first(self):
        """Without noise, which is 0 at the last step only, the surest code would be the first."""
        model = build(3, (1, 2), classes=0)
        model.code_embedding.weight.data.zero_()
        logits = torch.tensor([[0.0, 0.0, 0.0], [9.0, 0.0, 0.0]]).double()
        model.logits = lambda codes, labels: logits.expand(len(codes), -1, -1)
        seen = []
        inner = model.logits
        model.logits = lambda codes, labels: seen.append(codes.clone()) or inner(codes, labels)
        model.generate(500, order="confidence", steps=2)
        assert ((seen[1] != 3)[:, 1]).double().mean() > 0.55

    def test_drawing_leaves_the_mode_as_it_was(self):
        for training in (True, False):
            model = build().train(training)
            model.generate(2, some_labels(model, 2))
            assert model.training == training

    @pytest.mark.parametrize(
        ("name", "value", "wanted"),
        [
            ("steps", 0, "at least 1"),
            ("order", "raster", "one of halton, confidence, random"),
            ("temperature", -1.0, "at least 0"),
            ("top_k", 4, "1 to 3"),
        ],
    )
    def test_sampling_settings_out_of_range_are_refused(self, name, value, wanted):
        model = build()
        with pytest.raises(ValueError, match=f"{name}: got .*, wanted {wanted}"):
            model.generate(3, some_labels(model), **{name: value})

    def test_guidance_and_labels_are_asked_for_as_of_every_prior(self):
        model = build()
        with pytest.raises(ValueError, match=r"guidance: got 2.0, wanted 1"):
            model.generate(3, some_labels(model), guidance=2.0)
        with pytest.raises(ValueError, match="labels: got none, wanted 3 labels"):
            model.generate(3)
        with pytest.raises(ValueError, match="labels: got 2 to 2, wanted 0 to 1"):
            model.generate(3, torch.full((3,), CLASSES))


class TestSchedule:
    @pytest.mark.parametrize("steps", [1, 2, 5, 8, 48, 49, 1024])
    def test_every_step_takes_some_and_the_last_one_the_rest(self, steps):
        unknown = torch.tensor([0, 1, 7, 49, 1024])
        steps = min(steps, 1024)
        remaining = torch.stack([left(unknown, s, steps) for s in range(1, steps + 1)])
        before = torch.cat([unknown[None], remaining[:-1]])
        assert (remaining[-1] == 0).all()
        assert ((remaining < before) | (before == 0)).all()

    @pytest.mark.parametrize("length", [1, 3, 49, 64, 1000])
    def test_as_many_steps_as_codes_is_one_at_a_time(self, length):
        found = [int(left(torch.tensor([length]), s, length)) for s in range(1, length + 1)]
        assert found == list(range(length - 1, -1, -1))

    def test_it_is_the_cosine(self):
        found = [int(left(torch.tensor([1000]), s, 4)) for s in range(1, 5)]
        assert found == [923, 707, 382, 0]

    def test_the_first_are_those_of_the_highest_priority_that_are_masked(self):
        priority = torch.tensor([[4.0, 3.0, 2.0, 1.0], [1.0, 2.0, 3.0, 4.0]])
        masked = torch.tensor([[False, True, True, True], [True, True, False, False]])
        found = first(priority, masked, torch.tensor([2, 1]))
        assert found.tolist() == [[False, True, True, False], [False, True, False, False]]


class TestHalton:
    @pytest.mark.parametrize("grid", [(1, 1), (1, 5), (7, 7), (8, 8), (3, 32)])
    @pytest.mark.parametrize("codebooks", [1, 3])
    def test_every_position_comes_once(self, grid, codebooks):
        layout = CodeLayout(grid, 4, codebooks)
        assert sorted(halton_order(layout).tolist()) == list(range(layout.length))

    def test_the_first_codes_of_all_cells_come_first(self):
        order = halton_order(CodeLayout((4, 4), 4, 2))
        assert (order[:16] % 2 == 0).all()
        assert torch.equal(order[16:], order[:16] + 1)

    def test_it_spreads(self):
        """The first six of 64 cells lie in all quarters of the grid; in raster order in two."""
        order = halton_order(CodeLayout((8, 8), 4))[:6]
        assert len(set((order // 32 * 2 + order % 8 // 4).tolist())) == 4


class TestTraining:
    def test_the_gradient_is_right(self):
        model = build(2, (1, 3))
        codes, labels = some_codes(model), some_labels(model)
        time, order = torch.tensor([0.1, 0.5, 0.9]), torch.rand(3, 3)
        names, values = zip(*model.named_parameters(), strict=True)

        class Nll(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.model = model

            def forward(self):
                return self.model.masked_nll(codes, labels, time, order)

        def nll(*parameters):
            named = {f"model.{n}": p for n, p in zip(names, parameters, strict=True)}
            return torch.func.functional_call(Nll(), named, ())

        given = tuple(v.detach().requires_grad_() for v in values)
        assert torch.autograd.gradcheck(nll, given, fast_mode=True)

    @pytest.mark.parametrize("codebooks", [1, 2])
    def test_it_learns_what_a_row_of_codes_has_in_common(self, codebooks):
        """Also with several codes per cell, as of residual and product quantizers."""
        layout = CodeLayout((3, 3), 8, codebooks)
        model = untrained(layout, 0, layers=1, width=32)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(150):
            codes = torch.randint(8, (16, 1)).expand(-1, layout.length)
            optimizer.zero_grad()
            model.nll(codes, None).mean().backward()
            assert all(p.grad.isfinite().all() for p in model.parameters())
            optimizer.step()
        codes = torch.arange(8).repeat(300)[:, None].expand(-1, layout.length)
        # One code costs log 8, and says the others.
        bound = model.eval().rate(codes, None).mean().detach()
        assert abs(bound - math.log(8)) < 1  # of up to 18 log 8 = 37
        drawn = model.generate(50, steps=layout.length)
        assert (drawn == drawn[:, :1]).all(1).double().mean() > 0.8

    @pytest.mark.parametrize("seed", range(4))
    def test_a_new_prior_charges_about_the_uniform_rate(self, seed):
        torch.manual_seed(seed)
        model = untrained(CodeLayout((3, 3), 64), 0, width=32)
        nats = model.eval().rate(some_codes(model, 16), None).mean() / 9
        assert abs(nats - math.log(64)) < 0.5

    def test_training_forgets_its_share_of_the_labels(self):
        model, n = build(label_dropout=0.3), 2000
        codes, time, order = torch.tensor([[0, 1, 2]]), torch.tensor([0.5]), torch.rand(1, 3)
        arguments = (time.expand(n), order.expand(n, -1))

        def nats(labels):
            return model.masked_nll(codes.expand(n, -1), labels, *arguments).sum(1)

        kept, forgotten = (nats(torch.full((n,), label)) for label in (1, CLASSES))
        model.train()
        found = nats(torch.ones(n, dtype=torch.int64))
        assert ((found == forgotten) | (found == kept)).all()
        assert abs((found == forgotten).double().mean() - 0.3) < 0.05

    def test_the_loss_is_float32_under_autocast(self):
        model = build().float()
        with torch.autocast("cpu", torch.bfloat16):
            assert model.nll(some_codes(model), some_labels(model)).dtype == torch.float32
            assert model.generate(3, some_labels(model)).shape == (3, 3)

    def test_sequences_of_another_length_are_refused(self):
        model = build()
        for method in (model.nll, model.rate):
            with pytest.raises(ValueError, match=r"codes: got shape \(3, 4\), wanted \(N, 3\)"):
                method(torch.zeros(3, 4, dtype=torch.int64), some_labels(model))
