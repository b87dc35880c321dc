"""`python faults.py ROOT`: trainings on generated images that are stopped at chosen points, in
forked processes.

Imports are paid for once: the process loads everything and forks for each training, which then runs
`cli.main`. A plan is a JSON list on stdin; its entries say `words` (of the command line), and what
goes wrong in them: see `install`. Answers, a JSON line for each entry: `code`, how the process
ended (negative: by that signal), and `out`, what it wrote.
"""

import importlib
import json
import math
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import fake_data
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from vqvae_lightning import cli, storage, verified
from vqvae_lightning.config import DataConfig
from vqvae_lightning.data.images import ImageDataModule
from vqvae_lightning.data.loader import TrainLoader
from vqvae_lightning.evaluation import classifier
from vqvae_lightning.evaluation import evaluate as _everything  # noqa: F401  imported before the fork
from vqvae_lightning.training import train
from vqvae_lightning.training.trainer import build_trainer


class Fault(Callback):
    """Sends `signals` to this process at `point` of optimizer step `step`, and notes the rows of
    every batch.

    Points: `batch` (its end), `validation` (in the middle of it), `save` (of a checkpoint, half
    written), `test` (the end of its first batch). Without signals it raises an error. With `parent`
    the signals go to the parent.
    """

    def __init__(
        self,
        rows: str = "",
        point: str = "",
        step: int = 0,
        signals: Sequence[int] = (),
        parent: bool = False,
    ) -> None:
        self.rows, self.point, self.step, self.signals = rows, point, step, signals
        self.target = os.getppid() if parent else os.getpid()
        self.trainer: Any = None
        if point == "save":
            whole = storage.write_atomic

            def half(path: Path, data: bytes) -> None:
                if path.suffix == ".ckpt" and self.point and self.trainer.global_step == step:
                    (path.parent / f".half.ckpt{storage.UNFINISHED}").write_bytes(
                        data[: len(data) // 2]
                    )
                    self.strike()
                whole(path, data)

            mock.patch.object(verified, "write_atomic", half).start()

    def strike(self) -> None:
        self.point = ""  # once
        for number in self.signals:
            os.kill(self.target, number)
        if not self.signals:
            raise RuntimeError("an error on one rank")

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.trainer = trainer

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, _: Any, batch: Any, i: int
    ) -> None:
        if self.rows:
            with open(self.rows, "a") as file:
                file.write(json.dumps([trainer.global_step, batch.rows.tolist()]) + "\n")
        if (self.point, self.step) == ("batch", trainer.global_step):
            self.strike()

    def on_validation_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if (self.point, self.step) == ("validation", trainer.global_step):
            self.strike()

    def on_test_batch_end(self, *_: Any) -> None:
        if self.point == "test":
            self.strike()


def strike_in(place: str, signals: Sequence[int]) -> None:
    """Sends `signals` to this process when the function at `place`, "module:name", is called the
    first time.
    """
    module, _, path = place.partition(":")
    *owners, name = path.split(".")
    owner: Any = importlib.import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    function, left = getattr(owner, name), list(signals)

    def struck(*arguments: Any, **more: Any) -> Any:
        while left:
            os.kill(os.getpid(), left.pop(0))
        return function(*arguments, **more)

    setattr(owner, name, struck)


def install(fault: dict[str, Any], rows: str = "", forget: bool = False, poison: int = 0) -> None:
    """Puts a `Fault` into every training of this process.

    `forget` drops the position in the data at a resume, `poison` makes a pixel NaN at that step.
    """

    def with_fault(*arguments: Any) -> Any:
        trainer: Any = build_trainer(*arguments)
        trainer.callbacks.insert(0, Fault(rows, **fault))
        return trainer

    mock.patch.object(train, "build_trainer", with_fault).start()
    if forget:
        mock.patch.object(TrainLoader, "load_state_dict", return_value=None).start()
    if poison:
        scale = ImageDataModule.scale

        def poisoned(self: ImageDataModule, batch: Any, **more: Any) -> Any:
            scaled = scale(self, batch, **more)
            if self.trainer and self.trainer.training and self.trainer.global_step == poison - 1:
                scaled.x[2, 0, 3, 4] = math.nan
            return scaled

        mock.patch.object(ImageDataModule, "scale", poisoned).start()


def main(root: Path) -> None:
    torch.set_num_threads(1)
    fake_data.install(root)
    small = {"batch_size": 32, "eval_batch_size": 30, "validation_size": 40}
    mock.patch.object(classifier, "DataConfig", lambda **given: DataConfig(**given | small)).start()
    for entry in json.load(sys.stdin):
        with tempfile.TemporaryFile() as output:
            pid = os.fork()
            if pid == 0:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
                code = 0
                try:
                    options = {key: entry[key] for key in ("forget", "poison") if key in entry}
                    install(entry.get("fault", {}), entry.get("rows", ""), **options)
                    if "strike" in entry:
                        strike_in(**entry["strike"])
                    cli.main(
                        [
                            *entry["words"],
                            *([f"data.root={root}"] if entry["words"][0] == "train" else []),
                        ]
                    )
                except SystemExit as stop:
                    code = int(stop.code or 0)
                except BaseException:
                    __import__("traceback").print_exc()
                    code = 99
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
            _, status = os.waitpid(pid, 0)
            code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
            output.seek(0)
            print(json.dumps({"code": code, "out": output.read().decode()}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
