"""A file of own parts is executed where the user names it, and nowhere else."""

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import small
import yaml
from extending.walked import PARTS, SMALL, vqvae
from own_process import environment, run_fork
from untrained import make_run, workplace

from vqvae_lightning import load
from vqvae_lightning.comparison import many
from vqvae_lightning.config import ConfigError, plugins, to_dict, use_plugins
from vqvae_lightning.experiment import load_experiment
from vqvae_lightning.models.settings import VQVAEConfig
from vqvae_lightning.training.runs import Run
from vqvae_lightning.verified import read_checkpoint, write_checkpoint

# Leaves a file behind where it is executed.
MARKED = "from pathlib import Path\n\nPath('executed').touch()\n"
QUANTIZER = (PARTS / "quantizer.py").read_text()
CHOSEN = "model.quantizer.name=mine.py:RandomCodebook"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a file of own parts and an experiment that wants one of them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plugins, "_named", [])
    (tmp_path / "mine.py").write_text(f"{MARKED}{QUANTIZER}")
    model = {"quantizer": {"name": "mine.py:RandomCodebook", "codebook_size": 16}}
    (tmp_path / "e.yaml").write_text(yaml.safe_dump({"kind": "vqvae", "model": model}))
    return tmp_path


@pytest.fixture
def fails(here: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The one line with which a command ends, after which nothing was made."""

    def fails(*words: str) -> str:
        before = {path for path in here.rglob("*") if path.name != "executed"}
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            vqvae(*words)
        assert ended.value.code == 2
        assert {path for path in here.rglob("*") if path.name != "executed"} == before
        (line,) = capsys.readouterr().err.splitlines()
        return line

    return fails


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with mine.py, runs/tokenizer, trained with a part of it, and runs/prior over it."""
    root = tmp_path_factory.mktemp("own")
    (root / "mine.py").write_text(QUANTIZER)
    with workplace(root), pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("WANDB_MODE", "disabled")
        settings = [*SMALL, f"data.root={root / 'data'}", "plugins=mine.py"]
        kind = ["model.quantizer.codebook_size=16", "model.latent_dim=8"]
        empty, prior = root / "empty.yaml", root / "prior.yaml"
        empty.write_text("")
        prior.write_text("kind: prior\n")
        vqvae("train", str(empty), *settings, *small.NETWORK, *kind, CHOSEN, "name=tokenizer")
        words = [*small.KINDS["prior"], "model.tokenizer=runs/tokenizer", "name=prior"]
        vqvae("train", str(prior), *settings, *words)
    return root


@pytest.fixture
def own(trained: Path, here: Path) -> Iterator[Path]:
    """The current folder, with a copy of the runs, and of the file that they were trained with."""
    shutil.copytree(trained / "runs", here / "runs")
    shutil.copy(trained / "mine.py", here / "mine.py")
    with workplace(here):
        yield here


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("command", ["train", "config"])
def test_an_experiment_file_executes_nothing(
    command: str, here: Path, fails: Callable[..., str]
) -> None:
    assert fails(command, "e.yaml") == (
        "vqvae: model.quantizer.name: got 'mine.py:RandomCodebook', but a file is executed only"
        " where the command line names it; to do so, add plugins=mine.py"
    )
    assert not (here / "executed").exists()


@pytest.mark.parametrize("name", ["plugins=mine.py", "model.quantizer.name=mine.py:RandomCodebook"])
def test_a_folder_that_is_named_like_an_argument_executes_nothing(
    name: str, here: Path, fails: Callable[..., str]
) -> None:
    """A shell's `*` puts the names of folders, perhaps a stranger's, on the command line."""
    (here / name).mkdir()
    assert "is also the name of a file or folder here" in fails("compare", "runs", name)
    assert not (here / "executed").exists()


def test_a_file_cannot_name_what_is_executed(here: Path, fails: Callable[..., str]) -> None:
    (here / "e.yaml").write_text("plugins: [mine.py]\n")
    assert "no file says what is executed" in fails("config", "e.yaml")
    assert not (here / "executed").exists()


def test_sweeps_and_ablations_execute_nothing_that_their_files_name(
    here: Path, fails: Callable[..., str]
) -> None:
    (here / "plain.yaml").write_text("kind: vqvae\n")
    parameters = {"model.quantizer.name": {"values": ["ema", "mine.py:RandomCodebook"]}}
    sweep = {"method": "grid", "command": ["train", "plain.yaml"], "parameters": parameters}
    (here / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    ablation = {"experiment": "plain.yaml", "variants": {"own": [CHOSEN]}}
    (here / "ablation.yaml").write_text(yaml.safe_dump(ablation))
    for words in (["sweep", "sweep.yaml"], ["ablate", "ablation.yaml"]):
        assert "add plugins=mine.py" in fails(*words)
    assert not (here / "executed").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("evaluate", "runs/tokenizer"),
        ("sample", "runs/tokenizer"),
        ("compare", "runs/tokenizer"),
        ("train", "resume=runs/tokenizer"),
        ("train", "runs/tokenizer/config.yaml"),
        ("evaluate", "runs/prior"),
        ("sample", "runs/prior"),
        ("compare", "runs/prior"),
        ("train", "resume=runs/prior"),
        ("train", "prior.yaml", "model.tokenizer=runs/tokenizer", "trainer.steps=250"),
    ],
    ids=" ".join,
)
def test_a_run_of_own_parts_opens_only_where_its_file_is_named(
    words: tuple[str, ...], own: Path, fails: Callable[..., str]
) -> None:
    (own / "prior.yaml").write_text("kind: prior\ndata: {batch_size: 20, validation_size: 40}\n")
    line = fails(*words)
    assert "mine.py:RandomCodebook" in line
    assert f"add plugins=mine.py (SHA-256 {digest(own / 'mine.py')})" in line


def test_a_run_opens_with_the_file_it_was_trained_with(own: Path) -> None:
    for run in ("runs/tokenizer", "runs/prior"):
        vqvae("evaluate", run, "plugins=mine.py", "root=data")
        vqvae("sample", run, "plugins=mine.py", "root=data", "n=10")
        vqvae("train", f"resume={run}", "plugins=mine.py")
    vqvae("compare", "plugins=mine.py")
    page = (own / "runs" / "compare.html").read_text()
    assert "tokenizer" in page
    assert "prior" in page


def test_a_comparison_names_the_run_whose_file_is_not_named_and_goes_on(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(own, "ae")
    path = own / "runs" / "ae" / "run.json"
    test = {f"test/{key}": 1.0 for key in ("distortion", "rate", "loss")}
    path.write_text(json.dumps({**json.loads(path.read_text()), "test": test}))
    vqvae("compare")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[:2] for line in lines] == [["left", "out"]] * 2
    assert all("add plugins=mine.py" in line for line in lines)
    assert "RandomCodebook" not in (own / "runs" / "compare.html").read_text()


def test_an_exported_run_opens_only_after_the_file_that_its_card_names(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vqvae("export", "runs/prior", "plugins=mine.py", "format=hub", "to=hub", "root=data")
    assert not list((own / "hub").rglob("*.py"))
    monkeypatch.setattr(plugins, "_named", [])
    card = (own / "hub" / "README.md").read_text()
    assert f"| mine.py | {digest(own / 'mine.py')} |" in card
    assert 'use_plugins("mine.py")' in card
    with pytest.raises(ConfigError, match=r"add plugins=mine\.py"):
        load("hub")
    use_plugins("mine.py")
    net = load("runs/prior").net
    for name, tensor in load("hub").net.state_dict().items():
        assert tensor.equal(net.state_dict()[name])


def test_a_record_holds_name_and_hash_of_a_file_and_no_path(own: Path) -> None:
    part = {"name": "mine.py:RandomCodebook", "sha256": digest(own / "mine.py")}
    for name in ("tokenizer", "prior"):
        run = Run(own / "runs" / name)
        assert run.record.plugins == [part]
    settings = yaml.safe_load((own / "runs" / "tokenizer" / "config.yaml").read_text())
    assert settings["model"]["quantizer"] == {**part, "codebook_size": 16}
    checkpoint = read_checkpoint(own / "runs" / "tokenizer" / "checkpoints" / "best.ckpt")
    held = checkpoint["hyper_parameters"]["config"]["quantizer"]
    assert held == {**part, "codebook_size": 16}


def test_a_run_does_not_open_with_a_file_that_has_changed(
    own: Path, fails: Callable[..., str]
) -> None:
    was = digest(own / "mine.py")
    (own / "mine.py").write_text(f"{QUANTIZER}\n# changed\n")
    for words in (["evaluate", "runs/tokenizer"], ["train", "resume=runs/prior"]):
        line = fails(*words, "plugins=mine.py")
        assert f"with SHA-256 {was}" in line
        assert f"has {digest(own / 'mine.py')}; name a file with the content" in line


def test_runs_of_two_versions_of_a_file_open_side_by_side(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    (own / "old").mkdir()
    shutil.move(own / "mine.py", own / "old" / "mine.py")
    (own / "mine.py").write_text(f"{QUANTIZER}\n# changed\n")
    settings = [*SMALL, *small.NETWORK, "data.root=data", "model.latent_dim=8", "name=new"]
    vqvae("train", "e.yaml", *settings, "plugins=mine.py")
    vqvae("compare", "plugins=[mine.py, old/mine.py]")
    page = (own / "runs" / "compare.html").read_text()
    for version in (own / "mine.py", own / "old" / "mine.py"):
        assert f">{digest(version)[:8]}<" in page
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plugins, "_named", [])
        use_plugins(["mine.py", "old/mine.py"])
        with pytest.raises(ConfigError, match=r"which could be .* and .*; rename one of them"):
            load_experiment("e.yaml", [])


def test_a_checkpoint_executes_nothing(own: Path, fails: Callable[..., str]) -> None:
    run = make_run(own, "vqvae")
    checkpoint = read_checkpoint(run.best)
    config = checkpoint["hyper_parameters"]["config"]
    quantizer = {"name": "mine.py:RandomCodebook", "codebook_size": 16}
    checkpoint["hyper_parameters"]["config"] = {**config, "quantizer": quantizer}
    write_checkpoint(run.best, checkpoint)
    (own / "mine.py").write_text(f"{MARKED}{QUANTIZER}")
    assert "add plugins=mine.py" in fails("sample", "runs/vqvae", "root=data")
    assert not (own / "executed").exists()


def test_a_path_in_a_config_leads_nowhere(here: Path, fails: Callable[..., str]) -> None:
    elsewhere = here / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(here / "mine.py", elsewhere / "mine.py")
    name = f"{elsewhere}/mine.py:RandomCodebook"
    (here / "e.yaml").write_text(f"model: {{quantizer: {{name: '{name}'}}}}\n")
    assert "add plugins=mine.py" in fails("config", "e.yaml")
    assert not (here / "executed").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("e.yaml", "plugins=mine.py"),
        ("e.yaml", "plugins=[mine.py]"),
        ("plain.yaml", CHOSEN),
        ("plain.yaml", "plugins=mine.py", CHOSEN),
        ("plain.yaml", "model.quantizer={name: mine.py:RandomCodebook, codebook_size: 9}"),
        ("plain.yaml", "model={quantizer: {name: mine.py:RandomCodebook}}"),
        ("plain.yaml", "model.quantizer.name=./mine.py:RandomCodebook"),
    ],
    ids=" ".join,
)
def test_a_file_that_the_command_line_names_is_executed(
    words: tuple[str, ...], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "plain.yaml").write_text("kind: vqvae\n")
    vqvae("config", *words)
    quantizer = yaml.safe_load(capsys.readouterr().out)["model"]["quantizer"]
    assert quantizer["name"] == "mine.py:RandomCodebook"
    assert quantizer["sha256"] == digest(here / "mine.py")
    assert (here / "executed").exists()


CLASS = "from vqvae_lightning.models.quantizers.quantizer import NamedQuantizer as Q\n"
DATACLASS = "from dataclasses import dataclass\n"
FAULTS = {
    "x = (\n": "plugins: mine.py, line 1: SyntaxError: '(' was never closed",
    "x = 1\nimport nothing_here\n": (
        "plugins: mine.py, line 2: ModuleNotFoundError: No module named 'nothing_here'"
    ),
    "raise SystemExit(0)\n": "plugins: mine.py, line 1: SystemExit: 0",
    "x = '\0'\n": "plugins: mine.py",
    "class Other:\n    pass\n": "/mine.py has no class RandomCodebook; it has Other",
    "RandomCodebook = 3\n": "/mine.py has no class RandomCodebook; it has no class",
    "class RandomCodebook:\n    pass\n": (
        "is no NamedQuantizer, wanted a subclass of"
        " vqvae_lightning.models.quantizers.quantizer.NamedQuantizer"
    ),
    CLASS + "class RandomCodebook(Q):\n    pass\n": (
        "has no settings, wanted in it: @dataclass class Config(NamedQuantizer.Config)"
    ),
    CLASS + "class RandomCodebook(Q):\n    class Config(Q.Config):\n        x: int = 1\n": (
        "has no settings, wanted in it: @dataclass class Config"
    ),
    QUANTIZER.replace("Config(NamedQuantizer.Config)", "Config"): (
        "its Config is no subclass of NamedQuantizer.Config"
    ),
    QUANTIZER.replace("def quantize", "def quantise"): "does not define quantize",
    QUANTIZER.replace("codebook_size: int", "codebook_size: complex"): (
        "Config.codebook_size: got type <class 'complex'>, wanted int, float, bool"
    ),
    QUANTIZER.replace("codebook_size: int", "codebook_size: 'Nothing'"): (
        "Config cannot be made: NameError: name 'Nothing' is not defined"
    ),
    QUANTIZER.replace('setting(512, "K, number of codes", at_least=1)', '"many"'): (
        "Config.codebook_size: got 'many', wanted a whole number"
    ),
    QUANTIZER.replace("codebook_size: int =", "width: int\n        codebook_size: int ="): (
        "Config.width has no default, wanted one"
    ),
    QUANTIZER.replace("codebook_size: int", "sha256: int"): "Config.sha256: that name is taken",
    QUANTIZER + "\n\nclass Second(RandomCodebook):\n    Config = RandomCodebook.Config\n": "",
}


@pytest.mark.parametrize("text", [*FAULTS][:-1], ids=range(len(FAULTS) - 1))
def test_a_fault_of_the_users_file_is_one_line(
    text: str, here: Path, fails: Callable[..., str]
) -> None:
    (here / "mine.py").write_text(text)
    assert FAULTS[text] in fails("train", "e.yaml", "plugins=mine.py")


def test_two_classes_of_one_config_are_refused(here: Path, fails: Callable[..., str]) -> None:
    (here / "mine.py").write_text([*FAULTS][-1])
    name = "model.quantizer.name=mine.py:Second"
    assert "shares its Config with another class" in fails("train", "e.yaml", name)


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("plugins=none.py", "plugins: there is no none.py, wanted a Python file"),
        ("plugins=e.yaml", "plugins: there is 'e.yaml', which is no Python file"),
        ("plugins=.", "plugins: there is '.', which is no Python file"),
        ("model.quantizer.alpha=1", "RandomCodebook has no such setting; it has codebook_size"),
        ("model.quantizer.codebook_size=0", "codebook_size: got 0, wanted at least 1"),
        ("model.quantizer.sha256=12", "with SHA-256 12, but"),
        ("model.trunk.name=mine.py:RandomCodebook", "is no Trunk, wanted a subclass of"),
        ("model.quantizer.name=vq", "lfq, or FILE.py:CLASS"),
    ],
)
def test_a_mistake_beside_a_file_is_one_line(
    word: str, line: str, here: Path, fails: Callable[..., str]
) -> None:
    named = [] if word.startswith("plugins=") else ["plugins=mine.py"]
    assert line in fails("train", "e.yaml", word, *named)


def test_an_override_of_the_name_leaves_the_files_settings_behind(here: Path) -> None:
    (here / "e.yaml").write_text(
        "model: {quantizer: {name: 'mine.py:RandomCodebook', sha256: '12', alpha: 3}}\n"
    )
    model = load_experiment("e.yaml", ["model.quantizer.name=fsq"]).model
    assert to_dict(model)["quantizer"] == {"name": "fsq", "levels": [8, 8, 8]}
    use_plugins("mine.py")
    (here / "e.yaml").write_text("model: {quantizer: {name: ema, codebook_size: 9, decay: 0.5}}\n")
    found = to_dict(load_experiment("e.yaml", [CHOSEN]).model)["quantizer"]
    assert (found["name"], found["codebook_size"]) == ("mine.py:RandomCodebook", 9)
    assert "decay" not in found


def test_a_changed_file_is_executed_again_where_it_is_named_again(here: Path) -> None:
    (before,) = use_plugins("mine.py")
    assert use_plugins(here / "mine.py") == [before]
    (here / "mine.py").write_text(QUANTIZER.replace("512", "77"))
    (after,) = use_plugins("mine.py")
    assert after is not before
    model = load_experiment("e.yaml", []).model
    assert type(model.quantizer) is after.RandomCodebook.Config
    # An older object still knows what it is.
    config: Any = before.RandomCodebook.Config()
    assert to_dict(VQVAEConfig(quantizer=config))["quantizer"]["codebook_size"] == 512


def test_a_config_of_no_known_part_is_named(here: Path) -> None:
    with pytest.raises(ConfigError, match="is of no part that is known here"):
        to_dict(VQVAEConfig(quantizer=VQVAEConfig().trunk))


def test_a_command_of_many_runs_gives_each_the_files(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(many, "COMMAND", ("echo",))
    use_plugins(here / "mine.py")
    assert many.launch(["config", "e.yaml"], here / "log") == 0
    assert (here / "log").read_text() == "config e.yaml plugins=[mine.py]\n"
    (here / "mine.py").write_text(QUANTIZER)
    with pytest.raises(ConfigError, match=r"mine\.py has changed since it was executed"):
        many.launch(["config", "e.yaml"], here / "log")


@pytest.mark.slow
@pytest.mark.dist
def test_every_rank_has_the_files(here: Path) -> None:
    program = [sys.executable, str(Path(__file__).parents[1] / "launch_fake.py")]
    words = ["train", "e.yaml", "plugins=mine.py", *SMALL, *small.NETWORK, "trainer.devices=2"]
    line = [*program, str(here / "data"), *words, "name=two"]
    done = run_fork(line, environment(WANDB_MODE="disabled"), cwd=here)
    assert done.returncode == 0, done.stderr
    assert Run(here / "runs" / "two").record.plugins[0]["sha256"] == digest(here / "mine.py")
