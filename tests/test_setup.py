"""The environment: uv installs what pip would, from where pip would, and no file but the one that
was tested.
"""

import base64
import hashlib
import importlib.util
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

CI = Path(__file__).parents[1] / ".ci"


@pytest.fixture
def installer() -> ModuleType:
    """.ci/install.py, imported anew."""
    spec = importlib.util.spec_from_file_location("install", CI / "install.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_uv_is_told_what_pip_is_configured_with(installer):
    listed = """
global.extra-index-url='https://one.test/simple\\nhttps://two.test/simple'
global.index-url='https://pip.test/simple'
install.find-links='/wheels  /more wheels'
list.format='columns'
:env:.index-url='https://from-the-environment.test/simple'
:env:.timeout='7'
"""
    found = installer.environment_of_uv(listed, {"UV_HTTP_TIMEOUT": "9"})
    assert found["UV_DEFAULT_INDEX"] == "https://from-the-environment.test/simple"
    assert found["UV_EXTRA_INDEX_URL"] == "https://one.test/simple https://two.test/simple"
    assert found["UV_INDEX_STRATEGY"] == "unsafe-best-match"
    assert found["UV_FIND_LINKS"] == "/wheels,/more,wheels"
    assert found["UV_HTTP_TIMEOUT"] == "9", "what the user tells uv stays"


def test_constraints_of_the_user_hold_beside_the_pins(installer):
    found = installer.environment_of_uv("global.constraint='/etc/mine.txt'", {})
    ours = [os.path.relpath(CI / name) for name in ("constraints.txt", "hashes.txt")]
    assert found["UV_CONSTRAINT"].split() == ["/etc/mine.txt", *ours]


@pytest.mark.parametrize("name", ["only-binary", "target", "keyring-provider", "unheard-of"])
def test_a_setting_of_pip_that_uv_is_not_told_of_leaves_the_work_to_pip(installer, name):
    with pytest.raises(installer.NoUV, match=f"pip's setting {name}$"):
        installer.environment_of_uv(f"global.{name}='x'", {})


def test_every_pin_but_torch_has_the_hashes_of_that_version():
    def canonical(line: str) -> str:
        name, version = line.split("==")
        return re.sub("[-_.]+", "-", name).lower() + "==" + version

    pins = {canonical(line) for line in (CI / "constraints.txt").read_text("utf-8").split()}
    blocks = re.findall(
        r"^(\S+==\S+) \\\n    --hash=sha256:", (CI / "hashes.txt").read_text(), re.M
    )
    assert pins - set(blocks) == {pin for pin in pins if pin.startswith("torch==")}
    assert set(blocks) - pins == set()


@pytest.fixture
def installs(installer, tmp_path, monkeypatch) -> Callable[[str], int]:
    """Installs a wheel of this machine into a folder, where hashes.txt has the given hash."""
    pytest.importorskip("uv")
    wheel = tmp_path / "toy-1.0-py3-none-any.whl"
    about = "toy-1.0.dist-info/"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("toy.py", "")
        file.writestr(about + "METADATA", "Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
        file.writestr(
            about + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        empty = base64.urlsafe_b64encode(hashlib.sha256().digest()).decode().rstrip("=")
        file.writestr(about + "RECORD", f"toy.py,sha256={empty},0\n{about}RECORD,,\n")
    monkeypatch.setattr(installer, "HASHES", tmp_path / "hashes.txt")
    monkeypatch.setattr(installer, "get_uv", lambda: None)

    def install(sha256: str) -> int:
        installer.HASHES.write_text(f"toy==1.0 --hash=sha256:{sha256 or digest(wheel)}\n")
        words = ["--no-index", "--find-links", str(tmp_path), "--target", str(tmp_path / "there")]
        return int(installer.install([*words, "toy"]))

    return install


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_of_another_hash_is_installed_neither_by_uv_nor_by_pip(installs, tmp_path, capsys):
    assert installs("0" * 64) == 1
    assert not (tmp_path / "there" / "toy.py").exists()
    assert "Hash mismatch" in capsys.readouterr().err
    assert installs("") == 0
    assert (tmp_path / "there" / "toy.py").exists()


def test_where_uv_fails_pip_installs_and_one_line_says_so(
    installer, installs, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(installer, "UV", "/bin/false")
    assert installs("0" * 64) == 0
    assert (tmp_path / "there" / "toy.py").exists()
    assert capsys.readouterr().err == "setup     uv failed: ; pip installs, which takes longer\n"
