"""A person's own images go through every command, as a published dataset does, to the same bits."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import fake_data
import numpy as np
import pytest
import small
import torch
from own_process import environment, run_fork
from PIL import Image

from vqvae_lightning import cli
from vqvae_lightning.config import ConfigError
from vqvae_lightning.training.runs import Run

SIZES = ("data.batch_size=20", "data.eval_batch_size=15", "data.validation_size=32")
TRAINING = (*small.TRAINER, *SIZES, "trainer.devices=1")


def train(root: Path, kind: str, name: str, *more: str) -> Run:
    (root / "empty.yaml").write_text("{}\n")
    places = (f"runs={root / 'runs'}", f"data.root={root / 'data'}", f"name={name}")
    words = (f"kind={kind}", *small.KINDS[kind], *TRAINING, *places, *more)
    cli.main(["train", str(root / "empty.yaml"), *words])
    return Run(root / "runs" / name)


def logged(run: Run) -> list[dict[str, float]]:
    rows = run.metrics()
    return [{k: v for k, v in row.items() if k != "train/images_per_second"} for row in rows]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A folder with generated images, published and as a user's own."""
    root = tmp_path_factory.mktemp("own")
    fake_data.write_own(root / "bars.npz")
    with fake_data.installed(root / "data"), pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        yield root


@pytest.mark.parametrize("kind", ["ae", "vae", "vqvae"])
def test_a_store_trains_to_the_bits_of_the_same_images_in_memory(place: Path, kind: str) -> None:
    path = f"data.path={place / 'bars.npz'}"
    published, own = train(place, kind, f"{kind}-mnist"), train(place, kind, f"{kind}-own", path)
    assert logged(own) == logged(published)
    assert own.record.test == published.record.test


def test_a_prior_of_own_images_learns_the_same_codes(place: Path) -> None:
    runs = []
    for name, path in (("mnist", ()), ("own", (f"data.path={place / 'bars.npz'}",))):
        tokenizer = train(place, "vqvae", f"tokenizer-{name}", *path)
        where = f"model.tokenizer={tokenizer.path}"
        runs.append(train(place, "prior", f"prior-{name}", where, *path))
    assert logged(runs[0]) == logged(runs[1])


@pytest.fixture(scope="module")
def walked(place: Path) -> tuple[Run, Run]:
    """A VQ-VAE and a prior on a folder of colour pictures that are no squares, of two classes."""
    for number, (pixels, label) in enumerate(zip(*fake_data.images(160, 0), strict=True)):
        folder = place / "our photos" / ("Äpfel" if label < 5 else "pears & plums")
        folder.mkdir(parents=True, exist_ok=True)
        colours = np.repeat(pixels[:, :, None], 3, axis=2)[:, :24]
        Image.fromarray(colours).save(folder / f"{number:03}.png")
    images = (f"data.path={place / 'our photos'}", "data.size=[20, 16]")
    made = train(place, "vqvae", "photos-vqvae", *images)
    return made, train(place, "prior", "photos-prior", *images)


def test_the_newest_tokenizer_of_these_images_is_taken(walked: tuple[Run, Run]) -> None:
    made, prior = walked
    assert prior.record.learned_from.run == made.name
    assert prior.record.learned_from.dims == 3 * 20 * 16


def test_a_record_says_what_the_images_are(walked: tuple[Run, Run]) -> None:
    record = walked[0].record
    assert record.own_images
    assert record.own_images.shape == [3, 20, 16]
    assert record.own_images.classes == ["pears & plums", "Äpfel"]
    assert record.dataset.startswith("our-photos-")
    assert list(record.data) == ["images-00000.bin"]
    config = walked[0].experiment().data
    assert config.fingerprint
    assert config.fingerprint[:8] == record.dataset[-8:]


def test_a_record_of_images_of_another_shape_is_refused(
    walked: tuple[Run, Run], tmp_path: Path
) -> None:
    tokenizer, _ = walked
    copied = Run(Path(shutil.copytree(tokenizer.path, tmp_path / "copied")))
    own = {**json.loads((copied.path / "run.json").read_text())["own_images"], "shape": [1, 9, 9]}
    copied.write(own_images=own)
    with pytest.raises(ConfigError, match=r"the shape of images is .*, wanted \[1, 9, 9\], as in "):
        copied.experiment()


def test_every_command_works_on_them(
    walked: tuple[Run, Run], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, prior = walked
    photos, root = f"path={place / 'our photos'}", f"root={place / 'data'}"
    cli.main(["classifier", photos, "size=[20, 20]", root, "steps=2"])
    cli.main(["evaluate", str(made.path), "representation=true", "representation_images=100"])
    cli.main(["evaluate", str(prior.path)])
    cli.main(["sample", f"runs={place / 'runs'}", photos, "n=4", "columns=2"])
    cli.main(["sample", str(prior.path), "show=completion", "n=4", "columns=2"])
    cli.main(["sample", str(made.path), "sampler=all", "n=4", "columns=2"])
    cli.main(["data", photos, "size=[20, 16]", root])
    capsys.readouterr()
    cli.main(["compare", f"runs={place / 'runs'}", photos])
    said = capsys.readouterr().out
    assert "our photos, 20×16" in said
    page = (place / "runs" / "compare.html").read_text()
    assert "our photos, 20×16" in page
    assert "in the order of the samples&#39; rows: pears &amp; plums, Äpfel." in page


def test_a_command_finds_the_newest_run_of_a_path(
    walked: tuple[Run, Run], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["evaluate", f"runs={place / 'runs'}", f"path={place / 'our photos'}"])
    assert str(walked[1].path) in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main(["evaluate", f"runs={place / 'runs'}", f"path={place / 'nowhere'}"])
    assert "there are no finished runs" in capsys.readouterr().err


def test_names_of_classes_stand_beside_the_rows_of_a_grid(walked: tuple[Run, Run]) -> None:
    with Image.open(walked[1].images / "samples.png") as picture:
        assert picture.width > 2 * (10 * (16 + 2) + 2)
        assert picture.height == 2 * (2 * (20 + 2) + 2)


def test_a_run_goes_on_with_the_images_that_it_was_trained_on(
    place: Path, walked: tuple[Run, Run]
) -> None:
    """Its path may hold others by now."""
    folder = place / "changing"
    shutil.copytree(place / "our photos", folder)
    images = (f"data.path={folder}", "data.size=[20, 16]")
    run = train(place, "ae", "changing", *images)
    next(folder.rglob("*.png")).unlink()
    cli.main(["train", f"resume={run.path}", "trainer.steps=9"])
    assert run.record.status == "finished"
    assert run.metrics()[-1]["step"] >= 8
    with pytest.raises(SystemExit) as stop:
        train(place, "ae", "changing", *images, "resume=auto", "trainer.steps=12")
    assert stop.value.code == 2


def test_every_training_says_what_of_the_path_it_does_not_see(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = place / "partly"
    shutil.copytree(place / "our photos", folder)
    (folder / "Äpfel" / "notes.txt").write_text("no image")
    for name in ("first", "second"):
        train(place, "ae", name, f"data.path={folder}", "data.size=[20, 16]")
        assert "1 file left out: 1 is no image (Äpfel/notes.txt)" in capsys.readouterr().out


def test_a_run_without_its_store_says_how_to_make_it(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(place, "ae", "lost", f"data.path={place / 'bars.npz'}")
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        cli.main(["evaluate", str(run.path), f"root={tmp_path}"])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert "by `vqvae data`" in said
    assert said.count("\n") == 1


WRONG = {
    "nothing there": ("data.path=nowhere", "nowhere"),
    "an empty folder": ("data.path=empty", "without images"),
    "another kind of file": ("data.path=notes.txt", "wanted a folder, .npy, .npz or .parquet"),
    "a size that is no number": ("data.size=abc", "data.size: got 'abc', wanted a whole number or"),
    "no square of that size": ("data.size=0", "wanted 1 to 4096 pixels"),
    "colours that are none": ("data.channels=2", "wanted 1 or 3"),
    "a share that is none": ("data.test_fraction=1", "below 1"),
    "sides that cannot be halved": ("data.size=30", "sides divisible by 4"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_bad_input_gets_a_line_and_no_run(
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    wrong: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("notes.txt").write_text("no image")
    setting, said = WRONG[wrong]
    path = [] if "path" in setting else [f"data.path={place / 'bars.npz'}"]
    with pytest.raises(SystemExit) as stop:
        train(tmp_path, "ae", "wrong", *path, setting)
    assert stop.value.code == 2
    errors = capsys.readouterr().err
    assert said in errors
    others = [line for line in errors.splitlines() if not line.startswith("stored ")]
    assert len(others) == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.dist
def test_two_ranks_learn_from_a_store_what_one_process_learns(place: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("{}\n")
    tests: list[dict[str, float]] = []
    for devices in (1, 2):
        words = [
            *("train", str(tmp_path / "empty.yaml"), "kind=vqvae", *small.KINDS["vqvae"]),
            *(*small.TRAINER, *SIZES, "trainer.precision=64-true", f"trainer.devices={devices}"),
            *(f"runs={tmp_path / 'runs'}", f"name={devices}"),
            f"data.path={place / 'bars.npz'}",
        ]
        program = Path(__file__).parent / "launch_fake.py"
        command = [sys.executable, str(program), str(tmp_path / "data"), *words]
        done = run_fork(command, environment(WANDB_MODE="disabled"))
        assert done.returncode == 0, done.stderr
        record = json.loads((tmp_path / "runs" / str(devices) / "run.json").read_text())
        tests.append(record["test"])
    for key, value in tests[0].items():
        assert torch.isclose(torch.tensor(value), torch.tensor(tests[1][key]), rtol=1e-6), key


def test_a_record_that_names_a_path_and_no_fingerprint_is_refused_unread(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(place, "ae", "strange", f"data.path={place / 'bars.npz'}")
    file, secret = run.path / "config.yaml", place / "secret"
    secret.mkdir()
    lines = [
        "  fingerprint: null" if "fingerprint" in line else line
        for line in file.read_text().splitlines()
    ]
    file.write_text("\n".join(lines).replace(str(place / "bars.npz"), str(secret)) + "\n")
    for command in ("train", "config"):
        with pytest.raises(SystemExit) as stop:
            cli.main([command, f"resume={run.path}", "trainer.steps=9"])
        assert stop.value.code == 2
        assert "names own images without it" in capsys.readouterr().err


def test_a_prior_is_tested_on_the_test_images_of_its_tokenizer(
    walked: tuple[Run, Run], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = (f"data.path={place / 'our photos'}", "data.size=[20, 16]")
    tokenizer = f"model.tokenizer={walked[0].path}"
    with pytest.raises(SystemExit) as stop:
        train(place, "prior", "other", tokenizer, *images, "data.test_fraction=0.3")
    assert stop.value.code == 2
    assert "data.test_fraction=0.3" in capsys.readouterr().err


@pytest.mark.parametrize("setting", ["size=16", "channels=1", f"fingerprint={'0' * 64}"])
def test_a_setting_of_own_images_needs_a_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        train(tmp_path, "ae", "none", f"data.{setting}")
    assert stop.value.code == 2
    assert "without data.path" in capsys.readouterr().err
