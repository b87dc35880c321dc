"""Installs packages into the environment whose Python runs this: `install.py --editable '.[dev]'`.

uv installs them, several times as fast as pip, and checks the SHA-256 of every file that
hashes.txt knows. pip gets uv, whose hash it checks. Indexes, proxies and all else that pip is
configured with hold for uv too. pip installs everything where uv cannot be had, where uv has no
counterpart of a setting of pip, and where uv fails for any reason but a wrong hash. Both take the
versions of constraints.txt. torch has no hash: its builds differ from machine to machine.
"""

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).parent
PINS, HASHES = HERE / "constraints.txt", HERE / "hashes.txt"
UV = Path(sysconfig.get_path("scripts")) / "uv"
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]

# pip's settings, and the environment variables by which uv is told the same.
COUNTERPARTS = {
    "cert": ["SSL_CERT_FILE"],
    "client-cert": ["SSL_CLIENT_CERT"],
    "constraint": ["UV_CONSTRAINT"],
    "default-timeout": ["UV_HTTP_TIMEOUT"],
    "extra-index-url": ["UV_EXTRA_INDEX_URL"],
    "find-links": ["UV_FIND_LINKS"],
    "index-url": ["UV_DEFAULT_INDEX"],
    "no-cache-dir": ["UV_NO_CACHE"],
    "no-index": ["UV_NO_INDEX"],
    "proxy": ["HTTPS_PROXY", "HTTP_PROXY"],
    "retries": ["UV_HTTP_RETRIES"],
    "timeout": ["UV_HTTP_TIMEOUT"],
    "trusted-host": ["UV_INSECURE_HOST"],
}
# Settings of pip that change nothing of what is installed.
SILENT = {
    "cache-dir",
    "disable-pip-version-check",
    "log",
    "no-color",
    "no-input",
    "no-python-version-warning",
    "no-warn-script-location",
    "prefer-binary",
    "progress-bar",
    "quiet",
    "require-virtualenv",
    "root-user-action",
    "verbose",
}


class NoUV(Exception):
    """Why pip has to install."""


def environment_of_uv(configured: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment in which uv does what pip is configured to do.

    Args:
        configured: what `pip config list` prints.
        environment: that of this process. What it says to uv stays.

    Raises:
        NoUV: uv has no counterpart of a setting.
    """
    settings: dict[str, str] = {}
    # In the order in which pip reads them: a later section overrides an earlier one.
    for section in ("global", "install", ":env:"):
        for name, value in re.findall(rf"^{section}\.([\w-]+)=('.*'|\".*\")$", configured, re.M):
            settings[name.replace("_", "-")] = str(ast.literal_eval(value))
    # pip takes the best version of all indexes; uv, unless told, that of the first that has any.
    told = {"UV_INDEX_STRATEGY": "unsafe-best-match"}
    for name, value in settings.items():
        if name not in SILENT | COUNTERPARTS.keys():
            raise NoUV(f"uv has no counterpart of pip's setting {name}")
        separator = "," if name == "find-links" else " "
        told |= dict.fromkeys(COUNTERPARTS.get(name, ()), separator.join(value.split()))
    if sys.dont_write_bytecode:
        # Each process would compile all that it imports, and write nothing down.
        told["UV_COMPILE_BYTECODE"] = "1"
    found = {**told, **environment}
    # uv separates paths by spaces, so they are relative: the repository may lie in "My Documents".
    ours = [os.path.relpath(path) for path in (PINS, HASHES)]
    return found | {"UV_CONSTRAINT": " ".join([found.get("UV_CONSTRAINT", ""), *ours]).strip()}


def get_uv() -> None:
    """Installs uv unless it is there. Raises NoUV."""
    pin = re.search(r"^uv==(\S+)$", PINS.read_text("utf-8"), re.M)
    hashed = re.search(r"^uv==.*\n(?:    .*\n)+", HASHES.read_text("utf-8"), re.M)
    assert pin
    assert hashed
    try:
        if importlib.metadata.version("uv") == pin[1] and UV.exists():
            return
    except importlib.metadata.PackageNotFoundError:
        pass
    # No compiler: without a wheel for this machine pip would build uv from source.
    words = ["install", "-qq", "--no-deps", "--only-binary", "uv", "--requirement", "/dev/stdin"]
    done = subprocess.run([*PIP, *words], input=hashed[0], text=True, capture_output=True)
    if "DO NOT MATCH THE HASHES" in done.stderr:
        sys.exit(done.stderr)
    if done.returncode:
        raise NoUV(f"uv cannot be had: {' '.join(done.stderr.split())[-200:]}")


def install(arguments: list[str]) -> int:
    """Installs what the arguments of `pip install` name. Returns the exit code."""
    try:
        get_uv()
        listed = subprocess.run([*PIP, "config", "list"], capture_output=True, text=True)
        environment = environment_of_uv(listed.stdout, os.environ)
        words = [str(UV), "pip", "install", "--quiet", "--python", sys.executable, *arguments]
        done = subprocess.run(words, env=environment, stderr=subprocess.PIPE, text=True)
        if done.returncode == 0:
            return 0
        if "hash mismatch" in done.stderr.lower():
            print(done.stderr, end="", file=sys.stderr)
            return done.returncode
        raise NoUV(f"uv failed: {' '.join(done.stderr.split())[:200]}")
    except NoUV as why:
        print(f"setup     {why}; pip installs, which takes longer", file=sys.stderr)
    words = ["install", "-qq", "--constraint", str(PINS), *arguments]
    return subprocess.run([*PIP, *words]).returncode


if __name__ == "__main__":
    sys.exit(install(sys.argv[1:]))
