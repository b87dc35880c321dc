"""What holds for every test."""

import gc
import os
from pathlib import Path

import pytest

# The files that take longest, which start first: two workers then end at the same time. Of those
# that are not named, the order stays.
LONGEST = (
    "training/test_distributed.py",
    "test_end_to_end.py",
    "comparison/test_study.py",
    "test_own_images.py",
    "training/test_averaging.py",
    "models/test_autoencoder.py",
    "training/test_tracking.py",
    "training/test_sharding.py",
    "test_tutorial.py",
    "training/test_flow.py",
    "exporting/test_export.py",
)
FIRST = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}


def pytest_configure() -> None:
    """Spares two waits: a training has no W&B run, which takes a second, unless a test is of W&B,
    and no file waits for its disk, for no test cuts the power.
    """
    patch = pytest.MonkeyPatch()
    patch.setenv("WANDB_MODE", "disabled")
    patch.setattr(os, "fsync", lambda file: None)


def pytest_collection() -> None:
    """What is imported and collected stays: looking through it again and again takes seconds."""
    gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Brings the tests of the longest files to the front."""
    items.sort(key=lambda item: FIRST.get(item.path, len(FIRST)))


@pytest.fixture(autouse=True)
def wandb_as_usual(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a test of W&B it is what it is to a user."""
    if request.node.get_closest_marker("wandb") is not None:
        monkeypatch.delenv("WANDB_MODE")
