"""The Free Spoken Digit Dataset: its files, its split, its labels, and what its windows are."""

import io
import tarfile
from dataclasses import replace
from pathlib import Path

import fake_sounds
import pytest
import torch

from vqvae_lightning.config import ConfigError, DataConfig, SoundConfig
from vqvae_lightning.data import digits
from vqvae_lightning.data.digits import FSDD, SPEAKERS, labels_of, members, names_of
from vqvae_lightning.data.fetch import Source
from vqvae_lightning.data.formats import DataError
from vqvae_lightning.data.images import ImageDataModule
from vqvae_lightning.data.imageset import image_set
from vqvae_lightning.data.sources import DATASETS, holds, prepare
from vqvae_lightning.data.waveforms import padded, recordings


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with generated recordings, which `fsdd` means."""
    place = tmp_path_factory.mktemp("sounds")
    with fake_sounds.installed(place):
        yield place


def data_of(root, **settings):
    return DataConfig(name="fsdd", root=str(root), batch_size=20, download=False, **settings)


def opened(root, **settings):
    data = ImageDataModule(data_of(root, **settings), seed=0)
    data.prepare_data()
    data.setup()
    return data


def archive(path: Path, prefix: str, names: list[str]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name in names:
            data = fake_sounds.recording(name)
            member = tarfile.TarInfo(prefix + name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def test_the_published_split_is_the_first_five_and_no_recording_is_in_two_files():
    names = {file: list(names_of(file)) for file in digits.INDICES}
    assert [len(some) for some in names.values()] == [2400, 300, 300]
    assert len({name for some in names.values() for name in some}) == 3000
    found = {name.removesuffix(".wav").split("_")[2] for name in names["test-recordings.wavs"]}
    assert found == set("01234")
    assert (FSDD.train_size, FSDD.validation_size, FSDD.test_size) == (2400, 300, 300)


def test_files_are_made_of_an_archive_placed_by_hand_and_verified(root, tmp_path, monkeypatch):
    names = [name for file in digits.INDICES for name in names_of(file)]
    place = tmp_path / "fsdd"
    place.mkdir()
    archive(place / "x.tar.gz", "recordings/", names[::-1])
    by_hand = replace(DATASETS["fsdd"], sources=(Source("x.tar.gz", members, "recordings/"),))
    monkeypatch.setitem(DATASETS, "fsdd", by_hand)
    assert not holds("fsdd", tmp_path)
    prepare("fsdd", tmp_path, download=False)
    assert holds("fsdd", tmp_path)
    for file in digits.INDICES:
        assert (place / file).read_bytes() == (root / "fsdd" / file).read_bytes()


def test_an_archive_without_a_recording_is_refused_and_leaves_no_file(root, tmp_path, monkeypatch):
    names = [name for file in digits.INDICES for name in names_of(file)]
    (tmp_path / "fsdd").mkdir()
    archive(tmp_path / "fsdd" / "x.tar.gz", "recordings/", names[:-1])
    short = replace(DATASETS["fsdd"], sources=(Source("x.tar.gz", members, "recordings/"),))
    monkeypatch.setitem(DATASETS, "fsdd", short)
    with pytest.raises(DataError, match=rf"has no member recordings/{names[-1]}"):
        prepare("fsdd", tmp_path, download=False)
    assert [path.name for path in (tmp_path / "fsdd").iterdir()] == ["x.tar.gz"]


def test_windows_are_images_of_one_channel_and_all_splits_have_every_digit(root):
    data = opened(root)
    assert data.sizes == {"train": 120, "val": 60, "test": 60}
    for name, rows in data.splits.items():
        assert rows.shape == (1, 64, 64)
        assert len(rows) == data.sizes[name]
        assert rows.labels.bincount().tolist() == [len(rows) // 10] * 10
    x = data.references("test", 32)
    assert (x.shape, x.dtype) == ((32, 1, 64, 64), torch.float32)
    assert (x.min(), x.max()) == (-1, 1)
    assert set(data.splits["test"].labels[:60].tolist()) == set(range(10))


@pytest.mark.parametrize(("label", "first"), [("digit", "0"), ("speaker", "george")])
def test_labels_are_chosen_and_the_splits_do_not_depend_on_them(root, label, first):
    data, plain = opened(root, label=label), opened(root)
    assert data.dataset.class_names[0] == first
    assert data.dataset.classes == len(labels_of(SPEAKERS)[label])
    for split in data.splits:
        everything = torch.arange(len(data.splits[split]))
        assert torch.equal(
            data.splits[split].take(everything), plain.splits[split].take(everything)
        )
    both = opened(root, label="digit_and_speaker").splits["train"].labels
    part = {"digit": both // len(SPEAKERS), "speaker": both % len(SPEAKERS)}[label]
    assert torch.equal(data.splits["train"].labels, part)


def test_the_pitch_of_a_recording_is_that_of_its_digit(root):
    """A control: labels and windows belong together."""
    rows = opened(root).splits["train"]
    loudest = rows.take(torch.arange(len(rows)))[:, 0].float().mean(2)  # N,bands
    pitch = 63 - loudest[:, 32:].argmax(1) - 32
    means = torch.stack([pitch[rows.labels == digit].float().mean() for digit in range(10)])
    assert (means.diff() > 0).all()


def test_windows_of_another_form_are_another_data_set(root):
    usual, wider = (data_of(root, sound=SoundConfig(frames=frames)) for frames in (None, 80))
    assert image_set(wider).shape == (1, 64, 80)
    assert opened(root, sound=SoundConfig(frames=80)).references("val", 2).shape == (2, 1, 64, 80)
    assert usual.identity != wider.identity
    assert image_set(usual) is DATASETS["fsdd"]


def test_another_rate_or_label_is_refused_in_one_line(root):
    with pytest.raises(ConfigError, match=r"data\.sound\.rate: got 16000, but .* have 8000"):
        image_set(data_of(root, sound=SoundConfig(rate=16000)))
    with pytest.raises(ConfigError, match=r"data\.label: got mood, but fsdd has digit, speaker"):
        image_set(data_of(root, label="mood"))
    with pytest.raises(ConfigError, match=r"data\.label: got digit, but mnist has labels of one"):
        image_set(DataConfig(name="mnist", label="digit"))


def test_a_recording_longer_than_the_window_is_cut_and_whole_for_judges(root):
    (longest,) = recordings(fake_sounds.wav(torch.zeros(20_000).numpy()), digits.RATE)
    waveforms, lengths = padded([longest, longest[:10]], 8192)
    assert (waveforms.shape, lengths) == ((2, 8192), [8192, 10])
    found = image_set(data_of(root)).recordings(root, "test")
    assert len(found) == 60
    assert {sound.dtype.str for sound in found} == {"<i2"}


@pytest.mark.parametrize(
    ("data", "wrong"),
    [
        (b"RIFF\4\0\0\0WAVE", "begins no WAV file"),
        (b"not sound at all", "begins no WAV file"),
        (fake_sounds.wav(torch.zeros(10).numpy(), rate=44100), "a recording is"),
        (fake_sounds.wav(torch.zeros(10, 2).numpy(), channels=2), "a recording is"),
    ],
)
def test_what_is_no_recording_of_the_release_is_refused(data, wrong):
    with pytest.raises(DataError, match=wrong):
        list(recordings(data, digits.RATE))
