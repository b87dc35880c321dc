"""Folders of image files: classes, splits, and every odd thing that a folder may hold."""

import errno
import os
import pickle
import shutil
import socket

import numpy as np
import pytest
from own_images import (
    classes_of,
    place,
    png,
    refusal,
    splits_of,
    unread,
    values,
)

from vqvae_lightning.data.formats import DataError
from vqvae_lightning.data.own.collections import open_collection, summary


def test_a_flat_folder_has_one_nameless_class(tmp_path):
    found = open_collection(place(tmp_path / "my.photos", "b.png", "a.png", "c"))
    assert (found.title, found.classes) == ("my.photos", ("",))
    assert found.names == ["a.png", "b.png", "c"]
    assert (found.labels.tolist(), found.splits.tolist()) == ([0, 0, 0], [0, 0, 0])
    assert (found.labels.dtype, found.splits.dtype) == (np.dtype(np.int64), np.dtype(np.uint8))
    assert (values(found), len(found), found.left_out) == ([1, 0, 2], 3, [])


def test_the_first_folder_is_the_class_and_deeper_ones_belong_to_it(tmp_path):
    found = open_collection(place(tmp_path, "dog/b.png", "cat/x/y/z.png", "cat/a.png"))
    assert found.classes == ("cat", "dog")
    assert classes_of(found) == {"cat/a.png": "cat", "cat/x/y/z.png": "cat", "dog/b.png": "dog"}


def test_a_single_class_keeps_its_name(tmp_path):
    assert open_collection(place(tmp_path, "cat/a.png")).classes == ("cat",)


def test_folders_of_splits_are_splits_and_share_their_classes(tmp_path):
    names = ("Training/cat/a.png", "valid/dog/b.png", "dev/cat/c.png", "test/emu/d/e.png")
    found = open_collection(place(tmp_path, *names))
    assert found.classes == ("cat", "dog", "emu")
    assert splits_of(found) == dict(zip(names, ("train", "val", "val", "test"), strict=True))
    assert [classes_of(found)[name] for name in names] == ["cat", "dog", "cat", "emu"]


def test_splits_may_be_without_classes(tmp_path):
    found = open_collection(place(tmp_path, "train/a.png", "test/b.png"))
    assert (found.classes, sorted(splits_of(found).values())) == (("",), ["test", "train"])


@pytest.mark.parametrize("other", ["cat", "train2", "extra"])
def test_a_folder_beside_those_of_splits_is_left_out_and_named(tmp_path, other):
    names = ("train/cat/a.png", "test/cat/b.png", f"{other}/c.png")
    found = open_collection(place(tmp_path, *names))
    assert (found.names, found.classes) == (["test/cat/b.png", "train/cat/a.png"], ("cat",))
    assert found.left_out == [(f"{other}/c.png", "lies in no folder of a split")]


def test_a_class_may_be_called_as_a_split(tmp_path):
    found = open_collection(place(tmp_path, "bus/a.png", "train/b.png"))
    assert (found.classes, found.splits.tolist()) == (("bus", "train"), [0, 0])


def test_splits_without_one_for_training_are_refused(tmp_path):
    place(tmp_path, "val/a.png", "test/b.png")
    with pytest.raises(DataError, match="got test, val without a folder train, wanted one"):
        open_collection(tmp_path)


def test_runs_and_stores_of_this_program_are_left_out(tmp_path):
    pictures = ("runs/first/images/a.png", "data/stores/abc/b.png")
    place(tmp_path, "a.png", "runs/first/run.json", "data/stores/abc/store.json", *pictures)
    found = open_collection(tmp_path)
    assert (found.names, found.classes) == (["a.png"], ("",))
    assert found.left_out == [
        ("data/stores/abc/", "is a run, or a store, of this program"),
        ("runs/first/", "is a run, or a store, of this program"),
    ]


def test_a_folder_without_images_does_not_count_among_splits(tmp_path):
    place(tmp_path, "train/cat/a.png", "test/cat/b.png", "notes/c.txt")
    found = open_collection(tmp_path)
    assert sorted(splits_of(found).values()) == ["test", "train"]
    assert found.left_out == [("notes/", "holds no image"), ("notes/c.txt", "is no image")]


def test_images_beside_the_folders_are_left_out_and_named(tmp_path):
    place(tmp_path, "cat/a.png", "b.png", "c.png")
    found = open_collection(tmp_path)
    assert found.names == ["cat/a.png"]
    assert summary(found.left_out) == ("2 files left out: 2 lie in no class folder (b.png, c.png)")
    place(tmp_path, "train/cat/a.png", "train/b.png", "test/c.png")
    (tmp_path / "cat/a.png").unlink()
    found = open_collection(tmp_path)
    assert found.names == ["train/cat/a.png"]
    assert found.left_out == [
        ("b.png", "lies in no folder of a split"),
        ("c.png", "lies in no folder of a split"),
        ("cat/", "holds no image"),
        ("test/c.png", "lies in no class folder"),
        ("train/b.png", "lies in no class folder"),
    ]


def test_an_empty_class_folder_is_no_class_and_is_named(tmp_path):
    (tmp_path / "dog" / "deep").mkdir(parents=True)
    found = open_collection(place(tmp_path, "cat/a.png"))
    assert (found.classes, found.left_out) == (("cat",), [("dog/", "holds no image")])


def test_hidden_files_and_those_of_systems_are_ignored(tmp_path):
    place(tmp_path, "a.png", ".hidden.png", ".git/b.png", "__MACOSX/c.png", "Thumbs.db")
    found = open_collection(place(tmp_path, "desktop.ini", "._a.png"))
    assert (found.names, found.left_out) == (["a.png"], [])


def test_other_files_are_named_and_not_opened(tmp_path, monkeypatch):
    place(tmp_path, "a.png", "b.TXT", "c.json", "d.csv", "e.md")
    monkeypatch.setattr(os, "open", None)
    found = open_collection(tmp_path)
    assert found.names == ["a.png"]
    assert summary(found.left_out) == (
        "4 files left out: 4 are no images (b.TXT, c.json, d.csv, …)"
    )


def test_a_strange_ending_is_judged_by_its_content(tmp_path):
    place(tmp_path, "a.0001", "b.png.orig", "c")
    (tmp_path / "d.weird").write_text("hello")
    (tmp_path / "e.png").write_bytes(png()[:40])
    found = open_collection(tmp_path)
    assert [found.read(n, 1).pixels.shape for n in range(3)] == [(1, 2, 3)] * 3
    assert [unread(found, n) for n in (3, 4)] == ["is no image", "is damaged"]


def test_names_may_hold_anything(tmp_path):
    odd = ["with blank.png", "zwei\nZeilen.png", "ünï.png", os.fsdecode(b"\xff\xfe.png"), "-rf"]
    found = open_collection(place(tmp_path, *(f"{name}/{name}" for name in odd)))
    assert found.classes == tuple(sorted(odd))
    assert len(set(values(found))) == len(odd)
    assert pickle.loads(pickle.dumps(found)).names == found.names
    assert "\n" not in summary([(name, "is no image") for name in found.names])


def test_the_order_is_that_of_names_and_not_of_the_disk(tmp_path, monkeypatch):
    names = [f"{c}/{n}.png" for c in "ba" for n in range(30)]
    first = open_collection(place(tmp_path, *names))
    scan = os.scandir

    class Backwards:
        def __init__(self, path):
            self.entries = scan(path)

        def __enter__(self):
            return reversed(list(self.entries))

        def __exit__(self, *_):
            self.entries.close()

    monkeypatch.setattr(os, "scandir", Backwards)
    again = open_collection(tmp_path)
    assert again.names == first.names == sorted(names)
    assert again.stamp == first.stamp


def test_links_to_files_are_followed_and_links_to_folders_are_not(tmp_path):
    outside = place(tmp_path / "outside", "a.png", "more/b.png")
    root = place(tmp_path / "root", "c.png")
    (root / "link.png").symlink_to(outside / "a.png")
    (root / "folder").symlink_to(outside / "more")
    (root / "lost.png").symlink_to("nowhere")
    (root / "loop.png").symlink_to("loop.png")
    (root / "up").symlink_to(root)
    found = open_collection(root)
    assert found.names == ["c.png", "link.png"]
    assert found.left_out == [
        ("folder", "is a link to a folder"),
        ("loop.png", "is a link to nothing"),
        ("lost.png", "is a link to nothing"),
        ("up", "is a link to a folder"),
    ]
    (tmp_path / "alias").symlink_to(root)
    assert open_collection(tmp_path / "alias").names == found.names


def test_pipes_sockets_and_devices_are_never_opened(tmp_path):
    place(tmp_path, "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "null.png").symlink_to(os.devnull)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.png"))
        found = open_collection(tmp_path)
    names = ["null.png", "pipe.png", "socket.png"]
    assert found.left_out == [(name, "is no regular file") for name in names]
    assert found.names == ["a.png"]


def test_unreadable_folders_and_files_are_named(tmp_path, monkeypatch):
    place(tmp_path, "cat/a.png", "cat/b.png", "dog/c.png")
    scan, opened = os.scandir, os.open

    def refuse(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(
        os, "scandir", lambda path: refuse(path) if "dog" in str(path) else scan(path)
    )
    monkeypatch.setattr(
        os,
        "open",
        lambda path, *more: refuse(path) if "b.png" in str(path) else opened(path, *more),
    )
    found = open_collection(tmp_path)
    assert found.left_out == [("dog/", "cannot be read (Permission denied)")]
    assert found.names == ["cat/a.png", "cat/b.png"]
    assert unread(found, 1) == "cannot be read (Permission denied)"
    monkeypatch.setattr(os, "scandir", refuse)
    assert refusal(tmp_path).endswith("cannot be read (Permission denied)")


def test_a_file_that_goes_after_the_listing_is_one_image_less(tmp_path):
    found = open_collection(place(tmp_path, "a.png", "b.png"))
    (tmp_path / "a.png").unlink()
    assert unread(found, 0) == "cannot be read (No such file or directory)"
    assert found.read(1, 1).pixels[0, 0, 0] == 1


def test_the_stamp_differs_when_the_source_does(tmp_path):
    place(tmp_path, "a.png", "b.png")
    os.utime(tmp_path / "a.png", ns=(5, 5))
    stamps = [open_collection(tmp_path).stamp]

    def changed():
        stamps.append(open_collection(tmp_path).stamp)
        return len(set(stamps)) == len(stamps)

    assert open_collection(tmp_path).stamp == stamps[0]
    os.utime(tmp_path / "a.png", ns=(5, 6))
    assert changed()
    (tmp_path / "a.png").write_bytes(png(9, (30, 30)))
    os.utime(tmp_path / "a.png", ns=(5, 6))
    assert changed()
    (tmp_path / "a.png").rename(tmp_path / "c.png")
    assert changed()
    place(tmp_path, "d.png")
    assert changed()
    place(tmp_path, "e.txt")
    assert changed()


def test_a_file_that_is_replaced_by_one_of_its_size_and_time_changes_the_stamp(tmp_path):
    for root in ("a", "b"):
        place(tmp_path / root, "cat/a.png")
        os.utime(tmp_path / root / "cat/a.png", ns=(7, 7))
    before = open_collection(tmp_path / "a").stamp
    assert open_collection(tmp_path / "a").stamp == before
    shutil.copy2(tmp_path / "b" / "cat/a.png", tmp_path / "a" / "cat/a.png")
    assert open_collection(tmp_path / "a").stamp != before


def test_many_files_are_listed_with_one_look_at_each(tmp_path, monkeypatch):
    for number in range(10):
        (tmp_path / f"class{number}").mkdir()
        for n in range(500):
            (tmp_path / f"class{number}" / f"image_{n:06}.png").touch()
    monkeypatch.setattr(os, "open", None)
    found = open_collection(tmp_path)
    assert len(found) == 5000
