"""Evaluation writes to the run and to the user's own folder of data; what it cannot write it says
first.
"""

import os
import shutil
from pathlib import Path

import fake_data
import pytest
import torch
import untrained

from vqvae_lightning import cli
from vqvae_lightning.config import DataConfig
from vqvae_lightning.data import sources
from vqvae_lightning.data.images import data_of
from vqvae_lightning.data.sources import DataError
from vqvae_lightning.evaluation import evaluate as module_under_test
from vqvae_lightning.evaluation import fidelity
from vqvae_lightning.evaluation.evaluator import Evaluator
from vqvae_lightning.evaluation.evaluators import EVALUATORS
from vqvae_lightning.evaluation.features import FeatureNetwork
from vqvae_lightning.training.runs import Run

KINDS = ("vae", "vqvae", "prior")


class Corners(FeatureNetwork):
    """Means of two parts of an image."""

    name, size, weights, preprocessing = "corners", 2, "0" * 64, "none"

    def __call__(self, images):
        return torch.stack(
            [images[:, 0, :14].float().mean((1, 2)), images[:, 0, 14:].float().mean((1, 2))], 1
        )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Generated data in place of MNIST, and a finished, untrained run of every kind."""
    root = tmp_path_factory.mktemp("evaluate")
    with untrained.workplace_with(root, KINDS):
        yield root


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working folder, without a folder of data."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def run(made, tmp_path):
    """A VAE's run from somebody else: (where its record says that the data are) → Run."""

    def run(root):
        run = Run(shutil.copytree(made / "runs" / "vae", tmp_path / "vae"))
        text = (run.path / "config.yaml").read_text()
        (run.path / "config.yaml").write_text(
            text.replace(f"root: {made / 'data'}", f"root: {root}")
        )
        assert f"root: {root}\n" in (run.path / "config.yaml").read_text()
        return run

    return run


def tree(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


COMMANDS = {
    "evaluate": ["evaluate"],
    "sample": ["sample", "sampler=mixture", "n=4"],
    "interpolation": ["sample", "show=interpolation", "n=4"],
}


@pytest.fixture
def tried(here, run):
    """(command, root that the record names, settings) → what it ends with."""

    def tried(command, root, *settings):
        name, *rest = COMMANDS[command]
        return cli.main([name, str(run(root).path), *rest, *settings])

    return tried


@pytest.mark.parametrize("command", ["evaluate", "sample", "interpolation"])
def test_data_that_a_run_names_are_used_and_only_read(tried, made, here, command):
    before = tree(made / "data")
    tried(command, made / "data")
    assert tree(made / "data") == before
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("command", ["evaluate", "sample", "interpolation"])
@pytest.mark.parametrize(
    "there", ["nothing", "an empty folder", "files of its own", "part of the data"]
)
def test_nothing_is_made_where_a_run_says_that_data_are(
    tried, made, here, tmp_path, command, there
):
    fake_data.write(here / "data")  # the user's own
    named = tmp_path / "named"
    if there != "nothing":
        (named / "mnist").mkdir(parents=True)
    if there == "files of its own":
        (named / "mnist" / "notes.txt").write_text("mine")
    if there == "part of the data":
        shutil.copy(made / "data" / "mnist" / "t10k-labels-idx1-ubyte", named / "mnist")
    before, own = tree(named), tree(here)
    tried(command, named)
    assert tree(named) == before
    assert named.exists() == (there != "nothing")
    assert tree(here) == own


def test_data_that_a_run_names_and_that_differ_are_refused(tried, made, here, tmp_path, capsys):
    shutil.copytree(made / "data", tmp_path / "named")
    (tmp_path / "named" / "mnist" / "t10k-labels-idx1-ubyte").write_bytes(b"mine")
    before = tree(tmp_path / "named")
    with pytest.raises(SystemExit) as stop:
        tried("evaluate", tmp_path / "named")
    assert stop.value.code == 2
    assert "t10k-labels-idx1-ubyte differs" in capsys.readouterr().err
    assert tree(tmp_path / "named") == before


def test_features_are_kept_in_the_users_own_folder(made, here, run, monkeypatch):
    monkeypatch.setattr(fidelity, "feature_network", lambda *_: Corners())
    run, before = run(made / "data"), tree(made / "data")
    cli.main(["evaluate", str(run.path), "fid_samples=5"])
    assert tree(made / "data") == before
    assert len(list((here / "data" / "features").glob("*.npz"))) == 1
    run.write(generation=[])
    fake_data.write(here / "own")
    cli.main(["evaluate", str(run.path), "fid_samples=5", f"root={here / 'own'}"])
    assert len(list((here / "own" / "features").glob("*.npz"))) == 1


def test_the_root_of_data_is_the_given_one_then_the_runs_then_the_default(made, here):
    recorded = DataConfig(name="mnist", root=str(made / "data"))
    assert data_of(recorded, "own").root == "own"
    assert data_of(recorded, None) == DataConfig(
        name="mnist", root=str(made / "data"), download=False
    )
    assert data_of(DataConfig(name="mnist", root="gone"), None).root == "data"


class Brightness(Evaluator):
    """Mean pixel of the split, for `iwae_samples`: an evaluator of a user's own."""

    def asked(self, options):
        return options.iwae_samples > 0

    def refuses(self, plan, options):
        return None if plan.kind.stage == 1 else "iwae_samples: a prior sees no pixels"

    def measure(self, subject, options, known):
        rows = subject.images.splits[options.split]
        brightness = rows.first(len(rows)).double().mean().item()
        return {"brightness": brightness, "seen": float(len(known))}


@pytest.mark.parametrize("split", ["val", "test"])
def test_an_evaluator_that_is_added_is_asked_measured_and_kept(
    made, here, tmp_path, monkeypatch, split
):
    run = Run(shutil.copytree(made / "runs" / "vae", tmp_path / "vae"))
    before = run.record.test
    monkeypatch.setitem(EVALUATORS, "brightness", Brightness())
    assert f"{split}/brightness" not in cli.evaluate([str(run.path), f"split={split}"])
    measured = cli.evaluate([str(run.path), f"split={split}", "iwae_samples=1"])
    assert 0 < measured[f"{split}/brightness"] < 255
    assert measured[f"{split}/seen"] == len(measured) - 2
    kept = run.record.test
    assert kept == ({**kept, **measured} if split == "test" else before)
    with pytest.raises(SystemExit):
        cli.main(["evaluate", str(made / "runs" / "prior"), "iwae_samples=1"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", ["val", "test"])
def test_a_run_that_cannot_be_written_is_refused_before_anything_is_done(
    made, here, monkeypatch, capsys, kind, split
):
    closed, before = made / "runs" / kind, tree(made)
    real = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: not Path(path).is_relative_to(closed) and real(path, mode)
    )
    monkeypatch.setattr(module_under_test, "chosen", lambda *_: pytest.fail("it goes on"))
    with pytest.raises(SystemExit) as stop:
        cli.main(["evaluate", str(closed), f"split={split}", "iwae_samples=0"])
    assert stop.value.code == 2
    assert (
        capsys.readouterr().err
        == f"vqvae: run: {closed}/run.json cannot be made, for {closed} is no folder that can be"
        " written\n"
    )
    assert tree(made) == before


def test_a_prior_whose_codes_cannot_be_stored_is_refused_in_one_line(
    made, here, tmp_path, monkeypatch, capsys
):
    runs = shutil.copytree(made / "runs", tmp_path / "runs")
    codes = runs / "vqvae" / "codes"
    shutil.rmtree(codes, ignore_errors=True)
    real, closed = os.access, runs / "vqvae"
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != closed and real(path, mode))
    with pytest.raises(SystemExit) as stop:
        cli.main(["evaluate", str(runs / "prior")])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"vqvae: codes: {codes}")
    assert said.count("\n") == 1


def test_data_that_cannot_be_had_are_named_with_the_users_own_folder(
    tried, here, tmp_path, monkeypatch
):
    monkeypatch.setattr(cli, "main", lambda words: cli.COMMANDS[words[0]].run(words[1:]))
    with pytest.raises(DataError, match=f"place {here}/data/mnist/"):
        tried("evaluate", tmp_path / "named")
    assert sources.DATASETS["mnist"].sources == ()  # of the generated data: nothing can be fetched
    assert list(here.iterdir()) == []
