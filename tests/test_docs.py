"""The documentation: its links lead somewhere, its Python runs, its commands and settings are
accepted by the code that reads them, and its trees are those of the package.

A page that says `verify after merge` names files that are not there yet: its names are not looked
for.
"""

import dataclasses
import re
import shlex
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from untrained import workplace_with

from vqvae_lightning import cli
from vqvae_lightning.cli.plugins import use_named_plugins
from vqvae_lightning.config import (
    AblateOptions,
    ConfigError,
    EvaluateOptions,
    Experiment,
    StudyOptions,
    SweepOptions,
    experiment_file,
    options,
    plugins,
)
from vqvae_lightning.config.commands import COMMAND_OPTIONS
from vqvae_lightning.experiment import load_experiment
from vqvae_lightning.kinds import KINDS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "vqvae_lightning"
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
WRITTEN = [README, ROOT / "CONTRIBUTING.md", *DOCS]
LINKED = [*WRITTEN, ROOT / "CHANGELOG.md", *sorted((ROOT / "experiments").rglob("README.md"))]
SECTIONS = ("model", "data", "optimizer", "trainer", "tracking")

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUNNABLE = re.compile(r"^<!-- run -->\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)$", re.MULTILINE)
SPAN = re.compile(r"`([^`\n]+)`")
FILE = re.compile(r"[\w./-]+\.(py|yaml|md)")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def prose(path: Path) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", path.read_text("utf-8"))


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as code hosts make them."""
    titles = re.findall(r"^#+ (.*)$", prose(path), re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", title.lower()) for title in titles]
    return {title.strip().replace(" ", "-") for title in plain}


@pytest.mark.parametrize("path", LINKED, ids=name_of)
def test_every_link_leads_to_a_file_and_a_heading(path: Path) -> None:
    for link in ("".join(found) for found in LINK.findall(prose(path))):
        if re.match(r"https?:", link):
            continue
        target, _, anchor = link.partition("#")
        file = (path.parent / target).resolve() if target else path
        assert file.exists(), link
        assert not anchor or anchor in anchors(file), link


@pytest.mark.parametrize("path", [*WRITTEN, ROOT / "CHANGELOG.md"], ids=name_of)
def test_no_line_of_a_page_has_more_than_150_columns(path: Path) -> None:
    lines = path.read_text("utf-8").splitlines()
    assert [line for line in lines if len(line) > 150] == []


@pytest.mark.parametrize("path", WRITTEN, ids=name_of)
def test_a_table_can_be_read_at_100_columns(path: Path) -> None:
    rows = [line for line in prose(path).splitlines() if line.startswith("|")]
    seen = [re.sub(r"\]\([^)]*\)|\]\[[^\]]*\]", "]", row) for row in rows]
    assert [row for row in seen if len(row) > 100] == []


def test_the_readme_has_at_most_150_lines_and_1500_words() -> None:
    text = README.read_text("utf-8")
    assert len(text.splitlines()) <= 150
    assert len(text.split()) <= 1500


def test_every_page_is_linked_from_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text("utf-8")
    assert [path.name for path in DOCS if f"({path.name})" not in index] == ["index.md"]


def tree(path: Path) -> set[str]:
    """The paths below the package that a page's drawing of it names; folders end with a slash."""
    blocks = [text for _, text in FENCE.findall(path.read_text("utf-8"))]
    (block,) = [text for text in blocks if text.startswith("vqvae_lightning/")]
    found, folders = set(), [""]
    for line in block.splitlines():
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        if depth == 0:
            folders = [name]
        elif folders[0] == "vqvae_lightning/":
            folders[depth:] = [folders[depth - 1] + name]
            found.add(folders[depth].removeprefix("vqvae_lightning/"))
    return found


def package() -> tuple[set[str], set[str]]:
    """Folders (with a slash) and modules of the package."""
    files = {path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py")}
    folders = {f"{path.parent}/" for path in files if path.parent != Path()}
    return folders, {path.as_posix() for path in files if path.name != "__init__.py"}


def test_the_tree_of_the_readme_names_every_folder_of_the_package() -> None:
    assert tree(README) == package()[0]


def test_the_tree_of_the_architecture_names_every_file_of_the_package() -> None:
    folders, files = package()
    assert tree(ROOT / "docs" / "architecture.md") == folders | files


@pytest.fixture(scope="module")
def place_with_runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with runs/vqvae and runs/prior, which were never trained."""
    root = tmp_path_factory.mktemp("docs")
    with workplace_with(root, ("vqvae", "prior")):
        yield root


BLOCKS = [(path, text) for path in WRITTEN for text in RUNNABLE.findall(path.read_text("utf-8"))]


@pytest.mark.parametrize(("path", "block"), BLOCKS, ids=[name_of(path) for path, _ in BLOCKS])
def test_python_marked_as_runnable_runs(
    path: Path, block: str, place_with_runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place_with_runs)
    exec(compile(block, str(path), "exec"), {})


def test_the_readme_has_python_that_is_run() -> None:
    assert README in [path for path, _ in BLOCKS]


def commands(path: Path) -> list[str]:
    """Lines of a page that a user would paste into a shell, from its blocks and code spans."""
    lines = []
    for language, text in FENCE.findall(path.read_text("utf-8")):
        if language in ("", "bash"):
            lines += re.sub(r"\\\n\s*", " ", text).splitlines()
    lines += SPAN.findall(prose(path))
    lines = [re.sub(r"\s+#.*", "", line).strip() for line in lines]
    lines = [re.sub(r"<(\w+)>", r"\1", line) for line in lines]
    lines = [re.sub(r" > \S+$", "", line) for line in lines]  # into a file
    started = [re.sub(r"^(torchrun|srun) .*(?=-m vqvae_)", "python ", line) for line in lines]
    return [line for line in started if re.match(r"make \S|vqvae \S|python -m vqvae_", line)]


@cache
def targets() -> frozenset[str]:
    """The targets of the Makefile that `make help` lists."""
    return frozenset(re.findall(r"^([a-z0-9-]+):.*##", (ROOT / "Makefile").read_text(), re.M))


@cache
def made(command: str) -> tuple[str, ...]:
    """The `vqvae` commands that a make command would run."""
    done = subprocess.run(
        [*shlex.split(command), "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return tuple(
        line.partition("bin/")[2]
        for line in done.stdout.splitlines()
        if ".venv/bin/vqvae" in line[:15]
    )


def check_experiment(file: str | None, settings: list[str]) -> None:
    """Raises ConfigError unless the settings fit the file, or some kind of run without one."""
    rest = [word for word in settings if not word.startswith("resume=")]
    if len(rest) < len(settings):  # a run to go on with: as if the quick VQ-VAE's
        file = file or "experiments/mnist/vqvae.yaml"
    settings = rest
    if file:
        load_experiment(ROOT / file, settings)
        return
    errors = []
    for kind in KINDS:
        try:
            load_experiment(None, [f"kind={kind}", *settings])
            return
        except ConfigError as error:
            errors.append(error)
    raise errors[0]


def check_command(command: str) -> None:
    """Raises SystemExit or ConfigError for a `vqvae` command that would be refused."""
    arguments = shlex.split(command)
    arguments = arguments[3 if arguments[0] == "python" else 1 :]
    if arguments in ([], ["--help"], ["--debug"], ["--version"]):
        return
    if arguments[1:] == ["--help"]:
        assert arguments[0] in cli.COMMANDS, command
        return
    cli.parser().parse_args(arguments)
    name, *words = [word for word in arguments if word != "--debug"]
    if not words:
        return  # no more than the name of a command
    if name in ("settings", "completion"):
        cli.COMMANDS[name].run(words)
        return
    places = [word for word in words if "=" not in word]
    words = use_named_plugins(words)
    settings = [word for word in words if "=" in word]
    if name in ("train", "config"):
        return check_experiment(experiment_file(places[0]) if places else None, settings)
    (cls,) = [cls for cls in COMMAND_OPTIONS if cls.__name__ == OPTIONS.get(name, "")] or [
        cls for cls in COMMAND_OPTIONS if cls.__name__ == f"{name.capitalize()}Options"
    ]
    known = names_of(cls)
    others = [word for word in settings if word.partition("=")[0] not in known]
    options(cls, [word for word in settings if word not in others])
    if cls is StudyOptions:
        measured = [word for word in others if word.partition("=")[0] in names_of(EvaluateOptions)]
        options(EvaluateOptions, measured)
        others = [word for word in others if word not in measured]
    if cls in (AblateOptions, SweepOptions):
        assert (ROOT / places[0]).is_file(), command
    if cls in (AblateOptions, SweepOptions, StudyOptions):
        check_experiment(None, others)
    else:
        assert others == [], command


OPTIONS = {"fid-calibrate": "CalibrateOptions"}


def names_of(cls: type) -> set[str]:
    return {field.name for field in dataclasses.fields(cls)}


@pytest.mark.parametrize("path", WRITTEN, ids=name_of)
def test_every_command_of_a_page_would_be_accepted(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(plugins, "_named", [])
    for line in commands(path):
        for command in line.split("&&"):
            command = command.strip()
            if command.startswith("make "):
                words = shlex.split(command)[1:]
                assert {word for word in words if "=" not in word} <= targets(), command
                if "…" in command or "help" in words:
                    continue
                for inner in made(command):
                    check_command(inner)
            elif "…" not in command:
                check_command(command)


def test_a_command_with_an_unknown_setting_is_found() -> None:
    with pytest.raises(ConfigError, match="unknown key"):
        check_command("vqvae train experiments/mnist/vqvae.yaml model.codebok_size=4")
    with pytest.raises(ConfigError, match="unknown key"):
        check_command(made('make train-prior ARGS="model.depth=3"')[0])
    with pytest.raises(SystemExit):
        check_command("vqvae tran experiments/mnist/vqvae.yaml")


VARIABLES = frozenset(re.findall(r"^([A-Z]+) \?=", (ROOT / "Makefile").read_text(), re.M))
PLAIN = {name for cls in (Experiment, *COMMAND_OPTIONS) for name in names_of(cls)} | {"plugins"}


def unknown_settings(span: str) -> list[str]:
    """What a code span of `key=value` words names that nobody reads; [] for other spans."""
    try:
        words = shlex.split(span)
    except ValueError:
        return []
    pairs = [re.fullmatch(r"([A-Za-z_][\w.]*)=(\S.*)", word) for word in words]
    if not pairs or None in pairs or "…" in span:
        return []
    keys = [pair[1] for pair in pairs if pair]
    wrong = [k for k in keys if k.isupper() and k not in {*VARIABLES, "WANDB_MODE"}]
    wrong += [k for k in keys if k.islower() and "." not in k and k not in PLAIN]
    dotted = [word for word in words if word.partition(".")[0] in SECTIONS]
    if dotted:
        try:
            check_experiment(None, dotted)
        except ConfigError as error:
            # A setting may need another one beside it, which the text says.
            found = [_refusal(kind, dotted) for kind in KINDS]
            wrong += [str(error)] if all("unknown key" in text for text in found) else []
    return wrong


def _refusal(kind: str, settings: list[str]) -> str:
    with pytest.raises(ConfigError) as refused:
        load_experiment(None, [f"kind={kind}", *settings])
    return str(refused.value)


@pytest.mark.parametrize("path", WRITTEN, ids=name_of)
def test_every_setting_of_a_page_is_known(path: Path) -> None:
    assert [wrong for span in SPAN.findall(prose(path)) for wrong in unknown_settings(span)] == []


def test_an_unknown_setting_of_a_page_is_found() -> None:
    assert unknown_settings("model.codebok=fsq")
    assert unknown_settings("fid_sample=10")
    assert unknown_settings("DATASETS=mnist")
    assert unknown_settings("model.quantizer.name=fsq model.quantizer.levels=[8,8,8]") == []
    assert unknown_settings("model.likelihood.per_pixel=true") == []


@pytest.mark.parametrize("path", WRITTEN, ids=name_of)
def test_every_file_that_a_page_names_is_there(path: Path) -> None:
    text = prose(path)
    of_a_run = {"config.yaml"}
    for span in SPAN.findall(text):
        if FILE.fullmatch(span) and span not in of_a_run:
            tops = (ROOT, PACKAGE, ROOT / "experiments", path.parent)
            assert any((top / span).exists() for top in tops), span
