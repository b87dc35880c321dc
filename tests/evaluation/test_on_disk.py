"""`evaluate bytes=true`: the bytes of a split's file, as `compress` writes it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor
from untrained import make_run, workplace

from vqvae_lightning import cli, decompress, load
from vqvae_lightning.codec.container import CodecError
from vqvae_lightning.codec.places import split_of
from vqvae_lightning.comparison.compare import compare
from vqvae_lightning.config import ConfigError
from vqvae_lightning.data.sources import DATASETS
from vqvae_lightning.evaluation import on_disk
from vqvae_lightning.evaluation.evaluate import evaluate
from vqvae_lightning.evaluation.on_disk import BytesOnDisk, measured
from vqvae_lightning.evaluation.subject import Subject
from vqvae_lightning.training.runs import Run

LEVELS = "model.likelihood.name=discretized_logistic"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """runs/KIND, never trained; vqvae and vae have probabilities of pixel levels."""
    root = tmp_path_factory.mktemp("on_disk")
    with workplace(root):
        for kind, *more in (("ae",), ("vqvae", LEVELS), ("prior",), ("vae", LEVELS)):
            make_run(root, kind, *more)
        yield root


def size_of_split(place: Path, kind: str, to: Path, *words: str) -> tuple[int, Path]:
    file = cli.COMMANDS["compress"].run(
        [f"{place}/runs/{kind}", "split=test", f"to={to}/{kind}.vqz", *words]
    )
    assert isinstance(file, Path)
    return file.stat().st_size, file


@pytest.mark.parametrize("kind", ["ae", "vqvae", "prior"])
def test_bytes_per_image_are_those_of_the_file_and_its_psnr_is_that_of_its_images(
    place: Path, tmp_path: Path, kind: str
) -> None:
    run = place / "runs" / kind
    found = evaluate(run, bytes=True)
    size, file = size_of_split(place, kind, tmp_path)
    images = DATASETS["mnist"].rows(place / "data", "test")
    pixels = images.first(len(images)).numpy()
    assert found["test/bytes_per_image"] == size / len(pixels)
    error = decompress(file.read_bytes(), load(run)).numpy() - pixels.astype(float)
    wanted = -10 * np.log10((error**2).mean() / 255**2)
    assert found["test/disk_psnr"] == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("kind", ["vqvae", "prior", "vae"])
def test_bits_per_dimension_on_disk_are_those_of_the_lossless_file(
    place: Path, tmp_path: Path, kind: str
) -> None:
    found = evaluate(place / "runs" / kind, bytes=True)
    size, _ = size_of_split(place, kind, tmp_path, "lossless=true")
    dims = 784 * len(DATASETS["mnist"].rows(place / "data", "test"))
    assert found["test/disk_bits_per_dim"] == 8 * size / dims


def test_a_lossless_file_that_decodes_to_other_pixels_is_an_error_and_no_figure(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def off_by_one(data: bytes, model: object) -> Tensor:
        images = decompress(data, model)
        images[3, 0, 5, 5] ^= 1
        return images

    monkeypatch.setattr(on_disk, "decompress", off_by_one)
    run = place / "runs" / "vqvae"
    images = split_of(Subject(Run.of(run)).images, "test")
    with pytest.raises(CodecError, match=r"1 of .* images of the lossless file are not what"):
        list(measured(load(run), images, lossless=True))


def test_a_comparison_has_a_column_for_what_was_measured_and_no_value_for_what_was_not(
    place: Path,
) -> None:
    kinds = ("ae", "vqvae", "vae")
    for kind in kinds:
        evaluate(place / "runs" / kind, bytes=True)
    (group,) = compare([place / "runs" / kind for kind in kinds]).groups
    keys = {"bytes_per_image", "disk_psnr", "disk_bits_per_dim"}
    assert keys <= {column.key for column in group.columns}
    assert [keys & row.values.keys() for row in group.rows] == [
        {"bytes_per_image", "disk_psnr"},
        {"disk_bits_per_dim"},
        keys,
    ]


def test_an_evaluation_makes_no_file_unless_it_is_asked_to(place: Path) -> None:
    before = sorted(place.rglob("*.vqz"))
    assert "test/bytes_per_image" not in evaluate(place / "runs" / "ae")
    assert sorted(place.rglob("*.vqz")) == before


def test_a_run_without_a_file_is_refused_before_it_is_evaluated(place: Path) -> None:
    make_run(place, "vae", "name=density")
    make_run(place, "ae_flow")
    for name, what in (
        ("density", "bytes: .* whose files are lossless, and its likelihood gives no prob"),
        ("ae_flow", "bytes: .* whose p.z. no file is coded with"),
    ):
        with pytest.raises(ConfigError, match=what):
            evaluate(place / "runs" / name, bytes=True)


def test_a_study_asks_for_files_only_of_runs_that_have_one(place: Path) -> None:
    names = {"ae", "vqvae", "prior", "vae"}
    make_run(place, "vae", "name=gaussian")
    plans = {name: Subject(Run(place / "runs" / name)) for name in (*names, "gaussian")}
    assert {name for name, plan in plans.items() if BytesOnDisk().is_for(plan)} == names
