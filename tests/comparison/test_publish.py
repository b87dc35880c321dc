"""A comparison in W&B: one offline run whose tables hold what the page shows, with pictures that
can be seen.
"""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import wandb
from own_process import command, environment, run_fork
from PIL import Image
from run_folders import write_run

from vqvae_lightning import cli

pytestmark = pytest.mark.wandb


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    root = tmp_path_factory.mktemp("published")
    (root / "home").mkdir()
    done = run_fork(  # in a process of its own: W&B reads its settings once
        command("publish_comparison", root), environment(HOME=str(root / "home")), cwd=root
    )
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("AT ")]
    return root, Path(line[3:])


def table(folder: Path, name: str) -> list[dict[str, Any]]:
    (file,) = folder.glob(f"files/media/table/compare/{name}*.json")
    content = json.loads(file.read_text())
    return [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]


def test_it_is_an_offline_run_that_can_be_synced_and_all_its_files_are_in_the_folder(published):
    root, folder = published
    assert folder.parent == root / "out" / "wandb"
    assert folder.name.startswith("offline-run-")
    assert list(folder.glob("run-*.wandb"))
    assert [path for path in (root / "home").rglob("*") if path.is_file()] == []


def test_the_results_hold_every_run_and_what_is_not_there_is_null(published):
    ae, vae = table(published[1], "results")
    assert (ae["run"], ae["kind"], ae["dataset"], ae["PSNR (dB)"]) == (
        "ae-run",
        "AE",
        "MNIST",
        24.0,
    )
    assert vae["PSNR (dB)"] == 20.0
    assert ae["Active units"] is None
    assert vae["Active units"] == 7


def test_the_samplers_hold_what_was_measured_and_what_was_only_drawn(published):
    measured, again, *drawn = table(published[1], "samplers")
    # a mixture that nobody drew has no picture
    assert (measured["samples"], again["samples"]) == (None, "Image")
    assert (measured["run"], measured["sampler"], measured["Fréchet distance"]) == (
        "vae-run",
        "mixture",
        8.0,
    )
    assert "10,000 samples" in measured["protocol"]
    assert [(row["run"], row["sampler"], row["Fréchet distance"]) for row in drawn] == [
        ("ae-run", "normal", None), ("vae-run", "normal", None),
    ]  # fmt: skip


def test_a_sampler_measured_by_other_settings_keeps_the_row_of_its_picture(published):
    """The picture shows the usual draws: not beside the figure of others, but it is not lost for
    them.
    """
    rows = json.loads((published[0] / "others.json").read_text())
    assert rows == [["normal, temperature 0.5", False], ["normal", True]]


def test_pictures_are_not_black(published):
    staged = [
        path.read_bytes() for path in (published[1].parent / "artifacts" / "staging").iterdir()
    ]
    pictures = [Image.open(io.BytesIO(data)) for data in staged if data.startswith(b"\x89PNG")]
    assert len(pictures) == 2 * 2 + 3  # of each run, and of each row of the samplers that has one
    assert all(picture.convert("L").getextrema() == (0, 255) for picture in pictures)


@pytest.mark.parametrize(
    "raised", [wandb.errors.CommError("no\nanswer"), OSError("full"), wandb.errors.UsageError("x")]
)
def test_a_comparison_that_wandb_does_not_take_is_one_line(raised, tmp_path, monkeypatch, capsys):
    def init(**_):
        raise raised

    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setattr(wandb, "teardown", lambda *_, **__: None)
    for name in ("WANDB_MODE", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_ERROR_REPORTING"):
        monkeypatch.setenv(name, "")
    write_run(tmp_path, "ae")
    cli.main(["compare", f"runs={tmp_path}", "wandb=true"])
    said = capsys.readouterr().out.splitlines()
    assert len([line for line in said if line.startswith("W&B: not used")]) == 1
    assert said[-1] == "W&B       not used"
    assert (tmp_path / "compare.html").is_file()
