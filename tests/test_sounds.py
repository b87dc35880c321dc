"""Recordings through the commands that a user types: pictures and WAV files, codes, comparison."""

import wave
from pathlib import Path

import fake_sounds
import numpy as np
import pytest
import small
from extending.walked import SMALL
from PIL import Image
from sound_runs import ROOT, train, workplace

from vqvae_lightning import cli
from vqvae_lightning.config import ClassifierOptions, ConfigError, SoundConfig, merge_overrides
from vqvae_lightning.evaluation.classifier import train_classifier
from vqvae_lightning.evaluation.evaluate import evaluate
from vqvae_lightning.evaluation.sample import sample
from vqvae_lightning.signals.clips import MOST
from vqvae_lightning.training.loading import load_run
from vqvae_lightning.training.runs import Run
from vqvae_lightning.verified import read_checkpoint


def seconds(path: Path) -> float:
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getsampwidth(), file.getnchannels()) == (8000, 2, 1)
        frames: int = file.getnframes()
    return frames / 8000


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory):
    """A folder with generated recordings, and runs of a VQ-VAE and of two priors on its codes."""
    root = tmp_path_factory.mktemp("place")
    with workplace(root):
        train(root, "vqvae", "vqvae")
        train(root, "prior", "prior")
        train(root, "prior", "speakers", "data.label=speaker")
        yield root


def test_a_run_measures_spectra_and_is_seen_and_heard(place: Path) -> None:
    run = Run.open(place / "runs" / "vqvae")
    measured = run.record.test
    assert measured["test/log_spectral_distance"] > 0
    assert not {"test/psnr", "test/ssim"} & set(measured)
    for name in ("reconstructions", "samples"):
        assert (run.images / f"{name}.png").is_file()
    # Originals of 0.2 to 0.75 s, with 0.15 s after each.
    assert MOST * 0.25 < seconds(run.images / "reconstructions.wav") < MOST * 1.2
    assert run.record.images.title == "Free Spoken Digit Dataset"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ae", "vae"])
def test_every_autoencoder_learns_recordings(place: Path, kind: str) -> None:
    run = train(place, kind, kind)
    assert run.record.test["test/log_spectral_distance"] > 0
    assert (run.images / "reconstructions.wav").is_file()


def test_a_checkpoint_opens_with_the_window_that_it_learned(place: Path) -> None:
    module = load_run(Run.open(place / "runs" / "vqvae"))
    assert list(module.hparams["sound"]) == [8000, 64, 512, 128, 64]


def test_a_prior_of_any_labels_learns_the_codes_of_one_tokenizer(place: Path) -> None:
    digits, speakers = (Run.open(place / "runs" / name) for name in ("prior", "speakers"))
    assert digits.record.learned_from == speakers.record.learned_from
    assert digits.record.images.classes == list("0123456789")
    assert speakers.record.images.classes[0] == "george"


def test_samples_are_written_as_a_picture_and_a_sound(place: Path, tmp_path: Path) -> None:
    for name, more in (("prior", {"label": 3}), ("vqvae", {"sampler": "unigram"})):
        picture, sound = sample(place / "runs" / name, n=4, out=str(tmp_path / "x.png"), **more)
        assert (picture.name, sound.name) == ("x.png", "x.wav")
        assert seconds(sound) >= 4 * 0.15


def test_a_completion_hides_what_comes_later(place: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "x.png")
    picture, sound = sample(place / "runs" / "prior", n=10, show="completion", out=out)
    with Image.open(picture) as image:
        pixels = np.asarray(image)[::2, ::2]  # each pixel is shown as 2 × 2
    # A row: the original, what is left of it, completions; of 64 pixels, with 2 between them.
    masked = pixels[2:66, 68:132]
    assert masked[:, :32].any()
    assert not masked[:, 32:].any()
    assert sound.is_file()


@pytest.mark.slow
def test_a_prior_that_draws_row_by_row_completes_no_rows_in_time(place: Path) -> None:
    tokenizer = train(place, "vqvae", "rows", "model.trunk.downsamples=2")
    prior = train(place, "prior", "of-rows", f"model.tokenizer={tokenizer.path}")
    with pytest.raises(ConfigError, match=r"first half of the latents, .* on a grid of 16x16"):
        sample(prior.path, n=10, show="completion")


def test_a_run_is_evaluated_and_compared_as_one_on_images_is(place: Path) -> None:
    cli.main(["evaluate", str(place / "runs" / "prior")])
    page = place / "page.html"
    cli.main(["compare", *(str(place / "runs" / n) for n in ("vqvae", "prior")), f"out={page}"])
    text = page.read_text()
    assert "Free Spoken Digit Dataset" in text
    assert "LSD" in text
    assert "PSNR" not in text.partition("<table")[2].partition("</table>")[0]


def test_hearing_judges_reconstructions_beside_the_vocoded_originals(place: Path) -> None:
    pytest.importorskip("pesq")
    pytest.importorskip("pystoi")
    found = evaluate(place / "runs" / "vqvae", hearing=True)
    # Tones of two steps of training are no speech: only the order is a law.
    assert found["test/stoi"] < found["test/stoi_vocoded"] <= 1
    assert 1 <= found["test/pesq"] <= found["test/pesq_vocoded"] < 4.6


def test_hearing_is_refused_where_nothing_is_reconstructed(place: Path) -> None:
    with pytest.raises(ConfigError, match="a prior reconstructs nothing; evaluate its first stage"):
        evaluate(place / "runs" / "prior", hearing=True)


def test_the_classifier_of_recordings_judges_samples(place: Path) -> None:
    root = f"root={place / 'data'}"
    cli.main(["classifier", "dataset=fsdd", root, "steps=2"])
    judge = ("fid_samples=20", "fid_network=classifier", "sampler=prior", root)
    cli.main(["evaluate", str(place / "runs" / "prior"), *judge])
    (figure,) = Run.open(place / "runs" / "prior").record.generation
    assert figure["network"] == "classifier-fsdd-digit"
    assert 0 <= figure["class_accuracy"] <= 1


def test_own_recordings_go_the_way_of_own_images(place: Path, tmp_path: Path, capsys) -> None:
    pytest.importorskip("soundfile")
    pytest.importorskip("soxr")
    sounds = tmp_path / "sounds"
    for digit in range(2):
        for index in range(15):
            path = sounds / f"{digit}" / f"{index}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(fake_sounds.recording(f"{digit}_theo_{index}.wav"))
    (sounds / "0" / "broken.wav").write_bytes(b"no sound")
    window = ("data.sound.rate=8000", "data.sound.frames=32", "data.sound.bands=32")
    words = [*small.NETWORK, "model.latent_dim=8", "model.quantizer.codebook_size=16"]
    words += [f"data.root={tmp_path / 'data'}", f"runs={tmp_path / 'runs'}", "name=own"]
    words += [*window, "data.batch_size=4", f"data.path={sounds}"]
    own = str(ROOT.parent / "own" / "vqvae.yaml")
    cli.main(["train", own, *merge_overrides(SMALL, words)])
    said = capsys.readouterr()
    assert "1 file left out: 1 is no recording (0/broken.wav)" in said.out
    run = Run.open(tmp_path / "runs" / "own")
    assert run.record.images.shape == [1, 32, 32]
    assert run.record.images.classes == ["0", "1"]
    assert run.experiment().data.sound == SoundConfig(8000, 32, 512, 128, 32)
    sounds.rename(tmp_path / "elsewhere")
    picture, sound = sample(run.path, n=4)
    assert (picture.suffix, sound.suffix) == (".png", ".wav")
    with pytest.raises(ConfigError, match="the store of own recordings holds windows"):
        evaluate(run.path, hearing=True)


def test_inception_is_no_judge_of_recordings(place: Path, capsys) -> None:
    with pytest.raises(SystemExit):
        cli.main(["evaluate", str(place / "runs" / "vqvae"), "fid_samples=10"])
    assert "fid_network: got inception, but fsdd holds recordings" in capsys.readouterr().err


@pytest.mark.parametrize("setting", ["data.flip=true", "data.binarize=dynamic"])
def test_settings_of_images_are_refused_before_a_folder_is_made(
    place: Path, setting: str, capsys
) -> None:
    with pytest.raises(SystemExit):
        train(place, "vqvae", "refused", setting)
    assert "fsdd holds recordings, wanted" in capsys.readouterr().err
    assert not (place / "runs" / "refused").exists()


def test_a_dataset_with_several_labels_has_a_judge_of_each(place: Path) -> None:
    root = place / "data"
    for label, classes in (("digit", 10), ("speaker", 6)):
        options = ClassifierOptions(dataset="fsdd", root=str(root), label=label, steps=2)
        found = train_classifier(options)
        assert found.path == root / "classifiers" / f"fsdd-{label}.ckpt"
        assert read_checkpoint(found.path)["shape"] == [1, 64, classes]


def test_a_missing_judge_is_named_with_the_labels_that_it_tells_apart(place: Path) -> None:
    run = Run.open(place / "runs" / "speakers")
    (place / "data" / "classifiers" / "fsdd-speaker.ckpt").unlink(missing_ok=True)
    with pytest.raises(ConfigError, match=r"^recognition: .*classifier dataset=fsdd label=speaker"):
        evaluate(run, recognition=True, root=str(place / "data"))


def test_the_judge_hears_originals_reconstructions_and_samples(place: Path) -> None:
    options = ClassifierOptions(dataset="fsdd", root=str(place / "data"), steps=20)
    accuracy = train_classifier(options).test_accuracy
    found = evaluate(Run.open(place / "runs" / "vqvae"), recognition=True)
    assert found["test/recognized_original"] == pytest.approx(accuracy)
    judged = {key for key in found if "recognized" in key}
    assert judged == {f"test/recognized{of}" for of in ("", "_heard", "_original", "_vocoded")}
    found = evaluate(Run.open(place / "runs" / "prior"), recognition=True)
    judged = {key for key in found if "recognized" in key}
    assert judged == {"test/recognized", "test/recognized_heard"}
    assert all(0 <= found[key] <= 1 for key in judged)
