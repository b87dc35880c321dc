"""The classifier that judges samples: moved images, a verified file, and labels it reads from its
own features.
"""

import hashlib
import os
from dataclasses import replace

import fake_data
import pytest
import torch

from vqvae_lightning.config import ClassifierOptions, ConfigError, DataConfig, SoundConfig
from vqvae_lightning.data import sources
from vqvae_lightning.data.images import to_float
from vqvae_lightning.evaluation import classifier
from vqvae_lightning.evaluation.classifier import (
    FEATURES,
    Classifier,
    ClassifierFeatures,
    classifier_path,
    train_classifier,
)
from vqvae_lightning.verified import CheckpointError, read_checkpoint, write_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader`")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Generated images in place of MNIST, in batches and a validation split that so few of them can
    fill.
    """
    root, threads = tmp_path_factory.mktemp("classifier"), torch.get_num_threads()
    torch.set_num_threads(1)
    with fake_data.installed(root), pytest.MonkeyPatch.context() as patch:
        small = {"batch_size": 32, "eval_batch_size": 30, "validation_size": 40}
        patch.setattr(classifier, "DataConfig", lambda **settings: DataConfig(**settings | small))
        yield root
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def trained(root):
    return train_classifier(ClassifierOptions(root=str(root), steps=2))


@pytest.fixture(scope="module")
def test_images(root):
    """uint8 images and their labels."""
    return tuple(map(torch.from_numpy, sources.load("mnist", root, "test")))


@pytest.mark.parametrize("shape", [(1, 28, 10), (3, 32, 100), (1, 64, 6), (3, 150, 2)])
def test_logits_of_every_class(shape):
    channels, side, classes = shape
    assert Classifier(*shape)(torch.rand(2, channels, side, side)).shape == (2, classes)


def test_training_leaves_a_verified_file(root, trained):
    path = classifier_path("mnist", root)
    assert trained.path == path
    assert trained.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert trained.sha256 in path.with_name("mnist.ckpt.sha256").read_text().split()
    checkpoint = read_checkpoint(path)
    assert checkpoint["shape"] == [1, 28, 10]
    assert checkpoint["test_accuracy"] == trained.test_accuracy
    assert checkpoint["options"]["steps"] == 2


def test_features_belong_to_the_file(root, trained, test_images):
    network = ClassifierFeatures(DataConfig(name="mnist"), root)
    assert network.identity == {
        "network": "classifier-mnist",
        "weights_sha256": trained.sha256,
        "preprocessing": ClassifierFeatures.preprocessing,
    }
    found = network(test_images[0])
    assert found.shape == (64, FEATURES) == (64, 128)
    assert torch.equal(network(test_images[0]), found)  # no dropout
    torch.testing.assert_close(network(test_images[0][5:7]), found[5:7], rtol=1e-4, atol=1e-5)


def test_accuracy_is_that_of_the_whole_network(root, trained, test_images):
    (images, labels), network = test_images, ClassifierFeatures(DataConfig(name="mnist"), root)
    with torch.no_grad():
        guesses = network.module(to_float(images)).argmax(1)
    for wanted in (labels, guesses, (guesses + 1) % 10):
        expected = (guesses == wanted).double().mean().item()
        assert network.accuracy(network(images), wanted) == pytest.approx(expected)
    assert network.accuracy(network(images), labels) == pytest.approx(trained.test_accuracy)


def test_the_seed_decides_the_weights(root, trained, tmp_path, monkeypatch):
    ours = read_checkpoint(trained.path)["state_dict"]
    monkeypatch.setattr(
        classifier, "classifier_path", lambda dataset, root: tmp_path / "other.ckpt"
    )
    same, other = (
        read_checkpoint(
            train_classifier(ClassifierOptions(root=str(root), steps=2, seed=seed)).path
        )["state_dict"]
        for seed in (0, 1)
    )
    assert all(torch.equal(same[name], ours[name]) for name in ours)
    assert not torch.equal(other["head.weight"], ours["head.weight"])


def test_steps_learn_the_labels(root, tmp_path, monkeypatch):
    monkeypatch.setattr(
        classifier, "classifier_path", lambda dataset, root: tmp_path / "other.ckpt"
    )
    # chance is 0.1
    assert train_classifier(ClassifierOptions(root=str(root), steps=10)).test_accuracy > 0.5


def test_one_that_was_not_trained_is_named_with_its_remedy(tmp_path):
    with pytest.raises(
        ConfigError, match=r"fashion_mnist\.ckpt; run `.*vqvae classifier dataset=fashion_mnist "
    ):
        ClassifierFeatures(DataConfig(name="fashion_mnist"), tmp_path)


def test_a_flipped_bit_is_refused(root, trained, tmp_path):
    (tmp_path / "classifiers").mkdir()
    for suffix in ("", ".sha256"):
        data = bytearray(trained.path.with_name(f"mnist.ckpt{suffix}").read_bytes())
        classifier_path("mnist", tmp_path).with_name(f"mnist.ckpt{suffix}").write_bytes(data)
    ClassifierFeatures(DataConfig(name="mnist"), tmp_path)  # a copy does
    data = bytearray(classifier_path("mnist", tmp_path).read_bytes())
    data[len(data) // 2] ^= 1
    classifier_path("mnist", tmp_path).write_bytes(data)
    with pytest.raises(CheckpointError, match="is damaged"):
        ClassifierFeatures(DataConfig(name="mnist"), tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [1, 10**9, 10]},
        {"shape": [3, 32, 10]},
        {"shape": None},
        {"state_dict": {}},
        {"state_dict": None},
        {"state_dict": {"head.weight": torch.zeros(2, 2)}},
    ],
)
def test_another_checkpoint_with_a_hash_is_refused_in_one_line(trained, tmp_path, change):
    write_checkpoint(classifier_path("mnist", tmp_path), read_checkpoint(trained.path) | change)
    with pytest.raises(CheckpointError, match=r"^checkpoint: .*mnist\.ckpt is ") as error:
        ClassifierFeatures(DataConfig(name="mnist"), tmp_path)
    assert "\n" not in str(error.value)


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_done(
    root, tmp_path, monkeypatch
):
    monkeypatch.setattr(os, "access", lambda folder, mode: False)
    monkeypatch.setattr(
        classifier, "ImageDataModule", lambda *_: pytest.fail("data were asked for")
    )
    with pytest.raises(
        ValueError,
        match=rf"^root: {tmp_path}/classifiers/mnist.ckpt cannot be made, for {tmp_path}",
    ):
        train_classifier(ClassifierOptions(root=str(tmp_path)))
    assert list(tmp_path.iterdir()) == []


def test_one_of_other_windows_is_refused(tmp_path):
    path, usual = classifier_path("fsdd-digit", tmp_path), DataConfig(name="fsdd")
    known = {"shape": [1, 64, 10], "state_dict": Classifier(1, 64, 10).state_dict()}
    window = {"rate": 8000, "bands": 64, "window": 512, "hop": 128, "frames": 64}
    write_checkpoint(path, {**known, "window": window})
    ClassifierFeatures(usual, tmp_path)
    finer = replace(usual, sound=SoundConfig(hop=64))
    with pytest.raises(CheckpointError, match=r"fsdd-digit\.ckpt is of window .*'hop': 128"):
        ClassifierFeatures(finer, tmp_path)
