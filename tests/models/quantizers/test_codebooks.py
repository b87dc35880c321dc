"""Vector quantizers against independent loops: codes, gradients, averages, k-means, resets."""

import copy
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from vqvae_lightning.metrics.codebook import CodebookUsage
from vqvae_lightning.models.quantizers import nearest
from vqvae_lightning.models.quantizers.codebooks import EMAVectorQuantizer, VectorQuantizer
from vqvae_lightning.models.quantizers.nearest import kmeans, nearest_code

K, D = 6, 3


def make(
    quantizer,
    k=K,
    d=D,
    commitment=0.25,
    decay=0.9,
    reset_below=0.0,
    dtype=torch.float64,
    initialized=True,
):
    """A quantizer in training mode; `initialized`: with its random codebook instead of k-means
    centres.
    """
    module = quantizer(k, d, commitment, decay, reset_below).to(dtype)
    module.initialized.fill_(initialized)
    return module.train()


def as_h(rows):
    """Rows (M, D) as features (M, D, 1, 1)."""
    return rows[:, :, None, None]


def step(module, rows):
    module(as_h(rows))
    module.update()


@pytest.fixture(params=[VectorQuantizer, EMAVectorQuantizer])
def quantizer(request):
    return request.param


@pytest.fixture
def rows():
    return torch.randn(40, D, dtype=torch.float64)


class LargestTensor(TorchDispatchMode):
    """Numbers in the largest tensor that any operation returned."""

    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.numel = max(self.numel, result.numel())
        return result


class TestNearestCode:
    """The chosen code is the nearest in float64, up to the rounding of the distance itself."""

    @staticmethod
    def check(rows, codebook):
        codes = nearest_code(rows, codebook)
        assert codes.shape == rows.shape[:1]
        z, e = rows.double(), codebook.double()
        distances = (z[:, None] - e).square().sum(-1)  # M,K
        chosen = distances.gather(1, codes[:, None])[:, 0]
        # Rounding is relative to the spread around the codes' median: an offset or an outlier must
        # cost nothing.
        from_middle = (e - e.median(0).values).square().sum(1)
        spread = (z - e.median(0).values).square().sum(1) + from_middle.quantile(0.6)
        assert (
            (chosen - distances.min(1).values) <= 64 * torch.finfo(rows.dtype).eps * spread
        ).all()
        return codes

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("offset", [0.0, 1e3, 5e5])
    @pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
    def test_random_rows(self, scale, offset, dtype):
        rows, codebook = (scale * torch.randn(n, 8, dtype=dtype) + offset for n in (200, 32))
        self.check(rows, codebook)

    @settings(max_examples=30, deadline=None)
    @given(
        m=st.integers(1, 40), k=st.integers(1, 60), d=st.integers(1, 5), seed=st.integers(0, 1000)
    )
    def test_any_shape(self, m, k, d, seed):
        """One code, more codes than rows, one dimension."""
        torch.manual_seed(seed)
        self.check(torch.randn(m, d), torch.randn(k, d))

    @settings(max_examples=60, deadline=None)
    @given(
        m=st.integers(1, 40),
        k=st.sampled_from([1, 2, 3, 10, 64, 65, 300, 700]),
        d=st.integers(1, 8),
        outliers=st.sampled_from([0, 1, 1 / 3]),
        far=st.sampled_from([10.0, 1e3, 1e6]),
        one_side=st.booleans(),
        offset=st.sampled_from([0.0, -1e3, 5e5]),
        scale=st.sampled_from([1e-6, 1.0, 1e6]),
        seed=st.integers(0, 1000),
    )
    def test_outliers_and_offsets_cost_no_precision(
        self, m, k, d, outliers, far, one_side, offset, scale, seed
    ):
        """One code or a third of them far away, on one side or on all, with and without a common
        offset.
        """
        torch.manual_seed(seed)
        rows, codebook = torch.randn(m, d), torch.randn(k, d)
        n = min(outliers, k // 3) if outliers == 1 else int(outliers * k)
        away = far * torch.randn(n, d)
        codebook[torch.randperm(k)[:n]] = away.abs() if one_side else away
        self.check(scale * (rows + offset), scale * (codebook + offset))

    def test_one_code_far_away_changes_no_other_row(self):
        """The case of the bug report: 2,000 rows in 64 dimensions, of which centring at the mean
        got 1,928 wrong.
        """
        rows, codebook = torch.randn(2000, 64), torch.randn(512, 64)
        codebook[300] = 1e6
        exact = torch.cdist(
            rows.double(), codebook.double(), compute_mode="donot_use_mm_for_euclid_dist"
        )
        assert torch.equal(nearest_code(rows, codebook), exact.argmin(1))

    def test_distances_that_cancel(self):
        """512804 is nearer to 512695 than to 512400, though the squares in float32 cannot tell
        (pytorch#42479).
        """
        assert nearest_code(
            torch.tensor([[512804.0]]), torch.tensor([[512400.0], [512695.0]])
        ).tolist() == [1]

    def test_the_lowest_index_of_equal_scores_wins(self):
        rows, codebook = torch.tensor([[0.0], [3.0]]), torch.tensor([[-1.0], [1.0], [-1.0], [1.0]])
        assert nearest_code(rows, codebook).tolist() == [0, 1]

    @pytest.mark.parametrize("size", [1, 7, 64, 257])
    @pytest.mark.parametrize(("base", "copies"), [(5, 1), (5, 3), (13, 2)])
    def test_finds_the_same_row_however_rows_are_cut_and_codes_are_repeated(
        self, base, copies, size
    ):
        """Between equal codes the last bit of a matrix product decides, so it is the row that must
        agree.
        """
        rows, codebook = torch.randn(257, 8), torch.randn(base, 8)
        whole, repeated = nearest_code(rows, codebook), codebook.repeat(copies, 1)
        cut = torch.cat([nearest_code(part, repeated) for part in rows.split(size)])
        assert torch.equal(cut % base, whole)

    @pytest.mark.parametrize("k", [1, 63, 64, 65, 200, 1000])
    def test_chunks_and_lanes_of_any_fill(self, k, monkeypatch):
        """Rows that fill no chunk and codes that fill no lane, and the lowest of equal codes
        however far apart.
        """
        monkeypatch.setattr(nearest, "LEAST_ROWS", 7)
        monkeypatch.setattr(nearest, "CPU_SCORES", 1)
        self.check(torch.randn(40, 8), torch.randn(k, 8))
        # whole numbers, so that every score is exact and equal codes are equal to the last bit
        codebook = torch.randint(-2, 3, (k, 2)).float()
        rows = torch.randint(-3, 4, (40, 2)).float()
        distances = (rows[:, None] - codebook).square().sum(-1)
        assert torch.equal(nearest_code(rows, codebook), distances.argmin(1))

    @pytest.mark.parametrize("poison", [torch.nan, torch.inf])
    def test_a_row_that_is_not_finite_gets_some_code(self, poison):
        """The step is refused by its loss, in words; an index out of range would be an error
        without any.
        """
        rows = torch.randn(5, 3)
        rows[2, 1] = poison
        codes = nearest_code(rows, torch.randn(70, 3))
        assert ((codes >= 0) & (codes < 70)).all()

    @pytest.mark.parametrize(("m", "k"), [(4096, 512), (16384, 512), (4096, 4096)])
    def test_memory_is_that_of_a_chunk(self, m, k):
        """Never M·K scores at once: the largest tensor is a chunk, the rows or the codebook."""
        with LargestTensor() as largest:
            nearest_code(torch.empty(m, 4), torch.empty(k, 4))
        assert (
            largest.numel <= max(nearest.CPU_SCORES, nearest.LEAST_ROWS * k, 4 * m, 4 * k) < m * k
        )

    @pytest.mark.parametrize("offset", [0.0, 1e3])
    @pytest.mark.parametrize("scale", [1e-2, 1.0, 1e4])
    def test_a_code_is_nearest_to_itself(self, scale, offset):
        codebook = scale * torch.randn(64, 8) + offset
        assert torch.equal(nearest_code(codebook, codebook), torch.arange(64))


class TestForward:
    def test_straight_through(self, quantizer, rows):
        """The gradient of f(z) reaches z_e as if nothing stood between, and the codebook not at
        all.
        """
        module = make(quantizer)
        h = as_h(rows).requires_grad_()
        z = module(h).z
        z.retain_grad()
        z.pow(3).sum().backward()
        assert torch.equal(h.grad, z.grad)
        assert module.codebook.grad is None

    def test_z_is_the_nearest_code(self, quantizer, rows):
        module = make(quantizer)
        latent = module(as_h(rows))
        torch.testing.assert_close(latent.z, module.codes_to_latents(latent.codes))
        assert torch.equal(latent.codes.flatten(), nearest_code(rows, module.codebook.detach()))

    def test_beta_weighs_the_commitment_only(self, quantizer, rows):
        """Penalty by hand: the codebook's gradient does not depend on beta, the encoder's is linear
        in it.
        """
        for beta in (0.0, 0.25, 2.0):
            torch.manual_seed(1)
            module = make(quantizer, commitment=beta)
            h = as_h(rows).requires_grad_()
            latent = module(h)
            (latent.penalty + 0 * h.sum()).backward()
            z_q = module.codebook.detach()[latent.codes.flatten()]
            distance = F.mse_loss(rows, z_q)
            n = rows.numel()
            has_gradient = isinstance(module.codebook, torch.nn.Parameter)
            torch.testing.assert_close(latent.penalty.detach(), (beta + has_gradient) * distance)
            torch.testing.assert_close(latent.logs["commitment"], distance)
            torch.testing.assert_close(h.grad[:, :, 0, 0], beta * 2 * (rows - z_q) / n)
            if has_gradient:
                analytic = torch.zeros(K, D, dtype=torch.float64)
                analytic.index_add_(0, latent.codes.flatten(), 2 * (z_q - rows) / n)
                torch.testing.assert_close(module.codebook.grad, analytic)

    def test_rate_is_the_uniform_priors(self, quantizer):
        """T log K nats, so log2 K bits per code."""
        rate = make(quantizer, k=8)(torch.randn(2, D, 5, 7, dtype=torch.float64)).rate
        torch.testing.assert_close(
            rate / 35 / np.log(2), torch.full((2,), 3.0, dtype=torch.float64)
        )

    def test_codes_are_in_the_places_of_their_features(self, quantizer):
        module = make(quantizer).eval()
        h = torch.randn(2, D, 3, 5, dtype=torch.float64)
        codes = module(h).codes
        for n, r, c in np.ndindex(codes.shape):
            assert codes[n, r, c] == nearest_code(h[n, :, r, c][None], module.codebook.detach())

    @pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
    def test_memory_layout_does_not_matter(self, quantizer, layout):
        module = make(quantizer).eval()
        h = torch.randn(2, D, 3, 5, dtype=torch.float64)
        expected, latent = module(h), module(h.contiguous(memory_format=layout))
        assert torch.equal(latent.codes, expected.codes)
        assert torch.equal(latent.z, expected.z)

    @pytest.mark.parametrize("offset", [0.0, 1e3])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_autocast_changes_no_code_and_no_average(self, quantizer, dtype, offset):
        """A nearest code chosen in bf16 is another code."""
        h = (torch.randn(16, D, 4, 4) + offset).to(dtype)
        codes, states = [], []
        for autocast in (False, True):
            torch.manual_seed(2)
            module = make(quantizer, k=64, dtype=torch.float32, initialized=False, reset_below=0.1)
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                codes.append(module(h if autocast else h.float()).codes)
                module.update()
            states.append(module.state_dict())
        assert torch.equal(*codes)
        assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
        assert all(
            value.dtype in (torch.float32, torch.bool, torch.int64) for value in states[1].values()
        )


class TestMovingAverage:
    @pytest.mark.parametrize(
        ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)]
    )
    @pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
    def test_the_moving_average_is_that_of_an_independent_loop(self, decay, dtype, tolerance):
        module = make(EMAVectorQuantizer, decay=decay, dtype=dtype)
        random = np.random.default_rng(0)
        codebook = module.codebook.double().numpy().copy()
        usage, sums = np.ones(K), codebook.copy()
        for _ in range(50):
            batch = random.normal(size=(20, D)).astype(np.float32)
            nearest = ((batch[:, None] - codebook) ** 2).sum(-1).argmin(1)
            batch_sums, counts = np.zeros((K, D)), np.zeros(K)
            for row, code in zip(batch, nearest, strict=True):
                batch_sums[code] += row
                counts[code] += 1
            usage = decay * usage + (1 - decay) * counts * K / 20  # 1 = the uniform share of a code
            sums = decay * sums + (1 - decay) * batch_sums * K / 20
            used = usage > 0
            codebook[used] = sums[used] / usage[used, None]
            step(module, torch.from_numpy(batch).to(dtype))
            np.testing.assert_allclose(module.usage, usage, rtol=0, atol=tolerance)
            np.testing.assert_allclose(module.codebook, codebook, rtol=0, atol=tolerance)

    def test_without_decay_a_code_is_the_mean_of_its_batch(self, rows):
        module = make(EMAVectorQuantizer, k=4, decay=0.0)
        codes = module(as_h(rows)).codes.flatten()
        before = module.codebook.clone()
        module.update()
        for k in range(4):
            chosen = rows[codes == k]
            torch.testing.assert_close(
                module.codebook[k], chosen.mean(0) if len(chosen) else before[k]
            )

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_an_unused_code_stays(self, dtype):
        module = make(EMAVectorQuantizer, dtype=dtype, decay=0.5)
        before = module.codebook.clone()
        target = before[:1].expand(50, -1)
        for _ in range(1000):  # long enough for the usage to underflow
            step(module, target)
        assert ((module.codebook - before).norm(dim=1) < 1e-4 * before.norm(dim=1)).all()

    @pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
    def test_no_code_leaves_the_ball(self, decay):
        """A weighted mean of the first codebook and of data cannot be longer than the longest of
        them.
        """
        module = make(EMAVectorQuantizer, k=32, decay=decay, dtype=torch.float32)
        largest = module.codebook.norm(dim=1).max()
        for i in range(50):
            batch = torch.randn(16, D) * (1 + i % 5)
            largest = torch.maximum(largest, batch.norm(dim=1).max())
            step(module, batch)
            assert module.codebook.norm(dim=1).max() <= largest * (1 + 1e-3)

    @pytest.mark.parametrize("decay", [0.0, 0.9])
    def test_usage_is_the_average_share(self, quantizer, decay, rows):
        module = make(quantizer, decay=decay)
        for _ in range(5):
            codes = module(as_h(rows)).codes.flatten()
            expected = decay * module.usage + (1 - decay) * torch.bincount(codes, minlength=K) * (
                K / len(rows)
            )
            module.update()
            torch.testing.assert_close(module.usage, expected)
        torch.testing.assert_close(module.usage.sum(), torch.tensor(K, dtype=torch.float64))


class TestUpdate:
    @staticmethod
    def state(module):
        return {name: value.clone() for name, value in module.state_dict().items()}

    def test_twice_without_a_forward_pass_is_once(self, quantizer, rows):
        module = make(quantizer, reset_below=0.5)
        step(module, rows)
        before = self.state(module)
        module.update()
        assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())

    @pytest.mark.parametrize("reset_below", [0.0, 0.9])
    def test_accumulated_passes_are_one_large_pass(self, quantizer, rows, reset_below):
        states = []
        for parts in (1, 2, 4):
            torch.manual_seed(3)
            module = make(quantizer, reset_below=reset_below)
            for _ in range(3):
                for part in rows.chunk(parts):
                    module(as_h(part))
                module.update()
            states.append(self.state(module))
        for other in states[1:]:
            for name, value in states[0].items():
                torch.testing.assert_close(other[name], value, rtol=0, atol=1e-12)

    def test_forward_alone_changes_nothing(self, quantizer, rows):
        module = make(quantizer)
        before = self.state(module)
        module(as_h(rows))
        assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())

    def test_evaluation_leaves_nothing_to_update(self, quantizer, rows):
        """The sanity check of a trainer must neither initialise the codebook nor count (C7)."""
        module = make(quantizer, initialized=False, reset_below=0.9).eval()
        before = self.state(module)
        for _ in range(2):
            step(module, rows)
        assert not module.initialized
        assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())

    def test_validation_between_accumulated_passes_does_not_count(self, quantizer, rows):
        states = []
        for validates in (False, True):
            torch.manual_seed(3)
            module = make(quantizer)
            module(as_h(rows))
            if validates:
                module.eval()(as_h(10 * rows))
                module.train()
            module.update()
            states.append(self.state(module))
        assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


class TestAge:
    """Steps since a code was last used, by an independent count."""

    @pytest.mark.parametrize("parts", [1, 2])
    def test_counts_steps_without_use(self, quantizer, parts):
        module = make(quantizer, decay=0.5)
        random, expected = np.random.default_rng(0), np.zeros(K, dtype=int)
        for _ in range(30):
            codes = random.integers(0, K, 2)
            for part in module.codebook.detach()[codes].chunk(parts):
                assert set(module(as_h(part)).codes.flatten().tolist()) <= set(codes.tolist())
            module.update()
            used = np.isin(np.arange(K), codes)
            expected = np.where(used, 0, expected + 1)
            assert module.age.tolist() == expected.tolist()
            assert module.diagnostics()["oldest_code"] == expected.max()
        assert expected.max() > 1

    def test_a_moved_code_is_new(self, quantizer, rows):
        module = make(quantizer, decay=0.0, reset_below=0.1)
        module.codebook.data[3:] += 1e3
        module.age.fill_(7)
        step(module, rows)
        assert not module.age.any()


class TestReset:
    @pytest.fixture
    def module(self, quantizer):
        """Codes 3, 4, 5 are far from all data, and with no memory (decay 0) dead after one step."""
        module = make(quantizer, decay=0.0, reset_below=0.1)
        module.codebook.data[3:] += 1e3
        return module

    def test_a_dead_code_moves_onto_a_row(self, module, rows):
        step(module, rows)
        reset = module.codebook.detach()[3:]
        distances = (reset[:, None] - rows).abs().sum(-1)  # 3,M
        assert (distances.min(1).values == 0).all()
        assert (module.usage[3:] == 1).all()

    def test_the_next_pass_finds_the_code_where_its_seed_is(self, module, rows):
        step(module, rows)
        seeds = module.codebook.detach()[3:].clone()
        latent = module(as_h(seeds))
        assert torch.equal(module.codebook[latent.codes.flatten()], seeds)

    def test_counts_and_sums_are_reset_with_the_code(self, rows):
        module = make(EMAVectorQuantizer, decay=0.0, reset_below=0.1)
        module.codebook[3:] += 1e3
        step(module, rows)
        assert torch.equal(module.sums[3:], module.codebook[3:])
        module.decay = 0.99  # from here on an unused code must stay at its seed
        seeds = module.codebook[3:].clone()
        step(module, rows[:1])
        unused = (module.usage[3:] - 0.99).abs() < 1e-9
        assert unused.any()
        torch.testing.assert_close(module.codebook[3:][unused], seeds[unused])

    def test_living_codes_stay(self, rows):
        module = make(VectorQuantizer, decay=0.0, reset_below=0.1)
        before = module.codebook.detach().clone()
        codes = module(as_h(rows)).codes
        module.update()
        living = torch.bincount(codes.flatten(), minlength=K) * K / len(rows) >= 0.1
        assert living.any()
        assert torch.equal(module.codebook.detach()[living], before[living])

    def test_0_means_never(self, quantizer, rows):
        module = make(quantizer, decay=0.0, reset_below=0.0)
        module.codebook.data[3:] += 1e3
        before = module.codebook.detach()[3:].clone()
        step(module, rows)
        assert torch.equal(module.codebook.detach()[3:], before)

    def test_gradient_history_is_kept(self, rows):
        """The optimizer holds the parameter: a reset writes into it."""
        module = make(VectorQuantizer, decay=0.0, reset_below=0.9)
        parameter = module.codebook
        module(as_h(rows)).penalty.backward()
        module.update()
        assert module.codebook is parameter
        assert parameter.requires_grad
        assert parameter.grad is not None


class TestKMeans:
    @staticmethod
    def lloyd(rows, centres, iterations):
        for _ in range(iterations):
            nearest = ((rows[:, None] - centres) ** 2).sum(-1).argmin(1)
            centres = np.stack(
                [
                    rows[nearest == k].mean(0) if (nearest == k).any() else centres[k]
                    for k in range(len(centres))
                ]
            )
        return centres

    @pytest.mark.parametrize(("m", "k"), [(200, 8), (30, 30), (7, 1)])
    def test_k_means_is_lloyds_algorithm(self, m, k):
        rows = torch.randn(m, D, dtype=torch.float64)
        torch.manual_seed(5)
        centres = kmeans(rows, k, iterations=6)
        torch.manual_seed(5)
        start = rows[torch.randperm(m)[:k]]
        np.testing.assert_allclose(
            centres, self.lloyd(rows.numpy(), start.numpy(), 6), rtol=0, atol=1e-10
        )

    def test_k_means_starts_at_repeated_rows_if_there_are_too_few(self):
        rows = torch.randn(5, D, dtype=torch.float64)
        centres = kmeans(rows, 20)
        assert centres.shape == (20, D)
        assert torch.isfinite(centres).all()

    def test_never_raises_the_distortion(self, rows):
        def distortion(iterations):
            torch.manual_seed(5)
            centres = kmeans(rows, K, iterations)
            return (rows - centres[nearest_code(rows, centres)]).square().sum()

        distortions = [distortion(i) for i in range(6)]
        assert all(after <= before for before, after in itertools.pairwise(distortions))

    @pytest.mark.parametrize("passes", [1, 2, 4])
    def test_the_first_training_step_sets_the_codebook_once(self, quantizer, rows, passes):
        module = make(quantizer, initialized=False)
        for part in rows.chunk(passes):
            module(as_h(part))
        torch.manual_seed(5)
        module.update()
        torch.manual_seed(5)
        centres = kmeans(rows, K)
        assert module.initialized
        assert torch.equal(module.codebook.detach(), centres)
        assert (module.usage == 1).all()
        step(module, rows + 1)  # a step of learning
        assert (module.codebook - centres).abs().max() < (centres + 1 - centres).max()

    def test_a_loaded_codebook_is_not_initialised_again(self, quantizer, rows):
        trained = make(quantizer, initialized=False)
        step(trained, rows)
        module = make(quantizer, initialized=False)
        module.load_state_dict(trained.state_dict())
        module(as_h(10 * rows))
        assert torch.equal(module.codebook, trained.codebook)

    def test_a_codebook_that_is_loaded_as_it_began_begins_again(self, quantizer, rows):
        module = make(quantizer, initialized=False)
        fresh = copy.deepcopy(module.state_dict())
        step(module, rows)
        module(as_h(10 * rows))  # seen, and not learned from
        module.load_state_dict(fresh)
        module(as_h(rows))
        torch.manual_seed(5)
        module.update()
        torch.manual_seed(5)
        assert module.initialized
        assert torch.equal(module.codebook.detach(), kmeans(rows, K))

    def test_moving_averages_start_at_the_centres(self, rows):
        module = make(EMAVectorQuantizer, initialized=False)
        step(module, rows)
        assert torch.equal(module.sums, module.codebook)
        assert (module.usage == 1).all()


def test_usage_of_the_codes_of_a_pass(quantizer, rows):
    """Perplexity stands between 1 and the number of codes used, whatever the codebook."""
    module = make(quantizer).eval()
    usage = CodebookUsage(K)
    codes = module(as_h(rows)).codes
    usage.update(codes)
    values = usage.compute()
    assert values["codes_used"] == len(codes.unique())
    assert 1 <= values["perplexity"] <= values["codes_used"]
