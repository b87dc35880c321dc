"""What a path holds: the kinds of it, what is refused, and what is said of what is left out."""

import os
from itertools import product

import numpy as np
import pytest
from own_images import check_in_processes, place, refusal

from vqvae_lightning.data.own.collections import open_collection, summary


def test_what_is_not_there_is_refused(tmp_path):
    assert "No such file" in refusal(tmp_path / "absent")
    assert "No such file" in refusal(tmp_path / "new\nline")


def test_an_empty_folder_is_refused(tmp_path):
    assert refusal(tmp_path) == f"{tmp_path}: got a folder without images, wanted some"


def test_a_folder_of_other_files_says_what_it_holds(tmp_path):
    place(tmp_path, "a.txt", "b/c.zip")
    wanted = "got a folder without images (2 files left out: 2 are no images (a.txt, b/c.zip))"
    assert wanted in refusal(tmp_path)


@pytest.mark.parametrize(
    ("name", "got"),
    [("a.zip", "a .zip file"), ("a.png", "a .png file"), ("a", "a file without an ending")],
)
def test_a_file_of_another_kind_is_refused(tmp_path, name, got):
    place(tmp_path, name)
    assert refusal(tmp_path / name) == (
        f"{tmp_path / name}: got {got}, wanted a folder, .npy, .npz or .parquet"
    )


def test_a_pipe_is_refused_unopened(tmp_path):
    os.mkfifo(tmp_path / "a.npy")
    assert "no regular file" in refusal(tmp_path / "a.npy")


def test_a_summary_is_one_line_that_stays_short():
    assert summary([]) == ""
    assert summary([("a", "is empty")]) == "1 file left out: 1 is empty (a)"
    assert summary([("row 3", "has no label")], "row") == ("1 row left out: 1 has no label (row 3)")
    many = [(f"x{n}.jpg", "ends too soon") for n in range(3)]
    many += [(f"{n}.txt", "is no image") for n in range(9)]
    assert summary(many) == (
        "12 files left out: 9 are no images (0.txt, 1.txt, 2.txt, …), 3 end too soon"
        " (x0.jpg, x1.jpg, x2.jpg)"
    )
    odd = [("\n" * 4000, f"has {n:,} pixels, more than 9") for n in range(1000)]
    assert len(summary(odd)) < 1000
    assert summary(odd).endswith(", 994 for other reasons")
    assert "\n" not in summary(odd)


@pytest.mark.parametrize(
    ("kind", "method"),
    [*product(["folder", "npy", "npz", "compressed"], ["fork"]), ("compressed", "spawn")],
)
def test_other_processes_read_a_collection_too(tmp_path, kind, method):
    images = np.arange(9, dtype=np.uint8)[:, None, None] * np.ones((9, 4, 4), np.uint8)
    path = tmp_path / f"a.{'npz' if kind == 'compressed' else kind}"
    if kind == "folder":
        path = place(tmp_path, *(f"{n}.png" for n in range(9)))
    elif kind == "npy":
        np.save(path, images)
    else:
        (np.savez if kind == "npz" else np.savez_compressed)(path, x=images, y=np.arange(9))
    check_in_processes(open_collection(path), list(range(9)), method)
