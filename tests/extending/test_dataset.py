"""A dataset that the package does not know: of its own size, colours, classes and file format."""

import gzip
import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import small
from extending.walked import Walked, experiment

from vqvae_lightning import cli
from vqvae_lightning.data.fetch import Source
from vqvae_lightning.data.formats import Arrays, Format, Shape
from vqvae_lightning.data.sources import DATASETS, Dataset

IMAGES = {"train": 200, "test": 40}
CLASSES = 4


def decode(files: Iterable[bytes | bytearray], images: int, shape: Shape) -> Arrays:
    """The arrays of a split from its one file: the labels of all images, then all images."""
    (data,) = files
    values = np.frombuffer(data, np.uint8)
    return values[images:].reshape(-1, *shape).copy(), values[:images].astype(np.int64)


def sizes(names: Sequence[str], images: int, shape: Shape) -> dict[str, int]:
    return dict.fromkeys(names, images * (1 + math.prod(shape)))


def stripes(split: str, shape: Shape) -> bytes:
    """Images of a bright stripe, whose place tells the label."""
    rng = np.random.default_rng(len(split))
    labels = np.arange(IMAGES[split], dtype=np.uint8) % CLASSES
    pixels = rng.integers(0, 50, (IMAGES[split], *shape), dtype=np.uint8)
    for image, label in zip(pixels, labels, strict=True):
        image[:, :, 4 * label : 4 * label + 3] = 250
    return labels.tobytes() + pixels.tobytes()


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Shape], Dataset]:
    """(shape) → the dataset `stripes`, in the table and at its source, and not yet in its place."""

    def add(shape: Shape) -> Dataset:
        host = tmp_path / "host"
        host.mkdir()
        files = {f"{split}.raw": stripes(split, shape) for split in IMAGES}
        for name, data in files.items():
            (host / f"{name}.gz").write_bytes(gzip.compress(data))
        dataset = Dataset(
            "stripes",
            "Stripes",
            shape,
            CLASSES,
            IMAGES["train"],
            IMAGES["test"],
            {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
            Format(partial(decode, shape=shape), sizes),
            (Source(str(host)),),
        )
        monkeypatch.setitem(DATASETS, "stripes", dataset)
        return dataset

    return add


def test_a_dataset_from_outside_goes_through_every_command(
    walk: Callable[..., Walked], add: Callable[[Shape], Dataset], tmp_path: Path
) -> None:
    add((3, 12, 16))
    chosen = ("data.name=stripes", f"data.root={tmp_path / 'data'}")
    net = ("model.quantizer.codebook_size=16", "model.latent_dim=8")
    walked = walk(experiment("vqvae"), *small.NETWORK, *net, *chosen, sample=("sampler=all",))
    assert walked.run.record.dataset == "stripes"
    assert walked.test("rate") == pytest.approx(3 * 4 * math.log(16))
    # another dataset than that of the run beside it: the two are in two groups
    assert '<h2 class="dataset">Stripes</h2>' in walked.page
    assert '<h2 class="dataset">MNIST</h2>' in walked.page


def test_files_of_a_dataset_from_outside_are_fetched_and_verified(
    add: Callable[[Shape], Dataset], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, words = add((3, 12, 16)), ["data", "name=stripes", f"root={tmp_path / 'data'}"]
    cli.main(words)
    folder = tmp_path / "data" / "stripes"
    assert {file.name: file.stat().st_size for file in folder.iterdir()} == dataset.sizes
    (folder / "test.raw").write_bytes(b"another")
    with pytest.raises(SystemExit):
        cli.main(words)
    assert "test.raw differs from the published file" in capsys.readouterr().err


def test_a_small_dataset_can_have_a_classifier(
    add: Callable[[Shape], Dataset], tmp_path: Path
) -> None:
    words = ["classifier", "dataset=stripes", f"root={tmp_path / 'data'}", "steps=2"]
    add((1, 16, 16))
    cli.main(words)
    assert (tmp_path / "data" / "classifiers" / "stripes.ckpt").is_file()


def test_a_classifier_of_images_that_are_no_squares_is_refused(
    add: Callable[[Shape], Dataset], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add((3, 12, 16))
    with pytest.raises(SystemExit):
        cli.main(["classifier", "dataset=stripes", f"root={tmp_path / 'data'}"])
    said = "vqvae: dataset: stripes has images of 12×16, wanted squares\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("words", [["data", "name=no"], ["evaluate", "dataset=no"]])
def test_the_name_of_a_dataset_from_outside_is_offered(
    words: list[str], add: Callable[[Shape], Dataset], capsys: pytest.CaptureFixture[str]
) -> None:
    add((3, 12, 16))
    with pytest.raises(SystemExit):
        cli.main(words)
    wanted = f"wanted one of {', '.join(DATASETS)}"
    assert wanted in capsys.readouterr().err
