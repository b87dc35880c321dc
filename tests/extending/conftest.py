"""A place where parts from outside the package are tried by the commands that a user types.

Every toy of this folder is a class, or a record, and one line in a table, which monkeypatch takes
back. Nothing else of the package is changed. What more a toy needs is a fault of the package.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import small
from extending.walked import Walked, experiment, finish, train
from untrained import workplace


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with generated data and a trained VQ-VAE, `runs/tokenizer`.

    The datasets are themselves again afterwards, for tests of other folders.
    """
    root = tmp_path_factory.mktemp("extending")
    with workplace(root), pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        words = [*small.NETWORK, "model.quantizer.codebook_size=16", "model.latent_dim=8"]
        train(root, root / "runs", experiment("vqvae"), *words, "name=tokenizer")
    return root


@pytest.fixture
def place(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of `trained`, whose data are `mnist` for the time of a test."""
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with workplace(trained):
        yield trained


@pytest.fixture
def walk(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Walked]:
    """(experiment file, settings, evaluate=[…], sample=[…], named=[…]) → the run, after all four
    commands.
    """

    def walk(
        file: Path,
        *settings: str,
        evaluate: tuple[str, ...] = (),
        sample: tuple[str, ...] = (),
        named: tuple[str, ...] = (),
    ) -> Walked:
        path = train(place, tmp_path / "runs", file, *settings, *named, "name=toy")
        return finish(place, path, evaluate, sample, named, capsys)

    return walk
