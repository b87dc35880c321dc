"""What the tests of many runs share."""

import fake_data
import pytest

from vqvae_lightning import cli
from vqvae_lightning.comparison import many


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """The words of every run, which is in this process in place of one of its own, and of generated
    images.
    """
    called = []

    def in_this_process(words, log):
        called.append(words)
        cli.main(words)
        return 0

    monkeypatch.setattr(many, "launch", in_this_process)
    with fake_data.installed(tmp_path / "data"):
        yield called


@pytest.fixture
def settings(tmp_path):
    """Of a run of two steps on those images."""
    return [
        "trainer.accelerator=cpu",
        "trainer.steps=2",
        "trainer.validate_every=1",
        "data.batch_size=20",
        "data.validation_size=40",
        f"data.root={tmp_path / 'data'}",
    ]
