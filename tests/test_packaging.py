"""The wheel holds what its commands name, and the sdist what it is built and tested from."""

import tarfile
import zipfile
from pathlib import Path

import pytest
import small
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

from vqvae_lightning.comparison.ablate import read_ablation
from vqvae_lightning.comparison.study import experiment_files
from vqvae_lightning.comparison.sweep import read_grid
from vqvae_lightning.config import (
    DataConfig,
    StudyOptions,
    experiment_file,
    experiment_names,
    shipped,
    training_command,
)
from vqvae_lightning.experiment import load_experiment

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "vqvae_lightning"
EXPERIMENTS = sorted((ROOT / "experiments").glob("*/*.yaml"))


def files_of(folder: Path) -> list[Path]:
    """The files below a folder, except what Python caches."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in found if "__pycache__" not in path.parts]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel was unpacked; building it takes no network."""
    folder = tmp_path_factory.mktemp("site")
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


@pytest.fixture
def elsewhere(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, with the package as the wheel has it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shipped, "PACKAGE", installed / "vqvae_lightning")
    return tmp_path


def test_the_wheel_holds_every_file_of_the_package_and_every_experiment(installed: Path) -> None:
    inside = installed / "vqvae_lightning"
    missing = [p for p in files_of(PACKAGE) if not (inside / p.relative_to(PACKAGE)).is_file()]
    missing += [p for p in EXPERIMENTS if not (inside / p.relative_to(ROOT)).is_file()]
    assert missing == []
    tops = {path.name for path in installed.iterdir() if path.suffix not in (".whl", ".dist-info")}
    assert tops == {"vqvae_lightning"}


def test_the_sdist_holds_what_building_and_testing_it_needs(tmp_path: Path) -> None:
    (sdist,) = SdistBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = [*files_of(ROOT / "tests"), *files_of(ROOT / "docs"), *files_of(ROOT / ".ci")]
    wanted += [*EXPERIMENTS, *files_of(PACKAGE)]
    wanted += [ROOT / name for name in ("pyproject.toml", "Makefile", "README.md", "mkdocs.yml")]
    assert [p for p in wanted if str(p.relative_to(ROOT)) not in names] == []
    assert [name for name in names if name.startswith(("data/", "runs/", ".venv"))] == []


def test_every_experiment_is_found_by_its_name_in_a_folder_without_any(elsewhere: Path) -> None:
    names = [f"{path.parent.name}/{path.stem}" for path in EXPERIMENTS]
    of_plans = [*experiment_names("ablations"), *experiment_names("sweeps")]
    assert sorted([*experiment_names(), *of_plans]) == sorted(names)
    for name in experiment_names():
        load_experiment(experiment_file(name), [])
        assert experiment_file(f"experiments/{name}.yaml") == experiment_file(name)


def test_the_plans_of_many_runs_name_experiments_that_are_there(elsewhere: Path) -> None:
    for name in experiment_names("ablations"):
        ablation = read_ablation(Path(experiment_file(name)))
        assert Path(ablation.experiment).is_file()
        assert ablation.first_stage is None or Path(ablation.first_stage).is_file()
    for name in experiment_names("sweeps"):
        assert read_grid(Path(experiment_file(name)))[0].is_file()
    assert list(experiment_files(StudyOptions())) == [*small.compared(), "prior_masked"]


def test_a_file_of_ones_own_comes_before_a_shipped_one(elsewhere: Path) -> None:
    own = elsewhere / "experiments" / "mnist"
    own.mkdir(parents=True)
    (own / "ae.yaml").write_text("kind: ae\n")
    assert experiment_file("mnist/ae") == "experiments/mnist/ae.yaml"
    assert Path(experiment_file("mnist/vae")).is_absolute()
    assert list(experiment_files(StudyOptions())) == ["ae"]
    assert experiment_file("mnist/none") == "mnist/none"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (DataConfig(), "train mnist/vqvae"),
        (DataConfig(name="cifar10"), "train cifar10/vqvae"),
        (DataConfig(name="cifar100"), "train mnist/vqvae data.name=cifar100"),
        (DataConfig(binarize="dynamic"), "train mnist/vqvae data.binarize=dynamic"),
        (
            DataConfig(path="a b", size=[48, 64]),
            "train own/vqvae 'data.path=a b' 'data.size=[48, 64]'",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_command_that_a_message_names_first_is_one_that_is_there(
    data: DataConfig, words: str, elsewhere: Path
) -> None:
    assert training_command("vqvae", data, "runs").partition("vqvae ")[2] == words
    assert training_command("vqvae", data, "elsewhere").endswith(f"{words} runs=elsewhere")
    assert Path(experiment_file(words.split()[1])).is_file()
