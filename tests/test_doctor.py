"""The doctor names what is wrong with a machine, and holds the versions that the tests passed
with.
"""

import importlib.metadata
import shutil
import subprocess
from pathlib import Path

import fake_data
import pytest

from vqvae_lightning import cli, doctor
from vqvae_lightning.data import sources
from vqvae_lightning.doctor import TESTED, examine

CONSTRAINTS = Path(__file__).parents[1] / ".ci" / "constraints.txt"


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    with fake_data.installed(tmp_path / "data"):
        yield tmp_path / "runs", tmp_path / "data"


def about(findings, name):
    return [(finding.what, finding.wrong) for finding in findings if finding.about == name]


def test_the_tested_versions_are_those_that_every_install_is_pinned_to():
    pins = dict(line.split("==") for line in CONSTRAINTS.read_text().split())
    pins = {name.lower(): pin for name, pin in pins.items()}
    assert {name: pins[name] for name in TESTED} == TESTED


def test_a_sound_machine_has_nothing_wrong(folders):
    findings = examine(*folders)
    assert [finding for finding in findings if finding.wrong] == []
    assert about(findings, "mnist") == [("whole: the SHA-256 of 4 files agree", False)]
    assert about(findings, "cifar10") == [("not there; it is fetched when first used", False)]
    assert about(findings, "W&B")[0][0].startswith("offline, the default")


@pytest.mark.parametrize(
    ("package", "found", "line"),
    [
        (
            "pytorch-lightning",
            "2.6.2",
            "2.6.2; wanted at least 2.6.6, below 2.7: 2.6.2 and 2.6.3 were malicious",
        ),
        ("torch", "2.9.1+cpu", "wanted at least 2.10"),
        ("wandb", "0.32.0", "wanted at least 0.31, below 0.32"),
    ],
)
def test_a_version_that_will_not_do_is_wrong(folders, monkeypatch, package, found, line):
    real = importlib.metadata.version
    monkeypatch.setattr(doctor, "version", lambda name: found if name == package else real(name))
    ((what, wrong),) = about(examine(*folders), package)
    assert wrong
    assert line in what


def test_another_version_that_will_do_is_said_to_be_another(folders, monkeypatch):
    real = importlib.metadata.version
    monkeypatch.setattr(doctor, "version", lambda name: "2.15.0" if name == "torch" else real(name))
    assert about(examine(*folders), "torch") == [("2.15.0 (tested with 2.13.0)", False)]


def test_a_damaged_file_a_full_disk_and_a_server_that_is_gone_are_wrong(folders, monkeypatch):
    (folders[1] / "mnist" / "t10k-labels-idx1-ubyte").write_bytes(b"x")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1e9}))
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    findings = examine(*folders)
    (damaged,), (disk,), (tracker,) = (about(findings, name) for name in ("mnist", "disk", "W&B"))
    with pytest.raises(sources.DataError) as error:
        cli.data(["name=mnist", f"root={folders[1]}"])
    assert damaged == (str(error.value), True)  # the same words
    assert "t10k-labels-idx1-ubyte differs from the published file (sha256 2d71" in damaged[0]
    assert disk[0].startswith("1.0 GB free for ")
    assert disk[1]
    assert tracker[0].startswith("runs will be offline although WANDB_MODE=online, because ")
    assert tracker[1]


def test_an_absent_file_is_wrong(folders):
    (folders[1] / "mnist" / "t10k-labels-idx1-ubyte").unlink()
    ((what, wrong),) = about(examine(*folders), "mnist")
    assert (what, wrong) == (
        f"t10k-labels-idx1-ubyte missing; fetch with `vqvae data name=mnist root={folders[1]}`",
        True,
    )


def test_the_command_ends_with_1_if_something_is_wrong(folders, capsys):
    words = ["doctor", f"runs={folders[0]}", f"root={folders[1]}"]
    cli.main(words)
    (folders[1] / "mnist" / "t10k-labels-idx1-ubyte").write_bytes(b"x")
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    assert stop.value.code == 1
    assert "!!  mnist" in capsys.readouterr().out


def test_a_driver_that_does_not_answer_is_a_finding(folders, monkeypatch):
    def hangs(command, **more):
        raise subprocess.TimeoutExpired(command, 10)

    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(subprocess, "run", hangs)
    ((what, wrong),) = about(examine(*folders), "gpu")
    assert wrong
    assert what.startswith("nvidia-smi does not answer (")
