"""Places: canonical where they are read, found again where a record names them, printed so that
they can be pasted.
"""

import dataclasses
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import fake_data
import pytest
from untrained import TOKENIZER, record

from vqvae_lightning import cli
from vqvae_lightning.cli.one_run import sync_command
from vqvae_lightning.config import (
    CompareOptions,
    ConfigError,
    Experiment,
    SampleOptions,
    canonical,
    command_line,
    options,
    own_command,
)
from vqvae_lightning.config.commands import COMMAND_OPTIONS
from vqvae_lightning.experiment import load_experiment
from vqvae_lightning.models.settings import PriorConfig
from vqvae_lightning.training.runs import Run
from vqvae_lightning.training.search import find_runs

ODD_NAMES = [
    "a b",
    "a=b",
    "it's",
    'say "x"',
    "läufe",
    "#2",
    "~x",
    "-x",
    "a;b",
    "a&b",
    "*",
    "$HOME",
    "{x}",
    "[y]",
    "auto",
    "null",
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A current folder, with a link to a folder elsewhere, a dead link, and a home beside it."""
    (tmp_path / "other" / "deep").mkdir(parents=True)
    (tmp_path / "home").mkdir()
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "other" / "deep")
    (folder / "dead").symlink_to("gone")
    (folder / "loop").symlink_to("loop")
    (folder / "file").write_text("")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return folder


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("x", "x"), ("./x", "x"), ("x/", "x"), ("x//y/./z", "x/y/z"), ("x/../y", "y"),
        ("link/x", "link/x"),
        ("../x", "TOP/x"), ("..", "TOP"), (".", "TOP/work"), ("link/../x", "TOP/other/x"),
        ("TOP/work/x", "x"),
        ("~", "TOP/home"), ("~/x y", "TOP/home/x y"), ("~root/x", "/root/x"),
        ("$HOME/x", "$HOME/x"), ("x~", "x~"),
        ("./~x", "TOP/work/~x"), ("./-x", "TOP/work/-x"),
        ("a=b/x", "TOP/work/a=b/x"), ("x/a=b", "x/a=b"), ("./null", "TOP/work/null"),
        ("./auto", "TOP/work/auto"),
    ],
)  # fmt: skip
def test_a_place_has_one_name(here, text, place):
    top = str(here.parent)
    found = canonical(text.replace("TOP", top), "runs")
    assert found == place.replace("TOP", top)
    assert canonical(found, "runs") == found


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (["runs=dead"], "runs: dead is a link to gone, which does not exist"),
        (["runs=dead/x"], "runs: dead is a link to gone, which does not exist"),
        (["data.root=./loop"], "data.root: loop is a link to loop, which does not exist"),
        (["kind=prior", "model.tokenizer=dead"], "model.tokenizer: dead is a link to gone"),
        (
            ["runs=~nobody-at-all/x"],
            "runs: got '~nobody-at-all/x', but there is no user ~nobody-at-all",
        ),
        (["runs=" + "x" * 256], "runs: got a name that is too long, wanted at most 230 bytes"),
        (["runs=" + "ü" * 128], "runs: got a name that is too long, wanted at most 230 bytes"),
        (["runs=file"], "runs: file is a file, wanted a folder"),
        (["data.root=link/../../work/file"], "data.root: file is a file, wanted a folder"),
    ],
)
def test_a_place_that_cannot_be_is_one_line_and_nothing_is_made(here, settings, line):
    before = sorted(here.parent.rglob("*"))
    with pytest.raises(ConfigError) as error:
        load_experiment(None, settings)
    assert str(error.value).startswith(line)
    assert sorted(here.parent.rglob("*")) == before


def test_places_of_a_file_are_those_of_a_command_line(here):
    (here / "e.yaml").write_text("runs: ~/runs\ndata: {root: ../data}\n")
    experiment = load_experiment("e.yaml", [])
    top = here.parent
    assert (experiment.runs, experiment.data.root) == (f"{top}/home/runs", f"{top}/data")


@pytest.mark.parametrize("name", ["x.jpg", "x", "x.png.gz", "png", "x.png/y", ".pn"])
def test_a_picture_is_written_only_under_a_name_that_says_so(here, name):
    with pytest.raises(ConfigError, match=r"out: got .*, wanted a name that ends in \.png"):
        options(SampleOptions, [f"out={name}"])
    with pytest.raises(ConfigError, match=r"out: got .*, wanted a name that ends in \.html"):
        options(CompareOptions, [f"out={name}"])
    assert options(SampleOptions, ["out=~/a b.PNG"]).out == f"{here.parent}/home/a b.PNG"


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_run_in_a_folder_of_any_name_is_created_found_and_read_back(here, name):
    experiment = load_experiment(None, [f"runs=./{name}", "name=r", f"data.root=./{name}/data"])
    (here / name / "data" / "mnist").mkdir(parents=True)
    run = Run.create(experiment)
    assert sorted(here.glob("*/r/run.json")) == [here / name / "r" / "run.json"]
    assert run.experiment() == experiment
    assert load_experiment(run.path / "config.yaml", []) == experiment
    assert load_experiment(None, [f"runs={experiment.runs}"]).runs == experiment.runs
    with pytest.raises(ConfigError, match="exists already") as error:
        Run.check_new(experiment)
    *_, again = shlex.split(str(error.value).partition("go on with it: ")[2])
    assert Run.open(again.removeprefix("resume=")).path == run.path


@pytest.fixture
def project(here):
    """A project with data, a tokenizer and a prior, whose places were all named relative to it."""
    (here / "data" / "mnist").mkdir(parents=True)
    Run.create(load_experiment(None, ["name=codes"]))
    prior = load_experiment(None, ["kind=prior", "name=prior", "model.tokenizer=runs/codes"])
    Run.create(prior, tokenizer=TOKENIZER)
    return here


def places(folder):
    experiment = Run.open(folder).experiment()
    return [
        Path(p).absolute()
        for p in (experiment.runs, experiment.data.root, experiment.model.tokenizer)
    ]


def expected(project):
    return [project / "runs", project / "data", project / "runs" / "codes"]


def test_places_of_a_record_do_not_depend_on_the_current_folder(project, monkeypatch):
    for folder in (project, project / "runs" / "prior", project.parent):
        monkeypatch.chdir(folder)
        assert places(project / "runs" / "prior") == expected(project)


def test_places_of_a_record_are_shown_short(project):
    experiment = Run.open("runs/prior").experiment()
    assert [experiment.runs, experiment.data.root, experiment.model.tokenizer] == [
        "runs",
        "data",
        "runs/codes",
    ]


@pytest.mark.parametrize(
    "move", [shutil.move, lambda old, new: shutil.copytree(old, new, symlinks=True)]
)
def test_a_project_that_was_moved_or_copied_names_its_own_places(project, monkeypatch, move):
    monkeypatch.chdir(project.parent)
    moved = project.parent / "a new place"
    move(str(project), str(moved))
    assert places(moved / "runs" / "prior") == expected(moved)


def test_a_run_that_was_moved_alone_names_the_old_places(project):
    moved = project.parent / "elsewhere" / "prior"
    shutil.move(project / "runs" / "prior", moved)
    assert places(moved)[1:] == expected(project)[1:]
    assert places(moved)[0] == moved.parent


def test_a_record_of_an_older_version_is_read_as_relative_to_where_its_runs_lie(
    project, monkeypatch
):
    file = project / "runs" / "prior" / "config.yaml"
    text = file.read_text().replace(f"{project}/", "")
    assert "root: data\n" in text
    assert "tokenizer: runs/codes\n" in text
    file.write_text(text)
    monkeypatch.chdir(project.parent)
    assert places(project / "runs" / "prior") == expected(project)


def test_a_record_used_as_an_experiment_file_means_the_same_places(project, monkeypatch):
    monkeypatch.chdir(project.parent)
    again = load_experiment(
        project / "runs" / "prior" / "config.yaml", ["name=again", "model.network.width=64"]
    )
    assert [
        Path(p).absolute() for p in (again.runs, again.data.root, again.model.tokenizer)
    ] == expected(project)
    assert (again.name, again.model.network.width) == ("again", 64)


def test_data_are_never_looked_for_in_a_folder_that_only_a_record_names(project):
    file = project / "runs" / "prior" / "config.yaml"
    victim = project.parent / "home" / "victim"
    victim.mkdir()
    file.write_text(file.read_text().replace(f"root: {project}/data", f"root: {victim}"))
    assert places(project / "runs" / "prior")[1] == project / "data"


def test_a_record_of_another_kind_than_its_run_is_refused(project):
    file = project / "runs" / "codes" / "config.yaml"
    file.write_text(file.read_text().replace("kind: vqvae", "kind: vae"))
    with pytest.raises(
        ConfigError, match=r"kind: runs/codes/config\.yaml holds kind='vae', wanted vqvae"
    ):
        Run.open("runs/codes").experiment()


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_printed_command_is_the_same_words_in_a_shell(here, name):
    line = command_line("printf", "%s\\n", f"resume=runs/{name}")
    assert (
        subprocess.run(line, shell=True, capture_output=True, text=True).stdout
        == f"resume=runs/{name}\n"
    )
    *_, command, folder = shlex.split(sync_command([here / name / "offline-run-1"]))
    assert (command, Path(folder).absolute()) == ("sync", here / name / "offline-run-1")


@pytest.mark.parametrize(
    "name", ["runs/my run", "it's", 'a"b', "a$b", "$(HOME)", "a#b", "~/x y", "a=b", "*"]
)
def test_make_hands_a_run_and_a_file_on_as_one_word(tmp_path, name):
    stub = tmp_path / "words"
    stub.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    stub.chmod(0o755)
    make = [
        "make",
        "-s",
        "-C",
        str(Path(__file__).parents[1]),
        "-o",
        ".venv/.run",
        "--no-print-directory",
        f"VQVAE={stub}",
    ]
    for target, variable in (
        ("evaluate", "RUN"),
        ("sample", "RUN"),
        ("train", "FILE"),
        ("sweep", "FILE"),
    ):
        done = subprocess.run(
            [*make, target, f"{variable}={name}"], capture_output=True, text=True, check=True
        )
        assert done.stdout == f"{target}\n{name}\n"


@pytest.fixture
def fake(here):
    with fake_data.installed(here / "data"):
        yield here


SMALL = [
    "data.batch_size=20",
    "data.validation_size=40",
    "data.eval_batch_size=20",
    "trainer.accelerator=cpu",
]


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("trainer.accumulate=3", "data.batch_size: got 20, wanted a multiple of 3"),
        ("trainer.devices=3", "data.batch_size: got 20, wanted a multiple of 3"),
        ("trainer.nodes=7", "data.batch_size: got 20, wanted a multiple of 7"),
        (
            "data.eval_batch_size=500 trainer.devices=2",
            "data.eval_batch_size: got 500, which makes 1 batch of 40",
        ),
        ("trainer.accelerator=gpu", "trainer.accelerator: got gpu, but this machine has none"),
        ("name=taken", "name: runs/taken exists already; choose another name, or go on with it: "),
        ("runs=e.yaml/x", "runs: e.yaml/x/run.json cannot be made, for"),
        (
            "trainer.validate_every=3",
            "trainer.validate_every: 3 does not divide trainer.steps 1000",
        ),
    ],
)
def test_config_refuses_what_train_refuses(fake, capsys, word, line):
    (fake / "e.yaml").write_text("kind: vqvae\n")
    record(fake / "runs" / "taken")
    given = word.split(" ")
    others = [setting for setting in SMALL if setting.partition("=")[0] not in word]
    for command in ("config", "train"):
        with pytest.raises(SystemExit) as stop:
            cli.main([command, "e.yaml", *others, *given])
        assert stop.value.code == 2
        assert capsys.readouterr().err.startswith(f"vqvae: {line}")


@pytest.mark.parametrize("command", ["evaluate", "sample", "compare"])
@pytest.mark.parametrize("word", ["dataset=mnist", "runs=other"])
def test_a_setting_that_chooses_among_runs_is_refused_beside_a_named_run(
    project, capsys, command, word
):
    with pytest.raises(SystemExit) as stop:
        cli.main([command, "runs/codes", word])
    assert stop.value.code == 2
    key = word.partition("=")[0]
    assert (
        capsys.readouterr().err
        == f"vqvae: {key}: got {word} beside runs/codes, wanted one of them\n"
    )


@pytest.mark.parametrize("command", ["evaluate", "sample", "compare"])
@pytest.mark.parametrize("name", ["runs/a=b", "./a=b", "a=b", "a b", "~/a=b"])
def test_a_run_folder_of_any_name_can_be_named(here, capsys, command, name):
    for folder in (here / "runs" / "a=b", here / "a=b", here / "a b", here.parent / "home" / "a=b"):
        folder.mkdir(parents=True)
    with pytest.raises(SystemExit) as stop:
        cli.main([command, name])
    assert stop.value.code == 2
    shown = canonical(name, "words")
    assert (
        capsys.readouterr().err == f"vqvae: run: {shown} is no run folder (it holds no run.json)\n"
    )


def test_finding_runs_takes_any_folder(here):
    record(here / "a b=c" / "r")
    assert [run.path.name for run in find_runs(load_experiment(None, ["runs=./a b=c"]).runs)] == [
        "r"
    ]


def settings_of(cls):
    for f in dataclasses.fields(cls):
        if dataclasses.is_dataclass(f.default_factory):
            yield from settings_of(f.default_factory)
        else:
            yield cls, f


def test_every_setting_that_names_a_folder_or_a_file_is_a_place():
    for cls, f in (
        found for top in (Experiment, PriorConfig, *COMMAND_OPTIONS) for found in settings_of(top)
    ):
        names_one = re.match(
            r"(run )?folder|(PNG|HTML|VQZ|WAV) file", f.metadata.get("meaning", "")
        )
        assert bool(names_one) == bool(f.metadata.get("place")) or f.name == "resume", (cls, f.name)


def test_config_refuses_to_resume_what_train_would_not(fake, capsys):
    (fake / "e.yaml").write_text("kind: ae\n")
    Run.create(load_experiment("e.yaml", [*SMALL, "name=r"]))
    for command in ("config", "train"):
        with pytest.raises(SystemExit) as stop:
            cli.main([command, "resume=runs/r", "optimizer.lr=0.5"])
        assert stop.value.code == 2
        assert capsys.readouterr().err.startswith("vqvae: resume: optimizer.lr was 0.001 in runs/r")


@pytest.mark.parametrize("name", ["a${HOME}b", "a${seed}b", "a\x1b[2Jb", "a\u202eb", "a\nb"])
def test_a_current_folder_that_a_record_could_not_hold_is_refused_before_anything_is_made(
    here, monkeypatch, name
):
    (here / name).mkdir()
    monkeypatch.chdir(here / name)
    for refused in (Run.check_new, Run.create):
        with pytest.raises(ConfigError, match=r"^(runs|data\.root): got "):
            refused(load_experiment(None, ["name=r"]))
    assert list((here / name).iterdir()) == []


def test_a_printed_command_of_this_program_can_be_run_where_it_is_printed(here):
    program, *words = shlex.split(own_command("train", "resume=runs/a b"))
    assert words == ["train", "resume=runs/a b"]
    assert shutil.which(program)


def test_a_run_folder_in_place_of_a_file_is_named_with_the_command_that_was_meant(project):
    with pytest.raises(
        ConfigError, match=r"runs/codes is a run folder, wanted a file; .* train resume=runs/codes$"
    ):
        cli.config(["runs/codes"])
    with pytest.raises(ConfigError, match="runs is no run folder"):
        cli.config(["resume=runs"])
