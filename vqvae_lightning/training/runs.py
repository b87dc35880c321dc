"""The run folder `runs/<name>/`: the record of one training, independent of any tracker."""

import errno
import json
import os
import platform
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from vqvae_lightning.config import (
    ConfigError,
    Experiment,
    canonical,
    check_name,
    check_plugin,
    own_command,
    visible,
)
from vqvae_lightning.data.imageset import image_set
from vqvae_lightning.data.sources import DATASETS
from vqvae_lightning.experiment import describe_record, read_experiment
from vqvae_lightning.storage import check_writable, new_folder, sweep, write_atomic, write_json
from vqvae_lightning.training.record import (
    RECORD,
    RECORD_LOCK,
    RUN_LOCK,
    RunRecord,
    logged_row,
    read_record,
)

# errors of a rename onto an existing file or folder
TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)
Stamp = tuple[int, int, int]  # inode, time of change in ns, size
LARGEST_METRICS = 2**28  # bytes of a metrics.jsonl: a million steps, each of them logged


class Run:
    """One run folder.

    ```
    runs/<name>/
      config.yaml      every setting
      run.json         id, kind, dataset, status, lineage, versions, data hashes, results
      metrics.jsonl    one line per logged step
      checkpoints/     best.ckpt (lowest val/loss) and last.ckpt; of stage 2, first_stage.ckpt
      images/          PNG grids; of recordings also WAV files
      wandb/           what `wandb sync` uploads
    ```

    Each checkpoint has its .sha256 beside it. Nothing in the folder is a link.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics_path, self.images = path / "metrics.jsonl", path / "images"
        checkpoints = path / "checkpoints"
        self.best, self.last = checkpoints / "best.ckpt", checkpoints / "last.ckpt"
        # Of a run of stage 2: the weights that it learned the latents of.
        self.first_stage = checkpoints / "first_stage.ckpt"
        self._read: tuple[Stamp | None, RunRecord] | None = None

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @classmethod
    def create(cls, experiment: Experiment, **more: object) -> "Run":
        """A new folder for an experiment, created atomically; `more` goes into its run.json.

        Raises ConfigError for a bad name, one that is taken, or a folder that cannot be written.
        """
        created = datetime.now(UTC)
        day = created.strftime("%Y%m%d-%H%M%S")
        images = experiment.data.dataset
        name = experiment.name or f"{images}-{experiment.kind}-s{experiment.seed}-{day}"
        check_name(name)
        root, settings = Path(experiment.runs), describe_record(experiment).encode()
        record = {"id": secrets.token_hex(8), **_about(experiment, created), **more}
        try:
            with new_folder(root, name) as path:
                (path / "images").mkdir()
                write_atomic(path / "config.yaml", settings)
                # Two trainings without a name may begin in the same second.
                for taken in (
                    [name] if experiment.name else [name, *(f"{name}-{n}" for n in range(2, 100))]
                ):
                    write_json(path / RECORD, {**record, "name": taken})
                    try:
                        path.rename(root / taken)
                        return cls(root / taken)
                    except OSError as error:
                        if error.errno not in TAKEN:
                            raise
                raise FileExistsError(errno.EEXIST, "it exists")
        except OSError as error:
            if os.path.lexists(root / name):
                raise ConfigError(taken_name(root / name)) from None
            raise ConfigError(
                f"runs: {root / name} cannot be made ({error.strerror}); name another folder"
            ) from None

    @staticmethod
    def check_new(experiment: Experiment) -> None:
        """Raises ConfigError where `create` would, as far as that is known beforehand."""
        path = Path(experiment.runs) / (experiment.name or "")
        if experiment.name and _is_taken(path):
            raise ConfigError(taken_name(path))
        check_writable(path / RECORD, "runs")
        describe_record(experiment)

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """An existing run folder. Raises ConfigError for any other folder."""
        if not isinstance(path, str | Path):
            raise ConfigError(f"run: got {path!r}, wanted the path of a run folder")
        run = cls(Path(path))
        run._current()
        return run

    @classmethod
    def of(cls, run: "Run | str | Path") -> "Run":
        """A run, or that of the folder that a program names. Raises ConfigError as `open` does."""
        return run if isinstance(run, Run) else cls.open(canonical(run, "run"))

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def record(self) -> RunRecord:
        """The content of run.json, read again only if it has changed. Raises ConfigError."""
        return self._current()

    def _current(self) -> RunRecord:
        found = self._stamp()
        if self._read is None or found is None or self._read[0] != found:
            self._read = (found, RunRecord.of(read_record(self.path)))
        return self._read[1]

    def _stamp(self) -> Stamp | None:
        """Inode, time and size of run.json; every version is a new file, so they tell two apart."""
        try:
            found = (self.path / RECORD).stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    @contextmanager
    def change(self) -> Iterator[dict[str, Any]]:
        """run.json as a mapping to be changed, under a lock; written atomically at the end."""
        with FileLock(self.path / RECORD_LOCK, poll_interval=0.01):
            values = read_record(self.path)
            yield values
            write_json(self.path / RECORD, values)

    def write(self, **values: object) -> None:
        """Puts values into run.json, atomically; None removes one."""
        with self.change() as known:
            known |= values
            for key in [key for key, value in known.items() if value is None]:
                del known[key]

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps every other training out of the folder.

        Raises ConfigError if another process holds the lock, and names it.
        """
        try:
            with FileLock(self.path / RUN_LOCK, timeout=0):
                self.write(process=f"{os.getpid()} on {platform.node()}")
                yield
        except Timeout:
            holder = self.record.process or "another"
            raise ConfigError(
                f"run: {self.path} is being trained by process {holder}; wait, or stop that"
            ) from None

    def rewind(self, step: int) -> None:
        """Restores the folder to its state after `step` optimizer steps, except its checkpoints.

        Later lines are removed, because they will be logged again. Unfinished files and lines of a
        killed process are removed too.
        """
        for folder in (self.path, self.images, self.best.parent, self.path / "codes"):
            sweep(folder)
        if self.metrics_path.is_file():
            # Steps are numbered from 0.
            rows = [row for row in self.metrics() if row["step"] < step]
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            write_atomic(self.metrics_path, lines.encode())

    def experiment(self) -> Experiment:
        """The settings of the run.

        Raises ConfigError if config.yaml is gone, holds settings that are not known here, or
        contradicts run.json; and unless the user named the files of own parts that the run has.
        """
        file = self.path / "config.yaml"
        try:
            for part in self.record.plugins:
                check_plugin(part["name"], part["sha256"], f"{RECORD}: plugins")
            found = read_experiment(self.path, self.record.kind)
            recorded, data = self.record, found.data
            pairs: list[tuple[str, object, object]] = [
                ("dataset", data.dataset, recorded.dataset),
                ("seed", found.seed, recorded.seed),
            ]
            if recorded.own_images and data.sides:
                shape = [data.channels, *data.sides]
                pairs.append(("the shape of images", shape, recorded.own_images.shape))
            for key, value, wanted in pairs:
                if value != wanted:
                    raise ConfigError(f"{key} is {value}, wanted {wanted}, as in {RECORD}")
            return found
        except ConfigError as error:
            raise ConfigError(
                str(error) if str(file) in str(error) else f"{file}: {error}"
            ) from error

    def record_steps(self, steps: int) -> None:
        """Puts the run's new number of steps into its config.yaml."""
        known = self.experiment()
        if known.trainer.steps != steps:
            changed = replace(known, trainer=replace(known.trainer, steps=steps))
            write_atomic(self.path / "config.yaml", describe_record(changed).encode())

    def metrics(self) -> list[dict[str, float]]:
        """Every logged line, in order.

        A line that is no JSON object with a step is left out, because a kill may cut the last line
        off. Raises ConfigError for a file that is too large.
        """
        rows: list[dict[str, float]] = []
        if self.metrics_path.is_file():
            if self.metrics_path.stat().st_size > LARGEST_METRICS:
                raise ConfigError(
                    f"run: {self.metrics_path} has more than {LARGEST_METRICS:,} bytes"
                )
            lines = self.metrics_path.read_text(errors="replace").splitlines()
            rows = [row for line in lines if (row := logged_row(line))]
        return rows

    def pictures(self) -> list[Path]:
        """The PNG files in images/: regular files only, no links."""
        return self._shown("*.png")

    def sounds(self) -> list[Path]:
        """The WAV files in images/, each of the picture of its name."""
        return self._shown("*.wav")

    def _shown(self, pattern: str) -> list[Path]:
        found = sorted(self.images.glob(pattern))
        return [path for path in found if path.is_file() and not path.is_symlink()]


def _about(experiment: Experiment, created: datetime) -> dict[str, object]:
    """The first entries of a new run's run.json."""
    images = image_set(experiment.data)
    own = {"title": images.title, "shape": list(images.shape), "classes": list(images.class_names)}
    return {
        "kind": experiment.kind,
        "dataset": images.name,
        **({} if images is DATASETS.get(images.name) else {"own_images": own}),
        "seed": experiment.seed,
        "status": "running",
        "created": created.isoformat(timespec="milliseconds"),
        "command": [visible(word) for word in sys.argv],
        "versions": versions(),
        "data": dict(images.hashes()),
    }


def _is_taken(path: Path) -> bool:
    """Whether something is at the path of a new run; an empty folder counts as free."""
    return os.path.lexists(path) and not (path.is_dir() and not any(path.iterdir()))


def taken_name(path: Path) -> str:
    """The message for a name that a new run cannot have."""
    if (path / RECORD).is_file():
        again = own_command("train", f"resume={path}")
        return f"name: {path} exists already; choose another name, or go on with it: {again}"
    return f"name: {path} exists and is no run folder; choose another name, or move it away"


def versions() -> dict[str, str]:
    """Versions of the software that a result depends on, and the commit if git knows it."""
    from importlib.metadata import version

    packages = (
        "vqvae_lightning",
        "torch",
        "pytorch-lightning",
        "torchmetrics",
        "wandb",
        "omegaconf",
        "numpy",
    )
    found = {"python": platform.python_version(), "platform": platform.platform()}
    found |= {package: version(package) for package in packages}
    # Installed without its repository, or inside of somebody else's, it has no commit.
    with suppress(OSError, subprocess.SubprocessError):
        _git("ls-files", "--error-unmatch", Path(__file__).name)
        found["commit"] = _git("describe", "--always", "--dirty", "--abbrev=12")
    return found


def _git(*words: str) -> str:
    """What git says in the folder of this file. Raises CalledProcessError, OSError."""
    done = subprocess.run(
        ["git", *words],
        cwd=Path(__file__).parent, capture_output=True, text=True, timeout=5, check=True,
    )  # fmt: skip
    return done.stdout.strip()
