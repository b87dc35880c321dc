"""An evaluator and a measure that the package does not know."""

import shutil
from pathlib import Path

import pytest
import torch
from extending.walked import example, finish

from vqvae_lightning.data.images import to_float
from vqvae_lightning.evaluation.evaluators import EVALUATORS
from vqvae_lightning.evaluation.subject import Subject
from vqvae_lightning.metrics.measures import MEASURES, Measure


def test_an_evaluator_from_outside_measures_and_is_shown(
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(EVALUATORS, "brightness", example("evaluator")["Brightness"]())
    measure = Measure("brightness", "Brightness", "of 2", "", "+.3f", ("results", "page"))
    monkeypatch.setitem(MEASURES, "brightness", measure)
    path = shutil.copytree(place / "runs" / "tokenizer", tmp_path / "runs" / "toy")
    walked = finish(place, path, (), (), (), capsys)
    subject = Subject(walked.run)
    subject.images.setup()
    test = subject.images.splits["test"]
    x = to_float(test.first(len(test)))
    with torch.no_grad():
        expected = (subject.net(x).reconstruction - x).double().mean().item()
    assert walked.test("brightness") == pytest.approx(expected, rel=1e-4)
    assert f"{walked.test('brightness'):+.3f}" in walked.printed
    assert f"{walked.test('brightness'):+.3f}" in walked.page
    assert "Brightness" in walked.page
