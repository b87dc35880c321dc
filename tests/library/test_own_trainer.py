"""A Trainer and a loader of one's own: every module, images with labels and without."""

from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.precision import MixedPrecision
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from vqvae_lightning import AE, VAE, VQVAE, CodePrior, ConfigError, load, to_float
from vqvae_lightning.data.loader import Batch
from vqvae_lightning.models.quantizers.quantizer import Quantizer
from vqvae_lightning.training import given

TRUNK = {"hidden": 8, "residual_hidden": 4, "residual_blocks": 1}
MODEL: dict[str, Any] = {"trunk": TRUNK, "latent_dim": 8}
SETTINGS = {AE: MODEL, VAE: MODEL, VQVAE: {**MODEL, "quantizer": {"codebook_size": 16}}}
PRIOR = {"network": {"layers": 1, "width": 16, "heads": 2}}
SHAPE = (1, 8, 8)

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*defaulting to `False`.*", "ignore:.*defined a `validation_step`.*"
)


@pytest.fixture(autouse=True)
def seeded(monkeypatch):
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    torch.manual_seed(0)


def pixels(n: int = 50) -> torch.Tensor:
    return torch.randint(0, 256, (n, *SHAPE), dtype=torch.uint8)


def trainer(**more: Any) -> pl.Trainer:
    given: dict[str, Any] = {"max_epochs": 1, **more}
    return pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, **{"log_every_n_steps": 1, **given},
    )  # fmt: skip


def loader(dataset: Any, **more: Any) -> DataLoader[Any]:
    return DataLoader(dataset, batch_size=16, **more)


def loaders() -> dict[str, DataLoader[Any]]:
    x, y = pixels(), torch.arange(50) % 5
    pairs: Dataset[Any] = TensorDataset(x, y)
    return {"(x, y)": loader(pairs), "x": loader(to_float(x))}


@pytest.mark.parametrize("given", ["(x, y)", "x"])
@pytest.mark.parametrize("cls", [AE, VAE, VQVAE])
def test_an_autoencoder_trains_validates_tests_predicts_and_is_loaded_again(cls, given, tmp_path):
    data, module = loaders()[given], cls(SETTINGS[cls], SHAPE)
    before = [p.detach().clone() for p in module.parameters()]
    # The last batch is smaller, and so is its part of the accumulated step.
    own = trainer(accumulate_grad_batches=2)
    own.fit(module, data, data)
    assert own.global_step == 2
    assert not all(map(torch.equal, before, module.parameters()))
    assert "val/psnr" in own.callback_metrics
    assert "test/psnr" in own.test(module, data, verbose=False)[0]
    predicted = torch.cat(own.predict(module, data))  # type: ignore[arg-type]
    path = tmp_path / "own.ckpt"
    own.save_checkpoint(path)
    module.eval()
    x = pixels(4)
    assert len(predicted) == 50
    for again in (cls.load_from_checkpoint(path, weights_only=True), load(path, cls)):
        assert torch.equal(again.eval().encode(x), module.encode(x))
        assert again.config == module.config


def test_a_codebook_learns_from_a_loader_of_ones_own():
    module = VQVAE(SETTINGS[VQVAE], SHAPE)
    trainer(max_epochs=2).fit(module, loaders()["x"])
    bottleneck = module.net.bottleneck
    assert isinstance(bottleneck, Quantizer)
    assert bottleneck.is_initialized
    assert bottleneck.statistics() == []


def test_what_a_codebook_draws_leaves_the_random_state_and_follows_the_seed(monkeypatch):
    def codebook(seed: str) -> torch.Tensor:
        monkeypatch.setenv("PL_GLOBAL_SEED", seed)
        torch.manual_seed(0)
        module = VQVAE(SETTINGS[VQVAE], SHAPE)
        trainer(max_steps=1, max_epochs=-1).fit(module, loader(to_float(pixels())))
        states.append(torch.get_rng_state())
        found: torch.Tensor = module.net.bottleneck.codebook  # type: ignore[assignment]
        return found

    states: list[torch.Tensor] = []
    first, again, other = (codebook(seed) for seed in "112")
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(states[0], states[2])


@pytest.mark.parametrize("what", ["images", "codes"])
def test_a_prior_trains_on_images_or_codes_and_is_loaded_again(what, tmp_path):
    vqvae = VQVAE(SETTINGS[VQVAE], SHAPE)
    x, y = pixels(), torch.arange(50) % 5
    data = loader(TensorDataset(x if what == "images" else vqvae.encode(x), y))
    prior = CodePrior(PRIOR, vqvae.tokenizer(), classes=5)
    own = trainer()
    own.fit(prior, data, data)
    assert "val/bits_per_code" in own.callback_metrics
    own.test(prior, data, verbose=False)
    nats = torch.cat(own.predict(prior, data))  # type: ignore[arg-type]
    prior.eval()
    torch.testing.assert_close(nats, prior(x, y))
    own.save_checkpoint(tmp_path / "prior.ckpt")
    again = load(tmp_path / "prior.ckpt", CodePrior)
    with pytest.raises(ValueError, match=r"call attach\(tokenizer\) first"):
        again.sample(1)
    assert again.attach(vqvae.tokenizer()).sample(3, label=4).shape == (3, *SHAPE)
    with pytest.raises(ValueError, match="this model was trained on the latents of"):
        again.attach(VQVAE(SETTINGS[VQVAE], SHAPE).tokenizer())
    again.description["grid"] = [-side for side in again.description["grid"]]
    with pytest.raises(ValueError, match="got K and grid"):
        again.attach(vqvae.tokenizer())


def test_a_tokenizer_is_a_copy_that_training_on_leaves_alone():
    vqvae = VQVAE(SETTINGS[VQVAE], SHAPE)
    learned = [p.requires_grad for p in vqvae.parameters()]
    tokenizer = vqvae.tokenizer()
    assert [p.requires_grad for p in vqvae.parameters()] == learned
    assert True in learned
    x = to_float(pixels(4))
    before = tokenizer.decode(tokenizer.encode(x))
    trainer().fit(vqvae, loaders()["x"])
    assert torch.equal(tokenizer.decode(tokenizer.encode(x)), before)


class Endless(IterableDataset[torch.Tensor]):
    """Images without a length."""

    def __iter__(self):
        while True:
            yield to_float(pixels(1))[0]


def test_the_schedule_ends_with_the_last_step_and_is_constant_without_one():
    def last_rate(data: DataLoader[Any], **settings: Any) -> float:
        module = AE(MODEL, SHAPE, {"lr": 1e-3, "warmup_steps": 0})
        own = trainer(**settings)
        own.fit(module, data)
        return float(own.optimizers[0].param_groups[0]["lr"])

    assert last_rate(loaders()["x"], max_epochs=2) == 0
    assert last_rate(loaders()["x"], max_epochs=-1, max_steps=3) == 0
    assert last_rate(loader(Endless()), limit_train_batches=3) == 0
    assert last_rate(loader(Endless()), max_epochs=-1, max_time={"seconds": 0.2}) == 1e-3


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (pixels().float(), r"images: got floats from \d to 25\d, wanted uint8, or floats"),
        (pixels()[:, 0], r"images: got shape \(16, 8, 8\), wanted \(N, 1, 8, 8\)"),
        (TensorDataset(pixels(), pixels(), pixels()), "batch: got 3 parts, wanted x or"),
        ([{"image": image} for image in pixels()], "batch: got dict, wanted x or"),
    ],
)
def test_a_batch_that_does_not_fit_is_one_line(data, line):
    with pytest.raises(ValueError, match=f"^{line}"):
        trainer().fit(VQVAE(SETTINGS[VQVAE], SHAPE), loader(data))


def test_floats_from_0_to_1_are_warned_of():
    with pytest.warns(UserWarning, match=r"all floats of the first batch lie in \[0, 1\]"):
        trainer().fit(AE(MODEL, SHAPE), loader(pixels().float() / 255))


def test_a_conditional_prior_wants_labels():
    tokenizer = VQVAE(SETTINGS[VQVAE], SHAPE).tokenizer()
    with pytest.raises(ConfigError, match="classes: got 0, wanted at least 1"):
        CodePrior(PRIOR, tokenizer)
    with pytest.raises(ValueError, match="labels: got a batch without them"):
        trainer().fit(CodePrior(PRIOR, tokenizer, classes=5), loader(pixels()))
    prior = CodePrior({**PRIOR, "class_conditional": False}, tokenizer)
    trainer().fit(prior, loader(pixels()))
    assert prior.sample(2).shape == (2, *SHAPE)
    with pytest.raises(ValueError, match="not class-conditional"):
        prior.sample(2, label=1)


def test_a_batch_of_a_run_is_still_seeded_by_its_own_seed():
    module = AE(MODEL, SHAPE)
    batch = Batch(to_float(pixels(2)), torch.zeros(2, dtype=torch.int64), torch.arange(2), seed=7)
    module.on_train_batch_start(batch, 0)
    assert torch.initial_seed() == 7
    module.on_train_batch_start(batch.x, 1)
    assert torch.initial_seed() == 7


def test_every_image_of_an_evaluation_has_noise_of_its_own(monkeypatch):
    drawn: list[torch.Tensor] = []
    for rank in (0, 1):
        monkeypatch.setattr(given, "rank_and_world", lambda rank=rank: (rank, 2))
        for index, rows in enumerate((4, 4, 3)):  # the last batch is smaller
            batch = given.as_batch(torch.zeros(rows, 2), index)
            drawn += batch.row_noise("latent").normal(torch.zeros(rows, 2))
    assert len({tuple(noise.tolist()) for noise in drawn}) == 22


@pytest.mark.parametrize("made", ["autoencoder", "prior"])
def test_float16_whose_gradients_are_scaled_is_refused_before_the_first_step(made):
    vqvae = VQVAE(SETTINGS[VQVAE], SHAPE)
    module = vqvae if made == "autoencoder" else CodePrior(PRIOR, vqvae.tokenizer(), classes=5)
    own = trainer(plugins=[MixedPrecision("16-mixed", "cpu")])
    with pytest.raises(ValueError, match=r"^precision: got 16-mixed, .* wanted 32-true") as error:
        own.fit(module, loaders()["(x, y)"])
    assert "\n" not in str(error.value)
    assert own.global_step == 0


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_weights_of_16_bits_are_refused_before_the_first_step(precision):
    own = trainer(precision=precision)
    with pytest.raises(ValueError, match=f"^precision: got {precision}, .* wanted 32-true"):
        own.fit(VQVAE(SETTINGS[VQVAE], SHAPE), loaders()["x"])
    assert own.global_step == 0


def test_figures_are_over_all_loaders_of_an_evaluation_and_predictions_by_loader():
    x, y = pixels(48), torch.arange(48) % 5
    vqvae = VQVAE(SETTINGS[VQVAE], SHAPE)
    prior = CodePrior(PRIOR, vqvae.tokenizer(), classes=5)
    for module in (vqvae, prior):
        whole = loader(TensorDataset(x, y))
        parts = [loader(TensorDataset(x[part], y[part])) for part in (slice(16), slice(16, 48))]
        (at_once,) = trainer().validate(module, whole, verbose=False)
        found, _ = trainer().validate(module, parts, verbose=False)
        assert found == pytest.approx(at_once)
        trainer().test(module, parts, verbose=False)
        predicted = trainer().predict(module, parts)
        assert [sum(map(len, of_loader)) for of_loader in predicted] == [16, 32]  # type: ignore[union-attr]


def test_noise_differs_between_the_loaders_of_an_evaluation():
    batches = [given.as_batch(torch.zeros(4, 2), 0, loader) for loader in (0, 1)]
    first, second = (batch.row_noise("latent").normal(torch.zeros(4, 2)) for batch in batches)
    assert not torch.equal(first, second)


def test_a_code_or_label_out_of_range_is_one_line():
    prior = CodePrior(PRIOR, VQVAE(SETTINGS[VQVAE], SHAPE).tokenizer(), classes=5)
    codes, labels = torch.full((16, 4), 16), torch.arange(16) % 5
    with pytest.raises(ValueError, match=r"^codes: got values 16 to 16, wanted 0 to 15"):
        prior(codes, label=0)
    with pytest.raises(ValueError, match=r"^codes: got values 16 to 16, wanted 0 to 15"):
        trainer().fit(prior, loader(TensorDataset(codes, labels)))
    with pytest.raises(ValueError, match=r"^label: got 5, wanted 0 to 4"):
        trainer().fit(prior, loader(TensorDataset(codes - 1, labels + 1)))


def test_a_step_of_a_prior_looks_at_the_values_of_the_first_batch_only(monkeypatch):
    prior = CodePrior(PRIOR, VQVAE(SETTINGS[VQVAE], SHAPE).tokenizer(), classes=5)
    looked: list[bool] = []
    checked = prior.checked_labels
    monkeypatch.setattr(
        prior, "checked_labels", lambda *a, check_values: looked.append(check_values) or checked(*a)
    )
    monkeypatch.setattr(
        "vqvae_lightning.training.prior.check_codes", lambda *_: looked.append(True)
    )
    codes = loader(TensorDataset(torch.zeros(48, 4, dtype=torch.int64), torch.arange(48) % 5))
    trainer().fit(prior, codes)
    assert looked == [True, True, False, False]


@pytest.mark.parametrize("classes", [0, 3])
def test_an_unconditional_prior_has_pictures_whatever_the_number_of_classes(classes):
    tokenizer = VQVAE(SETTINGS[VQVAE], SHAPE).tokenizer()
    prior = CodePrior({**PRIOR, "class_conditional": False}, tokenizer, classes=classes)
    assert len(prior.pictures(pixels(1))["samples"].images) == 10 * max(1, classes)


def test_a_trainer_that_logs_nothing_trains() -> None:
    module = VQVAE(SETTINGS[VQVAE], SHAPE)
    own = trainer(log_every_n_steps=0)
    own.fit(module, loaders()["x"])
    assert own.global_step == 4


def test_a_checkpoint_of_other_settings_is_named(tmp_path) -> None:
    path = tmp_path / "own.ckpt"
    module, own = AE(MODEL, SHAPE), trainer(max_steps=1)
    own.fit(module, loaders()["x"])
    own.save_checkpoint(path)
    held = torch.load(path, weights_only=True)
    held["hyper_parameters"]["config"]["of_tomorrow"] = 1
    torch.save(held, path)
    with pytest.raises(ConfigError, match=r"^checkpoint: .*own\.ckpt: unknown key .*of_tomorrow"):
        load(path)
