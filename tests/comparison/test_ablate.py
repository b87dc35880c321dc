"""An ablation trains each variant with each seed once, on one first stage a seed, and sums up what
was asked for.
"""

from pathlib import Path

import pytest

from vqvae_lightning import cli
from vqvae_lightning.comparison.ablate import ablate, read_ablation
from vqvae_lightning.config import AblateOptions, ConfigError, merge_overrides
from vqvae_lightning.experiment import load_experiment

ABLATIONS = sorted((Path(__file__).parents[2] / "experiments" / "ablations").glob("*.yaml"))


@pytest.fixture
def workplace(tmp_path, monkeypatch, calls, settings):
    """Tiny experiment files in the current folder, settings that fit them, and the runs that are
    asked for.
    """
    trunk = "  trunk: {hidden: 8, residual_hidden: 4, residual_blocks: 1}\n"
    (tmp_path / "vqvae.yaml").write_text(
        f"kind: vqvae\nmodel:\n  quantizer: {{codebook_size: 16}}\n  latent_dim: 8\n{trunk}"
    )
    (tmp_path / "prior.yaml").write_text(
        "kind: prior\nmodel: {network: {layers: 1, width: 16, heads: 2}}\n"
    )
    (tmp_path / "vae.yaml").write_text(f"kind: vae\nmodel:\n  latent_dim: 4\n{trunk}")
    (tmp_path / "vae_flow.yaml").write_text(
        "kind: vae_flow\nmodel: {network: {layers: 2, width: 16}}\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path, settings, calls


def write(root, text):
    (root / "study.yaml").write_text(text)
    return root / "study.yaml"


def test_each_variant_and_seed_once_and_a_table_of_what_was_asked(workplace, capsys):
    root, settings, calls = workplace
    file = write(
        root,
        "experiment: vqvae.yaml\nvariants: {plain: [], small: [model.quantizer.codebook_size=4]}\n"
        "metrics: [psnr]\n",
    )
    cli.main(["ablate", str(file), "seeds=2", *settings])
    trained = [word for call in calls for word in call if word.startswith("name=")]
    assert trained == ["name=plain-s0", "name=small-s0", "name=plain-s1", "name=small-s1"]
    shown = capsys.readouterr().out.splitlines()[-2:]
    assert [line.split()[0] for line in shown] == ["plain", "small"]
    assert all("±" in line for line in shown)
    calls.clear()
    found = ablate(file, AblateOptions(seeds=2), settings)
    assert calls == []
    assert [run.record.seed for run in found.variants["small"]] == [0, 1]
    assert found.variants["small"][0].experiment().model.quantizer.codebook_size == 4


def test_priors_share_a_tokenizer_of_their_seed(workplace):
    root, settings, _ = workplace
    text = (
        "experiment: prior.yaml\nfirst_stage: vqvae.yaml\nvariants: {a: [], b:"
        " [model.network.name=pixelcnn]}\n"
    )
    found = ablate(write(root, text), AblateOptions(seeds=1), settings)
    runs = [found.variants[name][0] for name in ("a", "b")]
    assert {run.record.learned_from.run for run in runs} == {"first-s0"}


def test_flows_share_a_first_stage_and_are_bounded_where_one_pass_is_enough(workplace):
    root, settings, _ = workplace
    text = (
        "experiment: vae_flow.yaml\nfirst_stage: vae.yaml\nevaluation: [iwae_samples=2]\n"
        "variants: {a: [model.network.density_steps=4], b: [model.network.name=coupling]}\n"
    )
    found = ablate(write(root, text), AblateOptions(seeds=1), settings)
    runs = {name: found.variants[name][0] for name in ("a", "b")}
    assert {run.record.learned_from.run for run in runs.values()} == {"first-s0"}
    assert [name for name, run in runs.items() if "test/iwae_nats" in run.record.test] == ["b"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("variants: {}", "has no variants"),
        (
            "experiment: vae_flow.yaml\nfirst_stage: vqvae.yaml\nvariants: {a: []}",
            "first_stage: got one of kind vqvae in .*, but a is of kind vae_flow, wanted vae",
        ),
        (
            "experiment: vae.yaml\nfirst_stage: vae.yaml\nvariants: {a: []}",
            "first_stage: got one of kind vae in .*, but a is of kind vae, wanted none",
        ),
        ("variant: {}", "did you mean variants"),
        (
            "experiment: vqvae.yaml\nvariants: {a: [model.quantizer.codbook_size=3]}",
            "did you mean model.quantizer.codebook_size",
        ),
        ("experiment: vqvae.yaml\nvariants: {a/b: []}", "name: got 'a/b'"),
        ("experiment: none.yaml\nvariants: {a: []}", "there is no file none.yaml"),
        (
            "experiment: prior.yaml\nfirst_stage: none.yaml\nvariants: {a: []}",
            "there is no file none.yaml",
        ),
        (
            "experiment: prior.yaml\nvariants: {a: [], b: [model.network.heads=3]}",
            "3 heads do not divide model.network.width 16",
        ),
        (
            "experiment: vqvae.yaml\nvariants: {a: [], b: [model.quantizer.name=vq]}",
            "model.quantizer.name: got 'vq', wanted one",
        ),
        (
            "experiment: vqvae.yaml\nvariants: {a: []}\nevaluation: [iwae_smples=5]",
            "did you mean iwae_samples",
        ),
        (
            "experiment: vqvae.yaml\nvariants: {a: []}\n"
            "evaluation: [representation=true, representation_images=281]",
            "representation_images: got 281, but there are only 280 training images",
        ),
        (
            "experiment: vqvae.yaml\nvariants: {a: []}\n"
            "evaluation: [fid_samples=10, fid_network=classifier]",
            "vqvae classifier dataset=mnist",
        ),
        (
            "experiment: vqvae.yaml\nvariants: {a: [seed=3]}",
            "seed: got seed=3 in .*, a, but each run is given its own",
        ),
        (
            "experiment: vqvae.yaml\nsettings: [runs=x]\nvariants: {a: []}",
            "runs: got runs=x in .*, but each run",
        ),
    ],
)
def test_a_file_that_is_no_ablation_is_refused_before_anything_runs(workplace, text, line):
    root, settings, calls = workplace
    with pytest.raises(ValueError, match=line):
        ablate(write(root, text), AblateOptions(), settings)
    assert calls == []
    assert not (root / "runs").exists()


def test_an_unknown_study_names_the_known(workplace):
    root, *_ = workplace
    write(root, "")
    with pytest.raises(
        ConfigError,
        match=r"there is no file .*nothing\.yaml; known: prior, study, vae, vae_flow, vqvae",
    ):
        read_ablation(root / "nothing.yaml")


def test_a_setting_that_the_first_stage_has_not_is_said_to_be_of_every_run(workplace):
    root, settings, _ = workplace
    file = write(root, "experiment: prior.yaml\nfirst_stage: vqvae.yaml\nvariants: {a: []}")
    with pytest.raises(
        ConfigError, match=r"^first_stage: .*vqvae\.yaml with the settings of every run: .*network"
    ):
        ablate(file, AblateOptions(), [*settings, "model.network.heads=1"])


@pytest.mark.parametrize("file", ABLATIONS, ids=lambda path: path.stem)
def test_every_shipped_ablation_is_valid_and_says_what_it_asks(file, monkeypatch):
    monkeypatch.chdir(file.parents[2])
    assert f"make ablate STUDY={file.stem}: " in file.read_text().splitlines()[0]
    ablation = read_ablation(file)
    for words in ablation.variants.values():
        experiment = load_experiment(ablation.experiment, merge_overrides(ablation.settings, words))
        if experiment.kind == "vqvae":
            experiment.model.build_bottleneck()
