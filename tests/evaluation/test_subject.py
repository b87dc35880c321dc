"""A subject is opened once for a command, whatever is asked of it, and no further than asked."""

from typing import Any, Literal

import fake_data
import pytest
import pytorch_lightning as pl
import small
import torch
import torch.nn.functional as F
import untrained

from vqvae_lightning import cli
from vqvae_lightning.data import images, sources
from vqvae_lightning.data.dataset import Dataset
from vqvae_lightning.evaluation import fidelity
from vqvae_lightning.evaluation.features import FeatureNetwork
from vqvae_lightning.evaluation.subject import Subject
from vqvae_lightning.models import first_stage
from vqvae_lightning.training.runs import Run

IMAGES = ["fid_samples=20", "representation=true", "representation_images=200"]
BOUND = ["iwae_samples=2"]
EVERYTHING = {"ae": IMAGES, "vae": IMAGES + BOUND, "vqvae": IMAGES + BOUND, "prior": IMAGES[:1]}
READ = ["train", "test"]  # each of the published files once


class Quarters(FeatureNetwork):
    """Mean pixel of each quarter of an image."""

    name, size, weights, preprocessing = "quarters", 4, "0" * 64, "none"

    def __call__(self, images):
        return F.adaptive_avg_pool2d(images.float().mean(1, keepdim=True), 2).flatten(1) / 255


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Generated data in place of MNIST, and a finished, untrained run of every kind."""
    root = tmp_path_factory.mktemp("subject")
    with untrained.workplace_with(root, small.compared()):
        # The codes of the prior, which an evaluation finds as its training left them.
        assert Subject(Run(root / "runs" / "prior")).codes
        yield root


@pytest.fixture
def opened(monkeypatch):
    """What is read and built from now on, in order.

    A module on the meta device is not built: it has no weights, and is held against a checkpoint.
    """
    opened: dict[str, list[Any]] = {"read": [], "verified": [], "built": [], "fingerprints": []}

    def count(what, owner, name, told):
        real = getattr(owner, name)

        def counted(*arguments, **settings):
            if torch.get_default_device().type != "meta":
                opened[what].append(told(*arguments))
            return real(*arguments, **settings)

        monkeypatch.setattr(owner, name, counted)

    count("read", Dataset, "load", lambda dataset, root, split: split)
    count("verified", images, "prepare", lambda name, *_: name)
    count("built", pl.LightningModule, "__init__", lambda module, *_: module.kind)
    count("fingerprints", first_stage, "fingerprint", lambda _: "tokenizer")
    monkeypatch.setattr(fidelity, "Inception", Quarters)
    return opened


def once(kind):
    """The modules that a run of this kind is made of."""
    first_stages = {"prior": "vqvae", "ae_flow": "ae", "vae_flow": "vae"}
    return [kind, first_stages[kind]] if kind in first_stages else [kind]


@pytest.mark.parametrize("kind", EVERYTHING)
def test_an_evaluation_with_everything_reads_the_dataset_once_and_builds_the_module_once(
    made, opened, kind, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    cli.evaluate([str(made / "runs" / kind), *EVERYTHING[kind]])
    assert opened["read"] == READ
    assert opened["verified"] == ["mnist"]
    assert opened["built"] == once(kind)
    assert opened["fingerprints"] == (["tokenizer"] if kind in ("prior", "vqvae") else [])


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("ae", ["show=interpolation"]),
        ("prior", ["show=completion"]),
        ("ae", ["sampler=all"]),
        ("vqvae", ["sampler=all"]),
    ],
)
def test_pictures_read_the_dataset_once_and_build_the_module_once(made, opened, kind, settings):
    cli.sample([str(made / "runs" / kind), *settings, "n=10"])
    assert opened["read"] == READ
    assert opened["verified"] == ["mnist"]
    assert opened["built"] == once(kind)


@pytest.mark.parametrize("kind", small.compared())
def test_samples_of_the_own_prior_read_no_images(made, opened, kind):
    cli.sample([str(made / "runs" / kind), "n=10"])
    assert opened["read"] == opened["verified"] == []
    assert opened["built"] == once(kind)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("ae", ["evaluate", "iwae_samples=1"]),
        ("prior", ["evaluate", "representation=true"]),
        ("vae", ["evaluate", "representation=true", "representation_images=1000"]),
        ("vae", ["evaluate", "fid_samples=1"]),
        ("vae", ["evaluate", "sampler=normal"]),
        ("vqvae", ["sample", "show=interpolation"]),
        ("vqvae", ["sample", "sampler=normal"]),
    ],
)
def test_what_a_run_cannot_have_is_refused_before_anything_is_opened(made, opened, kind, words):
    command, *settings = words
    with pytest.raises(SystemExit) as stop:
        cli.main([command, str(made / "runs" / kind), *settings])
    assert stop.value.code == 2
    assert not any(opened.values()), opened


def test_opening_leaves_the_random_state(made):
    subject = Subject(Run(made / "runs" / "prior"))
    before = torch.random.get_rng_state()
    assert subject.module
    assert subject.data
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_published_split_is_given_as_it_was_published(made):
    data = Subject(Run(made / "runs" / "ae")).images
    sizes: dict[Literal["train", "test"], int] = {"train": fake_data.TRAIN, "test": fake_data.TEST}
    for split, n in sizes.items():
        expected = map(torch.from_numpy, sources.load("mnist", made / "data", split))
        rows = data.published(split)
        for found, wanted in zip((rows.first(n), rows.labels), expected, strict=True):
            assert len(found) == n
            assert found.dtype == wanted.dtype
            assert torch.equal(found, wanted)
