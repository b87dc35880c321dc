"""The walk of a run through the commands that a user types: train, evaluate, sample, compare."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from vqvae_lightning import cli
from vqvae_lightning.config import merge_overrides, plugins
from vqvae_lightning.training.runs import Run

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "adding.md"
PARTS = ROOT / "experiments" / "parts"
EXAMPLE = re.compile(r"^## (?:A|An) ([^\n]+)\n(?:(?!^## ).)*?^```python\n(.*?)^```$", re.M | re.S)
SMALL = [
    "trainer.accelerator=cpu",
    "trainer.steps=2",
    "trainer.validate_every=2",
    "trainer.log_every=1",
    "data.batch_size=20",
    "data.eval_batch_size=30",
    "data.validation_size=40",
]


@dataclass(frozen=True)
class Walked:
    """A run after train, evaluate, sample and compare."""

    run: Run
    printed: str  # by all commands
    page: str  # the comparison's HTML

    def test(self, name: str) -> float:
        """A measure of the test split, as run.json has it."""
        return float(self.run.record.test[f"test/{name}"])

    def pictures(self) -> set[str]:
        return {path.stem for path in self.run.pictures()}


def vqvae(*words: str) -> None:
    """A command, which like a new process knows no file of own parts but those that it names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plugins, "_named", [])
        cli.main(words)


def finish(
    place: Path,
    path: Path,
    evaluate: tuple[str, ...],
    sample: tuple[str, ...],
    named: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
) -> Walked:
    """A trained run, evaluated, sampled, and compared with the tokenizer of `place`.

    `named` are the words, of every command, that name files of own parts.
    """
    page = path.parent / "page.html"
    vqvae("evaluate", str(path), *evaluate, *named)
    vqvae("sample", str(path), "n=10", *sample, *named)
    vqvae("compare", str(path), str(place / "runs" / "tokenizer"), f"out={page}", *named)
    return Walked(Run.open(path), capsys.readouterr().out, page.read_text())


def train(place: Path, runs: Path, file: Path, *settings: str) -> Path:
    """The run folder of `vqvae train`, of a few steps."""
    words = merge_overrides(SMALL, [f"data.root={place / 'data'}", f"runs={runs}"], settings)
    vqvae("train", str(file), *words)
    (name,) = [word.partition("=")[2] for word in words if word.startswith("name=")]
    return runs / name


def experiment(kind: str) -> Path:
    """The experiment file of a kind of run."""
    return ROOT / "experiments" / "mnist" / f"{kind}.yaml"


def example(section: str) -> dict[str, Any]:
    """The names that the code of a section of docs/adding.md defines."""
    found: dict[str, Any] = {}
    exec(compile(dict(EXAMPLE.findall(PAGE.read_text("utf-8")))[section], str(PAGE), "exec"), found)
    return found
