"""What W&B calls a run: a setting wins over W&B's variable, and the variable over the default."""

import os
from collections.abc import Callable
from typing import Any

from vqvae_lightning.config import ConfigError, Experiment, TrackingConfig, one_line, visible
from vqvae_lightning.training.record import RunRecord

PROJECT = "vqvae_lightning"


def project_name(given: str | None) -> str:
    """The project: a setting, or WANDB_PROJECT, or `vqvae_lightning`."""
    return given or _variable("WANDB_PROJECT", lambda text: TrackingConfig(project=text)) or PROJECT


def run_names(experiment: Experiment, record: RunRecord) -> dict[str, Any]:
    """Project, name, group, tags and notes, as `wandb.init` takes them.

    Dataset and kind are always among the tags.
    """
    chosen, dataset = experiment.tracking, experiment.data.dataset
    group = chosen.group or _variable("WANDB_RUN_GROUP", lambda text: TrackingConfig(group=text))
    named = _variable("WANDB_TAGS", lambda text: TrackingConfig(tags=_listed(text)))
    return {
        "project": project_name(chosen.project),
        "name": experiment.name or _variable("WANDB_NAME") or record.name,
        "group": group or dataset,
        "tags": [dataset, experiment.kind, *(chosen.tags or _listed(named or ""))],
        "notes": _variable("WANDB_NOTES"),
    }


def _listed(text: str) -> list[str]:
    return [tag.strip() for tag in text.split(",") if tag.strip()]


def _variable(name: str, check: Callable[[str], object] = lambda _: None) -> str | None:
    """The text of a variable, if there is any that W&B takes.

    One that it would refuse is removed, after one line: W&B reads it too, and would not start.
    """
    text = os.environ.get(name, "").strip()
    try:
        check(text)
    except ConfigError as error:
        if text:
            print(f"W&B: {name} is left out ({visible(one_line(error))})", flush=True)
            del os.environ[name]
        return None
    return text or None
