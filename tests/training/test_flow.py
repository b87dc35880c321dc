"""A flow learns the latents of its own frozen autoencoder, and its rate belongs to that ledger."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import untrained
from small import DATA, KINDS, TRAINER

from vqvae_lightning.comparison.compare import compare
from vqvae_lightning.config import ConfigError, merge_overrides
from vqvae_lightning.data.loader import Batch
from vqvae_lightning.device import own_device
from vqvae_lightning.evaluation.evaluate import evaluate
from vqvae_lightning.evaluation.sample import sample
from vqvae_lightning.evaluation.subject import Subject
from vqvae_lightning.experiment import load_experiment
from vqvae_lightning.exporting.export import export
from vqvae_lightning.kinds import KINDS as KIND_OF
from vqvae_lightning.metrics.measures import MEASURES
from vqvae_lightning.models.build import build_flow
from vqvae_lightning.models.first_stage import FrozenLatents
from vqvae_lightning.models.settings import FlowConfig
from vqvae_lightning.training.flow import arc, step_loss
from vqvae_lightning.training.loading import find_first_stage, load_first_stage, load_run
from vqvae_lightning.training.runs import Run
from vqvae_lightning.training.train import train
from vqvae_lightning.verified import read_checkpoint

COUPLING = ("model.network.name=coupling", "model.network.layers=2")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Generated data, an AE, a VAE, a VQ-VAE, and a flow over each of the first two; over the VAE
    also one of a single pass.
    """
    root = tmp_path_factory.mktemp("flows")
    with untrained.workplace_with(root, ("ae", "vae", "vqvae")):
        for kind in ("ae_flow", "vae_flow"):
            train(experiment(root, kind))
        train(experiment(root, "vae_flow", "name=coupling", *COUPLING))
        yield root


def experiment(root, kind: str, *more: str) -> Any:
    where = [f"data.root={root / 'data'}", f"runs={root / 'runs'}", f"name={kind}"]
    settings = [
        f"kind={kind}",
        *DATA,
        *TRAINER,
        *KINDS[kind],
        "model.label_dropout=0.2",
        *([] if "model.network.name=coupling" in more else ["model.network.density_steps=8"]),
        *where,
    ]
    return load_experiment(None, merge_overrides(settings, more))


def run_of(root, kind: str) -> Run:
    return Run.open(root / "runs" / kind)


@pytest.mark.parametrize("kind", ["ae_flow", "vae_flow"])
def test_a_flow_takes_the_newest_run_of_its_own_kind(root, kind):
    run = run_of(root, kind)
    source = run_of(root, kind.removesuffix("_flow"))
    assert run.record.learned_from.run == source.name
    assert run.record.learned_from.fingerprint == source.record.fingerprint
    assert (source.path / "latents").is_dir()
    assert load_first_stage(run.first_stage).fingerprint == source.record.fingerprint


@pytest.mark.parametrize(
    ("kind", "other"), [("ae_flow", "vae"), ("vae_flow", "ae"), ("vae_flow", "vqvae")]
)
def test_a_run_of_another_kind_is_refused_in_one_line(root, kind, other):
    wanted = kind.removesuffix("_flow")
    message = (
        rf"model\.first_stage: a run of kind {kind} needs a {wanted} run, but .* holds kind={other}"
    )
    with pytest.raises(ConfigError, match=message):
        train(experiment(root, kind, "name=new", f"model.first_stage={root / 'runs' / other}"))
    assert not (root / "runs" / "new").exists()


def test_the_newest_run_that_can_be_a_first_stage_is_found(root):
    found = experiment(root, "ae_flow")
    older, newer = run_of(root, "ae"), untrained.make_run(root, "ae", "name=newer")
    kind = KIND_OF["ae_flow"]
    assert find_first_stage(kind, found.runs, found.data).name == newer.name
    newer.write(fingerprint=None)
    assert find_first_stage(kind, found.runs, found.data).name == older.name
    newer.write(status="failed")


def test_a_batch_of_another_loader_is_refused_in_one_line(root):
    module: Any = load_run(run_of(root, "vae_flow"))
    images = torch.zeros(2, 1, 28, 28)
    with pytest.raises(ValueError, match=r"batch: got list, wanted a Batch of a LatentDataModule"):
        module.training_step([images, torch.zeros(2)], 0)
    with pytest.raises(
        ValueError, match=r"got one of shape \(2, 1, 28, 28\), wanted .* \(N, 8, 1,"
    ):
        module.validation_step(Batch(images, torch.zeros(2), torch.arange(2), 0), 0)


def test_a_stopped_flow_goes_on_as_if_it_had_not_stopped(root):
    # Neither warm-up nor schedule may depend on how many steps were planned.
    constant = ("optimizer.schedule=constant", "optimizer.warmup_steps=0")
    train(experiment(root, "vae_flow", "name=whole", *constant))
    train(experiment(root, "vae_flow", "name=half", *constant, "trainer.steps=3"))
    run = run_of(root, "half")
    before = read_checkpoint(run.last)["state_dict"]
    trainer = experiment(root, "vae_flow").trainer
    train(replace(run.experiment(), trainer=trainer, resume=str(run.path)))
    first, second = (
        read_checkpoint(run_of(root, name).last)["state_dict"] for name in ("half", "whole")
    )
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert any(not torch.equal(tensor, before[name]) for name, tensor in first.items())


def test_latents_are_those_of_the_images_and_normalized_by_their_own_statistics(root):
    subject = Subject(run_of(root, "vae_flow"))
    first_stage: Any = subject.prior.first_stage
    stored = subject.latents.splits["train"]
    x = subject.images.splits["train"].first(50).float() / 127.5 - 1
    h = first_stage.encode(x)
    assert stored.first(50).dtype == torch.float32
    torch.testing.assert_close(stored.first(50), h)
    mean, log_variance = stored.first(len(stored)).double().chunk(2, 1)
    net: Any = subject.prior.net
    z_std = (mean.var((0, 2, 3)) + log_variance.exp().mean((0, 2, 3))).sqrt()
    assert net.fitted
    torch.testing.assert_close(net.std.flatten().double(), z_std, rtol=0.1, atol=0)
    error = z_std / len(stored) ** 0.5
    assert ((net.mean.flatten().double() - mean.mean((0, 2, 3))).abs() < 5 * error).all()


def test_every_epoch_draws_another_z_of_a_vae_and_the_one_there_is_of_an_ae(root):
    for kind, same in (("ae", True), ("vae", False)):
        first_stage = load_first_stage(run_of(root, kind).best)
        assert isinstance(first_stage, FrozenLatents)
        h = torch.randn(3, *first_stage.record_shape)
        drawn = []
        for seed in (1, 2, 1):
            torch.manual_seed(seed)
            batch = Batch(h, torch.zeros(3), torch.arange(3), seed)
            drawn.append(first_stage.draw(h, batch.step_noise))
        assert torch.equal(drawn[0], drawn[1]) == same
        assert torch.equal(drawn[0], drawn[2])


def test_the_loader_of_a_training_gives_an_image_another_z_in_each_epoch(root):
    subject = Subject(run_of(root, "vae_flow"))
    first_stage: Any = subject.prior.first_stage
    loader = subject.latents.train_dataloader()

    def drawn(epoch: int) -> dict[int, torch.Tensor]:
        loader.sampler.set_epoch(epoch)
        found: dict[int, torch.Tensor] = {}
        for batch in loader:
            torch.manual_seed(batch.seed)
            z = first_stage.draw(batch.x, batch.step_noise)
            found |= dict(zip(batch.rows.tolist(), z, strict=True))
        return found

    first, again, second = drawn(0), drawn(0), drawn(1)
    both = first.keys() & second.keys()
    assert len(both) > 50
    assert all(torch.equal(first[row], again[row]) for row in first)
    assert not any(torch.equal(first[row], second[row]) for row in both)


@pytest.mark.parametrize("name", ["vae_flow", "coupling"])
def test_the_rate_of_a_vae_is_charged_against_the_flow_and_an_ae_has_none(root, name):
    assert "test/rate" not in run_of(root, "ae_flow").record.test
    run = run_of(root, name)
    subject, module = Subject(run), load_run(run)
    first_stage: Any = subject.prior.first_stage
    (total, count) = torch.zeros((), dtype=torch.float64), 0
    for batch in subject.latents.test_dataloader():
        noise = batch.row_noise("latent").normal
        mean, log_variance = batch.x.double().chunk(2, 1)
        z = first_stage.draw(batch.x, noise)
        q = torch.distributions.Normal(mean, (log_variance / 2).exp())
        log_q = q.log_prob(z.double()).flatten(1).sum(1)
        total += (log_q - module(z, batch.labels)).sum()
        count += len(z)
    assert run.record.test["test/rate"] == pytest.approx((total / count).item(), rel=1e-4, abs=1e-4)


def test_each_epoch_binarizes_a_training_image_anew_where_binarization_is_dynamic(root):
    binary = ("data.binarize=dynamic", "model.likelihood.name=bernoulli", "name=binary")
    vae = untrained.make_run(root, "vae", *binary)
    source = ("data.binarize=dynamic", f"model.first_stage={vae.path}", "name=of-binary")
    trained = train(experiment(root, "vae_flow", *source, *COUPLING)).run
    subject = Subject(trained)
    loader = subject.latents.train_dataloader()

    def records(epoch: int) -> dict[int, torch.Tensor]:
        loader.sampler.set_epoch(epoch)
        batches = [subject.latents.encoded(batch) for batch in loader]
        pairs = (zip(batch.rows.tolist(), batch.x, strict=True) for batch in batches)
        return {row: h for pair in pairs for row, h in pair}

    first, again, second = records(0), records(0), records(1)
    both = first.keys() & second.keys()
    assert len(both) > 50
    assert all(torch.equal(first[row], again[row]) for row in first)
    assert not any(torch.equal(first[row], second[row]) for row in both)
    # An evaluation sees the images as that of the VAE does.
    assert evaluate(trained)["test/distortion"] == pytest.approx(
        evaluate(vae)["test/distortion"], rel=1e-6
    )


def test_a_flow_of_one_pass_has_no_error_and_its_loss_is_its_density(root):
    found = evaluate(run_of(root, "coupling"))
    assert found["test/density_error"] == 0
    assert found["test/evaluations_per_image"] == 1
    assert "test/trace_probes" not in found
    assert found["test/loss"] == pytest.approx(found["test/latent_nats"], rel=1e-5)
    assert "train/loss" in run_of(root, "coupling").metrics_path.read_text()


@pytest.mark.parametrize("name", ["vae_flow", "coupling"])
def test_a_bound_of_one_draw_is_distortion_and_rate_and_more_draws_lower_it(root, name):
    run = run_of(root, name)
    one = evaluate(run, iwae_samples=1)
    assert one["test/iwae_nats"] == pytest.approx(
        one["test/distortion"] + one["test/rate"], rel=1e-5
    )
    more = evaluate(run, iwae_samples=5)
    assert more["test/iwae_nats"] < one["test/iwae_nats"]
    of_vae = evaluate(run_of(root, "vae"), iwae_samples=5)
    assert more["test/iwae_nats"] != pytest.approx(of_vae["test/iwae_nats"], rel=1e-6)


def test_bounds_given_the_label_are_not_ranked_among_those_without(root):
    free = ("name=free", "model.class_conditional=false", "model.label_dropout=0")
    without = train(experiment(root, "vae_flow", *COUPLING, *free)).run
    for run in (without, run_of(root, "coupling"), run_of(root, "vae")):
        evaluate(run, iwae_samples=2)
    rows = compare([without, run_of(root, "coupling"), run_of(root, "vae")]).rows
    conditional = {row.name: row.conditional for row in rows}
    assert conditional == {"free": False, "coupling": True, "vae": False}
    assert all("conditional" in MEASURES[key].comparable for key in ("total", "iwae_nats"))


def test_a_flow_of_one_pass_draws_and_interpolates_and_says_what_it_does_not_do(root):
    run = run_of(root, "coupling")
    for settings in ({"temperature": 0.8}, {"guidance": 0.0}, {"show": "interpolation"}):
        assert sample(run, n=20, **settings)[0].is_file()
    with pytest.raises(ConfigError, match=r"show: completion needs a prior that completes latents"):
        sample(run, show="completion")
    with pytest.raises(ConfigError, match=r"guidance: got 2, but a coupling flow has no velocity"):
        sample(run, guidance=2.0)
    with pytest.raises(ConfigError, match=r"steps: got 4, but .* has temperature, guidance"):
        sample(run, steps=4)


def test_a_comparison_adds_rate_and_distortion_of_the_same_z(root):
    source = f"model.first_stage={root / 'runs' / 'vae'}"
    train(experiment(root, "vae_flow", "name=reseeded", "seed=5", "trainer.steps=2", source))
    run = run_of(root, "reseeded")
    of_vae = evaluate(run_of(root, "vae"))["test/distortion"]

    def compared() -> float:
        (row,) = (row for row in compare([run]).rows if row.name == "reseeded")
        assert row.values["total"] == row.values["distortion"] + row.values["rate"]
        return row.values["distortion"] * 28 * 28

    # Until it has one of its own, the distortion is that of the VAE, with another z.
    assert compared() == pytest.approx(of_vae, rel=1e-9)
    own = evaluate(run)["test/distortion"]
    assert own != pytest.approx(of_vae, rel=1e-6)
    assert compared() == pytest.approx(own, rel=1e-9)


def test_the_error_of_a_density_is_what_half_the_steps_change(root):
    run = run_of(root, "ae_flow")
    subject, module = Subject(run), load_run(run)
    net: Any = module.net
    stored = subject.latents.splits["test"]
    first = torch.arange(min(100, len(stored)))
    z, labels = stored.take(first), stored.labels[first]
    whole, half = (net.log_prob_along(z, labels, None, steps) for steps in (8, 4))
    change = whole - half
    found = run.record.test["test/density_error"]
    assert found == pytest.approx(change.abs().mean().item(), rel=1e-2)
    assert 0 < found < 0.05
    assert "val/density_error" not in run.metrics_path.read_text()


def test_the_two_stages_have_the_distortion_of_the_first(root):
    of_vae, of_flow = (evaluate(run_of(root, kind)) for kind in ("vae", "vae_flow"))
    assert of_flow["test/distortion"] == pytest.approx(of_vae["test/distortion"], rel=1e-6)
    assert of_flow["test/evaluations_per_image"] == 16
    assert "test/latent_nats" in evaluate(run_of(root, "ae_flow"), split="test")


def test_a_validation_of_a_training_measures_no_density_and_one_by_itself_does(root):
    run = run_of(root, "ae_flow")
    logged = run.metrics_path.read_text()
    assert "val/loss" in logged
    assert "val/latent_nats" not in logged
    assert "val/latent_nats" in evaluate(run, split="val")


def test_the_density_of_an_image_does_not_depend_on_those_beside_it(root):
    module: Any = load_run(run_of(root, "vae_flow"))
    z = torch.randn(6, 4, 1, 1)
    label = torch.arange(6)
    torch.testing.assert_close(module(z, label)[:2], module(z[:2], label[:2]))
    with pytest.raises(ValueError, match=r"label: got none, but this flow is class-conditional"):
        module(z)
    with pytest.raises(ValueError, match=r"latents: got .* wanted floats \(N, 4, 1, 1\)"):
        module(z[:, :2], label)


def test_grids_are_drawn_and_a_vector_has_nothing_to_complete(root):
    run = run_of(root, "vae_flow")
    assert sample(run, n=20, guidance=2.0, solver="midpoint", steps=2)[0].is_file()
    (path,) = sample(run, show="interpolation", n=20)
    assert path.name == "interpolation.png"
    with pytest.raises(ConfigError, match=r"show: completion keeps the upper half of the latents"):
        sample(run, show="completion")
    with pytest.raises(ConfigError, match=r"temperature: got 0\.5, but .* has steps, solver, guid"):
        sample(run, temperature=0.5)


def test_a_flow_over_a_grid_is_completed_and_its_density_is_said_to_be_an_estimate(root):
    untrained.make_run(root, "ae", "model.latent=grid", "name=grid")
    network = ["model.network.name=dit", "model.network.heads=2"]
    source = f"model.first_stage={root / 'runs' / 'grid'}"
    found = train(
        experiment(root, "ae_flow", "name=grid-flow", "trainer.steps=2", *network, source)
    )
    assert found.test["test/trace_probes"] == 1
    assert "test/trace_probes" not in run_of(root, "ae_flow").record.test
    vae = untrained.make_run(root, "vae", "model.latent=grid", "name=vae-grid")
    source = f"model.first_stage={vae.path}"
    over_vae = train(
        experiment(root, "vae_flow", "name=grid2", "trainer.steps=2", *network, source)
    )
    with pytest.raises(
        ConfigError, match=r"iwae_samples: log p\(z\) of the 196 numbers of .* is an"
    ):
        evaluate(over_vae.run, iwae_samples=1)
    for show in ("completion", "inpainting"):
        (path,) = sample(found.run, show=show, n=20)
        assert path.name == f"{show}.png"
    with pytest.raises(
        ConfigError, match=r"export: a run of kind ae_flow draws all numbers of a z"
    ):
        export(found.run)


def test_images_between_two_have_these_at_the_ends(root):
    subject = Subject(run_of(root, "vae_flow"))
    module: Any = subject.module
    x = subject.images.references("test", 4).float().to(own_device())
    x = x / 127.5 - 1 if x.max() > 1 else x
    between = module.between(x[:2], x[2:], torch.tensor([1, 1]), 3, steps=60)
    decoded = module.first_stage.decode(module.first_stage.latents(x))
    assert between.shape == (2, 3, 1, 28, 28)
    torch.testing.assert_close(between[:, 0], decoded[:2], atol=2e-2, rtol=0)
    torch.testing.assert_close(between[:, 2], decoded[2:], atol=2e-2, rtol=0)


def test_an_arc_keeps_the_length_of_its_ends():
    a, b = torch.randn(2, 3, 8)
    a, b = (x / x.norm(dim=1, keepdim=True) for x in (a, b))
    points = arc(a, b, torch.linspace(0, 1, 5))
    torch.testing.assert_close(points.norm(dim=2), torch.ones(3, 5))
    torch.testing.assert_close(points[:, 0], a)
    torch.testing.assert_close(points[:, -1], b)


@pytest.mark.parametrize("part", range(3))
def test_each_part_of_a_step_is_of_all_times_and_independent_of_the_noise(part, monkeypatch):
    seen: dict[str, torch.Tensor] = {}

    def loss(z, labels, noise, uniform):
        time, forgotten = uniform(z.new_empty(len(z), 2)).unbind(1)
        seen.update(noise=noise(z).flatten(), time=time, forgotten=forgotten, z=z.flatten())
        return time

    flow = build_flow(FlowConfig(class_conditional=False), (1, 1, 1), 0)
    monkeypatch.setattr(flow, "loss", loss)
    first_stage: Any = SimpleNamespace(draw=lambda h, noise: noise(h))
    rows = 300
    batch = Batch(torch.zeros(rows, 1, 1, 1), torch.zeros(rows), torch.arange(rows), 5, part, 3)
    torch.manual_seed(5)
    step_loss(flow, first_stage, batch, None)
    # A third of the times, in all tenths of [0, 1), and in no order.
    assert (torch.histc(seen["time"], 10, 0, 1) - rows / 10).abs().max() < 18
    between = torch.corrcoef(torch.stack([torch.arange(rows), *seen.values()]))
    assert (between - torch.eye(5)).abs().max() < 0.25


def test_all_parts_of_a_step_have_one_time_in_each_interval():
    flow = build_flow(FlowConfig(class_conditional=False), (1, 1, 1), 0)
    times: list[float] = []

    def loss(z, labels, noise, uniform):
        time = uniform(z.new_empty(len(z), 2))[:, 0]
        times.extend(time)
        return time

    cast(Any, flow).loss = loss
    first_stage: Any = SimpleNamespace(draw=lambda h, noise: h)
    for part in (0, 1):
        batch = Batch(torch.zeros(4, 1, 1, 1), torch.zeros(4), torch.arange(4), 5, part, 2)
        step_loss(flow, first_stage, batch, None)
    assert sorted(int(time * 8) for time in times) == list(range(8))
