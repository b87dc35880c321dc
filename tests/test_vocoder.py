"""A vocoder as a run: it is trained, goes on and is evaluated, and others are heard through it."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from sound_runs import ROOT, train, workplace

from vqvae_lightning import cli
from vqvae_lightning.config import merge_overrides
from vqvae_lightning.evaluation import hearing
from vqvae_lightning.evaluation.evaluate import evaluate
from vqvae_lightning.evaluation.sample import sample
from vqvae_lightning.training.runs import Run
from vqvae_lightning.verified import read_checkpoint, write_checkpoint


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Generated recordings, a VQ-VAE, and vocoders of its windows and of others."""
    root = tmp_path_factory.mktemp("place")
    with workplace(root):
        train(root, "vqvae", "vqvae")
        train(root, "vocoder", "vocoder")
        train(root, "vocoder", "short", "data.sound.frames=32")
        train(root, "vocoder", "other", "data.sound.bands=32")
        yield root


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a command that is refused."""
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return str(line)


def test_a_run_of_a_vocoder_is_a_run(place: Path) -> None:
    run = Run.open(place / "runs" / "vocoder")
    assert run.record.status == "finished"
    measured = run.record.test
    parts = sum(
        measured[f"test/{name}"] for name in ("magnitude", "convergence", "log_magnitude", "mel")
    )
    assert measured["test/loss"] == pytest.approx(parts, rel=1e-5)
    assert measured["test/log_spectral_distance"] > 0
    assert [path.name for path in run.pictures()] == ["vocoded.png"]
    assert [path.name for path in run.sounds()] == ["vocoded.wav"]
    assert read_checkpoint(run.best)["hyper_parameters"]["sound"] == [8000, 64, 512, 128, 64]
    assert (run.record.fingerprint, run.record.source) == (None, None)


def test_a_vocoder_that_goes_on_ends_where_one_that_did_not_stop_does(place: Path) -> None:
    # A schedule that does not know how many steps there will be.
    steady = ("optimizer.schedule=constant", "optimizer.warmup_steps=0")
    parts = train(place, "vocoder", "parts", "trainer.steps=2", *steady)
    whole = train(place, "vocoder", "at-once", "trainer.steps=4", *steady)
    cli.main(["train", f"resume={parts.path}", "trainer.steps=4"])
    one, other = (read_checkpoint(run.last)["state_dict"] for run in (whole, parts))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_vocoder_is_evaluated_as_it_was_tested(place: Path) -> None:
    run = Run.open(place / "runs" / "vocoder")
    found = evaluate(run)
    assert found == pytest.approx({name: run.record.test[name] for name in found}, rel=1e-5)
    assert evaluate(run, split="val")["val/loss"] > 0


def test_hearing_has_griffin_lim_beside_a_vocoder(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[float] = []

    def one(originals: list[object], found: list[object], rate: int) -> dict[str, float]:
        assert len(originals) == len(found) == 60
        judged.append(float(sum(abs(waveform).sum() for waveform in found)))  # type: ignore[arg-type]
        return {"stoi": len(judged) / 10, "pesq": 1.0}

    monkeypatch.setattr(hearing, "hearing", one)
    monkeypatch.setattr(hearing, "NEEDED", ())
    run = place / "runs" / "vocoder"
    found = evaluate(run, hearing=True)
    assert (found["test/stoi_vocoded"], found["test/stoi_griffin_lim"]) == (0.1, 0.2)
    assert "test/stoi" not in found
    # The original after the same vocoder is always beside a reconstruction.
    other = evaluate(place / "runs" / "vqvae", hearing=True, vocoder=str(run))
    assert {"test/stoi", "test/stoi_vocoded"} <= set(other)
    assert judged[2] == judged[0] != judged[1]


def test_figures_of_what_is_heard_are_of_one_vocoder(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hearing, "hearing", lambda *_: {"stoi": 0.5, "pesq": 1.0})
    monkeypatch.setattr(hearing, "NEEDED", ())
    run, vocoder = Run.open(place / "runs" / "vqvae"), Run.open(place / "runs" / "vocoder")
    run.write(test={**run.record.test, "test/recognized_heard": 0.1}, heard_by=None)
    evaluate(run, hearing=True)
    assert run.record.heard_by is None
    assert "test/recognized_heard" in run.record.test
    evaluate(run, hearing=True, vocoder=str(vocoder.path))
    digest = vocoder.best.with_name("best.ckpt.sha256").read_text().split()[0]
    assert run.record.heard_by == digest
    assert "test/recognized_heard" not in run.record.test
    assert {"test/stoi", "test/distortion"} <= set(run.record.test)
    evaluate(run, hearing=True)
    assert run.record.heard_by is None


@pytest.mark.parametrize("vocoder", ["vocoder", "short"])
def test_samples_are_heard_through_a_vocoder_of_any_length(
    place: Path, tmp_path: Path, vocoder: str
) -> None:
    files: list[Path] = []
    for given in (str(place / "runs" / vocoder), None):
        out = str(tmp_path / f"{len(files) // 2}.png")
        files += sample(place / "runs" / "vqvae", n=4, out=out, vocoder=given)
    picture, sound, other_picture, other_sound = (path.read_bytes() for path in files)
    assert picture == other_picture
    assert len(sound) == len(other_sound)
    assert sound != other_sound


REFUSED = {
    "sample vqvae vocoder=vqvae": "is a run of kind vqvae, wanted one of a vocoder",
    "sample vqvae vocoder=nothing": "is no run folder",
    "evaluate vqvae vocoder=other": "was trained with data.sound.bands=32, but the run has 64",
    "evaluate vocoder vocoder=short": "is a vocoder itself; wanted none",
    "evaluate vocoder recognition=true": "recognition: ",
    "sample vocoder": "only makes sounds of what others make",
    "say vocoder four": "only makes sounds of what others make",
    "export vocoder": "only makes sounds of what others make",
    "compress vocoder": "is a run of kind vocoder, which has no latents",
    "compare vocoder": "it is a vocoder, which makes nothing that could be compared",
}


@pytest.mark.parametrize("command", REFUSED)
def test_what_does_not_fit_is_refused_in_one_line(
    place: Path,
    command: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = place / "runs"
    before = {path: (path / "run.json").read_bytes() for path in runs.iterdir()}
    word, run, *more = command.split()
    more = [text.replace("vocoder=", f"vocoder={runs}/") for text in more]
    assert REFUSED[command] in refused([word, str(runs / run), *more], capsys)
    assert list(tmp_path.iterdir()) == []
    assert before == {path: (path / "run.json").read_bytes() for path in runs.iterdir()}


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (["data.name=mnist"], "mnist holds images, and a vocoder learns recordings"),
        (["model.width=1"], "model.width: got 1, wanted at least 8"),
        (["model.latent_dim=4"], "unknown key model.latent_dim"),
        (["data.sound.bands=300"], "more than the 257 bins"),
    ],
)
def test_what_no_vocoder_learns_is_refused_before_a_run_is_made(
    place: Path, settings: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = place / "refused"
    words = ["train", str(ROOT / "vocoder.yaml"), f"runs={runs}", f"data.root={place / 'data'}"]
    assert line in refused(merge_overrides(words, settings), capsys)
    assert not runs.exists()


def test_a_checkpoint_of_somebody_else_is_read_as_others_are(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sample", str(place / "runs" / "vqvae"), "n=4", f"out={tmp_path / 'x.png'}"]
    copy = tmp_path / "copy"
    shutil.copytree(place / "runs" / "vocoder", copy)
    best = Run.open(copy).best
    best.write_bytes(best.read_bytes()[:-1] + b"x")
    assert "is damaged" in refused([*words, f"vocoder={copy}"], capsys)
    shutil.rmtree(copy)
    shutil.copytree(place / "runs" / "vocoder", copy)
    checkpoint = read_checkpoint(best)
    checkpoint["hyper_parameters"]["config"]["width"] = 4096
    write_checkpoint(best, checkpoint)
    assert "does not fit its settings" in refused([*words, f"vocoder={copy}"], capsys)
    checkpoint["hyper_parameters"]["sound"] = [8000, 64, 10**9, 128, 64]
    write_checkpoint(best, checkpoint)
    line = refused([*words, f"vocoder={copy}"], capsys)
    assert "data.sound.window=1000000000, but the run has 512" in line
    record = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps({**record, "status": "running"}))
    assert "has status=running, wanted a finished run" in refused(
        [*words, f"vocoder={copy}"], capsys
    )
    assert not (tmp_path / "x.png").exists()


def test_a_command_without_a_run_takes_none_that_is_a_vocoder(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cli.main(["sample", f"runs={place / 'runs'}", "n=4", "out=x.png"])
    assert (tmp_path / "x.wav").is_file()
