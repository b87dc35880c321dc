"""Settings: every shipped YAML is built, and every mistake is one line that names what, where, got
and wanted.
"""

from pathlib import Path
from typing import Any

import pytest
import small
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vqvae_lightning.comparison.ablate import read_ablation
from vqvae_lightning.comparison.sweep import read_grid
from vqvae_lightning.config import (
    Ablation,
    ConfigError,
    EvaluateOptions,
    SampleOptions,
    is_setting,
    options,
    section_config,
    to_dict,
)
from vqvae_lightning.config.places import canonical_places
from vqvae_lightning.data.sources import DATASETS
from vqvae_lightning.experiment import describe, experiment_from, load_experiment
from vqvae_lightning.kinds import KINDS
from vqvae_lightning.models.likelihoods import DiscretizedLogistic
from vqvae_lightning.models.parts import QUANTIZERS
from vqvae_lightning.models.quantizers.codebooks import EMAVectorQuantizer
from vqvae_lightning.models.quantizers.lookup_free import FSQ, LFQ
from vqvae_lightning.models.settings import VAEConfig
from vqvae_lightning.training.autoencoders import VAE
from vqvae_lightning.training.build import (
    ANY_LATENTS,
    ANY_TOKENIZER,
    second_stage_module,
    vocoder_module,
)
from vqvae_lightning.training.prior import CodePrior

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
SHIPPED = sorted(
    path for path in EXPERIMENTS.glob("*/*.yaml") if path.parent.name not in ("sweeps", "ablations")
)


def written(folder, text):
    """The experiment of a YAML file that holds `text`."""
    file = folder / "written.yaml"
    file.write_text(text, encoding="utf-8")
    return load_experiment(file, [])


def value_of(experiment, key):
    for part in key.split("."):
        experiment = getattr(experiment, part)
    return experiment


def nine(i: int) -> str:
    """Nine references to the anchor before the i-th of a YAML file."""
    return ",".join([f"*a{i - 1}"] * 9)


@pytest.mark.parametrize("file", SHIPPED, ids=lambda f: f"{f.parent.name}/{f.name}")
def test_every_shipped_experiment_is_valid_and_says_what_it_costs(file, tmp_path):
    experiment = load_experiment(file, [])
    own = {"own": "images", "emoji": "data/emoji"}.get(file.parent.name)
    assert experiment.data.path == own
    assert own or experiment.data.name == file.parent.name
    first = file.read_text().splitlines()[0]
    assert first.startswith("# make "), "the first comment is the command, its cost and its result"
    # what is printed is what is read
    assert written(tmp_path, describe(experiment)) == experiment
    # and it can be built
    dataset = DATASETS[experiment.data.name].chosen(experiment.data)
    shape = (3, 64, 64) if own else dataset.shape
    if experiment.kind == "prior":
        tokenizer = {"run": "", "fingerprint": "", "codebook_size": 16, "grid": [2, 2], "dims": 4}
        prior: Any = second_stage_module(experiment, tokenizer, dataset)
        assert prior.net.nll(
            torch.zeros(1, 4, dtype=torch.long), torch.zeros(1, dtype=torch.long)
        ).shape == (1, 4)
    elif KINDS[experiment.kind].stage == 2:
        flow: Any = KINDS[experiment.kind].module(experiment.model, ANY_LATENTS, dataset.classes)
        z = torch.zeros(1, 16, 1, 1)
        label = torch.zeros(1, dtype=torch.long)
        assert flow.net.loss(z, label, torch.zeros_like, torch.zeros_like).shape == (1,)
    elif KINDS[experiment.kind].stage == 3:
        vocoder: Any = vocoder_module(experiment, dataset)
        assert vocoder(torch.zeros(1, *shape)).shape == (1, vocoder.net.mel.samples)
    else:
        module: Any = KINDS[experiment.kind].module(
            experiment.model, shape, experiment.optimizer, classes=dataset.classes
        )
        label = torch.zeros(1, dtype=torch.long)
        objective = module.net.eval()(torch.zeros(1, *shape), label=label)
        assert objective.reconstruction.shape == (1, *shape)


def test_there_are_experiments_for_every_kind_and_dataset():
    names = {(file.parent.name, file.stem) for file in SHIPPED}
    assert names >= {("fsdd", k) for k in KINDS if k not in ("ae_flow", "vae_flow")}
    assert names >= {
        (d, k) for d in ("mnist", "fashion_mnist", "cifar10") for k in small.compared()
    }


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["model.quantizer.codbook_size=512"],
            "unknown key model.quantizer.codbook_size; did you mean model.quantizer.codebook_size?",
        ),
        (
            ["model.codebook_size=512"],
            "unknown key model.codebook_size; it exists as model.quantizer.codebook_size",
        ),
        (["batch_size=64"], "unknown key batch_size; it exists as data.batch_size"),
        (
            ["kind=vae", "model.quantizer.codebook_size=8"],
            "unknown key model.quantizer; it belongs to kind=vqvae, this is kind=vae",
        ),
        (["kind=gan"], "kind: got 'gan', wanted one of ae, vae, vqvae, prior"),
        (["data.batch_size=12.5"], "data.batch_size: got '12.5', wanted a whole number"),
        (["data.batch_size=true"], "data.batch_size: got 'true', wanted a whole number"),
        (["data.batch_size=0"], "data.batch_size: got 0, wanted at least 1"),
        (
            ["data.name=imagenet"],
            "data.name: got 'imagenet', wanted one of mnist, fashion_mnist, cifar10, cifar100",
        ),
        (["optimizer.lr=fast"], "optimizer.lr: got 'fast', wanted a number"),
        (["optimizer.lr=nan"], "optimizer.lr: got nan, wanted a finite number"),
        (["model.quantizer.decay=1"], "model.quantizer.decay: got 1.0, wanted below 1"),
        (
            ["kind=prior", "model.network.heads=3"],
            "model.network.heads: 3 heads do not divide model.network.width 128",
        ),
        (
            ["kind=prior", "model.network.name=pixelrnn"],
            "model.network.name: got 'pixelrnn', wanted one of transformer, pixelcnn",
        ),
        (
            ["kind=prior", "model.network.name=pixelcnn", "model.network.heads=8"],
            (
                "model.network.heads: pixelcnn has no such setting; it has layers, width, kernel,"
                " dropout"
            ),
        ),
        (
            ["kind=prior", "model.network.kernel=3"],
            (
                "model.network.kernel: transformer has no such setting; it has layers, width,"
                " heads, dropout"
            ),
        ),
        (
            ["kind=prior", "model.network.name=pixelsnail", "model.network.kernel=4"],
            "model.network.kernel: got 4, wanted an odd number",
        ),
        (
            ["kind=prior", "model.class_conditional=false", "model.label_dropout=0.1"],
            (
                "model.label_dropout: got 0.1 with model.class_conditional=false, but then there is"
                " no label to forget"
            ),
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
            (
                "model.importance_samples: got 5 with model.free_bits=0.5, but the"
                " importance-weighted bound has no KL term; wanted 1, or model.free_bits=0.0"
            ),
        ),
        (["kind=vae", "model.importance_samples=5", "model.beta=2"], "wanted 1, or model.beta=1.0"),
        (
            ["kind=vae", "model.importance_samples=5", "model.kl_warmup_steps=9"],
            "wanted 1, or model.kl_warmup_steps=0",
        ),
        (
            ["kind=vae", "model.importance_samples=0"],
            "model.importance_samples: got 0, wanted at least 1",
        ),
        (["data.root=${oc.env:HOME}"], "a config cannot read the environment"),
        (
            ["data.root=${nothing}"],
            "data.root: got '${nothing}', but there is no such setting; write the value",
        ),
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
    assert section_config(VAEConfig, to_dict(config), "model") == config
    with pytest.raises(ConfigError):
        section_config(VAEConfig, {"beta": "much"}, "model")


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("runs=my runs #2", "my runs #2"), ("runs=a: b", "a: b"), ("runs=[x]", "[x]"),
        ("runs={x}", "{x}"),
        ("runs='x'", "'x'"), ("runs=$HOME/x", "$HOME/x"), ("tracking.project=null", None),
        ("runs=über läufe", "über läufe"),
        ("name=0123", "0123"), ("name=2026_11_25", "2026_11_25"), ("name=5.10", "5.10"),
        ("name=no", "no"),
        ("name=1e3", "1e3"), ("name=2026-11-25", "2026-11-25"), ("name=12-30", "12-30"),
        ("name=0x1F", "0x1F"),
        ("name=true", "true"), ("name=null", None), ("name=", None), ("name=Null", "Null"),
        ("tracking.group=a=b", "a=b"), ("tracking.group=~", "~"),
        ("tracking.project=1_000", "1_000"),
        ("tracking.tags=[no]", ["no"]), ("tracking.tags=[010, 1.0]", ["010", "1.0"]),
        ("tracking.tags=a,b", ["a", "b"]),
        ("tracking.tags=a b", ["a b"]), ("tracking.tags=[]", []), ("tracking.tags=", []),
        ("tracking.tags=[#2]", ["#2"]),
        ("""tracking.tags=["a,b", '[c]', it]""", ["a,b", "[c]", "it"]),
        ("tracking.tags=[ a , b ]", ["a", "b"]),
        ("tracking.tags=9", ["9"]),
        ("seed=0", 0), ("seed=12", 12), ("trainer.devices=2", 2), ("trainer.devices=auto", "auto"),
        ("model.quantizer.lookup_dim=8", 8), ("model.quantizer.lookup_dim=null", None),
        ("model.quantizer.lookup_dim=", None),
        ("optimizer.lr=5", 5.0), ("optimizer.lr=1e-3", 0.001), ("optimizer.lr=.5", 0.5),
        ("optimizer.lr=1.", 1.0),
        ("data.flip=true", True), ("data.flip=False", False), ("data.flip=TRUE", True),
        ("data.binarize=none", "none"),
    ],
)  # fmt: skip
def test_the_type_of_a_setting_reads_its_text(word, value):
    found = value_of(load_experiment(None, [word]), word.partition("=")[0])
    assert found == value
    assert type(found) is type(value)


FSQ_WORDS = ["model.quantizer.name=fsq"]


@pytest.mark.parametrize(("text", "levels"), [("[8, 5]", [8, 5]), ("8,5", [8, 5]), ("9", [9])])
def test_a_list_of_numbers_is_read_with_and_without_brackets(text, levels):
    words = [*FSQ_WORDS, f"model.quantizer.levels={text}"]
    assert load_experiment(None, words).model.quantizer.levels == levels


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("levels.0=5", "levels: got model.quantizer.levels.0, wanted the whole list:"
         " model.quantizer.levels=[8,8,8]"),
        ("levels[0]=5",
         "unknown key model.quantizer.levels[0]; did you mean model.quantizer.levels?"),
        ("levels=[8, x]", "model.quantizer.levels.1: got 'x', wanted a whole number"),
        ("levels=[8, 010]", "model.quantizer.levels.1: got '010', wanted a whole number; write 10"),
    ],
)  # fmt: skip
def test_what_is_no_list_of_numbers_is_one_line(word, line):
    with pytest.raises(ConfigError) as error:
        load_experiment(None, [*FSQ_WORDS, f"model.quantizer.{word}"])
    assert line in str(error.value)
    assert "\n" not in str(error.value)


class TestParts:
    FILE = """
kind: vqvae
model:
  quantizer: {name: ema, codebook_size: 64, decay: 0.5, commitment: 0.125}
  likelihood: {name: gaussian, scale: 0.25, bounded: true}
"""

    @pytest.fixture
    def file(self, tmp_path):
        (tmp_path / "parts.yaml").write_text(self.FILE)
        return tmp_path / "parts.yaml"

    def test_another_member_keeps_of_the_file_what_it_has_too(self, file):
        words = ["model.quantizer.name=lfq", "model.likelihood.name=discretized_logistic"]
        model = load_experiment(file, words).model
        assert model.quantizer == LFQ.Config(64, commitment=0.125)
        assert model.likelihood == DiscretizedLogistic.Config(scale=0.25)

    def test_the_same_member_keeps_all_of_the_file(self, file):
        model = load_experiment(file, ["model.quantizer.name=ema"]).model
        assert model.quantizer == EMAVectorQuantizer.Config(64, 0.125, 0.5)

    def test_a_mapping_on_the_command_line_chooses_a_member_too(self, file):
        words = ["model.quantizer={name: fsq, levels: [4, 4]}"]
        assert load_experiment(file, words).model.quantizer == FSQ.Config([4, 4])

    def test_what_the_command_line_says_of_another_member_is_refused(self, file):
        words = ["model.quantizer.name=fsq", "model.quantizer.decay=0.9"]
        line = r"model\.quantizer\.decay: fsq has no such setting; it has levels"
        with pytest.raises(ConfigError, match=line):
            load_experiment(file, words)

    def test_what_a_file_says_of_no_member_is_refused_whatever_is_chosen(self, tmp_path):
        (tmp_path / "e.yaml").write_text("model: {quantizer: {name: ema, decoy: 0.5}}\n")
        for words in ([], ["model.quantizer.name=fsq"]):
            with pytest.raises(ConfigError, match=r"model\.quantizer\.decoy"):
                load_experiment(tmp_path / "e.yaml", words)

    def test_a_record_names_every_member_and_all_of_its_settings(self, file):
        recorded = to_dict(load_experiment(file, ["model.quantizer.name=fsq"]))["model"]
        assert recorded["quantizer"] == {"name": "fsq", "levels": [8, 8, 8]}
        assert recorded["trunk"] == {
            "name": "conv", "hidden": 128, "residual_hidden": 32, "residual_blocks": 2,
            "downsamples": 2, "instance_norm": False,
        }  # fmt: skip
        assert list(recorded["likelihood"]) == ["name", "scale", "learned", "bounded", "growth"]

    def test_another_member_than_that_of_a_record_is_chosen_in_the_same_way(self, file, tmp_path):
        (tmp_path / "again.yaml").write_text(describe(load_experiment(file, [])))
        for name in QUANTIZERS:
            model = load_experiment(tmp_path / "again.yaml", [f"model.quantizer.name={name}"]).model
            assert type(model.quantizer) is QUANTIZERS[name].Config

    def test_a_reference_reads_a_setting_of_the_chosen_member(self):
        words = ["model.quantizer={name: fsq, levels: [5, 5]}", "kind=vqvae"]
        experiment = load_experiment(None, [*words, "name=fsq-${model.quantizer.name}"])
        assert experiment.name == "fsq-fsq"


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("seed=010", "seed: got '010', wanted a whole number; write 10"),
        ("seed=1_000", "seed: got '1_000', wanted a whole number; write 1000"),
        ("seed=0x10", "seed: got '0x10', wanted a whole number; write 16"),
        ("seed=0b11", "seed: got '0b11', wanted a whole number; write 3"),
        ("seed=1.0", "seed: got '1.0', wanted a whole number; write 1"),
        ("seed=1e3", "seed: got '1e3', wanted a whole number; write 1000"),
        ("seed=1:30", "seed: got '1:30', wanted a whole number"),
        ("seed= 5", "seed: got ' 5', wanted a whole number; write 5"),
        ("seed=true", "seed: got 'true', wanted a whole number"),
        ("seed=null", "seed: got 'null', wanted a whole number"),
        ("seed=", "seed: got '', wanted a whole number"),
        ("seed=" + "9" * 5000, "seed: got '999"),
        ("seed=4294967296", "seed: got 4294967296, wanted at most 4294967295"),
        ("trainer.devices=02", "trainer.devices: got '02', wanted a whole number or auto; write 2"),
        ("trainer.devices=Auto", "trainer.devices: got 'Auto', wanted a whole number or auto"),
        ("model.quantizer.lookup_dim=none",
         "model.quantizer.lookup_dim: got 'none', wanted a whole number or null"),
        ("optimizer.lr=1_0.5", "optimizer.lr: got '1_0.5', wanted a number; write 10.5"),
        ("optimizer.lr=010", "optimizer.lr: got '010', wanted a number; write 10"),
        ("optimizer.lr=1,5", "optimizer.lr: got '1,5', wanted a number"),
        ("optimizer.lr=1e999", "optimizer.lr: got inf, wanted a finite number"),
        ("optimizer.lr=.", "optimizer.lr: got '.', wanted a number"),
        ("data.flip=2", "data.flip: got '2', wanted true or false"),
        ("data.flip=1", "data.flip: got '1', wanted true or false; write true"),
        ("data.flip=Off", "data.flip: got 'Off', wanted true or false; write false"),
        ("data.name=MNIST",
         "data.name: got 'MNIST', wanted one of mnist, fashion_mnist, cifar10, cifar100"),
        ("tracking.tags.1=x",
         "tracking.tags: got tracking.tags.1, wanted the whole list: tracking.tags=[a,b]"),
        ("tracking.tags=[a", "an element with a comma, a bracket or a quote stands in quotes"),
        ("tracking.tags=a,,b", "tracking.tags: got 'a,,b', wanted a list such as [a, b]"),
        ("tracking.tags=[[a]]", "tracking.tags: got '[[a]]', wanted a list such as [a, b]"),
        ("tracking.tags=['']", "tracking.tags.0: got '', wanted text"),
        ("seed.x=3", "unknown key seed.x; seed is a setting, not a section"),
        ("data={name: mnist",
         "data: got '{name: mnist', wanted a mapping such as {name: value, other: value}"),
        ("data={flip: yes}", "data.flip: got 'yes', wanted true or false; write true"),
        ("model={trunk: 3}",
         "model.trunk: got '3', wanted a setting of it, such as model.trunk.name=…"),
        ("runs=", "runs: got '', wanted text"),
    ],
)  # fmt: skip
def test_what_a_type_does_not_take_is_one_line_with_what_was_meant(word, line):
    with pytest.raises(ConfigError) as error:
        load_experiment(None, [word])
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_a_section_may_be_given_as_a_mapping_beside_other_settings_of_it():
    words = [
        "model.likelihood.scale=0.3",
        "model={likelihood: {name: discretized_logistic, learned: true}, latent_dim: 8}",
        "model.quantizer={name: fsq, levels: [8, 5]}",
    ]
    model = load_experiment(None, words).model
    assert model.likelihood == DiscretizedLogistic.Config(scale=0.3, learned=True)
    assert (model.quantizer, model.latent_dim) == (FSQ.Config([8, 5]), 8)
    with pytest.raises(ConfigError, match=r"data\.flip: got true and false, wanted one value"):
        load_experiment(None, ["data={flip: true}", "data.flip=false"])


def test_a_section_and_a_setting_of_it_are_not_both_given():
    with pytest.raises(
        ConfigError, match=r"model: got '3' and model\.latent=grid, wanted one of them"
    ):
        load_experiment(None, ["model=3", "model.latent=grid"])


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ('name: "0123"', "name", "0123"), ("name: 'no'", "name", "no"),
        ("name: run-1", "name", "run-1"),
        ("name: !!str 0123", "name", "0123"), ("name:", "name", None), ("name: ~", "name", None),
        ("optimizer: {lr: 1e-3}", "optimizer.lr", 0.001),
        ("optimizer: {lr: 1}", "optimizer.lr", 1.0),
        ("optimizer: {lr: .5}", "optimizer.lr", 0.5), ("data: {flip: True}", "data.flip", True),
        ("tracking: {tags: [a, 'no', \"010\"]}", "tracking.tags", ["a", "no", "010"]),
        ("tracking:\n  tags:\n  - a b", "tracking.tags", ["a b"]),
        ("model: {quantizer: {name: fsq, levels: [8, 5]}}", "model.quantizer.levels", [8, 5]),
        ("trainer: {devices: auto}", "trainer.devices", "auto"),
        ("trainer: {devices: 2}", "trainer.devices", 2),
        ("d: &d {flip: true}\n".replace("d:", "data:"), "data.flip", True),
        ("data: {name: cifar10}\nname: of-${data.name}", "name", "of-cifar10"),
        ("seed: ${trainer.steps}", "seed", 1000),
        ("data: {flip: '${data.download}'}", "data.flip", True),
    ],
)  # fmt: skip
def test_a_file_is_read_by_the_same_types(tmp_path, text, key, value):
    assert value_of(written(tmp_path, text), key) == value


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("name: 0123", "name: got 0123, wanted text or null; write it in quotes: '0123'"),
        ("name: 5.10", "name: got 5.10, wanted text or null; write it in quotes: '5.10'"),
        ("name: 2026-11-25",
         "name: got 2026-11-25, wanted text or null; write it in quotes: '2026-11-25'"),
        ("name: 2026_11_25", "name: got 2026_11_25, wanted text or null; write it in quotes"),
        ("name: 1e3", "name: got 1e3, wanted text or null; write it in quotes: '1e3'"),
        ("name: no", "name: got no, wanted text or null; write it in quotes: 'no'"),
        ("name: [a]", "name: got ['a'], wanted text or null"),
        ("runs: ~", "runs: got ~, wanted text"),
        ("runs:", "runs: got nothing, wanted text"),
        ("tracking: {tags: [a, no]}",
         "tracking.tags.1: got no, wanted text; write it in quotes: 'no'"),
        ("tracking: {tags: a}", "tracking.tags: got 'a', wanted a list such as [a, b]"),
        ("tracking: {tags: }", "tracking.tags: got nothing, wanted a list such as [a, b]"),
        ("data: {flip: 2}", "data.flip: got 2, wanted true or false"),
        ("data: {flip: yes}", "data.flip: got yes, wanted true or false; write true"),
        ("data: {flip: 'true'}",
         "data.flip: got 'true', wanted true or false; write it without quotes"),
        ("seed: 010", "seed: got 010, wanted a whole number; write 10"),
        ("seed: 1_000", "seed: got 1_000, wanted a whole number; write 1000"),
        ("seed: 1:30", "seed: got 1:30, wanted a whole number"),
        ("seed: 5.0", "seed: got 5.0, wanted a whole number; write 5"),
        ("seed: '5'", "seed: got '5', wanted a whole number; write it without quotes"),
        ("seed: five", "seed: got 'five', wanted a whole number"),
        ("data:", "data: got nothing, wanted a mapping"),
        ("data: {name: no}", "data.name: got no, wanted one of mnist"),
        ("data.name: mnist",
         "unknown key data.name; in a file, a setting stands in the mapping of its section"),
        ("0: 1", "unknown key 0; known here"),
        ("seed: ${data}", "seed: got '${data}', but that is not one plain value; write the value"),
        ("name: ${tracking.group}\ntracking: {group: '${name}'}",
         "but that is not one plain value"),
        ("a: &a\n  - *a", "holds recursive aliases"),
        ("[" * 1000, "is nested too deeply"),
        ("a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [{nine(i)}]\n" for i in range(1, 9)), "holds"),
        ("a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{nine(i)}]}}\n" for i in range(1, 9)),
         "merge keys make too many values"),
        ("name: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
    ],
)  # fmt: skip
def test_what_a_file_may_mean_otherwise_is_refused_in_one_line(tmp_path, text, line):
    with pytest.raises(ConfigError) as error:
        written(tmp_path, text)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


TEXT = st.text(
    st.characters(
        blacklist_categories=("Cc", "Cs", "Zl", "Zp"),
        blacklist_characters="\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069",
    ),
    min_size=1,
    max_size=64,
).filter(lambda text: "${" not in text and text.isprintable())


# Names of places that may be there: `~name` is another user's home, and a name has 255 bytes.
PLACE = TEXT.filter(lambda text: text[0] != "~" and len(text.encode()) <= 200)


@settings(max_examples=40, deadline=None)
@given(TEXT, PLACE, st.lists(TEXT), st.floats(1e-12, 1e12), st.integers(0, 2**32 - 1))
@example("no", "no", ["0123", "a: b", "#2", " x ", "~"], 1e-5, 0)
@example("~0", "=", [], 1.0, 0)
@example("1", "1e-3", ["=", "- a", "null", "2026-11-25", "'", '"', "\\", "!", "&a", "<<"], 1e22, 8)
def test_what_is_described_reads_back_as_the_same_experiment(
    tmp_path_factory, text, root, tags, lr, seed
):
    tracking = {"group": text, "tags": tags}
    values = {"tracking": tracking, "data": {"root": root}, "optimizer": {"lr": lr}, "seed": seed}
    # A place such as `=` is absolute in a record.
    experiment = canonical_places(experiment_from(values, "vae"))
    folder = tmp_path_factory.getbasetemp()
    assert written(folder, describe(experiment)) == experiment
    if text != "null":  # on a command line, that is none
        assert load_experiment(None, ["kind=vae", f"tracking.group={text}"]).tracking.group == text


@pytest.mark.parametrize(
    ("word", "setting"),
    [
        ("seed=1", True), ("name=there", True), ("model.tokenizer=runs/a=b", True),
        ("unknown=1", True),
        ("there=b", False), ("./there=b", False), ("runs/a=b", False), ("/a=b", False),
        ("../a=b/c", False),
        ("a=b/c", True), ("x.yaml", False), ("model.quantizer.levels[0]=5", True), ("=1", True),
    ],
)  # fmt: skip
def test_a_word_is_a_setting_unless_it_names_a_place(tmp_path, monkeypatch, word, setting):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there=b").mkdir()
    (tmp_path / "seed=1").mkdir()
    assert is_setting(word) is setting


SPELLINGS = [
    "${oc.env:VQVAE_SECRET}",
    "${ oc.env:VQVAE_SECRET}",
    "${oc.env: VQVAE_SECRET}",
    "${oc.env:VQVAE_SECRET,x}",
    "x${oc.env:VQVAE_SECRET}y",
    "${oc.${data.name}:VQVAE_SECRET}",
    "${oc.decode:${oc.env:VQVAE_SECRET}}",
    "\\${oc.env:VQVAE_SECRET}",
    "\\\\${oc.env:VQVAE_SECRET}",
    "${oc.env:${name}}",
    "${env:VQVAE_SECRET}",
    "${OC.ENV:VQVAE_SECRET}",
    "${data.name}${oc.env:VQVAE_SECRET}",
    "${oc.dict.values:data}",
    "${.name}",
    "${",
    "${${data.name}}",
    "${oc.env:'VQVAE_SECRET'}",
    "${own:VQVAE_SECRET}",
    "${oc.select:data.name}",
]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_nothing_of_the_environment_enters_a_config_by_any_spelling(
    tmp_path, monkeypatch, spelling
):
    monkeypatch.setenv("VQVAE_SECRET", "4711")
    quoted = "'" + spelling.replace("'", "''") + "'"
    (tmp_path / "ablation.yaml").write_text(f"variants: {{a: ['tracking.group=x', {quoted}]}}")
    (tmp_path / "grid.yaml").write_text(
        "method: grid\ncommand: [train, e.yaml]\nparameters: {tracking.group: {values:"
        f" [{quoted}]}}}}"
    )
    ways = [
        lambda: load_experiment(None, [f"tracking.group={spelling}"]),
        lambda: load_experiment(None, [f"tracking.tags=[{spelling}]"]),
        lambda: load_experiment(None, [f"tracking={{group: {quoted}}}"]),
        lambda: written(tmp_path, f"tracking: {{group: {quoted}}}"),
        lambda: written(tmp_path, f"tracking: {{tags: [a, {quoted}]}}"),
        lambda: written(tmp_path, f"name: x\ndata: {{root: {quoted}}}"),
        lambda: options(SampleOptions, [f"out={spelling}"]),
        lambda: read_ablation(tmp_path / "ablation.yaml"),
        lambda: load_experiment(None, read_grid(tmp_path / "grid.yaml")[1][0]),
    ]
    for way in ways:
        with pytest.raises(ConfigError) as error:
            way()
        assert "4711" not in str(error.value)
        assert "a config cannot read the environment; write the value" in str(error.value)


@pytest.mark.parametrize(
    "character",
    ["\x1b", "\x07", "\r", "\n", "\t", "\0", "\x7f", "\x9b", "\u2028", "\u202e", "\udcff"],
)
def test_a_control_character_in_any_text_is_refused_and_shown_escaped(tmp_path, character):
    escaped = character.encode("unicode_escape").decode()
    doubled = f'"a\\U{ord(character):08x}[31m"'
    ways = [
        lambda: load_experiment(None, [f"tracking.group=a{character}[31m"]),
        lambda: load_experiment(None, [f"tracking{character}=a"]),
        lambda: options(EvaluateOptions, [f"sampler={character}x"]),
    ]
    if character != "\udcff":
        ways += [
            lambda: written(tmp_path, f"tracking: {{group: {doubled}}}"),
            lambda: written(tmp_path, f"tracking: {{tags: [b, {doubled}]}}"),
            lambda: written(tmp_path, f"{doubled}: 1"),
            lambda: written(tmp_path, f"{doubled}: 1\n{doubled}: 2"),
        ]
    for way in ways:
        with pytest.raises(ConfigError) as error:
            way()
        assert escaped in str(error.value)
        assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"beta": "1"}, "model.beta: got '1', wanted a number; write it without quotes"),
        ({"beta": True}, "model.beta: got True, wanted a number"),
        ({"latent_dim": 4.0}, "model.latent_dim: got 4.0, wanted a whole number"),
        ({"latent_dim": 0}, "model.latent_dim: got 0, wanted at least 1"),
        ({"trunk": 3}, "model.trunk: got 3, wanted a mapping"),
        ({"trunk": {"name": ["conv"]}}, "model.trunk.name: got ['conv'], wanted one of conv"),
        ({"x": 3}, "unknown key model.x"),
        (["beta"], "model: got ['beta'], wanted a mapping"),
    ],
)
def test_a_checkpoints_values_are_of_their_types_already(values, line):
    with pytest.raises(ConfigError) as error:
        section_config(VAEConfig, values, "model")
    assert line in str(error.value)
    assert section_config(VAEConfig, {"beta": 1}, "model") == VAEConfig(beta=1.0)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"lr": "fast"}, "optimizer.lr: got 'fast', wanted a number"),
        ({"clip": -1.0}, "optimizer.clip: got -1.0, wanted at least 0"),
        ({"nesterov": 0.9}, "unknown key optimizer.nesterov"),
        ([0.1], "optimizer: got [0.1], wanted a mapping"),
    ],
)
def test_an_error_of_a_checkpoints_optimizer_names_the_optimizer(values, line):
    for build in (
        lambda: VAE({}, (1, 8, 8), values),
        lambda: CodePrior({}, ANY_TOKENIZER, 10, values),
    ):
        with pytest.raises(ConfigError) as error:
            build()
        assert str(error.value).startswith(line)


def test_an_ablation_keeps_the_text_of_its_words_and_names(tmp_path):
    (tmp_path / "a.yaml").write_text(
        "settings: [seed=3]\nvariants:\n  0.50: [optimizer.lr=1e-3]\n  no: []\n"
    )
    ablation = options(Ablation, [], tmp_path / "a.yaml")
    assert ablation.variants == {"0.50": ["optimizer.lr=1e-3"], "no": []}


def test_a_sweep_keeps_the_text_of_its_values(tmp_path):
    (tmp_path / "g.yaml").write_text(
        "method: grid\ncommand: [train, e.yaml]\nparameters:\n  name: {values: [0123, 5.10, no]}\n "
        " tracking.tags: {value: [a, 'b,c', no]}\n  tracking.group: {value: null}\n  data.flip:"
        " {value: true}\n"
    )
    experiments = [load_experiment(None, words) for words in read_grid(tmp_path / "g.yaml")[1]]
    assert [experiment.name for experiment in experiments] == ["0123", "5.10", "no"]
    assert [experiment.tracking.tags for experiment in experiments] == [["a", "b,c", "no"]] * 3
    assert [(experiment.tracking.group, experiment.data.flip) for experiment in experiments] == [
        (None, True)
    ] * 3
