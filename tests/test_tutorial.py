"""The tutorial: a notebook whose every cell runs, and whose outputs are those of a whole run."""

import json
from pathlib import Path
from typing import Any

import fake_data
import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "tutorial.ipynb"


def cells(kind: str) -> list[dict[str, Any]]:
    notebook: dict[str, Any] = json.loads(NOTEBOOK.read_text("utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind]


def test_every_cell_runs_in_a_few_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUTORIAL_FAST", "1")
    names: dict[str, Any] = {}
    with fake_data.installed(tmp_path / "tutorial" / "data"):
        for cell in cells("code"):
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    said = capsys.readouterr().out
    assert "a model of kind ae has no p(z) to draw from" in said
    assert "equal: 100.00%" in said
    assert (tmp_path / "tutorial" / "compare.html").is_file()


def test_its_outputs_are_of_one_whole_run_without_an_error() -> None:
    code = cells("code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"stream", "execute_result"}
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == sum("show(" in line or "plot(" in line for line in last_lines(code))


def last_lines(code: list[dict[str, Any]]) -> list[str]:
    """The last line of each cell, which is what a notebook shows."""
    return ["".join(cell["source"]).splitlines()[-1] for cell in code]
