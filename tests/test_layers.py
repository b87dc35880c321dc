"""Imports point one way, as docs/architecture.md says."""

import ast
from collections.abc import Iterator
from pathlib import Path

import vqvae_lightning

PACKAGE = Path(vqvae_lightning.__file__).parent
# From below to above. A module may import its own layer and those below it.
LAYERS = (
    {
        "config",
        "storage",
        "interrupts",
        "streams",
        "allocator",
        "device",
        "surroundings",
        "verified",
        "wav",
    },
    {"models"},
    {"metrics", "data", "pictures", "signals"},
    {"kinds", "experiment"},
    {"training"},
    {"codec"},
    {"evaluation"},
    {"exporting", "comparison"},
    {"library", "doctor"},
    {"cli"},
)
RANKS = {name: rank for rank, names in enumerate(LAYERS) for name in names}
# A function that reads a setting asks for names of kinds, of datasets and of what `sample` shows.
LAZY = {("config/commands", "evaluation"), ("config/data", "data"), ("config/schema", "kinds")}


def imported(tree: ast.AST) -> Iterator[tuple[str, bool]]:
    """The modules that a module imports, and whether inside a function.

    What only a type checker imports is left out.
    """
    found: list[tuple[ast.AST, bool]] = [(tree, False)]
    while found:
        node, lazy = found.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        yield from ((name, lazy) for name in names)
        lazy = lazy or isinstance(node, ast.FunctionDef)
        found += [(child, lazy) for child in ast.iter_child_nodes(node)]


def upward() -> Iterator[tuple[str, str, bool]]:
    """Each module that imports a layer above its own, or one beside it, with what it imports."""
    for path in sorted(PACKAGE.rglob("*.py")):
        name = str(path.relative_to(PACKAGE).with_suffix(""))
        own = name.split("/")[0]
        if own in ("__init__", "__main__"):
            continue
        for module, lazy in imported(ast.parse(path.read_text("utf-8"))):
            package, _, other = module.partition(".")
            other = other.partition(".")[0]
            if package != PACKAGE.name or other not in RANKS:
                continue
            beside = own != other and {own, other} == {"exporting", "comparison"}
            if RANKS[other] > RANKS[own] or beside:
                yield name, other, lazy


def test_imports_point_one_way() -> None:
    assert {(name, other) for name, other, lazy in upward() if not lazy} == set()
    assert {(name, other) for name, other, lazy in upward() if lazy} == LAZY


def test_every_module_has_a_layer() -> None:
    there = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    there = {name for name in there if not name.startswith("_")}
    assert there - {"experiments"} == {*RANKS}


def needed(*modules: str) -> set[str]:
    """The packages that an import of these modules imports, directly or by others of ours."""
    found: set[str] = set()
    rest = [f"{PACKAGE.name}.{module}" for module in modules]
    while rest:
        name = rest.pop()
        if name in found:
            continue
        found.add(name)
        place = PACKAGE.parent.joinpath(*name.split("."))
        for file in (place.with_suffix(".py"), place / "__init__.py"):
            if PACKAGE in file.parents and file.is_file():
                tree = ast.parse(file.read_text("utf-8"))
                rest += [module for module, lazy in imported(tree) if not lazy]
                rest.append(name.rpartition(".")[0])
    return {name.split(".")[0] for name in found}


def test_a_comparison_needs_no_lightning() -> None:
    """It takes longer to import than a hundred runs to read."""
    heavy = {"pytorch_lightning", "torchmetrics", "wandb", "sklearn", "scipy", "matplotlib"}
    shown = needed("comparison.compare", "comparison.report", "comparison.table", "training.search")
    assert shown & heavy == set()
    assert "torch" in shown
    assert {"pytorch_lightning", "torchmetrics"} < needed("training.train")
