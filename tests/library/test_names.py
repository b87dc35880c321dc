"""The public names: imported when they are used, the same for a type checker."""

import ast
import subprocess
from pathlib import Path

import pytest
from own_process import command, environment

import vqvae_lightning


def test_importing_the_package_imports_no_torch():
    done = subprocess.run(
        command("import_names"), env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "True", vqvae_lightning.__version__]


def test_every_public_name_can_be_imported():
    for name in vqvae_lightning.__all__:
        assert getattr(vqvae_lightning, name) is getattr(vqvae_lightning, name)
        assert name in dir(vqvae_lightning)


def test_a_type_checker_sees_the_same_names_from_the_same_modules():
    tree = ast.parse(Path(vqvae_lightning.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    typed = {
        alias.asname: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    homes = {
        name: f"vqvae_lightning.{module}"
        for module, names in vqvae_lightning._PLACES.items()
        for name in names
    }
    assert typed == homes
    assert set(vqvae_lightning.__all__) == {*homes, "__version__"}


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'lod'"):
        _ = vqvae_lightning.lod


def test_the_package_says_that_it_is_typed():
    assert Path(vqvae_lightning.__file__).with_name("py.typed").is_file()
