"""Accuracies on latents: 1 where classes lie apart, chance where they do not, and the same numbers
twice.
"""

from pathlib import Path

import fake_data
import numpy as np
import pytest
import small
import torch

from vqvae_lightning import cli
from vqvae_lightning.config import DataConfig
from vqvae_lightning.data.images import ImageDataModule
from vqvae_lightning.evaluation.representation import accuracies, latents, representation
from vqvae_lightning.models.build import build_autoencoder

SIZES = {"ae": 4, "vae": 4, "vqvae": 4 * 7 * 7}


@pytest.fixture(scope="module", autouse=True)
def data_root(tmp_path_factory):
    """Generated images in place of MNIST."""
    root, threads = tmp_path_factory.mktemp("images"), torch.get_num_threads()
    torch.set_num_threads(1)
    with fake_data.installed(root):
        yield root
    torch.set_num_threads(threads)


@pytest.fixture
def data(data_root):
    module = ImageDataModule(
        DataConfig(root=str(data_root), batch_size=20, eval_batch_size=30, validation_size=40), 0
    )
    module.setup()
    return module


@pytest.fixture(params=SIZES)
def kind(request):
    return request.param


@pytest.fixture
def net(kind):
    torch.manual_seed(0)
    return build_autoencoder(small.model_config(kind, "model.latent_dim=4"), (1, 28, 28))


def clusters(n, spread, seed):
    """n latents (n, 5) of 3 classes around far corners, and their labels."""
    random = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    return (10 * np.eye(5)[labels] + spread * random.normal(size=(n, 5))).astype(np.float32), labels


def test_classes_that_lie_apart_are_told_apart():
    assert accuracies(*clusters(90, 0.1, 0), *clusters(60, 0.1, 1)) == {
        "probe_accuracy": 1,
        "knn_accuracy": 1,
    }


def test_labels_that_say_nothing_are_guessed():
    (train, labels), (z, _) = clusters(300, 1e3, 0), clusters(600, 1e3, 1)
    found = accuracies(train, labels, z, np.random.default_rng(2).integers(0, 3, 600))
    assert all(0.2 < value < 0.47 for value in found.values())


def test_only_neighbours_see_what_no_line_divides():
    """XOR: no linear probe does better than three of four corners."""
    random = np.random.default_rng(0)
    corners = random.integers(0, 2, (400, 2))
    z, labels = (
        (corners + 0.05 * random.normal(size=(400, 2))).astype(np.float32),
        corners.sum(1) % 2,
    )
    found = accuracies(z[:200], labels[:200], z[200:], labels[200:])
    assert found["knn_accuracy"] == 1
    assert found["probe_accuracy"] < 0.8


def test_the_probe_does_not_depend_on_units_and_neighbours_do():
    (train, labels), (z, targets) = clusters(90, 4, 0), clusters(60, 4, 1)
    scale = np.array([1, 1000, 1, 1, 1], dtype=np.float32)
    plain, scaled = (
        accuracies(train, labels, z, targets),
        accuracies(scale * train, labels, scale * z, targets),
    )
    assert scaled["probe_accuracy"] == pytest.approx(plain["probe_accuracy"], abs=0.02)
    assert scaled["knn_accuracy"] < plain["knn_accuracy"]


def test_latents_are_the_means_in_order(kind, net, data):
    z, labels = latents(net, data, data.eval_loader("test"))
    assert z.shape == (fake_data.TEST, SIZES[kind])
    assert z.dtype == np.float32
    assert labels.tolist() == data.splits["test"].labels.tolist()
    expected = net.eval().encode(data.references("test", 64)).mean.flatten(1)
    np.testing.assert_allclose(z, expected.detach(), atol=1e-5)


def test_the_same_numbers_twice_and_above_chance(net, data):
    """Ten classes; even an untrained network keeps a bright bar's place."""
    first, again = (representation(net, data, "test", 200) for _ in range(2))
    assert first == again
    assert first["representation_images"] == 200
    assert 0.2 < first["probe_accuracy"] <= 1
    assert 0.2 < first["knn_accuracy"] <= 1


@pytest.fixture(scope="module")
def runs(data_root, tmp_path_factory):
    """A run of an autoencoder, and a prior on it."""
    root = tmp_path_factory.mktemp("representation")
    words = [
        "trainer.accelerator=cpu",
        "trainer.steps=1",
        "data.batch_size=20",
        "data.validation_size=40",
        f"data.root={data_root}",
        f"runs={root}",
    ]
    for kind in ("vqvae", "prior"):
        file = Path(__file__).parents[2] / "experiments" / "mnist" / f"{kind}.yaml"
        cli.main(["train", str(file), *words, *small.KINDS[kind], f"name={kind}"])
    return root


def test_evaluate_measures_it_on_demand_and_keeps_it(runs):
    from vqvae_lightning.training.runs import Run

    run = Run.open(runs / "vqvae")
    keys = {"test/probe_accuracy", "test/knn_accuracy", "test/representation_images"}
    measured = cli.evaluate([str(run.path), "representation=true", "representation_images=200"])
    assert keys <= measured.keys()
    assert not keys & cli.evaluate([str(run.path)]).keys()
    assert {key: run.record.test[key] for key in keys} == {key: measured[key] for key in keys}


@pytest.mark.parametrize(
    ("kind", "images", "line"),
    [
        ("prior", 200, "it sees codes, wanted an ae, vae or vqvae run"),
        (
            "vqvae",
            10_000,
            "representation_images: got 10000, but there are only 280 training images",
        ),
        ("vqvae", 5, "representation_images: got 5, wanted at least 10"),
    ],
)
def test_mistakes_are_one_line(runs, kind, images, line, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(
            ["evaluate", str(runs / kind), "representation=true", f"representation_images={images}"]
        )
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip()
    assert line in error
    assert "\n" not in error
