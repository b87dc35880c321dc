"""Files of an AE: z on a grid whose step is the quality, by a density that the file holds."""

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import own_process
import pytest
import torch
from coded_models import ae, images, vqvae
from untrained import make_run, workplace

from vqvae_lightning import CodecError, cli, compress, decompress, load
from vqvae_lightning.codec.coding import coded_of, decoded_groups
from vqvae_lightning.codec.container import unpack
from vqvae_lightning.config import ConfigError


def steps_of_z(model: Any, x: torch.Tensor, step: float) -> np.ndarray:
    """z (N, T) in whole steps, those of a grid cell beside each other."""
    z = model.encode(x).detach().double() / step  # N,D,h,w
    found: np.ndarray = np.rint(z.permute(0, 2, 3, 1).flatten(1).numpy())
    return found


def decoded(data: bytes, model: Any) -> np.ndarray:
    container = unpack(data)
    assert container.header.grid is not None
    found = [codes for codes, _ in decoded_groups(container, coded_of(model))]
    return np.concatenate(found) + container.header.grid[1]


@pytest.mark.parametrize("more", [(), ("model.latent=vector",)])
def test_z_comes_back_to_half_a_step(more: tuple[str, ...]) -> None:
    model, x = ae(*more), images()
    data = compress(model, x, step=0.02)
    assert (decoded(data, model) == steps_of_z(model, x, 0.02)).all()
    assert len(np.unique(decoded(data, model))) > 20


def test_images_are_those_of_the_rounded_z() -> None:
    model, x = ae(), images(5)
    z = (model.encode(x).double() / 0.1).round() * 0.1
    wanted = (model.decode(z.float()).clamp(-1, 1) + 1) * 127.5
    assert (decompress(compress(model, x, step=0.1), model) - wanted).abs().max() < 1


def test_a_smaller_step_is_a_longer_file_of_better_images() -> None:
    model, x = ae(), images()
    files = [compress(model, x, step=step) for step in (0.4, 0.1, 0.025)]
    whole = (model(x).detach().clamp(-1, 1) + 1) * 127.5
    errors = [float((decompress(data, model) - whole).abs().mean()) for data in files]
    assert len(files[0]) < len(files[1]) < len(files[2])
    assert errors[0] > errors[1] > errors[2]


def test_a_file_has_the_bytes_of_its_histogram() -> None:
    model, x = ae(), images(120)
    data = compress(model, x, step=0.02)
    whole = steps_of_z(model, x, 0.02).reshape(120 * 49, 3)
    nats = 0.0
    for channel in whole.T:
        share = np.unique(channel, return_counts=True)[1] / len(channel)
        nats -= float(len(channel) * (share * np.log(share)).sum())
    ideal = nats / np.log(2) / 8
    streams = sum(len(group.data) for group in unpack(data).groups)
    assert ideal < streams < 1.01 * ideal + 10


def test_the_images_beside_it_and_the_group_change_no_image() -> None:
    model, x = ae(), images(20)
    together, alone = (compress(model, x, group=group, step=0.1) for group in (20, 1))
    assert (decoded(together, model) == decoded(alone, model)).all()
    one = decompress(compress(model, x[7:8], step=0.1), model)
    assert (one.int() - decompress(together, model)[7].int()).abs().max() <= 1


def test_images_that_are_all_alike_cost_no_stream() -> None:
    model, x = ae(), images(1).expand(30, -1, -1, -1)
    data = compress(model, x, step=1e4)
    assert not unpack(data).groups[0].data
    assert len(decompress(data, model)) == 30


def test_the_usual_step_follows_the_scale_of_z() -> None:
    model, x = ae(), images(20)
    step, _ = unpack(compress(model, x)).header.grid or (0.0, 0)
    z = model.encode(x).detach()
    assert step == pytest.approx(0.2 * float(z.std(correction=0)), rel=1e-4)


def test_the_usual_step_of_z_without_spread_is_one() -> None:
    model = ae("model.latent_dim=1")
    with torch.no_grad():
        for parameter in model.net.encoder.parameters():
            parameter.zero_()
    assert unpack(compress(model, images(2))).header.grid == (1.0, 0)


@pytest.mark.slow
def test_a_file_is_read_in_another_process_by_other_threads_and_batches(tmp_path: Path) -> None:
    with workplace(tmp_path):
        run, file, there = make_run(tmp_path, "ae"), tmp_path / "a.vqz", tmp_path / "there.npy"
        words = [str(run.path), "split=test", "step=0.01", f"to={file}"]
        cli.COMMANDS["compress"].run(words)
        mine = decompress(file.read_bytes(), load(run)).numpy()
    program = own_process.command("decompress", file, run.path, 2, 7, there)
    subprocess.run(program, env=own_process.environment(), check=True)
    assert np.abs(mine.astype(int) - np.load(there)).max() <= 1


def test_what_no_grid_can_be_is_refused() -> None:
    model, x = ae(), images(3)
    for step, what in (
        (0, "step: got 0, wanted a number above 0"),
        (-1.0, "step: got -1.0"),
        (float("nan"), "step: got nan"),
        (float("inf"), "step: got inf"),
        ("fine", "step: got 'fine'"),
        (1e-9, "step: got 1e-09, but z lies between .*, wanted at least"),
    ):
        with pytest.raises(ValueError, match=what):
            compress(model, x, step=step)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="lossless: a model of kind ae has neither codes nor p"):
        compress(model, x, lossless=True)
    with pytest.raises(ConfigError, match=r"step: got 0\.5, but z of a vqvae goes on no grid"):
        compress(vqvae(), x, step=0.5)
    with torch.no_grad():
        next(model.net.encoder.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match="numbers that are not finite"):
        compress(model, x)


def test_a_file_of_another_ae_is_refused() -> None:
    data = compress(ae(), images(3))
    with pytest.raises(CodecError, match="was made by the autoencoder"):
        decompress(data, ae("model.latent_dim=4"))
