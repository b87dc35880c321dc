"""Every named sampler draws from what it says; interpolation and completion keep what they were
given.
"""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import fake_data
import numpy as np
import pytest
import small
import torch
import untrained
from PIL import Image

from vqvae_lightning import cli
from vqvae_lightning.config import ConfigError, SampleOptions
from vqvae_lightning.data.images import to_float
from vqvae_lightning.data.rows import spread
from vqvae_lightning.evaluation import completion, densities, examples, samplers, show
from vqvae_lightning.evaluation.densities import TrainLatents, fit_gaussian, fit_mixture
from vqvae_lightning.evaluation.samplers import draw, samplers_of
from vqvae_lightning.evaluation.subject import Subject
from vqvae_lightning.kinds import KINDS
from vqvae_lightning.pictures import Grid
from vqvae_lightning.training.build import build
from vqvae_lightning.training.runs import Run

NAMES = {
    "ae": ["normal", "gaussian", "mixture"],
    "vae": ["normal", "mixture"],
    "vqvae": ["uniform", "unigram"],
    "prior": ["prior"],
}
ALL = [(kind, name) for kind, known in NAMES.items() for name in known]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Generated data in place of MNIST, and a finished, untrained run of every kind: kind → Run."""
    root = tmp_path_factory.mktemp("samplers")
    with untrained.workplace(root):
        found = {kind: make_run(root, kind) for kind in small.KINDS}
        words = ["model.network.name=masked", "name=masked"]
        found["masked"] = make_run(root, "prior", *words)
        words = ["model.class_conditional=false", "name=plain"]
        yield {**found, "plain": make_run(root, "prior", *words)}


def make_run(root: Path, kind: str, *more: str) -> Run:
    return untrained.make_run(root, kind, *more, change=spread_codes)


def spread_codes(module, root: Path) -> None:
    """Puts a codebook where the encoder's outputs are, as training would, so that images differ in
    their codes.
    """
    if module.kind != "vqvae":
        return
    net = module.net
    x = torch.from_numpy(fake_data.images(32, 2)[0])[:, None].float() / 127.5 - 1
    with torch.no_grad():
        rows = net.encoder(x).movedim(1, -1).flatten(0, 2)
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
        net.bottleneck.reset_codes(torch.ones(16, dtype=torch.bool), rows[order[:16]])


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


class TestSamplers:
    @pytest.mark.parametrize("kind", NAMES)
    def test_a_kind_offers_its_samplers_the_default_first(self, kind):
        assert samplers_of(KINDS[kind]) == NAMES[kind]

    @pytest.mark.parametrize(("kind", "name"), ALL)
    def test_every_sampler_gives_images(self, runs, kind, name):
        images = draw(Subject(runs[kind]), name, SampleOptions(n=7))
        assert images.shape == (7, 1, 28, 28)
        assert images.dtype == torch.float32
        assert -1 <= images.min() < images.max() <= 1

    @pytest.mark.parametrize(("kind", "name"), ALL)
    def test_a_seed_gives_one_result_whatever_was_drawn_before(self, runs, kind, name):
        same, again, other = (
            draw(Subject(runs[kind]), name, SampleOptions(n=5, seed=seed, temperature=5.0))
            for seed in (1, 1, 2)
        )
        assert torch.equal(same, again)
        assert not torch.equal(same, other)

    @pytest.mark.parametrize(
        ("kind", "name"), [(k, n) for k, n in ALL if n in ("normal", "uniform", "prior")]
    )
    def test_those_that_are_not_fitted_read_no_images(self, runs, kind, name):
        subject = Subject(runs[kind])
        draw(subject, name, SampleOptions(n=2))
        assert not {"images", "codes", "train_latents"} & vars(subject).keys()

    def test_the_default_is_what_the_module_draws_by_itself(self, runs):
        for kind in ("ae", "vae", "vqvae"):
            subject = Subject(runs[kind])
            (name,) = samplers.sampler_names(runs[kind].experiment(), None)
            net = subject.net
            torch.manual_seed(3)
            expected = net.sample(6)
            assert torch.equal(draw(subject, name, SampleOptions(n=6, seed=3)), expected)

    def test_parts_are_one_whole(self, runs, monkeypatch):
        subject = Subject(runs["ae"])
        whole = draw(subject, "gaussian", SampleOptions(n=7))
        monkeypatch.setattr(samplers, "BATCH", 3)
        parts = draw(subject, "gaussian", SampleOptions(n=7))
        torch.testing.assert_close(whole, parts, rtol=0, atol=1e-5)

    def test_a_row_per_class_or_the_class_that_is_named(self):
        options = SampleOptions(n=7, columns=3)
        assert samplers.labels_of(options, 10).tolist() == [0, 0, 0, 1, 1, 1, 2]
        assert samplers.labels_of(replace(options, label=4), 10).tolist() == [4] * 7


class TestTrainLatents:
    def test_training_latents_are_those_of_images_from_all_over_unaugmented(
        self, runs, monkeypatch
    ):
        monkeypatch.setattr(densities, "TRAIN_IMAGES", 50)  # within a batch: 30 and 20
        subject = Subject(runs["ae"])
        data, _ = build(runs["ae"].experiment())
        data.setup()
        with torch.no_grad():
            pixels = data.splits["train"].take(spread(50, len(data.splits["train"])))
            expected = subject.net.encode(to_float(pixels)).z
        torch.testing.assert_close(subject.train_latents.encoded[0], expected)

    def test_all_of_them_where_there_are_fewer(self, runs):
        subject = Subject(runs["vqvae"])
        codes = subject.train_latents.codes
        assert codes.shape == (280, *subject.net.grid)
        assert len(codes.unique()) > 4

    def test_training_latents_of_a_vae_are_samples_and_leave_the_random_state(self, runs):
        subject = Subject(runs["vae"])
        torch.manual_seed(0)
        before = torch.random.get_rng_state()
        z = subject.train_latents.encoded[0]  # which loads the module and the images, too
        assert torch.equal(torch.random.get_rng_state(), before)
        assert torch.equal(TrainLatents(subject.net, subject.images).encoded[0], z)
        data, _ = build(runs["vae"].experiment())
        data.setup()
        with torch.no_grad():
            mean = subject.net.encode(data.references("train", 280)).mean
        spread = (z - mean).std()  # an untrained encoder says σ ≈ 1
        assert 0.5 < spread < 2

    def test_a_grid_too_large_for_a_covariance_has_the_other_samplers(self, runs, tmp_path):
        root = Path(runs["ae"].experiment().data.root).parent
        run = make_run(
            root,
            "ae",
            "name=ae-grid",
            "model.latent=grid",
            "model.latent_dim=11",
            f"runs={tmp_path}",
        )
        with pytest.raises(
            ConfigError, match="of 539 latent numbers is too large, wanted at most 512"
        ):
            cli.sample([str(run.path), "sampler=gaussian", "n=2"])
        assert cli.sample([str(run.path), "sampler=all", "n=2"]).name == "samples-normal.png"
        assert not (run.images / "samples-mixture.png").exists()
        assert samplers.sampler_names(run.experiment(), "all", ["other"]) == ["normal", "other"]

    @pytest.mark.parametrize("kind", ["ae", "vae", "vqvae"])
    def test_the_size_of_a_latent_is_that_of_the_module(self, runs, kind):
        net = Subject(runs[kind]).net
        size = math.prod((net.bottleneck.out_channels, *net.grid))
        assert samplers.latent_size(runs[kind].experiment()) == (0 if kind == "vqvae" else size)

    def test_a_small_grid_is_one_row(self, runs, tmp_path):
        root = Path(runs["ae"].experiment().data.root).parent
        run = make_run(
            root,
            "ae",
            "name=ae-grid",
            "model.latent=grid",
            "model.latent_dim=2",
            f"runs={tmp_path}",
        )
        subject = Subject(run)
        net, train = subject.net, subject.train_latents
        assert train.rows.shape == (280, 2 * 7 * 7)
        expected = samplers.decode(net, train.encoded[0][:3])
        torch.testing.assert_close(samplers.decode_rows(net, train.rows[:3]), expected)
        assert draw(subject, "gaussian", SampleOptions(n=2)).shape == (2, 1, 28, 28)


class TestFits:
    def test_a_gaussian_is_recovered(self):
        torch.manual_seed(0)
        mean = torch.tensor([3.0, -1.0, 0.5], dtype=torch.float64)
        factor = torch.tensor([[2.0, 0, 0], [1.0, 0.5, 0], [-1.0, 0.3, 0.1]], dtype=torch.float64)
        rows = mean + torch.randn(50_000, 3, dtype=torch.float64) @ factor.T
        fit = fit_gaussian(rows)
        torch.testing.assert_close(fit.means[0], mean, rtol=0, atol=0.05)
        torch.testing.assert_close(
            fit.factors[0] @ fit.factors[0].T, factor @ factor.T, rtol=0.03, atol=0.03
        )
        sample = fit.sample(50_000)
        torch.testing.assert_close(sample.mean(0), rows.mean(0), rtol=0, atol=0.05)
        torch.testing.assert_close(sample.T.cov(), rows.T.cov(), rtol=0.03, atol=0.03)

    def test_a_dimension_that_never_varies_stays_put(self):
        rows = torch.randn(100, 3, dtype=torch.float64)
        rows[:, 1] = 4.0
        sample = fit_gaussian(rows).sample(50)
        torch.testing.assert_close(sample[:, 1], torch.full((50,), 4.0, dtype=torch.float64))

    def test_one_dimension(self):
        assert fit_gaussian(torch.randn(100, 1, dtype=torch.float64)).sample(5).shape == (5, 1)

    def test_fewer_rows_than_dimensions(self):
        rows = torch.randn(10, 40, dtype=torch.float64)
        sample = fit_gaussian(rows).sample(2000)
        torch.testing.assert_close(sample.T.cov(), rows.T.cov(), rtol=0, atol=0.35)

    def test_a_mixture_stays_near_its_blobs(self):
        torch.manual_seed(0)
        blobs = torch.tensor([[-10.0, 0.0], [10.0, 5.0]], dtype=torch.float64)
        which = (torch.arange(2000) >= 500).long()  # a quarter, three quarters
        rows = blobs[which] + 0.3 * torch.randn(2000, 2, dtype=torch.float64)
        for components in (2, 10):
            sample = fit_mixture(rows, components).sample(4000)
            distance, nearest = torch.cdist(sample, blobs).min(1)
            assert distance.max() < 2  # one Gaussian would fill the 20 between them
            assert abs((nearest == 1).double().mean() - 0.75) < 0.03

    def test_the_fit_has_a_seed_of_its_own(self):
        rows = torch.randn(300, 3, dtype=torch.float64)
        torch.manual_seed(1)
        one = fit_mixture(rows, 3)
        torch.manual_seed(2)
        assert torch.equal(one.means, fit_mixture(rows, 3).means)

    def test_unigram_codes_have_the_train_histogram_in_every_place(self, runs, monkeypatch):
        subject = Subject(runs["vqvae"])
        seen, bottleneck, train = [], subject.net.bottleneck, subject.train_latents
        decode = bottleneck.codes_to_latents
        monkeypatch.setattr(
            bottleneck, "codes_to_latents", lambda codes: seen.append(codes) or decode(codes)
        )
        draw(subject, "unigram", SampleOptions(n=400))
        (codes,) = seen
        assert codes.shape == (400, 7, 7)
        expected = torch.bincount(train.codes.flatten(), minlength=16).double()
        for drawn in (codes, codes[:, 0, 0], codes[:, 3, 3]):
            observed = torch.bincount(drawn.flatten(), minlength=16).double()
            assert chi_square_p(observed, drawn.numel() * expected / expected.sum()) > 1e-4


def chi_square_p(observed, expected):
    """P(a larger statistic) of Pearson's test, with the cells of expectation below 5 merged into
    one.
    """
    assert (observed[expected == 0] == 0).all()
    small = expected < 5
    observed, expected = (
        torch.cat([x[~small], x[small].sum()[None]]) for x in (observed, expected)
    )
    kept = expected > 0
    statistic = ((observed - expected).square()[kept] / expected[kept]).sum()
    return torch.special.gammaincc((kept.sum() - 1) / 2, statistic / 2)


class TestInterpolation:
    @pytest.mark.parametrize("kind", ["ae", "vae"])
    def test_ends_are_reconstructions_between_originals(self, runs, kind):
        subject = Subject(runs[kind])
        net = subject.net
        images, columns, *_ = show.interpolation(subject, SampleOptions(n=30, columns=10))
        assert images.shape == (3 * columns, 1, 28, 28)
        rows = images.unflatten(0, (3, columns))
        with torch.no_grad():
            for original, end in ((rows[:, 0], rows[:, 1]), (rows[:, -1], rows[:, -2])):
                reconstruction = net.decode(net.encode(original).mean)
                torch.testing.assert_close(end, reconstruction, rtol=0, atol=1e-5)

    def test_the_latents_lie_on_a_line_in_equal_steps(self, runs, monkeypatch):
        net = Subject(runs["ae"]).net
        monkeypatch.setattr(net, "decode", lambda z, label=None: z)
        left, right = torch.rand(2, 3, 1, 28, 28) * 2 - 1
        z = show.interpolate(net, left, right, 5)[..., 0, 0]  # 3,5,D
        steps = z.diff(dim=1)
        torch.testing.assert_close(steps, steps[:, :1].expand_as(steps), rtol=1e-4, atol=1e-5)

    def test_pairs_are_of_two_classes_and_change_with_the_seed(self, runs):
        data, classes = Subject(runs["ae"]).images, torch.tensor([0, 1, 1, 11])
        images, labels = examples.examples(data, classes, 0)
        assert labels.tolist() == [0, 1, 1, 1]
        assert len(images.flatten(1).unique(dim=0)) == 4
        assert torch.equal(images, examples.examples(data, classes, 0)[0])
        assert not torch.equal(images, examples.examples(data, classes, 1)[0])

    def test_repeats_images_of_a_class_that_has_too_few(self, runs):
        data = Subject(runs["ae"]).images
        images, labels = examples.examples(data, torch.zeros(20, dtype=torch.int64), 0)
        assert set(labels.tolist()) == {0}
        assert len(images.flatten(1).unique(dim=0)) == 7  # of 64 generated test images


class TestCompletion:
    def complete(self, runs, **settings):
        seen: dict[str, Any] = {}
        subject = Subject(runs["prior"])
        tokenizer: Any = subject.prior.first_stage
        decode = tokenizer.decode
        options = SampleOptions(n=20, columns=10, **settings)
        with mock.patch.object(
            tokenizer,
            "decode",
            lambda codes, label=None: seen.update(codes=codes) or decode(codes),
        ):
            images, columns, *_ = completion.completion(subject, options)
        return (
            subject.prior,
            images.unflatten(0, (2, columns)),
            seen["codes"].unflatten(0, (2, columns - 2)),
        )

    def test_the_upper_codes_are_those_of_the_masked_image(self, runs):
        module, rows, codes = self.complete(runs)
        kept = module.tokenizer.encode(rows[:, 1])[:, : 3 * 7]
        assert torch.equal(
            codes[:, :, : 3 * 7], kept[:, None].expand(-1, completion.COMPLETIONS, -1)
        )
        assert len(codes[0].unique(dim=0)) > 1  # the rest is drawn
        assert len(kept.unique(dim=0)) == 2  # and each row has its own image

    def test_a_row_is_original_masked_and_completions(self, runs):
        module, rows, codes = self.complete(runs)
        original, masked = rows[:, 0], rows[:, 1]
        assert torch.equal(masked[:, :, :14], original[:, :, :14])
        assert (masked[:, :, 14:] == -1).all()
        assert torch.equal(rows[:, 2:].flatten(0, 1), module.tokenizer.decode(codes.flatten(0, 1)))

    def test_nothing_below_the_cut_reaches_the_codes(self, runs, monkeypatch):
        module, rows, codes = self.complete(runs)
        whole = module.tokenizer.encode(rows[:, 0])[:, : 3 * 7]
        # unmasked, the upper codes do see below the cut
        assert not torch.equal(whole, codes[:, 0, : 3 * 7])
        found = examples.examples

        def other_below(*arguments):
            x, labels = found(*arguments)
            x[:, :, 14:] = torch.rand_like(x[:, :, 14:]) * 2 - 1
            return x, labels

        monkeypatch.setattr(completion, "examples", other_below)
        _, _, changed = self.complete(runs)
        assert torch.equal(codes, changed)

    def test_the_label_chooses_the_images(self, runs, monkeypatch):
        labels = []
        found = examples.examples
        monkeypatch.setattr(
            completion, "examples", lambda *a: labels.append(a[1].tolist()) or found(*a)
        )
        self.complete(runs)
        self.complete(runs, label=7)
        assert labels == [[0, 1], [7, 7]]

    def test_background_of_colours_is_the_mean_of_what_is_seen(self):
        x = torch.rand(2, 3, 5, 4)
        hidden = (torch.arange(5) >= 2)[None, :, None].expand(2, 5, 4)
        masked = completion.hide(x, hidden)
        assert torch.equal(masked[:, :, :2], x[:, :, :2])
        torch.testing.assert_close(
            masked[:, :, 2:], x[:, :, :2].mean((2, 3), keepdim=True).expand(2, 3, 3, 4)
        )


class TestInpainting:
    def fill(self, runs, **settings):
        """Original, masked image and 4 fillings of 4 images, and the codes of the fillings."""
        seen: dict[str, Any] = {}
        subject = Subject(runs["masked"])
        tokenizer: Any = subject.prior.first_stage
        decode = tokenizer.decode
        options = SampleOptions(n=40, columns=10, **settings)
        with mock.patch.object(
            tokenizer,
            "decode",
            lambda codes, label=None: seen.update(codes=codes) or decode(codes),
        ):
            images, columns, *_ = completion.inpainting(subject, options)
        return tokenizer, images.unflatten(0, (4, columns)), seen["codes"].unflatten(0, (4, -1))

    def test_codes_outside_of_the_hole_are_kept_and_those_in_it_are_drawn(self, runs):
        tokenizer, rows, codes = self.fill(runs)
        assert tokenizer.layout.grid == (7, 7)
        kept = tokenizer.encode(rows[:, 1])  # of the masked image
        changed = (codes != kept[:, None]).any(1).view(4, 7, 7)
        for i, cells in enumerate(changed):
            where = cells.nonzero()
            low, high = where.min(0).values, where.max(0).values
            assert (high - low < 3).all()  # a hole of 3×3
            assert cells.any()
            if i % 2 == 0:  # in the middle
                assert (low >= 2).all()
                assert (high <= 4).all()
        assert len(codes[0].unique(dim=0)) > 1

    def test_what_is_hidden_of_an_image_is_the_hole(self, runs):
        _, rows, _ = self.fill(runs)
        original, masked = rows[:, 0, 0], rows[:, 1, 0]
        assert (masked[0, 8:20, 8:20] == -1).all()
        outside = torch.ones(28, 28, dtype=torch.bool)
        outside[8:20, 8:20] = False
        assert torch.equal(masked[0][outside], original[0][outside])

    def test_the_holes_that_are_anywhere_are_a_function_of_the_seed(self, runs):
        masked = [self.fill(runs, seed=seed)[1][1, 1] == -1 for seed in (0, 0, 1, 2, 3)]
        assert torch.equal(masked[0], masked[1])
        assert any(not torch.equal(masked[0], other) for other in masked[2:])


class TestCommand:
    @pytest.mark.parametrize("kind", NAMES)
    def test_all_writes_a_grid_for_each_as_if_it_were_named(self, runs, kind, capsys):
        run, names = runs[kind], NAMES[kind]
        cli.sample([str(run.path), "sampler=all", "n=4"])
        assert [line.split("/")[-1] for line in capsys.readouterr().out.splitlines()] == [
            f"samples-{name}.png" for name in names
        ]
        together = [(run.images / f"samples-{name}.png").read_bytes() for name in names]
        alone = [
            cli.sample([str(run.path), f"sampler={name}", "n=4"]).read_bytes() for name in names
        ]
        assert together == alone
        assert cli.sample([str(run.path), "n=4"]).read_bytes() == alone[0]
        assert len(set(together)) == len(names)

    def test_unusual_settings_are_in_the_name(self, runs):
        """So that a comparison, which shows samples-prior.png as the prior's, never shows those."""
        words = ["sampler=prior", "n=4", "temperature=0.5", "seed=3", "label=2"]
        assert (
            cli.sample([str(runs["prior"].path), *words]).name
            == "samples-prior-seed3-label2-temperature0.5.png"
        )
        assert (
            cli.sample([str(runs["prior"].path), *words[1:4]]).name
            == "samples-seed3-temperature0.5.png"
        )

    @pytest.mark.parametrize(
        ("kind", "show", "columns"),
        [
            ("vae", "interpolation", 12),
            ("prior", "completion", 6),
            ("masked", "completion", 6),
            ("masked", "inpainting", 6),
        ],
    )
    def test_grids_are_files_of_the_run(self, runs, kind, show, columns):
        run = runs[kind]
        words = [str(run.path), f"show={show}", "n=20"]
        path, again, other = (cli.sample([*words, f"seed={seed}"]) for seed in (0, 0, 1))
        assert path == again == run.images / f"{show}.png"
        assert other == run.images / f"{show}-seed1.png"
        assert pixels(path).shape == (2 * (2 * 30 + 2), 2 * (columns * 30 + 2))
        before = path.read_bytes()
        assert cli.sample(words).read_bytes() == before != other.read_bytes()

    def test_a_grid_that_is_added_can_be_asked_for(self, runs, monkeypatch, tmp_path):
        grey = show.Show(lambda *_: Grid(torch.zeros(2, 1, 28, 28), 2), lambda _: True)
        monkeypatch.setitem(show.SHOWS, "grey", grey)
        words = [str(runs["ae"].path), "show=grey", f"out={tmp_path / 'grey.png'}"]
        assert pixels(cli.sample(words)).shape == (2 * (30 + 2), 2 * (2 * 30 + 2))

    @pytest.mark.parametrize(
        ("kind", "words", "line"),
        [
            (
                "vae",
                ["sampler=mixtur"],
                "sampler: got 'mixtur', but a run of kind vae has normal, mixture;",
            ),
            ("vae", ["sampler=gaussian"], "but a run of kind vae has normal, mixture;"),
            ("vqvae", ["sampler=normal"], "but a run of kind vqvae has uniform, unigram;"),
            ("prior", ["sampler=mixture"], "but a run of kind prior has prior;"),
            (
                "ae",
                ["sampler=all", "out=x.png"],
                "out: got one file, but sampler=all draws 3 pictures",
            ),
            (
                "vqvae",
                ["show=interpolation"],
                "needs a run of kind ae or vae or ae_flow or vae_flow, got one of kind vqvae",
            ),
            (
                "prior",
                ["show=interpolation"],
                "needs a run of kind ae or vae or ae_flow or vae_flow, got one of kind prior",
            ),
            ("ae", ["show=completion"], "or ae_flow or vae_flow, got one of kind ae"),
            ("ae", ["show=interpolation", "sampler=normal"], "but show=interpolation has none"),
            ("ae", ["show=interpolation", "label=1"], "has no classes"),
            ("prior", ["show=completion", "label=10"], "label: got 10, wanted 0 to 9"),
            ("plain", ["label=3"], "label: got 3, but "),
            (
                "prior",
                ["show=inpainting"],
                "show: inpainting needs a prior that completes any mask, got one with"
                " model.network.name=transformer, wanted masked",
            ),
            ("ae", ["show=inpainting"], "or ae_flow or vae_flow, got one of kind ae"),
            (
                "prior",
                ["steps=4"],
                "steps: got 4, but this run is one with model.network.name=transformer, which"
                " has temperature, top_k, top_p, guidance",
            ),
            ("prior", ["order=random"], "order: got random, but this run"),
            (
                "ae",
                ["show=samplers"],
                "got 'samplers', wanted one of samples, interpolation, conversion, completion, in",
            ),
        ],
    )
    def test_mistakes_are_one_line_and_write_nothing(self, runs, kind, words, line, capsys):
        before = sorted(runs[kind].path.rglob("*"))
        with pytest.raises(SystemExit) as stop:
            cli.main(["sample", str(runs[kind].path), *words])
        error = capsys.readouterr().err.strip()
        assert stop.value.code == 2
        assert line in error
        assert "\n" not in error
        assert sorted(runs[kind].path.rglob("*")) == before
