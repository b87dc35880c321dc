"""Settings: every shipped YAML is built, and every mistake is one line that names what, where, got and wanted."""

from pathlib import Path

import pytest
import torch

from vqvae_lightning.config import ConfigError, describe, experiment_from, load_experiment, model_config, plain
from vqvae_lightning.config.schema import MODEL_CONFIGS, VAEConfig
from vqvae_lightning.data.sources import DATASETS
from vqvae_lightning.training.autoencoders import AUTOENCODERS
from vqvae_lightning.training.prior import CodePrior

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
SHIPPED = sorted(path for path in EXPERIMENTS.glob("*/*.yaml") if path.parent.name not in ("sweeps", "ablations"))


@pytest.mark.parametrize("file", SHIPPED, ids=lambda f: f"{f.parent.name}/{f.name}")
def test_every_shipped_experiment_is_valid_and_says_what_it_costs(file, tmp_path):
    experiment = load_experiment(file, [])
    assert experiment.data.name == file.parent.name
    first = file.read_text().splitlines()[0]
    assert first.startswith("# make "), "the first comment is the command, its cost and its result"
    # what is printed is what is read
    assert written(tmp_path, describe(experiment)) == experiment
    # and it can be built
    dataset = DATASETS[experiment.data.name]
    if experiment.kind == "prior":
        tokenizer = {"run": "", "fingerprint": "", "codebook_size": 16, "grid": [2, 2], "dims": 4}
        module = CodePrior(experiment.model, tokenizer, dataset.classes, experiment.optimizer)
        assert module.net.nll(torch.zeros(1, 4, dtype=torch.long), torch.zeros(1, dtype=torch.long)).shape == (1, 4)
    else:
        module = AUTOENCODERS[experiment.kind](experiment.model, dataset.shape, experiment.optimizer)
        assert module.net.eval()(torch.zeros(1, *dataset.shape)).reconstruction.shape == (1, *dataset.shape)


def test_there_are_experiments_for_every_kind_and_dataset():
    names = {(file.parent.name, file.stem) for file in SHIPPED}
    assert names >= {(d, k) for d in ("mnist", "fashion_mnist", "cifar10") for k in MODEL_CONFIGS}


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["model.codbook_size=512"], "unknown key model.codbook_size; did you mean model.codebook_size?"),
        (["batch_size=64"], "unknown key batch_size; it exists as data.batch_size"),
        (["kind=vae", "model.codebook_size=8"], "belongs to kind=vqvae, this is kind=vae"),
        (["kind=gan"], "kind: got 'gan', wanted one of ae, vae, vqvae, prior"),
        (["data.batch_size=12.5"], "data.batch_size: got '12.5', wanted a whole number"),
        (["data.batch_size=true"], "data.batch_size: got 'true', wanted a whole number"),
        (["data.batch_size=0"], "data.batch_size: got 0, wanted at least 1"),
        (["data.name=imagenet"], "data.name: got 'imagenet', wanted one of mnist, fashion_mnist, cifar10, cifar100"),
        (["optimizer.lr=fast"], "optimizer.lr: got 'fast', wanted a number"),
        (["optimizer.lr=nan"], "optimizer.lr: got nan, wanted a finite number"),
        (["model.decay=1"], "model.decay: got 1.0, wanted below 1"),
        (["kind=prior", "model.heads=3"], "model.heads: 3 heads do not divide model.width 128"),
        (["kind=prior", "model.architecture=pixelrnn"], "model.architecture: got 'pixelrnn', wanted one of transformer, pixelcnn"),
        (
            ["kind=prior", "model.architecture=pixelcnn", "model.heads=8"],
            "model.heads: got 8, but a pixelcnn has none; wanted the default, 4",
        ),
        (["kind=prior", "model.kernel=3"], "model.kernel: got 3, but a transformer has none; wanted the default, 5"),
        (
            ["kind=prior", "model.architecture=pixelsnail", "model.kernel=4"],
            "model.kernel: got 4, wanted an odd number",
        ),
        (
            ["kind=prior", "model.class_conditional=false", "model.label_dropout=0.1"],
            "model.label_dropout: got 0.1 with model.class_conditional=false, but then there is no label to forget",
        ),
        (["kind=prior", "model.label_dropout=1"], "model.label_dropout: got 1.0, wanted below 1"),
        (["trainer.devices=many"], "trainer.devices: got 'many', wanted a whole number or auto"),
        (["trainer.devices=0"], "trainer.devices: got 0, wanted at least 1"),
        (["trainer.steps=700"], "trainer.validate_every: 250 does not divide trainer.steps 700"),
        (["model=3"], "model: got '3', wanted a setting of it, such as model.latent=…"),
        (["--optimizer.lr=1"], "wanted key=value"),
        (["optimizer.lr"], "wanted key=value"),
        (["model.likelihood.name=bernoulli"], "needs binary pixels"),
        (
            ["model.likelihood.name=discretized_logistic", "data.binarize=static"],
            "discretized_logistic is of 256 grey levels, got data.binarize=static, wanted none",
        ),
        (
            ["kind=vae", "model.importance_samples=5", "model.free_bits=0.5"],
            "model.importance_samples: got 5 with model.free_bits=0.5, but the importance-weighted bound has no KL "
            "term; wanted 1, or model.free_bits=0.0",
        ),
        (["kind=vae", "model.importance_samples=5", "model.beta=2"], "wanted 1, or model.beta=1.0"),
        (["kind=vae", "model.importance_samples=5", "model.kl_warmup_steps=9"], "wanted 1, or model.kl_warmup_steps=0"),
        (["kind=vae", "model.importance_samples=0"], "model.importance_samples: got 0, wanted at least 1"),
        (["data.root=${oc.env:HOME}"], "a config cannot read the environment"),
        (["data.root=${nothing}"], "data.root: got '${nothing}', but there is no such setting; write the value"),
    ],
)
def test_mistakes_are_one_line(overrides, line):
    with pytest.raises(ConfigError) as error:
        load_experiment(None, overrides)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("- a\n- b\n", "wanted a mapping"),
        ("kind: vae\nkind: ae\n", "duplicate key"),
        ("kind:\tvae\n\tx: 1\n", "config:"),
        (b"\xff\xfe\x00", "config:"),
    ],
)
def test_bad_files_are_one_line(tmp_path, text, line):
    file = tmp_path / "bad.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=line) as error:
        load_experiment(file, [])
    assert "\n" not in str(error.value)


def test_missing_file():
    with pytest.raises(ConfigError, match=r"there is no file nowhere\.yaml"):
        load_experiment("nowhere.yaml", [])


@pytest.mark.parametrize("number", ["1e-3", "1E-3", ".001", "0.001"])
def test_numbers_are_read_as_people_write_them(number):
    assert load_experiment(None, [f"optimizer.lr={number}"]).optimizer.lr == 0.001


def test_the_command_line_wins_over_the_file(tmp_path):
    file = tmp_path / "e.yaml"
    file.write_text("kind: vae\nmodel:\n  beta: 2\nseed: 5\n")
    experiment = load_experiment(file, ["model.beta=3"])
    assert (experiment.kind, experiment.model.beta, experiment.seed) == ("vae", 3.0, 5)


def test_a_checkpoints_mapping_becomes_the_dataclass_and_back():
    config = VAEConfig(beta=0.5)
    assert model_config(VAEConfig, plain(config)) == config
    with pytest.raises(ConfigError):
        model_config(VAEConfig, {"beta": "much"})
