"""Images in Parquet files, as Hugging Face's datasets writes them."""

import json
import sys

import numpy as np
import pytest
from own_images import check_damaged, check_in_processes, place, png, refusal, unread, values

from vqvae_lightning.data.formats import DataError
from vqvae_lightning.data.own.collections import SPLITS, open_collection, summary


def encoded_row(value):
    return {"bytes": png(value), "path": f"{value}.png"}


def hugging_face(**features):
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}


CLASS_LABEL = {"names": ["cat", "dog", "emu"], "_type": "ClassLabel"}


@pytest.fixture
def write(tmp_path):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    def write(name, columns, metadata=None, **options):
        table = pa.table(columns).replace_schema_metadata(metadata)
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(table, tmp_path / name, **options)
        return tmp_path / name

    return write


def test_rows_as_hugging_face_writes_them(write):
    path = write(
        "own.parquet",
        {"image": [encoded_row(n) for n in range(10)], "label": [2, 0] * 5, "id": range(10)},
        hugging_face(image={"_type": "Image"}, label=CLASS_LABEL),
        row_group_size=3,
    )
    found = open_collection(path)
    assert (found.title, found.classes) == ("own", ("cat", "dog", "emu"))
    assert found.labels.tolist() == [2, 0] * 5
    assert not found.splits.any()
    assert values(found) == list(range(10))
    for n in (9, 0, 5, 4, 2, 9):
        assert found.read(n, 1).pixels[0, 0, 0] == n
    assert found.names[7] == "own.parquet row 7"
    assert found.read(0, 3, (5, 5)).pixels.shape == (3, 5, 5)


def test_binary_columns_and_labels_without_names(write):
    path = write("a.parquet", {"img": [png(n) for n in range(3)], "label": [7, 30, 7]})
    found = open_collection(path)
    assert (found.classes, found.labels.tolist()) == (("7", "30"), [0, 1, 0])
    assert values(found) == [0, 1, 2]


def test_labels_may_be_texts(write):
    found = open_collection(write("a.parquet", {"x": [png()] * 3, "label": ["b", "a", "b"]}))
    assert (found.classes, found.labels.tolist()) == (("a", "b"), [1, 0, 1])


def test_labels_may_be_what_pandas_writes(write):
    pa = pytest.importorskip("pyarrow")
    images = [png(n) for n in range(3)]
    for column, classes, kept in (
        (pa.array([2.0, 5.0, 2.0]), ("2", "5"), 3),
        (pa.array([2.0, float("nan"), 5.0]), ("2", "5"), 2),
        (pa.array([True, False, True]), ("0", "1"), 3),
        (pa.array(["b", "a", "b"]).dictionary_encode(), ("a", "b"), 3),
        (pa.array([7, 9, 7], pa.uint64()), ("7", "9"), 3),
        (pa.array([0.25, 1.5, 2.0]), ("",), 3),
    ):
        found = open_collection(write("a.parquet", {"x": images, "label": column}))
        assert (found.classes, len(found)) == (classes, kept), column


def test_a_label_that_no_integer_holds_is_refused(write):
    pa = pytest.importorskip("pyarrow")
    for column in (pa.array([0, 2**63], pa.uint64()), pa.array([0.0, 2.0**70])):
        with pytest.raises(DataError, match=r"got a label of .*, wanted less than 2\^63"):
            open_collection(write("a.parquet", {"x": [png()] * 2, "label": column}))


def test_a_number_of_another_name_is_no_label(write):
    found = open_collection(write("a.parquet", {"x": [png()] * 3, "id": [5, 6, 7]}))
    assert (found.classes, found.labels.tolist()) == (("",), [0, 0, 0])


def test_the_finer_of_two_labels_is_taken(write):
    path = write(
        "a.parquet",
        {"img": [encoded_row(0)], "coarse_label": [0], "fine_label": [2]},
        hugging_face(coarse_label=CLASS_LABEL, fine_label=CLASS_LABEL),
    )
    assert open_collection(path).labels.tolist() == [2]


def test_files_are_splits_by_their_names(write, tmp_path):
    for n, name in enumerate(["train-00001-of-00002", "train-00000-of-00002", "validation-0"]):
        write(f"data/{name}.parquet", {"image": [png(n)] * 2, "label": [n, 0]})
    write("data/test/0000.parquet", {"image": [png(3)], "label": [3]})
    write("unsupervised-0.parquet", {"image": [png(4)], "label": [3]})
    place(tmp_path, "README.md", "LICENSE")
    found = open_collection(tmp_path)
    assert found.title == tmp_path.name
    assert [SPLITS[n] for n in found.splits] == ["test", *["train"] * 4, "val", "val"]
    assert values(found) == [3, 1, 1, 0, 0, 2, 2]
    assert found.labels.tolist() == [3, 1, 0, 0, 0, 2, 0]
    assert found.left_out == [
        ("LICENSE", "is no image"),
        ("README.md", "is no image"),
        ("unsupervised-0.parquet", "is of no known split"),
    ]


def test_without_names_of_splits_all_files_are_of_none(write, tmp_path):
    for n in range(2):
        write(f"{n}.parquet", {"image": [png(n)]})
    assert open_collection(tmp_path).splits.tolist() == [0, 0]


def test_without_files_to_train_on_a_folder_is_refused(write, tmp_path):
    for name in ("test", "val"):
        write(f"{name}.parquet", {"image": [png()]})
    assert "got test.parquet, val.parquet, wanted a train-*.parquet" in refusal(tmp_path)


def test_files_with_other_columns_are_refused(write, tmp_path):
    write("a.parquet", {"image": [png()], "label": [0]})
    write("b.parquet", {"img": [png()], "label": [0]})
    with pytest.raises(DataError, match=r"b\.parquet: got images img, labels label"):
        open_collection(tmp_path)


def test_a_row_without_a_label_is_left_out_and_named(write, tmp_path):
    write(
        "train.parquet",
        {"image": [png(n) for n in range(4)], "label": [0, -1, None, 2]},
        hugging_face(label=CLASS_LABEL),
        row_group_size=2,
    )
    found = open_collection(tmp_path / "train.parquet")
    assert (found.labels.tolist(), values(found)) == ([0, 2], [0, 3])
    assert list(found.names) == ["train.parquet row 0", "train.parquet row 3"]
    assert summary(found.left_out, found.noun) == (
        "2 rows left out: 2 have no label (train.parquet row 1, train.parquet row 2)"
    )


def test_rows_without_any_label_have_no_classes(write):
    path = write(
        "a.parquet",
        {"image": [png(), png()], "label": [-1, -1]},
        hugging_face(label=CLASS_LABEL),
    )
    found = open_collection(path)
    assert (found.classes, len(found), found.left_out) == (("",), 2, [])


def test_paths_instead_of_images_are_refused(write):
    pa = pytest.importorskip("pyarrow")
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    rows = pa.array([{"bytes": None, "path": "a.png"}] * 2, kind)
    path = write("a.parquet", {"image": rows})
    assert "column image: got paths of images, wanted their bytes" in refusal(path)
    path = write("a.parquet", {"image": pa.array([encoded_row(1), None, *rows.to_pylist()])})
    found = open_collection(path)
    assert [unread(found, n) for n in (1, 2)] == ["has no bytes", "has no bytes"]


@pytest.mark.parametrize("columns", [{"a": [1]}, {"a": [b"x"], "b": [b"y"]}, {"a": ["x"]}])
def test_columns_that_hold_no_image_are_refused(write, columns):
    assert "wanted one of struct{bytes, path} or binary" in refusal(write("a.parquet", columns))


def test_no_rows_are_refused(write):
    pa = pytest.importorskip("pyarrow")
    path = write("a.parquet", {"image": pa.array([], pa.binary())})
    assert "got no row, wanted some" in refusal(path)


def test_metadata_of_another_shape_is_ignored(write):
    for told in (b"{", b"[]", b'{"info": {"features": [1]}}', b"\xff", b"[" * 100_000):
        path = write("a.parquet", {"image": [png()], "label": [1]}, {b"huggingface": told})
        assert open_collection(path).classes == ("1",)


def test_damage_is_a_line_at_the_opening_or_an_image_less(write):
    path = write("a.parquet", {"image": [png(n) for n in range(20)], "label": range(20)})
    data, chance = path.read_bytes(), np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(data)
        damaged[int(chance.integers(len(data)))] = int(chance.integers(256))
        if chance.random() < 0.2:
            del damaged[int(chance.integers(len(data))) :]
        path.write_bytes(damaged)
        check_damaged(path)


def test_images_beside_parquet_win(write, tmp_path):
    write("a.parquet", {"image": [png()]})
    found = open_collection(place(tmp_path, "b.png"))
    assert (found.names, found.left_out) == (["b.png"], [("a.parquet", "is no image")])


def test_other_processes_read_it_too(write):
    path = write("a.parquet", {"image": [png(n) for n in range(9)]}, row_group_size=2)
    check_in_processes(open_collection(path), list(range(9)))


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    place(tmp_path, "a.parquet")
    for path in (tmp_path, tmp_path / "a.parquet"):
        with pytest.raises(DataError, match=r"pip install 'vqvae_lightning\[parquet\]'"):
            open_collection(path)
