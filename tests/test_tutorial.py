"""The tutorial: a notebook whose every cell runs, and whose outputs are those of a whole run."""

import json
from pathlib import Path
from typing import Any

import fake_data
import pytest

# How the last expression of a cell begins that shows a picture.
DRAWS = ("show(", "plot(", "scatter(")
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
    shown = [cell for cell in code if any(line.startswith(DRAWS) for line in lines(cell))]
    assert len(pictures) == len(shown)


def lines(cell: dict[str, Any]) -> list[str]:
    return "".join(cell["source"]).splitlines()
