"""Priors that read texts, through the commands that a user types."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sound_runs import train, workplace
from test_sounds import seconds

from vqvae_lightning import cli
from vqvae_lightning.comparison.compare import compare
from vqvae_lightning.config import ConfigError
from vqvae_lightning.data.digits import WORDS
from vqvae_lightning.data.images import to_float, to_uint8
from vqvae_lightning.data.sources import DATASETS
from vqvae_lightning.data.texts import said_by, speakers_of
from vqvae_lightning.evaluation.evaluate import evaluate
from vqvae_lightning.evaluation.sample import sample
from vqvae_lightning.library import load
from vqvae_lightning.training.prior import CodePrior
from vqvae_lightning.training.runs import Run

SAID = "model.condition=text"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Generated recordings, a tokenizer, and priors given labels, words, and words by speakers."""
    root = tmp_path_factory.mktemp("place")
    with workplace(root):
        train(root, "vqvae", "vqvae")
        train(root, "prior", "labels")
        train(root, "prior", "words", SAID, "model.label_dropout=0")
        both = ("data.label=digit_and_speaker", "model.label_dropout=0.1")
        train(root, "prior", "speakers", SAID, *both)
        yield root


def said(place: Path, run: str, *words: str) -> bytes:
    """The WAV file of a command."""
    to = place / "said.wav"
    cli.main(["say", str(place / "runs" / run), *words, f"to={to}"])
    data = to.read_bytes()
    to.unlink()
    return data


def test_a_text_is_spoken_into_a_wav_file(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cli.main(["say", str(place / "runs" / "speakers"), "four", "speaker=george", "n=3"])
    assert [path.name for path in tmp_path.iterdir()] == ["george-four.wav"]
    assert seconds(tmp_path / "george-four.wav") > 3 * 0.15
    cli.main(["say", "four", f"runs={place / 'runs'}", "to=newest.wav", "speaker=theo"])
    assert (tmp_path / "newest.wav").is_file()


def test_the_same_text_and_seed_give_the_same_file(place: Path) -> None:
    one = said(place, "words", "four")
    assert said(place, "words", "four") == one
    assert said(place, "words", "four", "seed=1") != one


def test_a_text_of_the_data_is_drawn_as_its_label_is(place: Path) -> None:
    module = load(place / "runs" / "words", CodePrior)
    assert module.texts == WORDS
    for parameter in module.net.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(0))

    def images(draw: object) -> list[float]:
        torch.manual_seed(3)
        assert callable(draw)
        found: list[float] = draw().flatten().tolist()
        return found

    assert images(lambda: module.say("four", 4)) == images(lambda: module.sample(4, 4))
    assert images(lambda: module.say("five", 4)) != images(lambda: module.sample(4, 4))


def test_a_decoder_given_the_label_is_given_that_of_the_text(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = load(place / "runs" / "words", CodePrior)
    given: list[object] = []
    monkeypatch.setattr(module, "sample", lambda n, label, **_: given.append(label))
    module.say("four", 2)
    assert given == [4]
    first_stage = SimpleNamespace(classes=module.classes)
    monkeypatch.setattr(module, "_attached", lambda: first_stage)
    with pytest.raises(ConfigError, match=r"^text: got 'fou', but the decoder is given the label"):
        module.say("fou")
    module.say("fou", decoded_as=3)
    assert len(given) == 2


@pytest.mark.parametrize(
    ("run", "words", "line"),
    [
        ("vqvae", ["four"], "is a run of kind vqvae, which reads none"),
        ("labels", ["four"], "is given labels, wanted a prior with model.condition=text"),
        ("words", ["Four"], "has never read 'F'"),
        ("words", ["fourfour"], "got 8 characters, wanted at most the 5"),
        ("words", ["four" * 80], "got 320 characters, wanted at most the 5"),
        ("words", [""], "text: got an empty one"),
        ("speakers", [" ", "speaker=george"], "text: got an empty one"),
        ("words", ["four", "speaker=george"], "wanted none, since its texts name no speaker"),
        ("words", ["four", "guidance=2"], "guidance: got 2.0, wanted 1"),
        ("words", ["four", "decoded_as=1"], "decoded_as: got one, but the decoder is given no"),
        ("words", ["four", "five"], "text: got 3 of them, wanted one"),
        ("speakers", ["four"], "speaker: got none, wanted one of george, jackson"),
        ("speakers", ["four", "speaker=bob"], "speaker: got bob, wanted one of george"),
        ("speakers", ["four", "speaker=george", "n=0"], "n: got 0"),
    ],
)
def test_what_cannot_be_said_is_one_line_and_no_file(
    run: str, words: list[str], line: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        said(place, run, *words)
    assert ended.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert line in error
    assert not (place / "said.wav").exists()


def test_a_file_that_is_there_is_not_replaced(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = tmp_path / "there.wav"
    there.write_bytes(b"mine")
    with pytest.raises(SystemExit):
        cli.main(["say", str(place / "runs" / "words"), "four", f"to={there}"])
    assert "exists already, wanted the name of a new file" in capsys.readouterr().err
    assert there.read_bytes() == b"mine"


def test_without_a_text_it_is_measured_drawn_and_compared_as_any_prior(
    place: Path, tmp_path: Path
) -> None:
    runs = [Run.open(place / "runs" / name) for name in ("labels", "words", "speakers")]
    for run in runs[1:]:
        assert evaluate(run)["test/bits_per_code"] == pytest.approx(
            run.record.test["test/bits_per_code"], rel=1e-5
        )
        picture, sound = sample(run, n=4, columns=2, out=str(tmp_path / f"{run.path.name}.png"))
        assert picture.is_file()
        assert seconds(sound) >= 4 * 0.15
    assert {row.name for row in compare(runs).rows} == {"labels", "words", "speakers"}


@pytest.mark.slow
def test_a_prior_goes_on_from_its_checkpoint_as_if_it_had_not_stopped(place: Path) -> None:
    # A cosine depends on the last step.
    words = [SAID, "trainer.validate_every=2", "optimizer.schedule=constant"]
    words.append("optimizer.warmup_steps=1")
    half = train(place, "prior", "half", *words, "trainer.steps=2")
    cli.main(["train", f"resume={half.path}", "trainer.steps=4"])
    straight = train(place, "prior", "straight", *words, "trainer.steps=4")
    assert Run.open(half.path).record.test == Run.open(straight.path).record.test
    for run in (half, straight):
        shutil.rmtree(run.path)


def test_labels_without_texts_are_refused_before_a_folder_is_made(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        train(place, "prior", "none", SAID, "data.label=speaker")
    assert ended.value.code == 2
    assert "the labels of the data have none" in capsys.readouterr().err
    assert not (place / "runs" / "none").exists()


def test_a_file_of_its_codes_holds_the_label_and_comes_back(place: Path, tmp_path: Path) -> None:
    pytest.importorskip("constriction", reason="needs the extra `codec`")
    run, vqz = place / "runs" / "speakers", tmp_path / "x.vqz"
    cli.main(["compress", str(run), "split=test", f"to={vqz}"])
    cli.main(["decompress", str(vqz), f"run={run}", f"to={tmp_path / 'x.npz'}"])
    decoded = np.load(tmp_path / "x.npz")["images"]
    assert decoded.shape[0] == 60
    tokenizer = load(place / "runs" / "vqvae").tokenizer()
    rows = DATASETS["fsdd"].rows(place / "data", "test")
    with torch.no_grad():
        wanted = to_uint8(tokenizer.decode(tokenizer.encode(to_float(rows.first(60)))))
    assert (torch.from_numpy(decoded).view_as(wanted).int() - wanted.int()).abs().max() <= 1


@pytest.mark.slow
def test_an_export_reads_the_same_texts(place: Path, tmp_path: Path) -> None:
    run = place / "runs" / "words"
    cli.main(["export", str(run), "format=hub", f"to={tmp_path / 'hub'}"])
    opened, module = load(tmp_path / "hub"), load(run)
    drawn = []
    for model in (opened, module):
        torch.manual_seed(0)
        drawn.append(model.say("four", 2))
    assert torch.equal(*drawn)


def test_texts_name_their_speakers() -> None:
    assert said_by("ann", "four") == "ann: four"
    assert speakers_of(["ann: four", "bob: four", "ann: five"]) == ["ann", "bob"]
    assert speakers_of(["four", "half past five"]) == []
    assert speakers_of(["yes", "no: thanks", ""]) == []
