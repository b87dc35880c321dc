"""What W&B is told: names by settings and variables, tables, histograms, captions; and that none of
it ends a training.
"""

import errno
import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from vqvae_lightning.config import to_dict
from vqvae_lightning.experiment import load_experiment
from vqvae_lightning.metrics.codebook import CodebookUsage
from vqvae_lightning.pictures import Grid
from vqvae_lightning.training import tracking
from vqvae_lightning.training.media import (
    MOST_BINS,
    TABLE_ROWS,
    code_histogram,
    pairs,
    reconstruction_table,
)
from vqvae_lightning.training.optimization import part_norms
from vqvae_lightning.training.runs import Run
from vqvae_lightning.training.tracking import RunWandbLogger, start_wandb, wandb_settings
from vqvae_lightning.training.wandb_names import project_name, run_names

pytestmark = pytest.mark.wandb

VARIABLES = {
    "WANDB_PROJECT": "of-env",
    "WANDB_NAME": "named by env",
    "WANDB_TAGS": "x, y",
    "WANDB_RUN_GROUP": "group of env",
    "WANDB_NOTES": "a note",
}


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def names(*settings: str) -> dict[str, Any]:
    record: Any = SimpleNamespace(name="of-the-folder")
    return run_names(load_experiment(None, ["kind=ae", *settings]), record)


def test_without_settings_and_variables_a_run_has_the_default_names() -> None:
    assert names() == {
        "project": "vqvae_lightning",
        "name": "of-the-folder",
        "group": "mnist",
        "tags": ["mnist", "ae"],
        "notes": None,
    }


def test_variables_win_over_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in VARIABLES.items():
        monkeypatch.setenv(name, text)
    assert names() == {
        "project": "of-env",
        "name": "named by env",
        "group": "group of env",
        "tags": ["mnist", "ae", "x", "y"],
        "notes": "a note",
    }


def test_settings_win_over_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in VARIABLES.items():
        monkeypatch.setenv(name, text)
    given = ("project=mine", "group=g", "tags=[t]")
    found = names("name=run-1", *(f"tracking.{setting}" for setting in given))
    assert (found["project"], found["group"]) == ("mine", "g")
    # the folder of a run that was given a name has it
    assert found["name"] == "run-1"
    assert found["tags"] == ["mnist", "ae", "t"]
    assert project_name("vqvae_lightning") == "vqvae_lightning"  # the default, but given


@pytest.mark.parametrize(
    ("variable", "text"),
    [("WANDB_PROJECT", "a/b"), ("WANDB_RUN_GROUP", "g" * 129), ("WANDB_TAGS", "t" * 65)],
)
def test_a_variable_that_wandb_refuses_is_left_out_after_one_line(
    variable: str, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = names()
    monkeypatch.setenv(variable, text)
    assert names() == usual
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"W&B: {variable} is left out (tracking.")
    assert os.environ[variable] == text  # asking for a name edits nothing


@pytest.mark.parametrize("fails", [False, True])
def test_wandb_starts_without_the_variables_that_it_refuses_and_they_are_back_afterwards(
    fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("WANDB_PROJECT", "a/b")
    monkeypatch.setenv("WANDB_TAGS", "x, y")
    seen: list[str | None] = []

    def start(settings: object) -> Any:
        seen.extend(os.environ.get(name) for name in ("WANDB_PROJECT", "WANDB_TAGS"))
        if fails:
            raise OSError("no server")
        return "a run"

    assert (start_wandb(start) is None) is fails
    assert seen == [None, "x, y"]
    assert os.environ["WANDB_PROJECT"] == "a/b"


@pytest.mark.parametrize("system", [False, True])
def test_one_setting_sends_load_and_console_and_never_host_user_and_git(
    system: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    settings = wandb_settings(system)
    assert settings.x_disable_stats is not system
    assert (settings.console == "off") is not system
    assert settings.x_disable_meta
    assert settings.disable_git
    assert settings.host == "-"
    assert not settings.save_code
    chosen = load_experiment(None, ["kind=ae", f"tracking.system={str(system).lower()}"])
    assert to_dict(chosen)["tracking"]["system"] is system


def grid(columns: int = 4) -> Grid:
    """Two rows of originals, -1, each above a row of reconstructions, 0."""
    rows = [torch.full((columns, 1, 6, 6), value) for value in (-1.0, 0.0, -1.0, 0.0)]
    return Grid(torch.cat(rows), columns, caption="said", is_pairs=True)


def test_a_table_has_originals_reconstructions_and_errors_of_the_first_images() -> None:
    originals, reconstructions = pairs(grid())
    assert (originals == -1).all()
    assert (reconstructions == 0).all()
    table = reconstruction_table(grid(columns=6))
    assert table.columns == ["image", "original", "reconstruction", "error", "mse"]
    assert len(table.data) == TABLE_ROWS
    number, original, reconstruction, error, mse = table.data[3]
    assert (number, mse) == (3, 1.0)
    inner = [picture.image.getpixel((8, 8)) for picture in (original, reconstruction, error)]
    assert inner == [0, 128, 128]  # black, grey, and an error of half the range


def test_a_histogram_counts_each_code_most_used_first() -> None:
    found = code_histogram(torch.tensor([[1, 5], [0, 3]]))
    assert found.histogram == [5, 3, 1, 0]
    assert found.bins == [0, 1, 2, 3, 4]


def test_a_histogram_of_many_codes_has_as_many_bins_as_wandb_takes_and_loses_none() -> None:
    counts = torch.arange(3 * MOST_BINS + 7)
    found = code_histogram(counts)
    assert len(found.histogram) == MOST_BINS
    assert sum(found.histogram) == counts.sum()


def test_counts_of_a_split_outlive_its_reset() -> None:
    usage = CodebookUsage(4)
    assert usage.measured is None
    usage.update(torch.tensor([0, 0, 3]))
    usage.compute()
    usage.reset()
    assert usage.measured is not None
    assert usage.measured.tolist() == [[2, 0, 0, 1]]


def test_norms_of_parts_make_up_the_norm_of_all() -> None:
    parts = {"encoder": nn.Linear(3, 3), "decoder": nn.Linear(3, 2), "bottleneck": nn.Identity()}
    parts["decoder"](parts["encoder"](torch.ones(2, 3))).sum().backward()
    found = part_norms(parts)
    assert set(found) == {"encoder", "decoder"}  # a part without gradients has no norm
    every = [p.grad for part in parts.values() for p in part.parameters() if p.grad is not None]
    total = sum(norm**2 for norm in found.values()) ** 0.5
    torch.testing.assert_close(total, nn.utils.get_total_norm(every))


class Failing:
    """A W&B run whose folder is on a full disk."""

    disabled, offline = False, True

    def log(self, values: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("broken", ["log", "table", "histogram", "image"])
def test_pictures_and_tables_that_wandb_cannot_take_end_nothing(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if broken in ("table", "histogram"):
        name = {"table": "reconstruction_table", "histogram": "code_histogram"}[broken]
        monkeypatch.setattr(tracking, name, fail)
    if broken == "image":
        monkeypatch.setattr("wandb.Image", fail)
    experiment = load_experiment(None, ["kind=ae", f"runs={tmp_path}", "name=run"])
    logger = RunWandbLogger(experiment, Run.create(experiment))
    taken: list[object] = []
    works = SimpleNamespace(disabled=False, offline=True, log=taken.append)
    logger._experiment = Failing() if broken == "log" else works  # type: ignore[assignment]
    for _ in range(2):
        logger.log_grid("val/reconstructions", grid(), Image.new("L", (4, 4)), step=3)
        logger.log_code_use("val/code_use", torch.tensor([1, 2]), step=3)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("W&B: failed (OSError: ")
    # What does not fail is logged: of four calls, those that make no table, or no histogram.
    assert len(taken) == {"log": 0, "table": 4, "histogram": 4, "image": 2}[broken]


def test_a_server_that_is_lost_is_asked_about_no_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        place = f"http://127.0.0.1:{gone.getsockname()[1]}"
    experiment = load_experiment(None, ["kind=ae", f"runs={tmp_path}", "name=run"])
    logger = RunWandbLogger(experiment, Run.create(experiment))
    taken: list[dict[str, object]] = []
    settings = SimpleNamespace(base_url=place)
    logger._experiment = SimpleNamespace(  # type: ignore[assignment]
        disabled=False, offline=False, settings=settings, log=taken.append
    )
    logger.log_grid("val/reconstructions", grid(), Image.new("L", (4, 4)), step=3)
    assert [next(iter(row)) for row in taken] == ["val/reconstructions"]
    assert capsys.readouterr().out.startswith("W&B: failed (ConnectionRefusedError")


def test_a_run_that_is_disabled_is_made_no_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []
    monkeypatch.setattr(tracking, "reconstruction_table", made.append)
    monkeypatch.setattr(tracking, "code_histogram", made.append)
    experiment = load_experiment(None, ["kind=ae", f"runs={tmp_path}", "name=run"])
    logger = RunWandbLogger(experiment, Run.create(experiment))
    logger._experiment = SimpleNamespace(disabled=True)  # type: ignore[assignment]
    logger.log_grid("val/reconstructions", grid(), Image.new("L", (4, 4)), step=3)
    logger.log_code_use("val/code_use", torch.tensor([1, 2]), step=3)
    assert made == []
