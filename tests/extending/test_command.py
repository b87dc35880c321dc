"""A command that only this test knows: a function, and one entry in the table of commands."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from vqvae_lightning import cli
from vqvae_lightning.config import options, setting


@dataclass
class CountOptions:
    """Settings of `vqvae count`."""

    runs: str = setting("runs", "folder that holds the runs", place="folder")
    at_least: int = setting(0, "runs that there should be", at_least=0)


def count(words: Sequence[str]) -> int:
    """`vqvae count runs=FOLDER`; returns how many folders there are."""
    chosen = options(CountOptions, words)
    found = len(list(Path(chosen.runs).iterdir()))
    print(f"{found} runs")
    return found


def test_a_command_from_outside_reads_its_settings_and_refuses_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = cli.Command(count, "count the runs", "key=value", "runs=runs")
    monkeypatch.setitem(cli.COMMANDS, "count", command)
    (tmp_path / "one").mkdir()
    cli.main(["count", f"runs={tmp_path}"])
    assert capsys.readouterr().out == "1 runs\n"
    with pytest.raises(SystemExit) as ended:
        cli.main(["count", "at_leats=1"])
    assert ended.value.code == 2
    assert "did you mean at_least?" in capsys.readouterr().err
    assert "count the runs" in cli.parser().format_help()
