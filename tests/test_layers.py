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
    """The modules of the package that a module imports, and whether inside a function.

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
        yield from ((name, lazy) for name in names if name.startswith("vqvae_lightning."))
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
            other = module.split(".")[1]
            if other not in RANKS:
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
