"""`vqvae doctor`: checks versions, devices, disk, data and W&B. Imports nothing heavy."""

import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# The versions that the tests last passed with: .ci/constraints.txt, which a test compares.
TESTED = {
    "torch": "2.13.0",
    "pytorch-lightning": "2.6.6",
    "torchmetrics": "1.9.0",
    "wandb": "0.31.0",
    "omegaconf": "2.4.0",
    "pyyaml": "6.0.3",
    "numpy": "2.4.6",
    "pillow": "13.0.0",
    "scikit-learn": "1.9.1",
}
# Package → first version that works, first version that is not known to work, and the reason.
BOUNDS = {
    "torch": ((2, 10), None, "older ones run code from a checkpoint even when told not to"),
    "pytorch-lightning": (
        (2, 6, 6),
        (2, 7),
        "2.6.2 and 2.6.3 were malicious uploads, and 2.6.6 closes two ways in",
    ),
    "wandb": ((0, 31), (0, 32), "0.32 may refuse what Lightning 2.6 passes to it"),
    "omegaconf": ((2, 4), (2, 5), "the checks of references are those of 2.4; Hydra 1.3 pulls 2.3"),
}
FREE_GB = 2.0  # of free disk, below which a training may be unable to save its checkpoints


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    about: str
    what: str
    wrong: bool = False


def examine(runs: Path, root: Path) -> list[Finding]:
    """Findings about versions, devices, disk, data and W&B.

    `runs` and `root` are the folders of runs and of data.
    """
    return [*_versions(), *_devices(), *_disk(runs), *_data(root), *_wandb()]


def _versions() -> Iterator[Finding]:
    yield Finding("python", platform.python_version())
    for package, tested in TESTED.items():
        try:
            found = version(package)
        except PackageNotFoundError:
            yield Finding(package, "not installed", wrong=True)
            continue
        low, high, why = BOUNDS.get(package, (None, None, ""))
        number = _numbers(found)
        if (low and number < low) or (high and number >= high):
            wanted = f"at least {_text(low)}" + (f", below {_text(high)}" if high else "")
            yield Finding(package, f"{found}; wanted {wanted}: {why}", wrong=True)
        else:
            public = found.partition("+")[0]
            yield Finding(package, found if public == tested else f"{found} (tested with {tested})")


def _numbers(text: str) -> tuple[int, ...]:
    parts = text.partition("+")[0].split(".")
    return tuple(int(part) for part in parts if part.isdigit())


def _text(numbers: tuple[int, ...] | None) -> str:
    return ".".join(map(str, numbers or ()))


def _devices() -> Iterator[Finding]:
    yield Finding("cpu", f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}")
    build = version("torch").partition("+")[2]
    gpus = []
    if shutil.which("nvidia-smi"):
        try:
            listed = subprocess.run(
                ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=10
            )
        except (OSError, subprocess.SubprocessError) as error:
            yield Finding("gpu", f"nvidia-smi does not answer ({error})", wrong=True)
            return
        gpus = [
            line.partition(" (UUID")[0]
            for line in listed.stdout.splitlines()
            if line.startswith("GPU")
        ]
    for gpu in gpus:
        yield Finding("gpu", gpu)
    if gpus and build == "cpu":
        yield Finding(
            "gpu",
            "torch is a CPU build, which cannot use it; install a CUDA build of torch",
            wrong=True,
        )
    if not gpus:
        yield Finding("gpu", "none")


def _disk(runs: Path) -> Iterator[Finding]:
    folder = next(path for path in (runs.absolute(), *runs.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(folder).free / 1e9
    writable = os.access(folder, os.W_OK)
    what = f"{free:.1f} GB free for {runs}/" + (
        "" if writable else f", but {folder} cannot be written"
    )
    yield Finding("disk", what, wrong=free < FREE_GB or not writable)


def _data(root: Path) -> Iterator[Finding]:
    from vqvae_lightning.data.sources import DATASETS, DataError, missing

    for name in DATASETS:
        if not (root / name).is_dir():
            yield Finding(name, "not there; it is fetched when first used")
            continue
        try:
            absent = missing(name, root)
        except DataError as error:
            yield Finding(name, str(error), wrong=True)
            continue
        if absent:
            fetch = shlex.join(["vqvae", "data", f"name={name}", f"root={root}"])
            yield Finding(name, f"{', '.join(absent)} missing; fetch with `{fetch}`", wrong=True)
        else:
            yield Finding(name, f"whole: the SHA-256 of {len(DATASETS[name].files)} files agree")


def _wandb() -> Iterator[Finding]:
    mode = os.environ.get("WANDB_MODE")
    if mode == "online":
        from vqvae_lightning.training.tracking import why_not_online

        reason = why_not_online()
        if reason:
            yield Finding(
                "W&B",
                f"runs will be offline although WANDB_MODE=online, because {reason}",
                wrong=True,
            )
        else:
            yield Finding("W&B", "online, as WANDB_MODE says")
    elif mode:
        yield Finding("W&B", f"{mode}, as WANDB_MODE says")
    else:
        yield Finding(
            "W&B", "offline, the default; WANDB_MODE=online after `wandb login` changes that"
        )
