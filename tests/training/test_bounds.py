"""What the settings in a checkpoint ask for is bounded by what the file holds."""

import resource
import time
from pathlib import Path

import pytest
import pytorch_lightning as pl
import untrained

from vqvae_lightning.training.loading import module_of
from vqvae_lightning.verified import read_checkpoint, write_checkpoint


def module_in(path: Path) -> pl.LightningModule:
    """The module of a checkpoint."""
    return module_of(read_checkpoint(path), path)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("bounds")
    with untrained.workplace(root):
        runs = {
            "ae": untrained.make_run(root, "ae"),
            "vqvae": untrained.make_run(root, "vqvae"),
            "fsq": untrained.make_run(
                root,
                "vqvae",
                "model.quantizer.name=fsq",
                "model.quantizer.levels=[4,4]",
                "name=fsq",
            ),
        }
        runs["prior"] = untrained.make_run(root, "prior")
        yield runs


# Kind, and what a stranger writes into its settings: (where, value).
LIES = {
    "codes without a codebook": (
        "fsq",
        ("config",),
        {"groups": 100, "quantizer": {"name": "fsq", "levels": [1000, 1000]}},
    ),
    "levels of a large codebook": ("fsq", ("config", "quantizer", "levels"), [20_000, 1000]),
    "layers without end": ("prior", ("config", "network", "layers"), 10**9),
    "blocks without end": ("ae", ("config", "trunk", "residual_blocks"), 10**9),
    "levels without end": ("vqvae", ("config", "quantizer", "residual_levels"), 10**9),
    "a wide network": ("ae", ("config", "trunk", "hidden"), 10**5),
    "a large image": ("ae", ("image_shape",), [1, 10**6, 10**6]),
    "a large grid": ("prior", ("tokenizer", "grid"), [10**5, 10**5]),
    "many codes": ("prior", ("tokenizer", "codebook_size"), 10**9),
    "many classes": ("prior", ("classes",), 10**9),
}


def set_at(values, keys, value):
    for key in keys[:-1]:
        values = values[key]
    assert keys[-1] in values, (keys, sorted(values))
    values[keys[-1]] = values[keys[-1]] | value if isinstance(value, dict) else value


@pytest.mark.parametrize("lie", LIES)
def test_settings_that_want_more_than_the_file_holds_are_refused_before_they_cost_it(
    made, tmp_path, lie
):
    kind, keys, value = LIES[lie]
    checkpoint = read_checkpoint(made[kind].best)
    set_at(checkpoint["hyper_parameters"], keys, value)
    write_checkpoint(tmp_path / "lie.ckpt", checkpoint)
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(ValueError, match=r"^(checkpoint|model)") as error:
        module_in(tmp_path / "lie.ckpt")
    assert "\n" not in str(error.value)
    assert time.process_time() - started < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


@pytest.mark.parametrize("kind", ["ae", "vqvae", "fsq", "prior"])
def test_what_was_written_here_is_within_the_bounds(made, kind):
    module_in(made[kind].best)
