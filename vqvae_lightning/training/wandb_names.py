"""What W&B calls a run: a setting wins over W&B's variable, and the variable over the default."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from vqvae_lightning.config import ConfigError, Experiment, TrackingConfig, one_line, visible
from vqvae_lightning.training.record import RunRecord

PROJECT = "vqvae_lightning"

# What reads each variable that W&B may refuse, and raises ConfigError where it would.
CHECKS: dict[str, Callable[[str], object]] = {
    "WANDB_PROJECT": lambda text: TrackingConfig(project=text),
    "WANDB_RUN_GROUP": lambda text: TrackingConfig(group=text),
    "WANDB_TAGS": lambda text: TrackingConfig(tags=_listed(text)),
}


def project_name(given: str | None) -> str:
    """The project: a setting, or WANDB_PROJECT, or `vqvae_lightning`."""
    return given or _variable("WANDB_PROJECT") or PROJECT


def run_names(experiment: Experiment, record: RunRecord) -> dict[str, Any]:
    """Project, name, group, tags and notes, as `wandb.init` takes them.

    Dataset and kind are always among the tags.
    """
    chosen, dataset = experiment.tracking, experiment.data.dataset
    group = chosen.group or _variable("WANDB_RUN_GROUP")
    tags = chosen.tags or _listed(_variable("WANDB_TAGS") or "")
    return {
        "project": project_name(chosen.project),
        "name": experiment.name or _variable("WANDB_NAME") or record.name,
        "group": group or dataset,
        "tags": [dataset, experiment.kind, *tags],
        "notes": _variable("WANDB_NOTES"),
    }


def _listed(text: str) -> list[str]:
    return [tag.strip() for tag in text.split(",") if tag.strip()]


@contextmanager
def only_taken_variables() -> Iterator[None]:
    """Inside, the environment lacks the variables that W&B would refuse.

    W&B reads them whatever it is given, and would not start.
    """
    refused = {name: os.environ.pop(name) for name in CHECKS if _refusal(name)}
    try:
        yield
    finally:
        os.environ.update(refused)


def _variable(name: str) -> str | None:
    """The text of a variable; None, after one line, of one that W&B would refuse."""
    refusal = _refusal(name)
    if refusal:
        print(f"W&B: {name} is left out ({visible(one_line(refusal))})", flush=True)
        return None
    return _text(name) or None


def _text(name: str) -> str:
    return os.environ.get(name, "").strip()


def _refusal(name: str) -> ConfigError | None:
    """Why W&B would refuse a variable, or None."""
    text = _text(name)
    if text and name in CHECKS:
        try:
            CHECKS[name](text)
        except ConfigError as error:
            return error
    return None
