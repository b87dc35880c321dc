"""Own images: a path becomes a store once, whoever asks and whatever kills the first attempt; a
store is known by what it holds.
"""

import json
import multiprocessing
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from own_images import place, png

from vqvae_lightning.config import DataConfig
from vqvae_lightning.data.formats import DataError
from vqvae_lightning.data.images import ImageDataModule, data_of
from vqvae_lightning.data.own import build as own
from vqvae_lightning.data.own import chunks
from vqvae_lightning.data.own.build import resolve
from vqvae_lightning.data.own.chunks import Chunk, open_worker, read_chunk
from vqvae_lightning.data.own.collections import open_collection
from vqvae_lightning.data.own.store import OwnImages
from vqvae_lightning.data.shards import fingerprint


@pytest.fixture
def config(tmp_path, monkeypatch):
    """(settings) → those of own images in tmp_path/photos, kept in tmp_path/data.

    Thirty images are two chunks, which are read in this process: workers take a second to start.
    """
    monkeypatch.setattr(own, "CHUNK", 16)

    def config(**more):
        paths = {"path": str(tmp_path / "photos"), "root": str(tmp_path / "data")}
        return DataConfig(**{**paths, "batch_size": 2, **more})

    return config


@pytest.fixture
def photos(tmp_path):
    """Thirty pictures of 6 × 4 pixels in two classes, each of one grey value."""
    folder = tmp_path / "photos"
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for n in range(15):
            (folder / name / f"{n:02}.png").write_bytes(png(n + 100 * (name == "dog"), (6, 4)))
    return folder


def stored(config):
    """All images of a store and their labels, in order."""
    found = OwnImages(config)
    rows = found._rows
    return rows.first(len(rows)), rows.labels


def test_images_are_stored_in_the_order_of_their_names(config, photos):
    pixels, labels = stored(resolve(config(size=[4, 6], channels=1)))
    assert pixels.shape == (30, 1, 4, 6)
    assert pixels[:, 0, 0, 0].tolist() == [*range(15), *range(100, 115)]
    assert labels.tolist() == [0] * 15 + [1] * 15


def test_resolved_settings_say_size_channels_and_fingerprint(config, photos):
    found = resolve(config(size=4))
    assert (found.size, found.channels) == ([4, 4], 3)
    assert len(found.fingerprint or "") == 64
    assert found.dataset == f"photos-{(found.fingerprint or '')[:8]}"
    assert resolve(found) == found
    published = DataConfig()
    assert resolve(published) is published


def test_a_store_is_made_once(config, photos, monkeypatch):
    first = resolve(config(size=4))
    monkeypatch.setattr(own, "build", lambda *_: pytest.fail("made again"))
    assert resolve(config(size=4)) == first


def test_another_size_is_another_store(config, photos):
    found = {resolve(config(size=size)).fingerprint for size in (4, [4, 6], 8)}
    assert len(found) == 3


def test_a_changed_folder_is_another_store_and_the_old_one_stays(config, photos):
    before = resolve(config(size=4))
    (photos / "cat" / "new.png").write_bytes(png(7))
    after = resolve(config(size=4))
    assert after.fingerprint != before.fingerprint
    assert len(stored(before)[0]) == 30
    assert len(stored(after)[0]) == 31


def test_a_copied_folder_holds_the_same_images(config, photos, tmp_path):
    """Other places and times of change: what decides is the content."""
    first = resolve(config(size=4))
    copy = tmp_path / "elsewhere" / "photos"
    shutil.copytree(photos, copy, copy_function=shutil.copy)
    assert resolve(config(size=4, path=str(copy))).fingerprint == first.fingerprint
    assert len(list((tmp_path / "data" / "stores").glob("*/store.json"))) == 1


def test_without_a_size_the_images_keep_the_one_that_all_have(config, photos):
    assert resolve(config()).size == [4, 6]
    (photos / "dog" / "wide.png").write_bytes(png(0, (9, 4)))
    with pytest.raises(DataError, match=r"data\.size: dog/wide\.png has 4x9 .* have 4x6; wanted"):
        resolve(config())


def test_what_is_left_out_is_counted_and_named(config, photos, capsys):
    (photos / "cat" / "notes.txt").write_text("no image")
    (photos / "cat" / "half.png").write_bytes(png(1, (60, 60))[:50])
    found = OwnImages(resolve(config(size=4)))
    said = capsys.readouterr().err
    assert said.startswith("stored    30 images of ")
    for name in ("cat/notes.txt", "cat/half.png"):
        assert name in said
        assert name in found.describe()
    assert said.count("\n") == 1


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_images_are_refused_in_a_line_and_nothing_stays(config, tmp_path, count):
    place(tmp_path / "photos", *(f"{n}.png" for n in range(count)), "readme.txt")
    with pytest.raises(DataError) as error:
        resolve(config(size=4))
    assert "\n" not in str(error.value)
    stores = tmp_path / "data" / "stores"
    assert [path for path in stores.glob("*") if path.name != ".lock"] == []


def test_three_images_are_enough(config, tmp_path):
    place(tmp_path / "photos", "a.png", "b.png", "c.png")
    data = ImageDataModule(config(size=4, batch_size=1), 0)
    data.setup()
    assert data.sizes == {"train": 1, "val": 1, "test": 1}
    assert data.dataset.classes == 1


def test_a_batch_that_the_images_cannot_fill_says_what_to_set(config, photos):
    with pytest.raises(ValueError, match=r"data\.batch_size: got 64, but there are only 25"):
        ImageDataModule(config(size=4, batch_size=64), 0)


class TestSplits:
    def test_test_images_do_not_depend_on_the_seed_and_hold_every_label(self, config, photos):
        found = []
        for seed in (0, 1):
            data = ImageDataModule(config(size=4, test_fraction=0.2), seed)
            data.setup()
            test = data.splits["test"]
            found.append(test.first(len(test)))
            assert torch.bincount(test.labels).tolist() == [3, 3]
        assert torch.equal(*found)

    def test_every_image_is_in_one_split(self, config, photos):
        data = ImageDataModule(config(size=4), 0)
        data.setup()
        values = [rows.first(len(rows))[:, 0, 0, 0].tolist() for rows in data.splits.values()]
        assert sorted(v for split in values for v in split) == [*range(15), *range(100, 115)]

    def test_the_paths_own_splits_are_kept(self, config, tmp_path):
        for split, count in (("train", 6), ("val", 2), ("test", 3)):
            place(tmp_path / "photos", *(f"{split}/a/{n}.png" for n in range(count)))
        data = ImageDataModule(config(size=2), 0)
        data.setup()
        assert data.sizes == {"train": 6, "val": 2, "test": 3}
        assert {name: len(rows) for name, rows in data.splits.items()} == data.sizes

    def test_an_array_file_trains_on_its_own_values(self, config, tmp_path):
        pixels = np.random.default_rng(0).integers(256, size=(20, 8, 8), dtype=np.uint8)
        np.savez(tmp_path / "photos.npz", images=pixels, labels=np.arange(20) % 2)
        found = resolve(config(path=str(tmp_path / "photos.npz")))
        assert (found.size, found.channels) == ([8, 8], 1)
        assert np.array_equal(stored(found)[0].numpy()[:, 0], pixels)


def test_a_killed_build_goes_on_where_it_stopped(config, photos, monkeypatch):
    (photos / "cat" / "07.png").write_bytes(b"no image")
    whole = resolve(config(size=4, root=str(photos.parent / "whole")))
    monkeypatch.setattr(own, "CHUNK", 4)
    read: list[int] = []
    real = read_chunk

    def killed(part: range, *more) -> Chunk:
        if len(read) == 3:
            raise KeyboardInterrupt
        read.append(part.start)
        return real(part, *more)

    monkeypatch.setattr(own, "chunks", in_this_process(killed))
    with pytest.raises(KeyboardInterrupt):
        resolve(config(size=4))
    (place_of_it,) = (photos.parent / "data" / "stores").glob(".*.building")
    with (place_of_it / "journal.jsonl").open("a") as file:
        file.write('{"next": 16, "ro')  # as a kill in the middle of a write leaves it
    with (place_of_it / "images-00000.bin").open("ab") as file:
        file.write(b"half a chunk")
    read.clear()
    again = []
    monkeypatch.setattr(
        own,
        "chunks",
        in_this_process(lambda part, *more: again.append(part.start) or real(part, *more)),
    )
    found = resolve(config(size=4))
    assert again[0] == 12
    assert found.fingerprint == whole.fingerprint
    assert OwnImages(found).left_out == OwnImages(whole).left_out
    assert not list((photos.parent / "data" / "stores").glob(".*.building"))


def in_this_process(read):
    """Chunks read one by one, so that a test sees which."""

    def chunks(collection, start, shape, exact):
        open_worker(collection)
        for first in range(start, len(collection), own.CHUNK):
            yield read(range(first, min(first + own.CHUNK, len(collection))), shape, exact)

    return chunks


def test_workers_store_what_one_process_stores(config, photos, monkeypatch):
    (photos / "cat" / "07.png").write_bytes(b"no image")
    (photos / "dog" / "07.png").write_bytes(b"no image")
    one = resolve(config(size=4, root=str(photos.parent / "one")))
    monkeypatch.setattr(own, "CHUNK", 4)
    opened = chunks._opened[:]
    several = resolve(config(size=4))
    assert chunks._opened == opened, "workers opened the folder, this process did not"
    assert several.fingerprint == one.fingerprint
    assert OwnImages(several).left_out == OwnImages(one).left_out
    assert OwnImages(one).left_out.startswith("2 files left out")


def test_many_processes_that_ask_at_once_make_one_store(config, photos):
    with multiprocessing.get_context("fork").Pool(3) as pool:
        found = pool.map(resolve, [config(size=4)] * 3)
    assert len({each.fingerprint for each in found}) == 1
    assert len(list((photos.parent / "data" / "stores").glob("*/store.json"))) == 1


class TestIdentity:
    def test_a_record_finds_its_images_when_the_path_is_gone_or_changed(self, config, photos):
        found = resolve(config(size=4))
        before = stored(found)
        shutil.rmtree(photos)
        assert all(map(torch.equal, stored(resolve(found)), before))
        place(photos, "another.png", "more.png", "third.png")
        assert all(map(torch.equal, stored(resolve(found)), before))

    def test_a_moved_store_is_found_where_it_is_named(self, config, photos, tmp_path):
        found = resolve(config(size=4))
        (tmp_path / "data").rename(tmp_path / "disk")
        moved = data_of(found, str(tmp_path / "disk"))
        assert len(stored(moved)[0]) == 30
        with pytest.raises(DataError, match="are not in") as error:
            stored(found)
        assert "\n" not in str(error.value)

    def test_other_images_under_the_name_are_refused(self, config, photos, tmp_path):
        found = resolve(config(size=4))
        (photos / "cat" / "00.png").write_bytes(png(99, (6, 4)))
        other = resolve(config(size=4))
        shutil.rmtree(Path(found.root) / found.folder)
        (Path(other.root) / other.folder).rename(Path(found.root) / found.folder)
        with pytest.raises(DataError, match="has fingerprint"):
            OwnImages(found)

    def test_a_damaged_store_is_refused_and_made_anew_of_its_path(self, config, photos, tmp_path):
        found = resolve(config(size=4))
        file = tmp_path / "data" / found.folder / "images-00000.bin"
        os.truncate(file, 10)
        with pytest.raises(DataError, match="has 10 bytes, wanted"):
            OwnImages(found)
        assert OwnImages(resolve(config(size=4))).train_size == 27

    def test_a_record_of_somebody_else_reads_no_path_of_this_machine(self, config, photos):
        """A store is made of a path that the user names, never of one that a run names."""
        recorded = config(size=[4, 4], channels=3, fingerprint="0" * 64)
        with pytest.raises(DataError, match="by `vqvae data`"):
            OwnImages(resolve(recorded))
        assert not (photos.parent / "data").exists()

    def test_a_store_says_what_it_was_made_of(self, config, photos, tmp_path):
        found = resolve(config(size=4))
        said = json.loads((Path(found.root) / found.folder / "store.json").read_text())
        assert said["title"] == "photos"
        assert said["classes"] == ["cat", "dog"]


class TestStrangersStores:
    """What a store says of itself is checked before it is used."""

    @pytest.fixture
    def changed(self, config, photos):
        """(entries) → settings of a store whose description says something else."""

        def changed(**entries):
            found = resolve(config(size=4))
            path = Path(found.root) / found.folder / "store.json"
            said = {**json.loads(path.read_text()), **entries}
            pinned = fingerprint(said, "classes")
            path.write_text(json.dumps({k: v for k, v in said.items() if v is not None}))
            path.parent.rename(path.parent.with_name(pinned[:16]))
            return replace(found, fingerprint=pinned)

        return changed

    @pytest.mark.parametrize("classes", [[], ["one"], "cat", 5])
    def test_classes_that_do_not_fit_the_labels_are_refused(self, changed, classes):
        with pytest.raises(DataError) as error:
            OwnImages(changed(classes=classes))
        assert "\n" not in str(error.value)

    def test_texts_are_shown_without_control_characters(self, changed):
        found = OwnImages(changed(title="\x1b[2Jx", classes=["a\nb", "c"], left_out=None))
        assert found.title == "\\x1b[2Jx"
        assert found.class_names == ("a\\nb", "c")
        assert "\x1b" not in found.describe()


def test_a_share_for_test_leaves_one_image_for_training_and_one_for_validation(config, tmp_path):
    place(tmp_path / "photos", *(f"{n}.png" for n in range(4)))
    data = ImageDataModule(config(size=4, batch_size=1, test_fraction=0.99), 0)
    assert data.sizes == {"train": 1, "val": 1, "test": 2}


def test_a_split_for_test_alone_is_no_training_set(config, tmp_path):
    place(tmp_path / "photos", "train/a/1.png", "test/a/1.png", "test/a/2.png")
    with pytest.raises(DataError, match="holds 1 images for training, 0 for validation and 2 for"):
        ImageDataModule(config(size=4, batch_size=1), 0)


def test_the_paths_own_validation_images_are_binarized_too(config, tmp_path):
    for split in ("train", "val", "test"):
        place(tmp_path / "photos", *(f"{split}/a/{n}.png" for n in range(4)))
    data = ImageDataModule(config(size=4, binarize="static"), 0)
    data.setup()
    for rows in data.splits.values():
        assert set(rows.first(len(rows)).unique().tolist()) <= {0, 255}


def test_two_folders_of_like_names_sizes_and_times_are_two_sources(config, tmp_path):
    for name, value in (("a", 1), ("b", 200)):
        for n in range(4):
            path = tmp_path / name / f"{n}.bmp"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(png(value + n, kind="BMP"))
            os.utime(path, (0, 0))
    first, second = (resolve(config(path=str(tmp_path / name), size=2)) for name in "ab")
    assert first.fingerprint != second.fingerprint
    shutil.copy2(tmp_path / "b" / "0.bmp", tmp_path / "a" / "0.bmp")  # keeps the time
    assert resolve(config(path=str(tmp_path / "a"), size=2)).fingerprint != first.fingerprint


def test_a_file_that_could_not_be_read_is_tried_again(config, photos, monkeypatch):
    monkeypatch.setattr(own, "chunks", in_this_process(unreadable))
    before = resolve(config(size=4))
    monkeypatch.setattr(own, "chunks", in_this_process(read_chunk))
    after = resolve(config(size=4))
    assert (len(stored(before)[0]), len(stored(after)[0])) == (29, 30)


def unreadable(part, *more):
    chunk = read_chunk(part, *more)
    if part.start:
        return chunk
    return replace(
        chunk,
        pixels=chunk.pixels[1:],
        kept=chunk.kept[1:],
        left_out=[("cat/00.png", "cannot be read (Input/output error)")],
    )


@pytest.mark.parametrize("link", ["stores", "store", "building"])
def test_nothing_is_written_or_removed_through_a_link(config, photos, tmp_path, link):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "store.json").write_text("precious")
    stores = tmp_path / "data" / "stores"
    if link == "stores":
        stores.parent.mkdir()
        stores.symlink_to(mine)
        with pytest.raises(DataError, match="is a link"):
            resolve(config(size=4))
    elif link == "store":
        found = resolve(config(size=4))
        shutil.rmtree(stores / Path(found.folder).name)
        (stores / Path(found.folder).name).symlink_to(mine)
        with pytest.raises(DataError, match="link"):
            OwnImages(found)
        resolve(config(size=4))
    else:
        collection = open_collection(photos)
        key = own.source_key(collection, config(size=4))
        place = own._building_place(tmp_path, key)
        place.rmdir()
        stores.mkdir(parents=True)
        (stores / place.name).symlink_to(mine)
        resolve(config(size=4))
    assert (mine / "store.json").read_text() == "precious"
    assert [path.name for path in mine.iterdir()] == ["store.json"]


@pytest.mark.parametrize(
    "entries",
    [{"sources": None}, {"sources": 5}, {"sources": [5]}, {"title": 5}, {"arrays": {}}, {"of": 1}],
)
def test_a_store_that_describes_itself_otherwise_is_made_anew(config, photos, entries):
    found = resolve(config(size=4))
    path = Path(found.root) / found.folder / "store.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))
    with pytest.raises(DataError) as error:
        OwnImages(found)
    assert "\n" not in str(error.value)
    assert resolve(config(size=4)) == found
    assert len(stored(found)[0]) == 30


def test_a_renamed_store_does_not_block_its_path(config, photos):
    found = resolve(config(size=4))
    place = Path(found.root) / found.folder
    place.rename(place.with_name("renamed"))
    assert len(stored(resolve(config(size=4)))[0]) == 30


@pytest.mark.parametrize(
    "line",
    ["{}", "[1]", "null", '{"next": 12, "rows": 6, "left_out": [], "animated": 0}',
     '{"next": 99, "rows": 99, "left_out": [], "animated": 0}',
     '{"next": -5, "rows": -5, "left_out": [], "animated": 0}',
     '{"next": 4, "rows": "x", "left_out": [], "animated": 0}'],
)  # fmt: skip
def test_a_journal_that_no_build_wrote_is_not_believed(config, photos, line):
    key = own.source_key(open_collection(photos), config(size=4))
    stores = photos.parent / "data" / "stores"
    stores.mkdir(parents=True)
    (own._building_place(stores, key) / "journal.jsonl").write_text(line + "\n")
    assert len(stored(resolve(config(size=4)))[0]) == 30


def test_a_class_without_an_image_that_can_be_read_is_none(config, photos):
    (photos / "broken").mkdir()
    (photos / "broken" / "a.png").write_bytes(b"no image")
    found = OwnImages(resolve(config(size=4)))
    assert found.class_names == ("cat", "dog")


def test_names_of_classes_are_shown_without_control_characters(config, tmp_path):
    place(tmp_path / "photos", *(f"a\nb/{n}.png" for n in range(3)), "c\x1b[2J/1.png")
    assert OwnImages(resolve(config(size=4))).class_names == ("a\\nb", "c\\x1b[2J")
