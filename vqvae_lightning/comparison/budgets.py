"""What a run was trained with: runs of unequal budgets are shown side by side, and never ranked."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vqvae_lightning.config import Experiment

# Bottlenecks on one trunk differ in size by less than this factor.
SIZES_ALIKE = 2.0


@dataclass(frozen=True)
class Budget:
    """What it took to train a run; a prior's includes its tokenizer's."""

    steps: int  # optimizer steps
    images_seen: int
    parameters: int
    # The fingerprint of a tokenizer whose folder is gone, so that its part is not known.
    missing: str | None = None
    has_tokenizer: bool = False  # whether it is of two trainings

    @classmethod
    def of(cls, experiment: Experiment, parameters: int, missing: str | None = None) -> "Budget":
        """The budget of one training."""
        steps = experiment.trainer.steps
        return cls(steps, steps * experiment.data.batch_size, parameters, missing)

    def __add__(self, other: "Budget") -> "Budget":
        return Budget(
            self.steps + other.steps,
            self.images_seen + other.images_seen,
            self.parameters + other.parameters,
            self.missing or other.missing,
            True,
        )

    @property
    def length(self) -> tuple[int, int, str | None]:
        """How long was trained, which two rows must agree in to be ranked together."""
        return self.steps, self.images_seen, self.missing


def sizes_are_alike(budgets: Iterable[Budget]) -> bool:
    """Whether no model has more than SIZES_ALIKE times the parameters of another."""
    sizes = [budget.parameters for budget in budgets]
    return max(sizes, default=0) <= SIZES_ALIKE * min(sizes, default=0)


def unequal(budgets: Sequence[Budget]) -> str:
    """A sentence on how budgets differ, and what follows for best values; empty if they do not."""
    if len({budget.length for budget in budgets}) <= 1 and sizes_are_alike(budgets):
        return ""
    found = [
        ("optimizer steps", [budget.steps for budget in budgets]),
        ("images seen", [budget.images_seen for budget in budgets]),
        ("parameters", [budget.parameters for budget in budgets]),
    ]
    differing = [
        f"{min(values):,} to {max(values):,} {name}"
        for name, values in found
        if len(set(values)) > 1
    ]
    told = ", ".join(differing) or "tokenizers whose folders are gone"
    both = "; a prior's include its tokenizer's" if any(b.has_tokenizer for b in budgets) else ""
    return f"Budgets differ: {told}{both}. No best value is named across unequal budgets."
