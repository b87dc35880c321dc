"""Files are whole or not there; a checkpoint that was changed, cut or made to run code is never a
model.
"""

import contextlib
import hashlib
import io
import os
import pickle
import re
import resource
import shutil
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from own_process import command

from vqvae_lightning import storage
from vqvae_lightning.storage import check_writable, write_atomic
from vqvae_lightning.verified import (
    CheckpointError,
    Layout,
    StoredError,
    hash_path,
    read_arrays,
    read_checkpoint,
    write_arrays,
    write_checkpoint,
)

CONTENT: dict[str, Any] = {
    "state_dict": {"w": torch.arange(200.0)},
    "hyper_parameters": {"kind": "ae", "sizes": [1, 2]},
}


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "best.ckpt"
    write_checkpoint(path, CONTENT)
    return path


def test_round_trip_and_nothing_left_beside(checkpoint):
    assert torch.equal(read_checkpoint(checkpoint)["state_dict"]["w"], CONTENT["state_dict"]["w"])
    assert sorted(p.name for p in checkpoint.parent.iterdir()) == ["best.ckpt", "best.ckpt.sha256"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomic(path, b"old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("damaged", [False, True])
def test_a_kill_between_hash_and_file_leaves_a_checkpoint_as_valid_as_it_was(
    checkpoint, monkeypatch, damaged
):
    real = os.replace
    if damaged:
        checkpoint.write_bytes(checkpoint.read_bytes()[:-1] + b"x")

    def stop_at_the_file(source, target):
        if str(target).endswith(".ckpt"):
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", stop_at_the_file)
    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(checkpoint, {"state_dict": {}})
    if damaged:
        with pytest.raises(CheckpointError, match="is damaged"):
            read_checkpoint(checkpoint)
    else:
        assert "w" in read_checkpoint(checkpoint)["state_dict"]


def test_every_flipped_byte_and_truncation_is_found(checkpoint):
    data, believed = checkpoint.read_bytes(), 0
    for offset in range(0, len(data), len(data) // 40):
        checkpoint.write_bytes(data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :])
        with pytest.raises(CheckpointError, match="damaged"):
            read_checkpoint(checkpoint)
        with contextlib.suppress(Exception):
            believed += "state_dict" in torch.load(checkpoint, weights_only=True)
    assert believed  # torch itself takes some of them for a model
    for length in (0, 1, len(data) // 2, len(data) - 22, len(data) - 1):
        checkpoint.write_bytes(data[:length])
        with pytest.raises(CheckpointError, match="damaged"):
            read_checkpoint(checkpoint)


def test_without_its_hash_or_itself_it_is_refused(checkpoint):
    hash_path(checkpoint).unlink()
    with pytest.raises(CheckpointError, match="cannot be verified"):
        read_checkpoint(checkpoint)
    with pytest.raises(CheckpointError, match="there is no file"):
        read_checkpoint(checkpoint.with_name("none.ckpt"))


class Evil:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


def test_a_pickle_that_would_run_code_runs_nothing(tmp_path):
    canary, path = tmp_path / "canary", tmp_path / "evil.ckpt"
    for data in (pickle.dumps(Evil(canary), protocol=2), None):
        if data is None:
            write_checkpoint(path, {"state_dict": Evil(canary)})
        else:
            path.write_bytes(data)
            hash_path(path).write_text(hashlib.sha256(data).hexdigest())
        with pytest.raises(CheckpointError):
            read_checkpoint(path)
        assert not canary.exists()


def claimed(
    checkpoint: Any, claim: Callable[[bytes], bytes] = bytes, compressed: bool = False
) -> bytes:
    """A checkpoint's bytes after `claim` has had its hands on the pickle in it."""
    source, target = io.BytesIO(), io.BytesIO()
    torch.save(checkpoint, source)
    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", method) as new:
        for name in old.namelist():
            new.writestr(
                name, claim(old.read(name)) if name.endswith("data.pkl") else old.read(name)
            )
    return target.getvalue()


def named(name: str, argument: bytes) -> Callable[[bytes], bytes]:
    """In place of the pickle: a mapping with what the global `name` makes of one argument, a
    pickled value.
    """
    module, _, function = name.rpartition(".")
    called = f"c{module}\n{function}\n".encode() + argument + b"\x85R"
    return lambda _: b"\x80\x02}X\x01\x00\x00\x00k" + called + b"s."


def overlapping(records: int) -> bytes:
    """A checkpoint of that many storages, whose records in the zip's directory all lie at one place
    in the file.
    """
    data = io.BytesIO()
    torch.save({str(n): torch.zeros(2**18 if n == 0 else 1) for n in range(records)}, data)
    with zipfile.ZipFile(data, "a") as archive:
        infos = [info for info in archive.infolist() if "/data/" in info.filename]
        first = next(info for info in infos if info.file_size == 2**20)
        for info in infos:
            info.header_offset, info.file_size, info.compress_size, info.CRC = (
                first.header_offset, first.file_size, first.compress_size, first.CRC,
            )  # fmt: skip
        # typeshed leaves out the private attribute; with it the list of files is written anew.
        archive._didModify = True  # type: ignore[attr-defined]
    return data.getvalue()


BILLION = b"\x8a\x04" + (10**9).to_bytes(4, "little")  # LONG1
TERA = b"\x8a\x06" + (2**40).to_bytes(6, "little")  # LONG1: a storage of 2^40 elements
LIES = {
    "a storage of a terabyte": (
        claimed({"a": torch.zeros(77)}, lambda p: p.replace(b"K\x4dt", TERA + b"t")),
        "no checkpoint",
    ),
    "a tensor of a terabyte that is one number": (
        claimed({"a": torch.zeros(1).expand(2**40)}),
        "claim more than",
    ),
    "compressed zeros": (claimed({"a": torch.zeros(2**24)}, compressed=True), "is compressed"),
    "a list in a list in a list": (
        claimed(
            {}, lambda p: b"\x80\x02}X\x01\x00\x00\x00k" + b"]" * 10**5 + b"a" * (10**5 - 1) + b"s."
        ),
        "deep",
    ),
    "one tensor by many names": (
        claimed(dict.fromkeys(map(str, range(200)), torch.zeros(2**18))),
        "claim more than",
    ),
    "tensors that share one storage": (
        claimed(dict(zip(map(str, range(200)), torch.zeros(2**18).expand(200, -1), strict=True))),
        "claim more than",
    ),
    "records that lie over each other": (overlapping(100), "records claim more than"),
    "a gigabyte of a call": (
        claimed({}, named("builtins.bytearray", BILLION)),
        "more than plain types",
    ),
    "a set": (claimed({"a": {1}}), "more than plain types"),
    "a sparse tensor": (claimed({"a": torch.eye(3).to_sparse()}), "more than plain types"),
    "a tensor on no device": (
        claimed({"a": torch.zeros(2**40, device="meta")}),
        "more than plain types",
    ),
    "a parameter": (claimed({"a": torch.nn.Parameter(torch.zeros(1))}), "more than plain types"),
    "lists and nothing else": (
        claimed({}, lambda p: b"\x80\x02](" + b"]" * 2**22 + b"e."),
        "are no tensors",
    ),
    "a pickle and no zip": (pickle.dumps({"state_dict": {}}), "no checkpoint"),
    "no mapping": (claimed([1]), "wanted a mapping"),
    "half a file": (claimed({"a": torch.zeros(9)})[:200], "no checkpoint"),
    "nothing": (b"", "no checkpoint"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_checkpoint_that_claims_more_than_it_holds_is_refused_before_it_costs_anything(
    tmp_path, lie
):
    path, (data, reason) = tmp_path / "lie.ckpt", LIES[lie]
    path.write_bytes(data)
    hash_path(path).write_text(hashlib.sha256(data).hexdigest())
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(CheckpointError, match=reason) as error:
        read_checkpoint(path)
    assert "\n" not in str(error.value)
    assert time.monotonic() - started < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def test_values_that_are_shared_or_contain_themselves_are_no_lie(tmp_path):
    path, rows = tmp_path / "a.ckpt", [1, 2.0, "three", None, True, torch.ones(4)[::2]]
    itself: list[Any] = []
    itself.append(itself)
    write_checkpoint(path, {"a": [rows, rows, (rows,)], "b": itself})
    found = read_checkpoint(path)
    assert found["a"][2][0][:5] == rows[:5]
    assert found["b"][0] is found["b"]


SOURCES = sorted((Path(__file__).parents[1] / "vqvae_lightning").rglob("*.py"))
FORBIDDEN = {
    r"torch\.load\(": {"verified.py"},  # the one reader
    r"torch\.export\.load\(": {"runtimes.py"},  # of folders whose maker the user trusts
    r"load_from_checkpoint|add_safe_globals|load_state_dict\(.*strict=False": set(),
    r"pickle\.loads?\(|cloudpickle|joblib\.load|allow_pickle=True": set(),
    r"(?<!library )(?<!safetensors.torch )import load\b": set(),
    # The one place where a file of the user's own is executed, which the command line names.
    r"(?<![.\w])(eval|exec|__import__)\((?!\))|shell=True|os\.system|os\.popen": {"plugins.py"},
    r"yaml\.(load|full_load|unsafe_load)\(|register_new_resolver|\.extractall\(": set(),
}


@pytest.mark.parametrize("pattern", FORBIDDEN)
def test_what_could_run_a_stranger_s_code_is_not_in_the_sources(pattern):
    found = {
        path.name
        for path in SOURCES
        for line in path.read_text().splitlines()
        if re.search(pattern, line)
    }
    assert len(SOURCES) > 40
    assert found == FORBIDDEN[pattern]


@pytest.mark.faults
def test_killed_at_any_time_while_saving_the_last_acknowledged_checkpoint_or_a_later_one_is_there(
    tmp_path,
):
    path, random = tmp_path / "last.ckpt", Random(0)
    for trial in range(30):
        program = command("save_forever", path)
        with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            acknowledged = [process.stdout.readline()]
            time.sleep(random.uniform(0, 0.05))
            process.kill()
            acknowledged += process.stdout.read().split()
        found = read_checkpoint(path)
        assert found["step"] >= int(acknowledged[-1]), trial
        assert (found["weights"] == found["step"]).all()
    leftovers = [file for file in tmp_path.iterdir() if not file.name.startswith(".")]
    assert sorted(file.name for file in leftovers) == ["last.ckpt", "last.ckpt.sha256"]


@pytest.mark.faults
@pytest.mark.parametrize(
    ("how", "said"),
    [("disk full", "OSError [Errno 27] File too large"), ("read-only folder", "PermissionError")],
)
def test_a_save_that_cannot_be_says_so_and_leaves_the_old_checkpoint(how, said):
    # pytest's own folders are closed to others than their owner
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        path = folder / "last.ckpt"
        write_checkpoint(path, {"step": 1})
        if how == "read-only folder":
            folder.chmod(0o555)
        done = subprocess.run(
            command("save_limited", how, path), capture_output=True, text=True, timeout=60
        )
        folder.chmod(0o755)
        assert said in done.stdout, done
        assert read_checkpoint(path)["step"] == 1
        assert sorted(file.name for file in folder.iterdir()) == ["last.ckpt", "last.ckpt.sha256"]


def test_nothing_is_staged_on_another_device(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", "/nowhere")
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(shutil, "move", None)  # what a copy between devices would need
    write_checkpoint(tmp_path / "last.ckpt", CONTENT)
    assert "state_dict" in read_checkpoint(tmp_path / "last.ckpt")


# --- arrays ---

OF = "mnist of tokenizer 0123"
LAYOUT: Layout = {
    "codes": ((30, 7), np.dtype(np.uint16)),
    "labels": ((30,), np.dtype(np.uint8)),
}


def some_arrays() -> dict[str, Any]:
    random = np.random.default_rng(0)
    return {
        name: random.integers(200, size=shape).astype(dtype)
        for name, (shape, dtype) in LAYOUT.items()
    }


@pytest.fixture
def arrays(tmp_path):
    path = tmp_path / "codes.npz"
    write_arrays(path, OF, some_arrays())
    return path


def forge(path: Path, data: bytes) -> None:
    """A file with a hash that agrees, as a stranger can make one."""
    path.write_bytes(data)
    hash_path(path).write_text(hashlib.sha256(data).hexdigest())


def or_refusal(read: Callable[[], dict[str, Any]]) -> dict[str, Any] | str:
    """What is read, or the line that says why it is not."""
    try:
        return read()
    except StoredError as error:
        return str(error)


def test_arrays_round_trip_and_are_open_to_numpy(arrays):
    found = read_arrays(arrays, OF, LAYOUT)
    assert list(found) == list(LAYOUT)
    with np.load(arrays) as opened:
        for name, wanted in some_arrays().items():
            assert np.array_equal(found[name], wanted)
            assert np.array_equal(opened[name], wanted)
    assert sorted(path.name for path in arrays.parent.iterdir()) == [
        "codes.npz",
        "codes.npz.sha256",
    ]


def test_arrays_with_any_byte_flipped_or_any_length_are_refused(arrays):
    data, random = arrays.read_bytes(), Random(0)
    changed = [data[:n] for n in (0, 1, 100, len(data) // 2, len(data) - 1)] + [
        data + b"x",
        data + data,
    ]
    for _ in range(200):
        offset = random.randrange(len(data))
        changed.append(
            data[:offset] + bytes([data[offset] ^ 1 << random.randrange(8)]) + data[offset + 1 :]
        )
    for other in changed:
        arrays.write_bytes(other)
        with pytest.raises(StoredError, match=r"codes\.npz (is damaged|has \d)") as error:
            read_arrays(arrays, OF, LAYOUT)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("sidecar", [None, b"", b"\xff\xfe", b"0" * 64, b"0" * 10**6])
def test_arrays_without_their_hash_are_refused(arrays, sidecar):
    hash_path(arrays).unlink() if sidecar is None else hash_path(arrays).write_bytes(sidecar)
    with pytest.raises(StoredError, match=r"cannot be verified|is damaged"):
        read_arrays(arrays, OF, LAYOUT)


def test_forged_bytes_are_arrays_of_that_layout_or_refused_in_one_line(arrays):
    """A stranger's hash agrees with anything: then all that holds is what the layout says."""
    data, random = arrays.read_bytes(), Random(1)
    for trial in range(150):
        changed = bytearray(data)
        for _ in range(random.choice((1, 1, 4))):
            changed[random.randrange(len(data))] = random.randrange(256)
        forge(
            arrays,
            bytes(
                changed[
                    : random.choice((len(data), random.randrange(len(data)))) if trial % 4 else None
                ]
            ),
        )
        found = or_refusal(lambda: read_arrays(arrays, OF, LAYOUT))
        assert "\n" not in found
        assert (
            isinstance(found, str)
            or {name: (a.shape, a.dtype) for name, a in found.items()} == LAYOUT
        )


def saved(compress: bool = False, **arrays: Any) -> bytes:
    buffer = io.BytesIO()
    (np.savez_compressed if compress else np.savez)(
        buffer, **{"of": np.frombuffer(OF.encode(), np.uint8), **some_arrays(), **arrays}
    )
    return buffer.getvalue()


def without(name: str) -> bytes:
    source, target = io.BytesIO(saved()), io.BytesIO()
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for record in old.namelist():
            if record != f"{name}.npy":
                new.writestr(record, old.read(record))
    return target.getvalue()


FORGED = {
    "fewer rows": saved(codes=some_arrays()["codes"][:10]),
    "more rows": saved(codes=np.zeros((31, 7), np.uint16)),
    "another shape of as many": saved(codes=np.zeros((7, 30), np.uint16)),
    "another order": saved(codes=np.asfortranarray(some_arrays()["codes"])),
    "another dtype": saved(codes=np.zeros((30, 7), np.int16)),
    "another byte order": saved(codes=np.zeros((30, 7), np.dtype(">u2"))),
    "objects": saved(labels=np.array([None] * 30)),
    "an array more": saved(more=np.zeros(1)),
    "an array less": without("labels"),
    "of something else": saved(of=np.frombuffer(OF.replace("0", "9").encode(), np.uint8)),
    "compressed": saved(compress=True),
    "two gigabytes of compressed zeros": saved(compress=True, codes=np.zeros(2**26, np.uint16)),
    "no zip": b"PK but no zip",
    "a checkpoint": claimed({"codes": torch.zeros(2)}),
}


@pytest.mark.parametrize("what", FORGED)
def test_arrays_of_another_layout_are_refused_whatever_their_hash(arrays, what):
    forge(arrays, saved())
    read_arrays(arrays, OF, LAYOUT)  # a forger who changes nothing is believed
    forge(arrays, FORGED[what])
    with pytest.raises(StoredError) as error:
        read_arrays(arrays, OF, LAYOUT)
    assert str(error.value).startswith(f"{arrays} ")
    assert "\n" not in str(error.value)


def test_a_large_file_is_refused_before_it_is_read(arrays):
    with arrays.open("wb") as file:
        file.truncate(2**40)  # of holes
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(StoredError, match="wanted at most"):
        read_arrays(arrays, OF, LAYOUT)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 10_000  # KiB


@pytest.mark.parametrize("what", ["absent", "folder", "pipe"])
def test_what_is_no_file_holds_no_arrays(tmp_path, what):
    path = tmp_path / "codes.npz"
    {"absent": lambda p: None, "folder": Path.mkdir, "pipe": os.mkfifo}[what](path)
    with pytest.raises(StoredError, match="is no file"):
        read_arrays(path, OF, LAYOUT)


def test_forged_checkpoints_are_mappings_or_refused_in_one_line(checkpoint):
    data, random = checkpoint.read_bytes(), Random(2)
    pickled = data.index(b"data.pkl"), data.index(b"data.pkl") + 800
    for trial in range(150):
        changed = bytearray(data)
        for _ in range(random.choice((1, 1, 4))):
            changed[random.randrange(*pickled) if trial % 2 else random.randrange(len(data))] = (
                random.randrange(256)
            )
        forge(checkpoint, bytes(changed))
        found = or_refusal(lambda: read_checkpoint(checkpoint))
        assert isinstance(found, dict) or "\n" not in found


def test_a_place_in_a_closed_folder_is_refused_and_named(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(
        ValueError, match=f"root: .*a.ckpt cannot be made, for {tmp_path} is no folder"
    ):
        check_writable(tmp_path / "new" / "a.ckpt", "root")
    assert list(tmp_path.iterdir()) == []


def test_writers_of_one_folder_do_not_sweep_each_others_files(tmp_path):
    def write(writer):
        for number in range(40):
            write_atomic(tmp_path / f"{writer}-{number % 3}", bytes(1000))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(6)))
    assert len(list(tmp_path.iterdir())) == 18


def test_what_a_killed_writer_left_is_swept_and_what_may_be_a_living_ones_is_not(tmp_path):
    full, young, old = (
        tmp_path / f".{name}{storage.UNFINISHED}" for name in ("full", "young", "old")
    )
    theirs = tmp_path / ".notes.tmp"
    for path in (full, theirs):
        path.write_bytes(b"half")
    for path in (young, old):
        path.touch()
    os.utime(old, (0, 0))
    write_atomic(tmp_path / "new", b"new")
    assert {path.name for path in tmp_path.iterdir()} == {young.name, theirs.name, "new"}


@pytest.mark.parametrize("name", ["/proc/x.png", "/proc/sys/a/b.png", "/dev/null/x.png"])
def test_a_place_where_no_file_can_be_made_is_refused_though_it_looks_open(name):
    with pytest.raises(ValueError, match=f"^out: {name} cannot be made, for "):
        check_writable(Path(name), "out")


def test_to_ask_whether_a_file_can_be_made_changes_nothing(tmp_path):
    before = tmp_path.stat().st_mtime_ns
    check_writable(tmp_path / "a" / "b.png", "out")
    assert (tmp_path.stat().st_mtime_ns, list(tmp_path.iterdir())) == (before, [])
