"""What holds for every test."""

import pytest


@pytest.fixture(autouse=True)
def without_wandb(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training of a test has no W&B run, which takes a second, unless the test is of W&B."""
    if request.node.get_closest_marker("wandb") is None:
        monkeypatch.setenv("WANDB_MODE", "disabled")
