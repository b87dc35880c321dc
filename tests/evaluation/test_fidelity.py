"""Distances are those of their papers, and every figure of a run stands beside the protocol it was
made by.
"""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import untrained
from scipy.linalg import sqrtm

from vqvae_lightning import cli
from vqvae_lightning.config import ConfigError, DataConfig, EvaluateOptions, SampleOptions
from vqvae_lightning.data import sources
from vqvae_lightning.data.dataset import Dataset
from vqvae_lightning.data.images import to_float, to_uint8
from vqvae_lightning.data.rows import spread
from vqvae_lightning.evaluation import distances as distances_module
from vqvae_lightning.evaluation import fidelity as module_under_test
from vqvae_lightning.evaluation.classifier import Classifier, ClassifierFeatures, classifier_path
from vqvae_lightning.evaluation.distances import covered, distances
from vqvae_lightning.evaluation.features import FeatureNetwork
from vqvae_lightning.evaluation.fidelity import (
    calibrate,
    check_fidelity,
    feature_network,
    fidelity,
)
from vqvae_lightning.evaluation.samplers import RECONSTRUCTION, draw
from vqvae_lightning.evaluation.subject import Subject
from vqvae_lightning.training.loading import load_run
from vqvae_lightning.training.runs import Run
from vqvae_lightning.verified import write_checkpoint

SAMPLERS = {
    "ae": ["normal", "gaussian", "mixture"],
    "vqvae": ["uniform", "unigram"],
    "prior": ["prior"],
}


class Quarters(FeatureNetwork):
    """Mean pixel of each quarter of an image."""

    name, size, weights, preprocessing = "quarters", 4, "0" * 64, "none"

    def __call__(self, images):
        return F.adaptive_avg_pool2d(images.float().mean(1, keepdim=True), 2).flatten(1) / 255


def normal(n, size=4, seed=0):
    return torch.randn(n, size, generator=torch.Generator().manual_seed(seed))


class TestDistances:
    @pytest.mark.parametrize("size", [1, 2, 5])
    def test_frechet_is_that_of_two_gaussians(self, size):
        mix = normal(size, size, 7) + torch.eye(size)
        a, b = normal(300, size, 1), normal(80, size, 2) @ mix + 3
        means = [x.double().numpy().mean(0) for x in (a, b)]
        covariances = [np.atleast_2d(np.cov(x.double().numpy().T)) for x in (a, b)]
        root = np.real(sqrtm(covariances[0] @ covariances[1]))
        expected = ((means[0] - means[1]) ** 2).sum() + np.trace(sum(covariances) - 2 * root)
        assert distances(a, b, kernel=False)["frechet"] == pytest.approx(expected, rel=1e-6)

    def test_distances_of_a_set_from_itself_are_those_of_no_difference(self):
        found = distances(normal(100), normal(100), kernel=False)
        assert found == pytest.approx({"frechet": 0, "precision": 1, "recall": 1}, abs=1e-5)

    def test_a_shift_adds_its_squared_norm(self):
        x, shift = normal(100), torch.tensor([3.0, 0, -4, 0.5])
        assert distances(x, x + shift, kernel=False)["frechet"] == pytest.approx(25.25, rel=1e-5)

    def test_distances_are_in_double_precision_far_from_zero(self):
        x = (normal(100) * 64).round() / 64 + 1000  # exact in float32
        assert distances(x, x + 0.5, kernel=False)["frechet"] == pytest.approx(4 * 0.25, rel=1e-4)

    @pytest.mark.filterwarnings("error")
    def test_kernel_distance_is_there_if_asked_for(self):
        assert distances(normal(20), normal(20, seed=1), kernel=False).keys() == {
            "frechet",
            "precision",
            "recall",
        }
        assert distances(normal(20), normal(20, seed=1), kernel=True).keys() >= {"kid", "kid_std"}

    def test_kernel_distance_is_the_unbiased_estimate(self):
        """With no more rows than a subset holds, every subset is the whole."""
        a, b = normal(12, 3, 1), normal(12, 3, 2) + 1

        def kernel(x, y):
            return (float(x.double() @ y.double()) / 3 + 1) ** 3

        within = sum(
            kernel(x[i], x[j]) for x in (a, b) for i in range(12) for j in range(12) if i != j
        ) / (12 * 11)
        across = sum(kernel(x, y) for x in a for y in b) / 144
        found = distances(a, b, kernel=True)
        assert found["kid"] == pytest.approx(within - 2 * across, rel=1e-6)
        assert found["kid_std"] == pytest.approx(0, abs=1e-8)

    def test_kernel_distance_of_two_halves_is_nothing_beside_a_shift(self, monkeypatch):
        monkeypatch.setattr(distances_module, "KID_SUBSET_SIZE", 100)
        x = normal(800)
        same, other = (distances(x[:400], x[400:] + shift, kernel=True)["kid"] for shift in (0, 1))
        assert abs(same) < 0.05 * other

    def test_kernel_distance_has_a_seed_of_its_own(self, monkeypatch):
        monkeypatch.setattr(distances_module, "KID_SUBSET_SIZE", 10)
        found = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            state = torch.random.get_rng_state()
            found.append(distances(normal(50), normal(40, seed=1), kernel=True))
            assert torch.equal(torch.random.get_rng_state(), state)
        assert found[0] == found[1]
        assert found[0]["kid_std"] > 0.01  # subsets do differ


class TestCovered:
    @pytest.mark.parametrize(("points", "manifold"), [(30, 40), (40, 30), (5, 3), (5, 2)])
    def test_coverage_is_the_share_within_a_ball_by_brute_force(
        self, points, manifold, monkeypatch
    ):
        monkeypatch.setattr(distances_module, "ROWS", 7)
        x, others = normal(points, 3, 1).double(), 0.8 * normal(manifold, 3, 2).double() + 0.3
        inside = 0
        for point in x:
            for i, centre in enumerate(others):
                near = sorted(
                    (centre - other).norm().item() for j, other in enumerate(others) if j != i
                )
                if (point - centre).norm() <= near[: min(3, len(near))][-1]:
                    inside += 1
                    break
        assert covered(x, others) == pytest.approx(inside / points)
        assert inside > 0 or points == 5

    def test_a_collapsed_sampler_is_precise_and_recalls_little(self):
        real = normal(200)
        found = distances(real, real[:1] + 1e-3 * normal(200, seed=1), kernel=False)
        assert found["precision"] == 1
        assert found["recall"] < 0.05

    def test_a_sampler_too_wide_is_the_reverse(self):
        found = distances(normal(200), 5 * normal(200, seed=1), kernel=False)
        assert found["precision"] < 0.3
        assert found["recall"] > 0.9


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Generated data in place of MNIST, and a finished, untrained run of every kind."""
    root = tmp_path_factory.mktemp("fidelity")
    with untrained.workplace(root):
        for kind in SAMPLERS:
            make_run(root, kind)
        yield root


def make_run(root: Path, kind: str, *more: str) -> Run:
    return untrained.make_run(root, kind, *more, change=strengthen)


def strengthen(module, root: Path) -> None:
    """Images of an untrained decoder are all but the same."""
    if module.kind != "prior":
        with torch.no_grad():
            for weight in module.net.parameters():
                weight *= 2


@pytest.fixture
def run(made, tmp_path):
    """kind → a Run without figures."""
    return lambda kind: Run(shutil.copytree(made / "runs" / kind, tmp_path / kind))


@pytest.fixture
def test_images(made):
    return torch.from_numpy(sources.load("mnist", made / "data", "test")[0])


def measure(run, *names, network=None, **options):
    """The figures of the named samplers, 20 samples each unless told otherwise."""
    given = {"fid_samples": 20, "root": run.experiment().data.root, **options}
    return fidelity(Subject(run), network or Quarters(), list(names), EvaluateOptions(**given))


def figures(run):
    return run.record.generation


@pytest.fixture
def forbid(monkeypatch):
    """Called, it makes an error of every image that is drawn or reconstructed from then on."""

    def refuse(*_):
        raise AssertionError("measured again")

    def forbid():
        monkeypatch.setattr(module_under_test, "draw", refuse)
        monkeypatch.setattr(module_under_test, "reconstructions", refuse)

    return forbid


class TestFigures:
    def test_stand_in_run_json_with_their_protocol(self, run):
        run = run("ae")
        found = measure(run, "normal", RECONSTRUCTION, seed=3)
        assert figures(run) == found
        for figure, sampler in zip(found, ("normal", RECONSTRUCTION), strict=True):
            protocol = {
                "sampler": sampler,
                "network": "quarters",
                "weights_sha256": "0" * 64,
                "preprocessing": "none",
                "samples": 20,
                "reference": "test",
                "reference_images": 64,
                "seed": 3,
                "checkpoint_sha256": hashlib.sha256(run.best.read_bytes()).hexdigest(),
            }
            assert figure.items() >= protocol.items()
            assert figure.keys() - protocol.keys() == {"frechet", "precision", "recall"}

    @pytest.mark.parametrize(
        ("kind", "sampler"), [("ae", "normal"), ("ae", "gaussian"), ("vqvae", "uniform")]
    )
    def test_figures_are_distances_of_what_the_sampler_draws(
        self, run, made, test_images, kind, sampler
    ):
        run, network = run(kind), Quarters()
        (figure,) = measure(run, sampler, seed=1, fid_samples=30)
        samples = draw(Subject(run), sampler, SampleOptions(n=30, seed=1))
        expected = distances(network(test_images), network(to_uint8(samples)), kernel=False)
        assert {key: figure[key] for key in expected} == pytest.approx(expected)

    def test_figures_of_a_reconstruction_are_those_of_test_images_from_all_over(
        self, run, test_images
    ):
        run, network = run("ae"), Quarters()
        (figure,) = measure(run, RECONSTRUCTION, fid_samples=40)  # batches hold 30
        net: Any = load_run(run).net
        with torch.no_grad():
            samples = to_uint8(
                net.decode(net.encode(to_float(test_images[spread(40, len(test_images))])).mean)
            )
        assert samples.float().std(0).max() > 5  # they do differ
        expected = distances(network(test_images), network(samples), kernel=False)
        assert {key: figure[key] for key in expected} == pytest.approx(expected)

    def test_figures_do_not_depend_on_what_was_measured_before(self, run):
        run = run("ae")
        names = ["normal", "gaussian", RECONSTRUCTION]
        forth = measure(run, *names)
        run.write(generation=[])
        torch.manual_seed(5)
        assert measure(run, *reversed(names)) == forth[::-1]

    def test_a_second_call_measures_nothing_again(self, run, forbid):
        run = run("ae")
        names = "normal", RECONSTRUCTION
        found = measure(run, *names)
        forbid()
        assert measure(run, *names) == found == figures(run)
        with pytest.raises(AssertionError, match="measured again"):
            measure(run, *names, seed=1)

    def test_figures_are_kept_one_by_one(self, run, monkeypatch):
        run = run("ae")
        monkeypatch.setattr(module_under_test, "reconstructions", None)  # not callable
        with pytest.raises(TypeError):
            measure(run, "normal", RECONSTRUCTION)
        assert [figure["sampler"] for figure in figures(run)] == ["normal"]

    @pytest.mark.parametrize(
        "other", [{"fid_samples": 21}, {"fid_reference": "train"}, {"seed": 1}]
    )
    def test_figures_by_another_protocol_stand_beside_the_first(self, run, other):
        run = run("ae")
        first, second = measure(run, "normal"), measure(run, "normal", **other)
        assert figures(run) == first + second
        assert first[0]["frechet"] != second[0]["frechet"]

    def test_figures_by_another_network_stand_beside_the_first(self, run):
        run, network = run("ae"), Quarters()
        network.weights = "1" * 64
        found = measure(run, "normal") + measure(run, "normal", network=network)
        assert figures(run) == found

    def test_figures_of_another_checkpoint_replace_all(self, run):
        run = run("ae")
        old, _ = measure(run, "normal", "gaussian")
        module = load_run(run)
        torch.nn.init.ones_(next(module.parameters()))
        state = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}
        write_checkpoint(run.best, {"run": run.record.id, **state})
        (new,) = measure(run, "normal")
        assert new["checkpoint_sha256"] != old["checkpoint_sha256"]
        assert figures(run) == [new]

    def test_keep_the_features_of_the_reference_beside_the_data(self, run, made):
        features = made / "data" / "features"
        shutil.rmtree(features, ignore_errors=True)
        measure(run("ae"), "normal", "gaussian")
        assert len(list(features.glob("*.npz"))) == 1
        measure(run("vqvae"), RECONSTRUCTION)
        assert len(list(features.glob("*.npz"))) == 1


class TestPrior:
    def test_a_prior_draws_the_labels_of_the_reference(self, run, made, monkeypatch):
        subject, seen = Subject(run("prior")), []
        prior: Any = subject.prior
        generate = prior.net.generate
        monkeypatch.setattr(
            prior.net,
            "generate",
            lambda n, labels, **k: seen.append(labels) or generate(n, labels),
        )
        options = EvaluateOptions(fid_samples=70, root=str(made / "data"))  # of 64 test images
        fidelity(subject, Quarters(), ["prior"], options)
        labels = torch.from_numpy(sources.load("mnist", made / "data", "test")[1])
        assert torch.equal(torch.cat(seen), torch.cat([labels, labels[spread(6, len(labels))]]))

    def test_a_prior_is_told_how_many_samples_show_their_class(self, run, made, tmp_path):
        torch.manual_seed(0)
        shape, root = (1, 28, 10), made / "data"
        path = classifier_path("mnist", root)
        write_checkpoint(
            path, {"shape": list(shape), "state_dict": Classifier(*shape).state_dict()}
        )
        network, prior = ClassifierFeatures(DataConfig(name="mnist"), root), run("prior")
        (figure,) = measure(prior, "prior", network=network, fid_samples=50)
        labels = torch.from_numpy(sources.load("mnist", root, "test")[1])[spread(50, 64)]
        samples = draw(Subject(prior), "prior", SampleOptions(n=50), labels)
        with torch.no_grad():
            expected = (network.module(samples).argmax(1) == labels).double().mean().item()
        assert figure["class_accuracy"] == pytest.approx(expected)
        assert "class_accuracy" not in measure(run("ae"), "normal", network=network)[0]
        unconditional = make_run(
            made, "prior", "model.class_conditional=false", f"runs={tmp_path}", "name=other"
        )
        assert "class_accuracy" not in measure(unconditional, "prior", network=network)[0]

    def test_a_prior_is_measured_as_it_is_asked_to_draw(self, run, made, test_images):
        run, network = run("prior"), Quarters()
        labels = torch.from_numpy(sources.load("mnist", made / "data", "test")[1])[spread(30, 64)]
        for settings in ({}, {"temperature": 3.0}, {"top_k": 2}):
            (figure,) = measure(run, "prior", network=network, fid_samples=30, **settings)
            samples = draw(Subject(run), "prior", SampleOptions(n=30, **settings), labels)
            expected = distances(network(test_images), network(to_uint8(samples)), kernel=False)
            assert {key: figure[key] for key in expected} == pytest.approx(expected)
            assert figure.items() >= settings.items()
        assert len(figures(run)) == 3

    def test_a_prior_without_a_label_has_no_class_to_show(self, made, tmp_path):
        torch.manual_seed(0)
        shape, root = (1, 28, 10), made / "data"
        state = Classifier(*shape).state_dict()
        write_checkpoint(
            classifier_path("mnist", root), {"shape": list(shape), "state_dict": state}
        )
        prior = make_run(made, "prior", "model.label_dropout=0.1", f"runs={tmp_path}", "name=other")
        (figure,) = measure(
            prior,
            "prior",
            network=ClassifierFeatures(DataConfig(name="mnist"), root),
            fid_samples=20,
            guidance=0.0,
        )
        assert figure["guidance"] == 0
        assert "class_accuracy" not in figure


class TestNames:
    @pytest.mark.parametrize("kind", SAMPLERS)
    def test_names_are_the_samplers_and_what_a_perfect_one_would_reach(self, run, kind):
        also = [] if kind == "prior" else [RECONSTRUCTION]
        run = run(kind)
        assert check_fidelity(run.experiment(), EvaluateOptions()) == []
        assert check_fidelity(run.experiment(), EvaluateOptions(fid_samples=64)) == [
            *SAMPLERS[kind],
            *also,
        ]
        for name in (*SAMPLERS[kind], *also):
            assert check_fidelity(
                run.experiment(), EvaluateOptions(fid_samples=64, sampler=name)
            ) == [name]

    @pytest.mark.parametrize(
        ("kind", "name"), [("ae", "unigram"), ("vqvae", "normal"), ("prior", RECONSTRUCTION)]
    )
    def test_samplers_of_another_kind_are_refused(self, run, kind, name):
        with pytest.raises(ConfigError, match=f"got '{name}', but a run of kind {kind} has "):
            check_fidelity(run(kind).experiment(), EvaluateOptions(fid_samples=2, sampler=name))

    def test_figures_without_samples_are_refused(self, run):
        with pytest.raises(
            ConfigError, match="sampler: got 'normal', but nothing is drawn with fid_samples=0"
        ):
            check_fidelity(run("ae").experiment(), EvaluateOptions(sampler="normal"))
        with pytest.raises(
            ConfigError, match=r"temperature: got 0\.5, but nothing is drawn with fid_samples=0"
        ):
            check_fidelity(run("prior").experiment(), EvaluateOptions(temperature=0.5))

    def test_figures_of_a_guidance_that_the_prior_did_not_learn_are_refused(self, run):
        with pytest.raises(
            ConfigError,
            match=r"guidance: got 2\.0, wanted 1: this run was trained with model\.label_drop",
        ):
            check_fidelity(run("prior").experiment(), EvaluateOptions(fid_samples=20, guidance=2.0))
        assert check_fidelity(
            run("ae").experiment(), EvaluateOptions(fid_samples=20, sampler="normal", guidance=2.0)
        ) == ["normal"]

    def test_figures_of_one_sample_are_refused(self, run):
        with pytest.raises(ConfigError, match="fid_samples: got 1, wanted 0, or at least 2"):
            check_fidelity(run("ae").experiment(), EvaluateOptions(fid_samples=1))

    def test_binary_pixels_are_not_compared_with_grey_ones(self, run):
        run = run("ae")
        settings = (run.path / "config.yaml").read_text()
        (run.path / "config.yaml").write_text(
            settings.replace("binarize: none", "binarize: static")
        )
        with pytest.raises(
            ConfigError, match=r"with data\.binarize=static, and real images are grey"
        ):
            check_fidelity(run.experiment(), EvaluateOptions(fid_samples=2))

    def test_more_reconstructions_than_test_images_are_refused_before_anything_is_measured(
        self, run
    ):
        run = run("ae")
        with pytest.raises(ConfigError, match="got 65, but there are only 64 test images"):
            check_fidelity(run.experiment(), EvaluateOptions(fid_samples=65))
        assert check_fidelity(
            run.experiment(), EvaluateOptions(fid_samples=65, sampler="normal")
        ) == ["normal"]

    def test_names_of_networks_give_what_is_at_hand(self, tmp_path, monkeypatch):
        monkeypatch.setattr(module_under_test, "Inception", Quarters)
        assert isinstance(
            feature_network(EvaluateOptions(), DataConfig(name="mnist"), tmp_path), Quarters
        )
        with pytest.raises(ConfigError, match="vqvae classifier dataset=cifar10"):
            feature_network(
                EvaluateOptions(fid_network="classifier"), DataConfig(name="cifar10"), tmp_path
            )


def test_evaluate_measures_every_sampler_and_prints_them(run, tmp_path, monkeypatch, capsys):
    run = run("ae")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module_under_test, "Inception", Quarters)
    cli.evaluate([str(run.path), "fid_samples=20"])
    assert [figure["sampler"] for figure in figures(run)] == [
        "normal",
        "gaussian",
        "mixture",
        RECONSTRUCTION,
    ]
    # in Inception's features it has a meaning
    assert all("kid" in figure for figure in figures(run))
    printed = " ".join(capsys.readouterr().out.split())
    for text in (
        *SAMPLERS["ae"],
        RECONSTRUCTION,
        "20 samples against the 64 test images",
    ):
        assert text in printed


class TestCalibration:
    @pytest.fixture
    def images(self, monkeypatch):
        """Noise in place of CIFAR-10, and of Inception a network that takes no time."""
        random = np.random.default_rng(0)
        images = {
            "train": random.integers(256, size=(60, 3, 32, 32), dtype=np.uint8),
            "test": random.integers(100, size=(40, 3, 32, 32), dtype=np.uint8),
        }
        monkeypatch.setattr(module_under_test, "prepare", lambda *_: None)
        labels = np.zeros(60, np.int64)
        arrays = {split: (some, labels[: len(some)]) for split, some in images.items()}
        monkeypatch.setattr(Dataset, "load", lambda dataset, root, split: arrays[split])
        monkeypatch.setattr(module_under_test, "Inception", Quarters)
        return images

    def test_another_distance_than_the_literatures_is_refused(self, images, tmp_path):
        real, found = (Quarters()(torch.from_numpy(images[split])) for split in ("test", "train"))
        got = distances(real, found, kernel=False)["frechet"]
        with pytest.raises(
            ValueError, match=rf"got a Fréchet distance of {got:.4f} .*, wanted 3\.15 ± 0\.02"
        ):
            calibrate(tmp_path, False)
        assert len(list((tmp_path / "features").glob("*.npz"))) == 2

    def test_that_of_the_literature_is_given_with_its_protocol(self, images, tmp_path, monkeypatch):
        real, found = (Quarters()(torch.from_numpy(images[split])) for split in ("test", "train"))
        expected = distances(real, found, kernel=True)
        monkeypatch.setattr(module_under_test, "CALIBRATED", expected["frechet"] + 0.019)
        assert calibrate(tmp_path, False).items() >= {**Quarters().identity, **expected}.items()
        monkeypatch.setattr(module_under_test, "CALIBRATED", expected["frechet"] - 0.021)
        with pytest.raises(ValueError, match="got a Fréchet distance"):
            calibrate(tmp_path, False)
