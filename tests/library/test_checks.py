"""A call from Python is checked as a command line is, and says the same."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import torch

from vqvae_lightning import (
    FSQ,
    VQVAE,
    AEConfig,
    ConfigError,
    Experiment,
    OptimizerConfig,
    Run,
    TrainerConfig,
    VAEConfig,
    VQVAEConfig,
    cli,
    compare,
    evaluate,
    export,
    find_runs,
    load,
    load_experiment,
    open_export,
    sample,
    train,
    use_plugins,
)
from vqvae_lightning.config import EvaluateOptions, SampleOptions
from vqvae_lightning.experiment import checked, describe
from vqvae_lightning.models.quantizers.codebooks import EMAVectorQuantizer

# Values of another type than a type checker would let through.
WRONG: Any = {"text": "1", "name": "ema", "optimizer": OptimizerConfig(), "model": VAEConfig()}
GIVEN: Any = (
    np.int64(3), torch.tensor(0.5), np.array([8, 5]), np.array([1, 28, 28]), np.float64(1.5)
)  # fmt: skip
TRAININGS = [
    (
        Experiment(model=VQVAEConfig(quantizer=EMAVectorQuantizer.Config(codebook_size=-3))),
        ["model.quantizer.codebook_size=-3"],
    ),
    (
        Experiment(trainer=TrainerConfig(steps=10, validate_every=3)),
        ["trainer.steps=10", "trainer.validate_every=3"],
    ),
    (Experiment(kind="vqva"), ["kind=vqva"]),
    (Experiment(optimizer=OptimizerConfig(lr=0.0)), ["optimizer.lr=0"]),
    (Experiment(name="a/b"), ["name=a/b"]),
    (Experiment(seed=-1), ["seed=-1"]),
]


@pytest.mark.parametrize(("experiment", "words"), TRAININGS)
def test_train_says_what_the_command_says_and_leaves_nothing(
    experiment, words, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("empty.yaml").write_text("{}")
    with pytest.raises(ConfigError) as called:
        train(experiment)
    with pytest.raises(ConfigError) as typed:
        cli.config(["empty.yaml", *words])
    assert str(called.value).replace("0.0", "0") == str(typed.value).replace("0.0", "0")
    assert [path.name for path in tmp_path.iterdir()] == ["empty.yaml"]


@pytest.mark.parametrize(
    ("experiment", "line"),
    [
        (Experiment(kind="vqvae", model=AEConfig()), "model: got AEConfig, wanted VQVAEConfig"),
        (Experiment(model={"latent_dim": 0}), "model.latent_dim: got 0"),
        (Experiment(model={"beta": 2}), "unknown key model.beta; it belongs to kind=vae"),
        (
            Experiment(kind="vae", model=VAEConfig(beta=WRONG["text"])),
            "model.beta: got '1', wanted a num",
        ),
        (
            Experiment(model=VQVAEConfig(quantizer=WRONG["name"])),
            "model.quantizer: got 'ema', wanted",
        ),
        (Experiment(data=WRONG["optimizer"]), "unknown key data.momentum"),
        (
            Experiment(model=VQVAEConfig(quantizer=WRONG["model"])),
            "config: vqvae_lightning.models.settings.VAEConfig is of no part",
        ),
    ],
)
def test_a_dataclass_that_does_not_fit_is_one_line(experiment, line):
    with pytest.raises(ConfigError) as error:
        checked(experiment)
    assert str(error.value).startswith(line)


def test_an_experiment_without_a_model_has_the_defaults_of_its_kind():
    assert checked(Experiment(kind="vae")).model == VAEConfig()
    there: Any = Path("there")
    assert checked(Experiment(runs=there)).runs == "there"


def test_checking_changes_nothing_of_what_a_file_gave():
    for kind in small.KINDS:
        config = small.model_config(kind)
        experiment = checked(Experiment(kind=kind, model=config))
        assert experiment.model == config
        assert checked(experiment) == experiment


@pytest.mark.parametrize(
    ("function", "settings"),
    [
        (evaluate, {"fid_samples": -3}),
        (evaluate, {"fid_sample": 3}),
        (evaluate, {"split": "train"}),
        (sample, {"n": 0}),
        (sample, {"show": "all"}),
        (sample, {"label": 3}),
        (sample, {"out": "a.jpg"}),
        (export, {"format": "bogus"}),
        (export, {"formt": "onnx"}),
    ],
)
def test_a_function_says_what_its_command_says(place, function, settings):
    run = str(place / "runs" / "vqvae")
    with pytest.raises(ConfigError) as called:
        function(run, **settings)
    with pytest.raises(ConfigError) as typed:
        getattr(cli, function.__name__)(
            [run, *(f"{key}={value}" for key, value in settings.items())]
        )
    assert str(called.value) == str(typed.value)


def test_a_setting_that_would_choose_another_run_is_refused(place):
    with pytest.raises(ConfigError, match="dataset: got mnist beside"):
        evaluate(place / "runs" / "vqvae", dataset="mnist")
    with pytest.raises(ConfigError, match="dataset: got mnist beside"):
        evaluate(place / "runs" / "vqvae", EvaluateOptions(dataset="mnist"))
    with pytest.raises(ConfigError, match="runs: got elsewhere beside"):
        sample(place / "runs" / "vqvae", SampleOptions(runs="elsewhere"))


def test_a_command_that_chose_a_run_by_a_setting_draws_from_it(place, monkeypatch):
    monkeypatch.chdir(place)
    assert cli.sample(["dataset=mnist", "runs=runs", "n=1", "columns=1", "seed=5"]).is_file()


@pytest.mark.parametrize("function", [load, evaluate, sample, export, open_export, find_runs])
@pytest.mark.parametrize("place", [None, 3, ["runs"], b"runs"])
def test_what_is_no_path_is_one_line(function, place):
    with pytest.raises(
        ConfigError, match=r": got .*, wanted the path of a file or folder"
    ) as error:
        function(place)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("options", [{"split": "val"}, "val", SampleOptions()])
def test_options_of_another_command_are_one_line(place, options):
    with pytest.raises(ConfigError, match=r"options: got .*, wanted EvaluateOptions, or settings"):
        evaluate(place / "runs" / "vqvae", options)


def test_a_kind_that_is_not_there_is_refused_and_not_searched_for(place):
    with pytest.raises(ConfigError, match="kind: got 'zip', wanted one of ae, vae"):
        find_runs(place / "runs", kind="zip")
    assert [run.name for run in find_runs(place / "runs", kind="vae")] == ["vae"]


@pytest.mark.parametrize("overrides", [None, "seed=1", [1]])
def test_overrides_that_are_no_list_of_texts_are_one_line(overrides):
    with pytest.raises(ConfigError, match=r"^overrides: got .*, wanted a list of key=value"):
        load_experiment(None, overrides)


def test_numbers_and_arrays_of_numpy_and_torch_are_settings_like_pythons_own(place):
    seed, lr, levels, shape, half = GIVEN
    found = checked(Experiment(seed=seed, optimizer=OptimizerConfig(lr=lr)))
    assert (type(found.seed), found.seed, found.optimizer.lr) == (int, 3, 0.5)
    experiment = checked(Experiment(model=VQVAEConfig(quantizer=FSQ.Config(levels=levels))))
    assert experiment.model.quantizer.levels == [8, 5]
    assert describe(checked(experiment)) == describe(experiment)
    (picture,) = sample(place / "runs" / "vqvae", n=np.int64(4), columns=np.int32(2), seed=9)
    assert picture.name == "samples-seed9.png"
    with pytest.raises(ConfigError, match=r"seed: got 1\.5, wanted a whole number"):
        checked(Experiment(seed=half))
    assert VQVAE({}, shape).hparams["image_shape"] == [1, 28, 28]


def test_a_folder_that_is_no_run_is_one_line(tmp_path):
    for call in (evaluate, sample, compare):
        with pytest.raises(ConfigError, match="is no run folder"):
            call(str(tmp_path))


def test_sample_and_evaluate_take_folders_and_keywords(place):
    run = str(place / "runs" / "vqvae")
    (picture,) = sample(run, n=4, columns=2, seed=1)
    assert picture.name == "samples-seed1.png"
    assert {"val/psnr", "val/rate"} <= evaluate(run, split="val").keys()


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda value: Run.open(value), "run: got {}, wanted the path of a run folder"),
        (lambda value: load(value), "load: got {}, wanted the path of a file or folder"),
        (lambda value: use_plugins(value), "use_plugins: got {}, wanted paths of files"),
        (lambda value: use_plugins([value]), "use_plugins: got [{}], wanted paths of files"),
    ],
)
@pytest.mark.parametrize("value", [None, 3])
def test_what_is_no_place_is_refused_in_one_line(call, value, line):
    with pytest.raises(ConfigError) as error:
        call(value)
    assert str(error.value) == line.format(value)
