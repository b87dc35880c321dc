"""A sweep file is a grid for W&B's agents and for `vqvae sweep`: the same runs, and here none of
them twice.
"""

import re
from pathlib import Path

import pytest
import yaml
from untrained import record

from vqvae_lightning import cli
from vqvae_lightning.comparison import many
from vqvae_lightning.comparison.sweep import read_grid, run_name, sweep
from vqvae_lightning.config import ConfigError, SweepOptions
from vqvae_lightning.experiment import describe, load_experiment
from vqvae_lightning.training.runs import Run

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "experiments" / "sweeps").glob("*.yaml"))
GRID = {
    "method": "grid",
    "command": ["python", "-m", "vqvae_lightning", "train", "e.yaml", "${args_no_hyphens}"],
    "parameters": {
        "model.quantizer.codebook_size": {"values": [16, 32]},
        "data.flip": {"value": True},
        "seed": {"values": [0, 1]},
    },
}


def write(folder: Path, **changes: object) -> Path:
    path = folder / "grid.yaml"
    path.write_text(yaml.safe_dump({**GRID, **changes}, sort_keys=False))
    return path


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.name)
def test_every_shipped_sweep_is_a_grid_of_valid_experiments_on_a_key_that_runs_log(
    file, monkeypatch
):
    monkeypatch.chdir(ROOT)
    content = yaml.safe_load(file.read_text())
    experiment, combinations = read_grid(file)
    for words in combinations:
        load_experiment(experiment, words)
    assert len({run_name(words) for words in combinations}) == len(combinations) > 1
    assert content["command"][1:4] + content["command"][-1:] == [
        "python",
        "-m",
        "vqvae_lightning",
        "${args_no_hyphens}",
    ]
    assert content["metric"]["name"] == "val/loss"


def test_the_combinations_are_the_product_in_order(tmp_path):
    experiment, combinations = read_grid(write(tmp_path))
    assert experiment == Path("e.yaml")
    assert combinations == [
        [f"model.quantizer.codebook_size={k}", "data.flip=true", f"seed={seed}"]
        for k in (16, 32)
        for seed in (0, 1)
    ]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"method": "bayes"}, "method=bayes, wanted grid"),
        ({"command": ["python"]}, "names 0 experiment files, wanted one"),
        ({"command": ["a.yaml", "b.yml"]}, "names 2 experiment files, wanted one"),
        ({"parameters": {"seed": {"min": 0, "max": 3}}}, "seed in .* has no value and no values"),
        ({"parameters": {"seed": {"values": []}}}, "seed in .* has no value and no values"),
        ({"parameters": {"seed": 3}}, "seed in .* has no value and no values"),
        ({"parameters": ["seed"]}, r"parameters=\['seed'\], wanted a mapping"),
        ({"parameters": {}}, "wanted a mapping"),
        ({"command": 5}, "names 0 experiment files, wanted one"),
    ],
)
def test_what_is_no_grid_is_refused(tmp_path, changes, line):
    with pytest.raises(ConfigError, match=line):
        read_grid(write(tmp_path, **changes))


def test_what_is_no_file_or_no_yaml_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read .*nowhere\.yaml"):
        read_grid(tmp_path / "nowhere.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match=r"cannot read .*bad\.yaml"):
        read_grid(tmp_path / "bad.yaml")


def test_a_run_is_named_by_its_values_in_safe_letters():
    assert run_name(["model.quantizer.codebook_size=16", "seed=0"]) == "codebook_size-16_seed-0"
    changed = [run_name([f"model.tokenizer={value}"]) for value in ("runs/a", "runs-a")]
    cut = [run_name(["model.tokenizer=" + 99 * "x", f"seed={seed}"]) for seed in (0, 1)]
    assert len({*changed, *cut}) == 4
    assert all(re.fullmatch("[A-Za-z0-9._-]{1,100}", name) for name in [*changed, *cut])


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A grid of two runs, and in place of training a note of what was asked, and a run that says it
    is finished.
    """
    (tmp_path / "e.yaml").write_text("kind: vqvae\n")
    asked = []

    def launch(words, log):
        asked.append(words)
        settings = dict(word.split("=") for word in words if "=" in word)
        run = Run(Path(settings["runs"]) / settings["name"])
        run.path.mkdir(parents=True)
        (run.path / "config.yaml").write_text(describe(load_experiment(words[1], words[2:])))
        record(run.path, kind="vqvae", seed=int(settings["seed"]))
        return 0

    monkeypatch.setattr(many, "launch", launch)
    monkeypatch.chdir(tmp_path)
    return write(tmp_path, parameters={"seed": {"values": [0, 1]}}), asked


def test_every_combination_runs_once_with_its_settings(workplace):
    file, asked = workplace
    runs = sweep(file, SweepOptions(), ["trainer.steps=5"])
    assert [run.path for run in runs] == [
        Path("runs/sweep-grid") / f"seed-{seed}" for seed in (0, 1)
    ]
    assert [words[:4] for words in asked] == [
        ["train", "e.yaml", "trainer.steps=5", f"seed={s}"] for s in (0, 1)
    ]
    sweep(file, SweepOptions(), ["trainer.steps=5"])
    assert len(asked) == 2
    with pytest.raises(
        ConfigError,
        match=r"trainer\.steps: runs/.* was trained with 5, now it is 9; name another folder",
    ):
        sweep(file, SweepOptions(), ["trainer.steps=9"])


def test_a_combination_that_is_no_experiment_is_refused_before_anything_runs(workplace):
    file, asked = workplace
    with pytest.raises(ConfigError, match=r"unknown key trainer\.stepps"):
        sweep(file, SweepOptions(), ["trainer.stepps=5"])
    with pytest.raises(ConfigError, match="seed: got -1"):
        sweep(write(file.parent, parameters={"seed": {"values": [0, -1]}}), SweepOptions(), [])
    assert asked == []


def test_the_command_line_wants_one_file(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["sweep"])
    assert stop.value.code == 2
    assert "sweep: got 0 files, wanted one such as" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["name", "runs", "resume", "tracking.group"])
def test_what_each_run_is_given_is_no_axis_of_a_grid(workplace, key):
    file, asked = workplace
    write(file.parent, parameters={key: {"values": ["a", "b"]}})
    with pytest.raises(
        ConfigError, match=f"{key}: got {key}=a in .*, but each run is given its own"
    ):
        sweep(file, SweepOptions(), [])
    assert asked == []
