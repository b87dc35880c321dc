"""Loggers: the local metrics.jsonl, which everything else is built from, and W&B, which is offline unless asked."""

import json
import os
import socket
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pytorch_lightning.loggers import Logger, WandbLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from vqvae_lightning.config import Experiment, plain
from vqvae_lightning.training.runs import Run


class JsonLinesLogger(Logger):
    """Appends one JSON object per logged step to a file, flushed at once."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    @property
    def name(self) -> str:
        return "jsonl"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        row = {"step": step, **{key: float(value) for key, value in metrics.items()}}
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *_: Any, **__: Any) -> None:
        """Nothing: config.yaml holds them."""


class RunWandbLogger(WandbLogger):
    """W&B with the experiment's settings as config, and no word on stdout."""

    def __init__(self, experiment: Experiment, run: Run) -> None:
        import wandb

        info, settings = run.info, plain(experiment)
        super().__init__(
            name=info["name"],
            id=info["wandb_id"],
            save_dir=str(run.path),
            project=experiment.tracking.project,
            group=experiment.tracking.group or experiment.data.name,
            job_type=f"train-{experiment.kind}",
            tags=[experiment.data.name, experiment.kind, *experiment.tracking.tags],
            resume="allow",
            # Nothing of the machine or the shell that the experiment does not name leaves it.
            settings=wandb.Settings(
                console="off", silent=True, disable_git=True, save_code=False, x_disable_meta=True, x_disable_stats=True
            ),
            config={**settings, "dataset": experiment.data.name, "commit": info["versions"].get("commit")},
        )
        # Lightning passes `anonymous`, which wandb no longer has and will refuse.
        self._wandb_init.pop("anonymous", None)


def choose_wandb_mode(folder: Path) -> str | None:
    """Sets WANDB_MODE for this process and its children; returns why it is offline where online was asked for.

    Offline is the default. `WANDB_MODE=online` is honoured if there is a key and the server answers within 3 seconds;
    W&B itself would ask a question or wait for minutes. W&B's own files stay in the run folder.
    """
    os.environ.setdefault("WANDB_DATA_DIR", str(folder.resolve() / "wandb"))
    os.environ.setdefault("WANDB_CACHE_DIR", str(folder.resolve() / "wandb"))
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    wanted = os.environ.setdefault("WANDB_MODE", "offline")
    if wanted != "online":
        return None
    import wandb

    try:
        url = urlsplit(wandb.setup().settings.base_url)
        port = url.port or (443 if url.scheme == "https" else 80)
        if not os.environ.get("HTTPS_PROXY"):
            socket.create_connection((url.hostname or "", port), timeout=3).close()
        if wandb.login(prompt=False, verify=False):
            return None
        reason = "there is no API key (run `wandb login`)"
    except Exception as error:
        reason = f"its server does not answer ({error})"
    os.environ["WANDB_MODE"] = "offline"
    return f"W&B: offline although WANDB_MODE=online, because {reason}"
