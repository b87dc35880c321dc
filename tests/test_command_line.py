"""What is found without reading: commands, settings, completions, and a first line at once."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import pytest
from own_process import TESTS, environment

from vqvae_lightning import cli
from vqvae_lightning.cli.commands import COMMANDS, FUNCTIONS, function
from vqvae_lightning.cli.completing import Completer
from vqvae_lightning.cli.reference import kept
from vqvae_lightning.config.commands import COMMAND_OPTIONS


def ended(words: Sequence[str]) -> object:
    with pytest.raises(SystemExit) as end:
        cli.main(list(words))
    return end.value.code


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["trian", "x.yaml"], "there is no command 'trian'; did you mean train?"),
        (["--debug", "evalute"], "there is no command 'evalute'; did you mean evaluate?"),
        (["xyzzy"], "there is no command 'xyzzy'; known: train, config, "),
        (["a\x1b[2J"], "there is no command 'a\\x1b[2J'; known: "),
    ],
)
def test_a_mistyped_command_is_refused_with_the_nearest_one(
    words: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(words) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"vqvae: {line}")
    assert (said.out, said.err.count("\n")) == ("", 1)


def test_the_version_is_that_of_the_installed_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(["--version"]) == 0
    assert capsys.readouterr().out == f"vqvae_lightning {version('vqvae_lightning')}\n"


def test_every_dataclass_of_options_is_the_settings_of_a_command() -> None:
    named = {command.settings for command in COMMANDS.values()} - {"", "experiment"}
    assert named == {cls.__name__ for cls in COMMAND_OPTIONS}


def test_a_command_that_takes_a_run_or_a_file_says_so_to_a_shell() -> None:
    first = {name: command.arguments.partition("|")[0] for name, command in COMMANDS.items()}
    assert {n for n, c in COMMANDS.items() if c.runs} == {n for n in first if first[n] == "RUN"}
    assert {n for n, c in COMMANDS.items() if c.files} == {n for n in first if first[n] == "FILE"}


@pytest.mark.parametrize("name", [name for name in COMMANDS if COMMANDS[name].settings])
def test_the_help_of_a_command_lists_each_of_its_settings_with_its_default(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended([name, "--help"]) == 0
    shown = capsys.readouterr().out
    settings = kept(COMMANDS[name].settings)
    assert [row.key for row in settings if f"\n{row.key}={row.default}" not in shown] == []


def test_every_command_has_a_function_of_its_own() -> None:
    names = [name for functions in FUNCTIONS.values() for name in functions]
    assert sorted(names) == sorted(name.replace("-", "_") for name in COMMANDS)
    assert {function(name).__name__ for name in names} == {*names}
    with pytest.raises(AttributeError, match="no attribute nothing"):
        _ = cli.nothing


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("model.likelihood.scale", {"model.likelihood.scale"}),
        ("optimizer", {"optimizer.lr", "optimizer.clip", "optimizer.schedule"}),
        ("lr", {"optimizer.lr"}),
        ("steps", {"trainer.steps"}),
    ],
)
def test_settings_are_found_by_name_section_and_last_word(name: str, keys: set[str]) -> None:
    found = {row.key for row in cli.settings([name])}
    assert keys <= found
    assert all(name in key.split(".") or key.startswith(name) for key in found)


def test_a_word_of_a_name_or_of_a_meaning_finds_settings() -> None:
    assert "model.quantizer.codebook_size" in {row.key for row in cli.settings(["codebook"])}
    assert "model.quantizer.codebook_size" in {row.key for row in cli.settings(["codes"])}


def test_a_part_shows_its_members_and_the_settings_of_each(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cli.settings(["model.quantizer"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "one of ema, gradient, cosine, simvq, fsq, lfq" in shown
    assert "model.quantizer.levels=[8, 8, 8] a list such as [8, 8] [fsq]" in shown


def test_a_setting_that_is_not_there_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ValueError, match=r"no model\.quantizer\.decai; did you mean .*\.decay\?"):
        cli.settings(["model.quantizer.decai"])
    with pytest.raises(ValueError, match="got 2 names, wanted one"):
        cli.settings(["data", "trainer"])


def test_a_long_command_prints_its_line_before_it_does_anything(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []

    def run(arguments: Sequence[str]) -> None:
        seen.append(capsys.readouterr().out)

    monkeypatch.setitem(cli.COMMANDS, "train", COMMANDS["train"]._replace(run=run))
    cli.main(["train", "mnist/vqvae", "name=a b"])
    assert seen == ["vqvae     train mnist/vqvae 'name=a b'\n"]
    monkeypatch.setenv("LOCAL_RANK", "1")
    cli.main(["train", "mnist/vqvae"])
    assert seen[1] == ""


@pytest.mark.parametrize(
    ("command", "prefix", "some"),
    [
        ("train", "trainer.st", {"trainer.steps="}),
        ("train", "model.quantizer.name=", {"model.quantizer.name=fsq"}),
        ("train", "data.binarize=d", {"data.binarize=dynamic"}),
        ("train", "trainer.compile=", {"trainer.compile=true", "trainer.compile=false"}),
        ("train", "mnist/v", {"mnist/vae", "mnist/vqvae"}),
        ("train", "dat", {"data.root=", "data/"}),
        ("train", "data.root=", {"data.root=data/", "data.root=runs/"}),
        ("ablate", "ablations/q", {"ablations/quantizers"}),
        ("sweep", "sweeps/", {"sweeps/mnist_codebook"}),
        ("study", "fid_network=", {"fid_network=inception", "fid_network=classifier"}),
        ("sample", "runs/", {"runs/one"}),
        ("export", "runs/", {"runs/one"}),
        ("export", "plu", {"plugins="}),
        ("doctor", "plugins=p", {"plugins=parts.py"}),
        ("evaluate", "spl", {"split="}),
        ("settings", "optimizer.", {"optimizer.lr"}),
        ("completion", "", {"bash", "zsh"}),
    ],
)
def test_an_argument_is_completed_with_what_the_command_takes(
    command: str, prefix: str, some: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "parts.py").touch()
    (tmp_path / "runs" / "one").mkdir(parents=True)
    (tmp_path / "runs" / "one" / "run.json").touch()
    found = Completer(command)(prefix)
    assert some <= {*found}
    assert all(text.startswith(prefix) for text in found)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_printed_script_completes_a_line_in_its_shell(
    shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"there is no {shell} here")
    cli.completion([shell])
    script, vqvae = tmp_path / "script", tmp_path / "vqvae"
    script.write_text(capsys.readouterr().out)
    vqvae.write_text(f'#!/bin/sh\nexec {sys.executable} -m vqvae_lightning "$@"\n')
    vqvae.chmod(0o755)
    path = f"{tmp_path}:{environment()['PATH']}"
    root = f"{TESTS}:{TESTS.parent}"

    def completed(line: str) -> list[str]:
        done = subprocess.run(
            [program, *(["-f"] if shell == "zsh" else []),
             str(TESTS / "programs" / f"complete.{shell}"), str(script), line],
            capture_output=True, text=True, timeout=60, check=True,
            env={**environment(), "PATH": path, "PYTHONPATH": root},
        )  # fmt: skip
        return [text.partition(":")[0].strip() for text in done.stdout.splitlines()]

    assert completed("vqvae tra") == ["train"]
    assert completed("vqvae train trainer.log") == ["trainer.log_every="]
    values = completed("vqvae train data.binarize=")
    assert [value.removeprefix("data.binarize=") for value in values] == [
        "none",
        "static",
        "dynamic",
    ]


def test_a_shell_that_has_no_script_is_refused() -> None:
    with pytest.raises(ValueError, match="completion: got 'fish', wanted one of bash, zsh"):
        cli.completion(["fish"])
