"""Images in files of numpy, row by row, and what must be refused."""

import os
import pickle
import tracemalloc
from typing import Any

import numpy as np
import pytest
from own_images import check_damaged, refusal, unread
from PIL import Image

from vqvae_lightning.data.own.collections import SPLITS, open_collection


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("channels", [None, 1, 3, 4])
@pytest.mark.parametrize("first", [False, True])
def test_every_layout_gives_the_same_images(tmp_path, channels, first):
    array = noise(5, 6, 7, channels) if channels else noise(5, 6, 7)
    if channels and first:
        array = np.ascontiguousarray(array.transpose(0, 3, 1, 2))
    np.save(tmp_path / "own.npy", array)
    found = open_collection(tmp_path / "own.npy")
    assert (len(found), found.title, found.classes) == (5, "own", ("",))
    assert found.left_out == []
    assert list(found.names) == [f"row {n}" for n in range(5)]
    for n in range(5):
        got = found.read(n, 1 if channels in (None, 1) else 3).pixels
        assert got.shape[1:] == (6, 7)
        if channels == 3:
            assert (got == (array[n] if first else array[n].transpose(2, 0, 1))).all()
        elif channels != 4:
            assert (got == array[n].reshape(6, 7)).all()
    assert found.read(0, 3, (3, 3)).pixels.shape == (3, 3, 3)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(("x", "y"), [("images", "labels"), ("x", "y"), ("X", "Y")])
def test_an_npz_has_images_and_labels(tmp_path, save, x, y):
    images, labels = noise(4, 6, 7), np.array([7, -1, 7, 20], np.int16)
    save(tmp_path / "own.npz", **{x: images, y: labels})
    found = open_collection(tmp_path / "own.npz")
    assert found.classes == ("-1", "7", "20")
    assert found.labels.tolist() == [1, 0, 1, 2]
    assert not found.splits.any()
    for n in (2, 0, 3, 1, 1):
        assert (found.read(n, 1).pixels[0] == images[n]).all()
    assert list(found.names)[2:] == [f"{x} row 2", f"{x} row 3"]
    assert found.names[1:2] == [f"{x} row 1"]


@pytest.mark.parametrize("pattern", ["{kind}_{split}", "{split}_{kind}"])
def test_an_npz_may_have_splits(tmp_path, pattern):
    images = {split: noise(n, 6, 7, 3) for split, n in (("test", 2), ("train", 4), ("val", 3))}
    labels = {split: np.arange(len(x), dtype=np.uint8)[:, None] for split, x in images.items()}
    words = ("x", "y") if pattern.startswith("{kind") else ("images", "labels")
    saved: dict[str, Any] = {}
    for word, group in zip(words, (images, labels), strict=True):
        saved |= {pattern.format(kind=word, split=name): a for name, a in group.items()}
    np.savez(tmp_path / "own.npz", **saved, mean=np.zeros(3))
    found = open_collection(tmp_path / "own.npz")
    assert [SPLITS[n] for n in found.splits] == ["train"] * 4 + ["val"] * 3 + ["test"] * 2
    assert found.labels.tolist() == [0, 1, 2, 3, 0, 1, 2, 0, 1]
    whole = np.concatenate([images[name] for name in ("train", "val", "test")])
    for n in range(9):
        assert (found.read(n, 3).pixels == whole[n].transpose(2, 0, 1)).all()
    assert found.left_out == [("mean", "is neither images nor labels")]


def test_labels_of_two_types_of_integers_are_the_same_labels(tmp_path):
    images = np.zeros((3, 2, 2), np.uint8)
    train, test = np.array([3, 1, 3], np.uint64), np.array([1, 3, 3], np.int32)
    np.savez(tmp_path / "a.npz", x_train=images, y_train=train, x_test=images, y_test=test)
    found = open_collection(tmp_path / "a.npz")
    assert (found.classes, found.labels.tolist()) == (("1", "3"), [1, 0, 1, 0, 1, 1])


def test_one_array_of_any_name_is_the_images(tmp_path):
    np.savez(tmp_path / "a.npz", noise(2, 3, 3))
    assert open_collection(tmp_path / "a.npz").names[1] == "arr_0 row 1"


def test_an_empty_split_is_none(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=noise(2, 3, 8, 8), x_test=noise(0, 3, 8, 8))
    found = open_collection(tmp_path / "a.npz")
    assert (found.splits.tolist(), found.left_out) == ([1, 1], [])


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((2, 3, 3), np.float32), "got float32 (2, 3, 3), wanted uint8"),
        (np.zeros((2, 3, 3), bool), "got bool"),
        (np.zeros((2, 3), np.uint8), "got uint8 (2, 3), wanted"),
        (np.zeros((2, 5, 6, 7), np.uint8), "got uint8 (2, 5, 6, 7), wanted"),
        (np.zeros((2, 3, 5, 1), np.uint8), "which is N,H,W,C and N,C,H,W"),
        (np.zeros((), np.uint8), "got uint8 ()"),
        (np.zeros((0, 3, 3), np.uint8), "got no image"),
        (np.zeros((2, 0, 3), np.uint8), "0 times 3 pixels"),
        (np.asfortranarray(np.zeros((2, 3, 3), np.uint8)), "np.ascontiguousarray"),
        (np.array([{"a": 1}], object), "array of objects"),
    ],
)
def test_another_array_is_refused_in_a_line(tmp_path, array, said):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    assert said in refusal(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("saved", "said"),
    [
        ({"a": noise(2, 3, 3), "b": noise(2, 3, 3)}, "got a, b; wanted images, labels"),
        ({"x": noise(2, 3, 3), "images": noise(2, 3, 3)}, "once"),
        ({"x": noise(2, 3, 3), "y": np.zeros(3, int)}, "y: got int64 (3,), wanted integers"),
        ({"x": noise(2, 3, 3), "y": np.zeros(2)}, "y: got float64 (2,), wanted integers"),
        ({"x": noise(2, 3, 3), "y": np.zeros((2, 5), int)}, "or (2, 1)"),
        ({"x": noise(2, 3, 3), "y": np.array(["a", "b"])}, "y: got <U1 (2,)"),
        ({"x_test": noise(2, 3, 3), "x_val": noise(2, 3, 3)}, "got x_test, x_val; wanted"),
        ({"x_train": noise(2, 3, 3), "y_test": np.zeros(2, int)}, "labels without images"),
        (
            {"x": noise(2, 3, 3), "y": np.array(["cat", "dog"])},
            "wanted integers (2,) or (2, 1); np.unique(labels, return_inverse=True)[1] numbers",
        ),
        (
            {"x_train": noise(2, 3, 3), "y_train": np.zeros(2, int), "x_test": noise(1, 3, 3)},
            "x_test: got no labels",
        ),
    ],
)
def test_other_names_and_labels_are_refused_in_a_line(tmp_path, saved, said):
    np.savez(tmp_path / "a.npz", **saved)
    assert said in refusal(tmp_path / "a.npz")


def test_no_pickle_is_read(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    trap = np.array([Trap(), Trap()], object)
    np.savez(tmp_path / "a.npz", x=noise(2, 3, 3), y=trap)
    np.save(tmp_path / "a.npy", trap, allow_pickle=True)
    assert "objects" in refusal(tmp_path / "a.npz")
    assert "objects" in refusal(tmp_path / "a.npy")
    (tmp_path / "b.npy").write_bytes(pickle.dumps(Trap()))
    assert "no array of numpy" in refusal(tmp_path / "b.npy")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "b.npz"])
def test_damage_is_a_line_at_the_opening_or_an_image_less(tmp_path, name):
    saved = {"x": noise(20, 6, 6), "y": np.arange(20)}
    if name == "a.npy":
        np.save(tmp_path / name, saved["x"])
    else:
        (np.savez if name == "a.npz" else np.savez_compressed)(tmp_path / name, **saved)
    data, chance = (tmp_path / name).read_bytes(), np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(data)
        at = int(chance.integers(min(len(data), 300)))
        damaged[at] = int(chance.integers(256))
        if chance.random() < 0.3:
            del damaged[int(chance.integers(len(data))) :]
        (tmp_path / name).write_bytes(damaged)
        check_damaged(tmp_path / name)


def test_a_header_that_claims_too_much_is_refused_before_anything_is_allocated(tmp_path):
    np.save(tmp_path / "a.npy", noise(20, 6, 6))
    data = (tmp_path / "a.npy").read_bytes().replace(b"(20, 6, 6), }  ", b"(2000, 6, 6), }")
    (tmp_path / "a.npy").write_bytes(data)
    assert "header says (2000, 6, 6) uint8, got 720 of 72000 bytes" in refusal(tmp_path / "a.npy")


def test_a_file_cut_after_its_listing_ends_too_soon(tmp_path):
    np.save(tmp_path / "a.npy", noise(20, 6, 6))
    found = open_collection(tmp_path / "a.npy")
    os.truncate(tmp_path / "a.npy", 200)
    assert unread(found, 19) == "ends too soon"
    (tmp_path / "a.npy").unlink()
    assert unread(found, 0) == "cannot be read (No such file or directory)"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_one_row_at_a_time_is_in_memory(tmp_path, save):
    save(tmp_path / "a.npz", x=np.zeros((400, 100, 100), np.uint8))  # 4 MB
    tracemalloc.start()
    found = open_collection(tmp_path / "a.npz")
    for n in range(0, 400, 50):
        found.read(n, 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def test_the_stamp_of_a_file_differs_when_it_changes(tmp_path):
    np.save(tmp_path / "a.npy", noise(2, 3, 3))
    os.utime(tmp_path / "a.npy", ns=(5, 5))
    first = open_collection(tmp_path / "a.npy").stamp
    os.utime(tmp_path / "a.npy", ns=(5, 6))
    assert open_collection(tmp_path / "a.npy").stamp != first


def test_an_image_of_more_pixels_than_a_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 8)
    np.save(tmp_path / "a.npy", noise(2, 3, 3))
    assert "3 times 3 pixels, wanted 1 to 8" in refusal(tmp_path / "a.npy")
