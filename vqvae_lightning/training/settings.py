"""The settings that decide what is computed, and the differences between two experiments."""

from collections.abc import Iterator, Mapping

from vqvae_lightning.config import Experiment, to_dict

# Settings of where a run lies and how long it takes. They do not change what is computed.
PLACE = (
    "resume",
    "name",
    "runs",
    "model.tokenizer",
    "model.first_stage",
    "trainer.devices",
    "trainer.nodes",
    "trainer.strategy",
    "trainer.timeout",
    "trainer.accelerator",
    "trainer.compile",
    "trainer.deterministic",
    "trainer.log_every",
    "trainer.steps",
    "data.root",
    "data.path",
    "data.download",
    "tracking",
)


def computed_settings(experiment: Experiment) -> dict[str, object]:
    """The settings that decide what is computed: dotted keys with their values."""
    return {
        key: value for key, value in _flat(to_dict(experiment), "") if not key.startswith(PLACE)
    }


def _flat(values: Mapping[str, object], prefix: str) -> Iterator[tuple[str, object]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def differences(
    a: Mapping[str, object], b: Mapping[str, object], prefix: str = ""
) -> dict[str, tuple[object, object]]:
    """Dotted keys whose values differ between two nested mappings, with both values.

    A missing value is None.
    """
    found: dict[str, tuple[object, object]] = {}
    for key in {**a, **b}:
        old, new = a.get(key), b.get(key)
        if isinstance(old, Mapping) or isinstance(new, Mapping):
            old = old if isinstance(old, Mapping) else {}
            new = new if isinstance(new, Mapping) else {}
            found |= differences(old, new, f"{prefix}{key}.")
        elif old != new:
            found[prefix + key] = (old, new)
    return found
