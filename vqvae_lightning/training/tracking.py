"""Loggers: the local metrics.jsonl, which everything else is built from, and W&B, which is offline
unless asked.
"""

import json
import os
import socket
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from lightning_fabric.loggers.logger import _DummyExperiment as DummyExperiment
from lightning_fabric.loggers.logger import rank_zero_experiment
from PIL import Image
from pytorch_lightning.loggers import Logger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from vqvae_lightning.config import Experiment, one_line, to_dict
from vqvae_lightning.metrics.measures import best_values
from vqvae_lightning.pictures import Grid
from vqvae_lightning.training.artifacts import log_artifacts
from vqvae_lightning.training.media import audio, code_histogram, reconstruction_table
from vqvae_lightning.training.runs import Run
from vqvae_lightning.training.wandb_names import only_taken_variables, run_names

if TYPE_CHECKING:
    import wandb

# Seconds to wait for a server: for any answer, for a run to start, and for the upload at its end.
# W&B's own limits are none, 90 and none. What was not uploaded stays on disk and can be synced.
ANSWER_TIMEOUT, START_TIMEOUT, FINISH_TIMEOUT = 3, 20, 60

PACKAGE = Path(__file__).parents[1]  # what tracking.system uploads as code

# Text of WANDB_MODE → the mode. W&B itself fails on any other text, such as `Offline`, and on none.
MODES = {mode: mode for mode in ("online", "offline", "disabled", "shared")}
MODES |= {"run": "online", "dryrun": "offline"}


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

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *_: object, **__: object) -> None:
        """Does nothing, because config.yaml holds them."""


class RunWandbLogger(WandbLogger):
    """W&B with the experiment's settings as config, and without output on stdout."""

    def __init__(self, experiment: Experiment, run: Run) -> None:
        record, settings = run.record, to_dict(experiment)
        super().__init__(
            **run_names(experiment, record),
            id=record.wandb_id,
            save_dir=str(run.path),
            job_type=f"train-{experiment.kind}",
            resume="allow",
            config={
                **settings,
                "dataset": experiment.data.dataset,
                "commit": record.versions.get("commit"),
            },
        )
        self.failed, self.system = False, experiment.tracking.system
        # Lightning passes `anonymous`, which wandb no longer has and will refuse.
        self._wandb_init.pop("anonymous", None)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run, started when it is first used.

        If W&B does not start, a dummy takes every call and does nothing.
        """
        if self._experiment is None:
            started = start_wandb(self._start, self.system)
            self._experiment = cast(Any, started or DummyExperiment())
        return self._experiment

    def _start(self, settings: "wandb.Settings") -> "wandb.Run":
        """A new W&B run, whose summary holds the best and the last value of each measure."""
        self._wandb_init["settings"], self._experiment = settings, None
        run: wandb.Run = super().experiment
        for key, best in best_values().items():
            run.define_metric(key, summary=f"{best},last", step_metric="trainer/global_step")
        if self.system:
            with self._survived():
                run.log_code(str(PACKAGE))
        return run

    @contextmanager
    def _survived(self) -> Iterator[None]:
        """Catches what W&B raises: the first error is printed, and the training goes on."""
        try:
            yield
        except Exception as error:
            if not self.failed:
                print(
                    f"W&B: failed ({_reason(error)}); the run goes on, and is whole in its folder",
                    flush=True,
                )
            self.failed = True

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        with self._survived():
            super().log_metrics(metrics, step)

    def log_image(self, key: str, images: list[Any], step: int | None = None, **more: Any) -> None:
        with self._survived():
            super().log_image(key, images, step, **more)

    def log_grid(
        self, key: str, grid: Grid, picture: Image.Image, step: int, sounds: Sequence[Path] = ()
    ) -> None:
        """Logs a grid's picture with its caption, files of what is heard of it and, of
        reconstructions, a table with errors.
        """
        with self._survived():
            if not self._takes_media():
                return
            self.log_image(key, [picture], step, caption=[grid.caption])
            if sounds:
                self.log_metrics({f"{key}_sounds": cast(Any, audio(sounds, grid.caption))}, step)
            if grid.is_pairs:
                self._reach_server()
                self.log_metrics({f"{key}_table": cast(Any, reconstruction_table(grid))}, step)

    def log_code_use(self, key: str, counts: Tensor, step: int) -> None:
        """Logs how often each code was used, counts (K,) or (M, K), as a histogram."""
        with self._survived():
            if self._takes_media():
                self.log_metrics({key: cast(Any, code_histogram(counts))}, step)

    def _takes_media(self) -> bool:
        """Whether there is a W&B run, for which it is worth it to make tables."""
        run = self.experiment
        return not isinstance(run, DummyExperiment) and not run.disabled

    def _reach_server(self) -> None:
        """Raises OSError if this run is online and its server cannot be reached.

        W&B asks it about each table and each artifact, and waits 20 s for one that is lost.
        """
        run = self.experiment
        if not run.offline and not run.disabled:
            reach(run.settings.base_url)

    def complete(self, run: Run, codes: Path | None) -> None:
        """Ends the W&B run of a finished training, with its artifacts; see `log_artifacts`."""
        if isinstance(self.experiment, DummyExperiment):
            return
        with self._survived():
            self._reach_server()
            log_artifacts(self.experiment, run, codes)
        with self._survived():
            if not self.experiment.offline:
                run.write(wandb_url=self.experiment.url)
        self.close(0)

    def close(self, exit_code: int) -> None:
        """Ends the W&B run with the exit code of its training."""
        import wandb

        with self._survived():
            self.experiment.finish(exit_code=exit_code)
        if self.failed:  # or W&B would try again when the process ends, and say so
            with suppress(Exception):
                wandb.teardown(exit_code=exit_code)


def start_wandb(
    start: Callable[["wandb.Settings"], "wandb.Run"], system: bool = False
) -> "wandb.Run | None":
    """The W&B run that `start` makes from W&B's settings; None, after one line, if W&B does not
    start.

    A run that does not start online is started offline, after one line. W&B raises errors of many
    types: its own, those of pydantic for a variable that it cannot read, and OSError. None of them
    ends a training.
    """
    import wandb

    while True:
        try:
            with only_taken_variables():
                return start(wandb_settings(system))
        except Exception as error:
            with suppress(Exception):
                wandb.teardown()  # the half-started run would be in the way of the next one
            if os.environ["WANDB_MODE"] in ("offline", "disabled"):
                print(f"W&B: not used, because it did not start ({_reason(error)})", flush=True)
                return None
            os.environ["WANDB_MODE"] = "offline"
            print(
                f"W&B: offline, because its server did not start the run ({_reason(error)})",
                flush=True,
            )


def wandb_settings(system: bool) -> "wandb.Settings":
    """W&B settings that upload no system metadata: no host, user, command line or git state.

    Console output, the load of the machine and the list of packages are uploaded with `system`
    only. `mode` is set explicitly: wandb caches the first value that it reads from the environment.
    """
    import wandb

    return wandb.Settings(
        mode=cast(Any, os.environ["WANDB_MODE"]),
        init_timeout=START_TIMEOUT,
        finish_timeout=FINISH_TIMEOUT,
        console="wrap" if system else "off",
        silent=True,
        disable_git=True,
        save_code=False,
        x_disable_meta=True,
        host="-",  # or W&B takes this machine's name
        x_save_requirements=system,
        x_disable_stats=not system,
    )


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error)[:200]}"


def choose_wandb_mode(folder: Path) -> str | None:
    """Sets WANDB_MODE for this process and its children; returns a line if it is not the mode that
    was asked for.

    Offline is the default. `WANDB_MODE=online` is honoured if the server can be used. W&B's own
    files stay in `folder`.
    """
    wanted = _read_mode()
    os.environ.setdefault("WANDB_DATA_DIR", str(folder.resolve() / "wandb"))
    os.environ.setdefault("WANDB_CACHE_DIR", str(folder.resolve() / "wandb"))
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    if wanted not in MODES:
        return (
            f"W&B: offline, because WANDB_MODE is {wanted[:50]!r}, wanted online, offline or"
            " disabled"
        )
    if os.environ["WANDB_MODE"] in ("offline", "disabled"):
        return None
    reason = why_not_online()
    if reason is None:
        return None
    os.environ["WANDB_MODE"] = "offline"
    return f"W&B: offline although WANDB_MODE={wanted}, because {reason}"


def _read_mode() -> str:
    """Sets WANDB_MODE to one of the modes, offline if its text is none; returns that text in lower
    case.

    Empty variables of W&B count as unset, as a shell's `WANDB_MODE= vqvae …` means it.
    """
    for name in [
        name for name, text in os.environ.items() if name.startswith("WANDB_") and not text.strip()
    ]:
        del os.environ[name]
    wanted = os.environ.get("WANDB_MODE", "offline").strip().lower()
    os.environ["WANDB_MODE"] = MODES.get(wanted, "offline")
    return wanted


def reach(base_url: str) -> None:
    """Raises OSError unless a server takes a connection within 3 seconds. One behind a proxy is not
    asked.
    """
    url = urlsplit(base_url)
    port = url.port or (443 if url.scheme == "https" else 80)
    if not os.environ.get("HTTPS_PROXY"):
        socket.create_connection((url.hostname or "", port), timeout=ANSWER_TIMEOUT).close()


def why_not_online() -> str | None:
    """None if there is a key and the server can be reached within 3 seconds, else what is missing.

    This is checked before W&B starts, because W&B would prompt on the terminal or wait for minutes.
    """
    import wandb

    _read_mode()
    try:
        with only_taken_variables():
            reach(wandb.setup().settings.base_url)
        if wandb.login(prompt=False, verify=False):
            return None
        return "there is no API key (run `wandb login`)"
    except OSError as error:
        return f"its server does not answer ({error})"
    except Exception as error:
        return f"it cannot be asked ({_reason(error)})"
