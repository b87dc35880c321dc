"""The decoders against independent ones of a few lines, and what they must refuse."""

import gzip
import io
import json
import struct
import tarfile
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from vqvae_lightning.data import archives, formats
from vqvae_lightning.data.formats import DataError


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def idx(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def tar(path, *members):
    """Write a .tar.gz of (name, content) files and ready-made TarInfo objects."""
    with tarfile.open(path, "w:gz") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return path


def link(name, target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_idx_agrees_with_an_independent_parser(rng):
    images = rng.integers(0, 256, (5, 28, 28), dtype=np.uint8)
    data = idx(images)
    count, rows, columns = struct.unpack(">III", data[4:16])
    by_hand = [
        [[data[16 + (n * rows + r) * columns + c] for c in range(columns)] for r in range(rows)]
        for n in range(count)
    ]
    assert formats.parse_idx(data).tolist() == by_hand == images.tolist()

    labels = rng.integers(0, 10, 5, dtype=np.uint8)
    x, y = formats.decode_idx([bytearray(data), idx(labels)], 5)
    assert (x.shape, x.dtype, y.dtype) == ((5, 1, 28, 28), np.dtype(np.uint8), np.dtype(np.int64))
    assert x.flags.writeable  # torch.from_numpy wants it
    assert y.tolist() == labels.tolist()


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: b"",
        lambda d: b"<!DOCTYPE html><html>403</html>",
        lambda d: b"\x1f\x8b" + d[2:],  # still compressed
        lambda d: b"\0\0\x0d" + d[3:],  # floats
        lambda d: d[:3],
        lambda d: d[:9],  # within the header
        lambda d: d[:-1],
        lambda d: d + b"\0",
        lambda d: d[:4] + b"\xff\xff\xff\xff" + d[8:],  # an absurd length must not be allocated
    ],
)
def test_idx_refuses_what_is_not_idx(damage):
    with pytest.raises(DataError, match="IDX"):
        formats.parse_idx(damage(idx(np.zeros((2, 28, 28), np.uint8))))


@pytest.mark.parametrize("label_bytes", [1, 2])
def test_cifar_agrees_with_an_independent_parser(rng, label_bytes):
    data = rng.integers(0, 100, 6 * (label_bytes + 3072), dtype=np.uint8).tobytes()
    x, y = formats.decode_cifar(
        iter([data[: len(data) // 2], data[len(data) // 2 :]]), 6, label_bytes
    )
    assert (x.shape, x.dtype, y.dtype) == ((6, 3, 32, 32), np.dtype(np.uint8), np.dtype(np.int64))
    stream = io.BytesIO(data)
    for image, label in zip(x, y, strict=True):
        assert label == stream.read(label_bytes)[-1]  # CIFAR-100: the fine label is the second
        for c in range(3):
            for row in range(32):
                assert image[c, row].tobytes() == stream.read(32)


@pytest.mark.parametrize("images", [1, 3])
def test_another_number_of_cifar_images_than_there_should_be_is_refused(images):
    with pytest.raises(DataError, match=f"do not hold {images} images"):
        formats.decode_cifar([bytes(2 * 3073)], images)


def test_cifar_red_is_the_first_channel():
    x, y = formats.decode_cifar([bytes([7]) + bytes([255]) * 1024 + bytes(2048)], 1)
    assert y.tolist() == [7]
    assert (x[0, 0] == 255).all()
    assert (x[0, 1:] == 0).all()


@pytest.mark.parametrize("size", [0, 3072, 3074])
def test_cifar_refuses_part_of_a_record(size):
    with pytest.raises(DataError, match="3073"):
        formats.parse_cifar(bytes(size), 1)


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_sheets_become_the_binary_release(rng, tmp_path):
    """The package's layout, built from known records, gives these records back byte for byte."""
    sizes = {f"data_batch_{i}.bin": 3 * 3073 for i in range(1, 6)} | {"test_batch.bin": 2 * 3073}
    records = {
        name: rng.integers(0, 256, (size // 3073, 3073), dtype=np.uint8)
        for name, size in sizes.items()
    }
    members = {}
    labels: dict[str, list[int]] = {"train_lables.json": [], "test_lables.json": []}
    for name, rows in records.items():
        rows[:, 0] %= 10
        rows[0, 1:1025], rows[0, 1025:] = 255, 0  # the first image is pure red
        sheet = np.stack([rows[:, 1:1025], rows[:, 1025:2049], rows[:, 2049:]], axis=-1)
        assert (sheet[0] == [255, 0, 0]).all()
        members[f"package/{name.removesuffix('.bin')}.png"] = png(sheet)
        labels["test_lables.json" if "test" in name else "train_lables.json"] += rows[:, 0].tolist()
    members |= {f"package/{name}": json.dumps(values).encode() for name, values in labels.items()}
    archive = tar(tmp_path / "p.tgz", *members.items())
    assert dict(archives.sheet_members(archive, "package/", sizes)) == {
        k: v.tobytes() for k, v in records.items()
    }


def test_sheets_refuse_other_pictures():
    good = np.zeros((2, 1024, 3), np.uint8)
    with pytest.raises(DataError, match="wanted \\(1024, 3\\)"):
        formats.sheet_to_cifar(png(good), [0] * 3)
    with pytest.raises(DataError, match="RGB"):
        formats.sheet_to_cifar(png(good[:, :, 0]), [0] * 2)
    with pytest.raises(DataError, match="PNG"):
        formats.sheet_to_cifar(png(good)[:60], [0] * 2)
    with pytest.raises(DataError, match="PNG"):
        formats.sheet_to_cifar(b"<html>", [0] * 2)


@pytest.mark.parametrize(
    "data", [b"", b"[1,2", b"{}", b"[1]", b"[1,10]", b'[1,"2"]', b"[1,-1]", b"[1,null]"]
)
def test_labels_must_be_a_list_of_class_numbers(data):
    assert archives.parse_labels(b"[1, 9]", 2, 10) == [1, 9]
    with pytest.raises(DataError, match="labels"):
        archives.parse_labels(data, 2, 10)


def test_gunzip_gives_exactly_the_size_asked_for():
    plain = bytes(range(256)) * 8
    packed = gzip.compress(plain)
    assert archives.gunzip(packed, len(plain)) == plain
    wrong_crc = packed[:-8] + bytes([packed[-8] ^ 1]) + packed[-7:]
    for damaged in (b"", b"<html>", packed[:-1], packed[: len(packed) // 2], wrong_crc):
        with pytest.raises(DataError, match="gzip"):
            archives.gunzip(damaged, len(plain))
    for size in (len(plain) - 1, len(plain) + 1):
        with pytest.raises(DataError, match=f"wanted {size}"):
            archives.gunzip(packed, size)


def test_gunzip_stops_a_bomb_early():
    bomb = gzip.compress(bytes(50_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="over 1000"):
            archives.gunzip(bomb, 1000)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_members_are_read_by_name_and_nothing_is_written(tmp_path):
    """A hostile archive: what is asked for is read, what climbs out or points elsewhere is never
    followed.
    """
    inside = tmp_path / "inside"
    inside.mkdir()
    archive = tar(
        inside / "a.tar.gz",
        ("../climbed", b"x"),
        (str(tmp_path / "absolute"), b"x"),
        link("symlink", str(tmp_path / "target")),
        ("symlink/through", b"x"),
        link("hardlink", "../climbed", tarfile.LNKTYPE),
        ("d/good", b"good"),
        ("d/other", b"other"),
    )
    assert dict(archives.read_members(archive, {"d/good": 4})) == {"d/good": b"good"}
    for name in ("symlink", "hardlink"):
        with pytest.raises(DataError, match=name):
            dict(archives.read_members(archive, {name: 100}))
    with pytest.raises(DataError, match="at most 3"):
        dict(archives.read_members(archive, {"d/good": 3}))
    with pytest.raises(DataError, match="no member absent"):
        dict(archives.read_members(archive, {"absent": 1}))
    assert sorted(tmp_path.rglob("*")) == [inside, archive]


def test_a_sparse_member_of_ten_gigabytes_is_refused_by_its_header(tmp_path):
    path = tmp_path / "big.tar"
    info = tarfile.TarInfo("big")
    info.size = 10 * 2**30
    path.write_bytes(info.tobuf())
    with pytest.raises(DataError, match="at most 5"):
        dict(archives.read_members(path, {"big": 5}))


def test_members_of_a_damaged_archive(tmp_path):
    path = tar(tmp_path / "a.tar.gz", ("x", np.random.default_rng(0).bytes(20_000)))
    whole = path.read_bytes()
    for damaged in (b"", b"<html>403</html>", whole[:-3000], whole[:30]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="tar"):
            dict(archives.read_members(path, {"x": 20_000}))
