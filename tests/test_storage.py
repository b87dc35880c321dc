"""Files are whole or not there; a checkpoint that was changed, cut or made to run code is never a model."""

import os
import pickle

import pytest
import torch

from vqvae_lightning.storage import CheckpointError, hash_path, read_checkpoint, write_checkpoint, write_whole

CONTENT = {"state_dict": {"w": torch.arange(200.0)}, "hyper_parameters": {"kind": "ae", "sizes": [1, 2]}}


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
    write_whole(path, b"old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_kill_between_hash_and_file_leaves_a_valid_checkpoint(checkpoint, monkeypatch):
    real = os.replace

    def stop_at_the_file(source, target):
        if str(target).endswith(".ckpt"):
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", stop_at_the_file)
    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(checkpoint, {"state_dict": {}})
    assert "w" in read_checkpoint(checkpoint)["state_dict"]


def test_every_flipped_byte_and_truncation_is_found(checkpoint):
    data = checkpoint.read_bytes()
    for offset in range(0, len(data), len(data) // 40):
        checkpoint.write_bytes(data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :])
        with pytest.raises(CheckpointError, match="damaged"):
            read_checkpoint(checkpoint)
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
            import hashlib

            path.write_bytes(data)
            hash_path(path).write_text(hashlib.sha256(data).hexdigest())
        with pytest.raises(CheckpointError):
            read_checkpoint(path)
        assert not canary.exists()
