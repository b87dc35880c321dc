"""Prompts: what is read out of a package, how clips are cut, and what their names say."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fake_prompts
import numpy as np
import pytest
from fake_prompts import deb, package, tar
from fake_sounds import wav

from vqvae_lightning.config import ConfigError, DataConfig, SoundConfig
from vqvae_lightning.data import prompts
from vqvae_lightning.data.fetch import Source
from vqvae_lightning.data.formats import DataError
from vqvae_lightning.data.images import ImageDataModule
from vqvae_lightning.data.imageset import image_set
from vqvae_lightning.data.prompt_texts import ODD, is_spoken, text_of
from vqvae_lightning.data.prompts import (
    BLOCK,
    FOLDER,
    GROUPS,
    LONGEST,
    PART,
    PROMPTS,
    SHORTEST,
    SPLITS,
    WHOLE,
    Prompts,
    labels_of,
    members,
    pieces_of,
    split_of,
)
from vqvae_lightning.data.sources import DATASETS, prepare


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with generated clips, which `prompts` means."""
    place = tmp_path_factory.mktemp("prompts")
    with fake_prompts.installed(place):
        yield place


def data_of(root: Path, **settings: object) -> DataConfig:
    chosen = {"name": "prompts", "root": str(root), "batch_size": 8, "download": False}
    return DataConfig(**{**chosen, **settings})  # type: ignore[arg-type]


def names(files: dict[str, bytes], split: str) -> list[str]:
    return files[f"{split}-names.txt"].decode().splitlines()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("vm-goodbye", "goodbye"),
        ("hello-world", "hello world"),
        ("vm-INBOX", "inbox"),
        ("dictate/playback_mode", "playback mode"),
        ("digits/7", "seven"),
        ("digits/40", "forty"),
        ("digits/h-3", "third"),
        ("digits/h-thousand", "thousandth"),
        ("digits/day-0", "sunday"),
        ("digits/mon-11", "december"),
        ("letters/q", "q"),
        ("letters/ascii59", "semicolon"),
        ("phonetic/w_p", "whiskey"),
        ("phonetic/9_p", "niner"),
        ("pbx", "pbx"),
    ],
)
def test_a_name_says_what_is_spoken(name: str, text: str) -> None:
    assert text_of(name) == text


def test_the_words_of_odd_names_are_lower_case_and_of_letters() -> None:
    assert all(set(text) <= set("abcdefghijklmnopqrstuvwxyz ") for text in ODD.values())
    assert not any(map(is_spoken, ["silence/1", "beep", "tt-monkeys"]))
    assert is_spoken("tt-monkeysintro")


def test_a_long_clip_is_cut_where_it_is_quietest_and_nothing_is_lost() -> None:
    noise = np.random.default_rng(0).integers(-9000, 9000, 3 * LONGEST).astype(np.int16)
    quiet = LONGEST // 2 + 7 * BLOCK
    noise[quiet : quiet + BLOCK] = 0
    pieces = pieces_of(noise)
    assert len(pieces[0]) == quiet + BLOCK // 2
    assert all(len(piece) <= LONGEST for piece in pieces)
    assert np.concatenate(pieces).tolist() == noise[: sum(map(len, pieces))].tolist()
    assert len(noise) - sum(map(len, pieces)) < SHORTEST


@pytest.mark.parametrize("samples", [1, SHORTEST, LONGEST])
def test_a_clip_that_fits_a_window_is_one_piece(samples: int) -> None:
    clip = np.arange(samples).astype(np.int16)
    (piece,) = pieces_of(clip)
    assert piece is clip


def test_neither_a_clip_nor_a_text_is_in_two_splits(tmp_path: Path) -> None:
    archive = tmp_path / "a.deb"
    archive.write_bytes(deb(tar(package() | {f"{FOLDER}word1.wav": fake_prompts.clip("a")})))
    files = dict(members(archive, FOLDER, {}))
    clips = {split: {line.split()[0] for line in names(files, split)} for split in SPLITS}
    assert (
        sum(map(len, clips.values()))
        == len(fake_prompts.NAMES) + 1
        == len(set().union(*clips.values()))
    )
    texts = {split: {text_of(name) for name in clips[split]} for split in SPLITS}
    assert sum(map(len, texts.values())) == len(fake_prompts.NAMES)  # "vm-word1" and "word1"
    assert all(texts.values())
    assert split_of(text_of("word1")) == split_of(text_of("vm-word1"))


def test_a_package_a_tar_file_and_one_in_another_order_give_the_same_files(tmp_path: Path) -> None:
    found = []
    backwards = dict(reversed(package().items()))
    for number, data in enumerate((deb(tar(package())), tar(package(), "w"), deb(tar(backwards)))):
        archive = tmp_path / f"{number}"
        archive.write_bytes(data)
        found.append(dict(members(archive, FOLDER, {})))
    assert found[0] == found[1] == found[2]
    assert set(os.listdir(tmp_path)) == {"0", "1", "2"}  # nothing is extracted


BAD_PACKAGES = {
    "empty": b"",
    "no archive": b"<html>not found</html>",
    "an ar archive of nothing": b"!<arch>\n",
    "no data": deb(b"x", "other.tar.xz"),
    "data of another compression": deb(b"\x28\xb5\x2f\xfd" * 20, "data.tar.zst"),
    "cut short": deb(tar(package()))[:-2000],
    "a size that is no number": deb(tar(package())).replace(b"`\n", b"\n`", 3),
    "a clip of another rate": deb(tar({f"{FOLDER}a.wav": wav(np.zeros(99), rate=16000)})),
    "a clip that is no sound": deb(tar({f"{FOLDER}a.wav": b"no sound at all"})),
}


@pytest.mark.parametrize("case", BAD_PACKAGES)
def test_a_package_that_cannot_be_read_is_one_line_and_leaves_no_file(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_hand = replace(PROMPTS, sources=(Source("placed.deb", members, FOLDER),))
    monkeypatch.setitem(DATASETS, "prompts", by_hand)
    folder = tmp_path / "prompts"
    folder.mkdir()
    (folder / "placed.deb").write_bytes(BAD_PACKAGES[case])
    with pytest.raises(DataError, match="cannot obtain prompts") as error:
        prepare("prompts", tmp_path, download=False)
    assert "\n" not in str(error.value)
    assert os.listdir(folder) == ["placed.deb"]


def test_clips_that_claim_too_much_are_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "a.deb"
    archive.write_bytes(deb(tar(package())))
    monkeypatch.setattr(prompts, "TOGETHER", 50_000)
    with pytest.raises(DataError, match="wanted a file of at most"):
        list(members(archive, FOLDER, {}))


def test_what_differs_from_the_published_package_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "prompts"
    folder.mkdir()
    place = folder / "asterisk-core-sounds-en-wav_1.6.1-1_all.deb"
    place.write_bytes(deb(tar(package())))
    with pytest.raises(DataError, match=r"train-names\.txt has \d+ bytes, wanted 17528"):
        prepare("prompts", tmp_path, download=False)


def test_without_apt_one_line_says_what_to_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError) as error:
        prepare("prompts", tmp_path / "data")
    message = str(error.value)
    assert "apt:asterisk-core-sounds-en-wav: apt-get is not installed" in message
    package = "asterisk-core-sounds-en-wav_1.6.1-1_all.deb"
    assert message.endswith(f"By hand: place {tmp_path / 'data' / 'prompts' / package}")
    assert "\n" not in message


def test_windows_are_of_two_seconds_and_labels_are_groups(root: Path) -> None:
    data = ImageDataModule(data_of(root), seed=0)
    data.setup()
    assert data.dataset.shape == (1, 64, 128)
    assert data.dataset.class_names == GROUPS
    for split, rows in data.splits.items():
        assert len(rows) == data.sizes[split]
        assert rows.shape == (1, 64, 128)
    assert set(data.splits["train"].labels.tolist()) == set(range(len(GROUPS)))
    pieces = image_set(data.config).recordings(root, "test")
    assert len(pieces) == data.sizes["test"]
    frames = [-(-len(piece) // 128) for piece in pieces]
    windows = data.splits["test"].first(len(pieces))
    assert (windows > 0).flatten(1, 2).any(1).sum(1).tolist() == frames


def test_a_window_can_have_another_length_and_other_labels_are_refused(root: Path) -> None:
    chosen = image_set(data_of(root, sound=SoundConfig(frames=32)))
    assert isinstance(chosen, Prompts)
    assert chosen.load(root, "val")[0].shape[1:] == (1, 64, 32)
    with pytest.raises(ConfigError, match=r"data\.label: got speaker, but prompts has group, text"):
        image_set(data_of(root, label="speaker"))


def test_a_label_can_be_the_text_of_a_clip_that_fits_a_window(root: Path) -> None:
    chosen = image_set(data_of(root, label="text"))
    assert isinstance(chosen, Prompts)
    assert chosen.classes == len(chosen.class_names) == len(chosen.texts)
    for split in SPLITS:
        lines = (root / "prompts" / f"{split}-names.txt").read_text().splitlines()
        said = [chosen.texts[label] for label in chosen.load(root, split)[1]]
        clips = [line.split() for line in lines]
        assert said == [text_of(name) if of == "1/1" else "" for name, of in clips]
        assert {split_of(text) for text in said if text} == {split}
    splits = [split_of(text) for text in chosen.texts[:-1]]
    assert splits == sorted(splits, key=SPLITS[::-1].index)


def test_the_names_of_whole_clips_are_known_before_the_package_is_there() -> None:
    assert len(WHOLE) == len(set(WHOLE)) == 364
    assert all(map(is_spoken, WHOLE))
    *texts, part = labels_of(WHOLE)["text"]
    assert "goodbye" in texts
    assert part == PART
    assert set("".join(texts)) <= set("abcdefghijklmnopqrstuvwxyz 0123456789")
