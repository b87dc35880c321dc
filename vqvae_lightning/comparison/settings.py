"""The settings in which compared runs differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vqvae_lightning.comparison.columns import MISSING
from vqvae_lightning.comparison.rows import Row
from vqvae_lightning.kinds import STAGES
from vqvae_lightning.training.settings import differences

# Settings that say where a run lies, not what it computes.
PLACES = ("name", "runs", "resume", "data.root", "data.download")


@dataclass(frozen=True)
class Settings:
    """The settings in which some runs differ: dotted key → one text per row."""

    title: str
    rows: tuple[Row, ...]
    values: dict[str, tuple[str, ...]]


def settings_by_stage(rows: Sequence[Row]) -> tuple[Settings, ...]:
    """A table for the runs of each stage, where they differ."""
    tables = [
        _differing(title, [row for row in rows if row.kind.stage == stage])
        for stage, title in STAGES.items()
    ]
    return tuple(table for table in tables if table.values)


def _differing(title: str, rows: Sequence[Row]) -> Settings:
    keys = {
        key: None
        for row in rows
        for key in differences(rows[0].settings, row.settings)
        if key not in PLACES
    }
    values = {key: tuple(_setting(row.settings, key) for row in rows) for key in keys}
    return Settings(title, tuple(rows), values)


def _setting(settings: Any, key: str) -> str:
    for part in key.split("."):
        if not isinstance(settings, dict) or part not in settings:
            return MISSING
        settings = settings[part]
    if key.endswith(".sha256"):
        # Of a file of own parts: enough to tell two versions apart.
        return str(settings)[:8]
    if isinstance(settings, bool) or settings is None:
        return {True: "true", False: "false", None: "null"}[settings]
    return ", ".join(map(str, settings)) or "none" if isinstance(settings, list) else str(settings)
