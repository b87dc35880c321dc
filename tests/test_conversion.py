"""A decoder that is given the label: codes of recordings, decoded as another speaker."""

import itertools
import wave
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from sound_runs import train, workplace

from vqvae_lightning.codec.coding import coded_of
from vqvae_lightning.config import ClassifierOptions, ConfigError, DataConfig
from vqvae_lightning.data.imageset import ImageSet, image_set, overlap
from vqvae_lightning.data.loader import Batch
from vqvae_lightning.evaluation import recognition, samplers
from vqvae_lightning.evaluation.classifier import ClassifierFeatures, train_classifier
from vqvae_lightning.evaluation.evaluate import evaluate
from vqvae_lightning.evaluation.sample import sample
from vqvae_lightning.exporting.export import export
from vqvae_lightning.training.autoencoders import VQVAE
from vqvae_lightning.training.loading import load_run
from vqvae_lightning.training.prior import CodePrior
from vqvae_lightning.training.runs import Run


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory):
    """Generated recordings, two judges, a VQ-VAE that is given the speaker, and a prior of digits
    over its codes.
    """
    root = tmp_path_factory.mktemp("place")
    with workplace(root):
        for label in ("digit", "speaker"):
            where = str(root / "data")
            train_classifier(ClassifierOptions(dataset="fsdd", root=where, label=label, steps=2))
        train(root, "vqvae_speaker", "vqvae")
        train(root, "prior", "prior")
        yield root


@pytest.fixture
def tokenizer(place: Path) -> Run:
    return Run.open(place / "runs" / "vqvae")


@pytest.fixture
def prior(place: Path) -> Run:
    return Run.open(place / "runs" / "prior")


def test_one_sequence_of_codes_is_decoded_as_each_speaker(tokenizer: Run) -> None:
    module = cast(VQVAE, load_run(tokenizer))
    assert module.net.classes == 6
    assert module.net.layout is not None
    codes = torch.randint(16, (1, module.net.layout.length)).expand(6, -1)
    images = module.decode(codes, torch.arange(6))
    assert len(images.flatten(1).unique(dim=0)) == 6
    torch.testing.assert_close(images[2:3], module.decode(codes[:1], 2), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match=r"^label: got 0 for 6 images, but this decoder is given"):
        module.decode(codes)


def test_rows_of_test_recordings_are_seen_and_heard_as_each_speaker(
    tokenizer: Run, tmp_path: Path
) -> None:
    picture, sound = sample(
        tokenizer, show="conversion", n=20, columns=10, out=str(tmp_path / "as.png")
    )
    assert picture.is_file()
    with wave.open(str(sound)) as file:
        assert file.getnframes() > 14 * 0.2 * 8000  # two rows of seven


def test_the_judges_say_who_is_heard_and_what_was_kept(tokenizer: Run) -> None:
    found = evaluate(tokenizer, recognition=True)
    judged = {key.removeprefix("test/") for key in found} & {"recognized", "converted", "kept"}
    assert judged == {"recognized", "converted", "kept"}
    assert all(0 <= found[f"test/{key}"] <= 1 for key in judged)


@pytest.mark.parametrize(("most", "times"), [(2000, 5), (1, 1)])
def test_each_recording_is_decoded_as_all_others_if_they_are_few(
    tokenizer: Run, monkeypatch: pytest.MonkeyPatch, most: int, times: int
) -> None:
    asked: list[torch.Tensor] = []  # of the decoder
    wanted: dict[str, torch.Tensor] = {}  # of the judges

    def reconstructed(net: Any, batch: Batch) -> torch.Tensor:
        asked.append(batch.labels)
        return samplers.reconstructed(net, batch)

    def share(judge: ClassifierFeatures, x: torch.Tensor, labels: torch.Tensor, what: str) -> float:
        wanted[what] = labels
        return float(len(x) == len(labels))

    monkeypatch.setattr(recognition, "CONVERSIONS", most)
    monkeypatch.setattr(recognition, "reconstructed", reconstructed)
    monkeypatch.setattr(recognition, "share", share)
    found = evaluate(tokenizer, recognition=True)
    assert found["test/converted"] == found["test/kept"] == 1
    speakers, digits = (
        image_set(DataConfig(name="fsdd", label=label))
        .rows(tokenizer.path.parents[1] / "data", "test")
        .labels
        for label in ("speaker", "digit")
    )
    rows = torch.cat(asked).view(1 + times, len(speakers))  # reconstructions, then the others
    assert torch.equal(rows[0], speakers)
    assert all(len(set(row.tolist())) == 1 + times for row in rows.T)
    assert torch.equal(wanted["converted"], rows[1:].flatten())
    assert torch.equal(wanted["kept"], torch.cat([digits] * times))


def test_a_prior_of_digits_is_heard_as_the_speaker_that_is_asked_for(prior: Run) -> None:
    module = cast(CodePrior, load_run(prior))
    drawn = []
    for speaker in (1, 1, 4):
        torch.manual_seed(0)
        drawn.append(module.sample(3, 7, decoded_as=speaker))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    with pytest.raises(ValueError, match=r"^decoded_as: got 6, wanted 0 to 5"):
        module.sample(3, 7, decoded_as=6)
    # of another sort than the decoder's labels, which are so drawn
    assert module.sample(3, 7).shape == (3, 1, 64, 64)
    assert "test/distortion" not in evaluate(prior)


def test_labels_of_the_decoder_s_own_sort_are_passed_on(place: Path, prior: Run) -> None:
    tokenizer = f"model.tokenizer={place / 'runs' / 'vqvae'}"
    run = train(place, "prior", "speakers", tokenizer, "data.label=speaker")
    module = cast(CodePrior, load_run(run))
    drawn = []
    for speaker in (None, 3, 2):
        torch.manual_seed(0)
        drawn.append(module.sample(4, 3, decoded_as=speaker))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_what_a_label_cannot_go_through_is_refused_in_one_line(
    place: Path, tokenizer: Run, prior: Run, tmp_path: Path
) -> None:
    for run in (tokenizer, prior):
        with pytest.raises(ConfigError, match=r"^export: the decoder of .* is given the label"):
            export(run, to=str(tmp_path / "exported"))
        with pytest.raises(ConfigError, match=r"^codec: the decoder of this model is given the"):
            coded_of(load_run(run))
    with pytest.raises(ConfigError, match=r"^iwae_samples: the decoder of .* is given the label"):
        evaluate(tokenizer, iwae_samples=2)
    with pytest.raises(ConfigError, match=r"^decoded_as: got 6, wanted 0 to 5"):
        sample(tokenizer, decoded_as=6)
    with pytest.raises(ConfigError, match=r"^decoded_as: got 1, but show=conversion decodes as"):
        sample(tokenizer, show="conversion", decoded_as=1)
    both = [f"model.tokenizer={place / 'runs' / 'vqvae'}", "data.label=digit_and_speaker"]
    with pytest.raises(SystemExit):
        train(place, "prior", "both", *both)
    assert not (place / "runs" / "both").exists()


def sort(dataset: str, label: str) -> ImageSet:
    return image_set(DataConfig(name=dataset, label=label))


def test_two_sorts_of_labels_overlap_where_one_tells_of_the_other() -> None:
    for one, other in itertools.product(["digit", "digit_and_speaker"], repeat=2):
        assert overlap(sort("fsdd", one), sort("fsdd", other))
    assert not overlap(sort("fsdd", "digit"), sort("fsdd", "speaker"))
    assert overlap(sort("prompts", "group"), sort("prompts", "text"))
    plain = image_set(DataConfig(name="mnist"))
    assert overlap(plain, plain)
