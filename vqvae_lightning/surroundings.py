"""What a public function finds as it expects it, and leaves as it was: dtype, environment, and
whether algorithms have to be deterministic.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# What Lightning and W&B's settings put there, for this process and its children.
VARIABLES = (
    "CUBLAS_WORKSPACE_CONFIG",
    "PL_GLOBAL_SEED",
    "PL_SEED_WORKERS",
    "WANDB_MODE",
    "WANDB_DATA_DIR",
    "WANDB_CACHE_DIR",
    "WANDB_ERROR_REPORTING",
)


@contextmanager
def own_surroundings() -> Iterator[None]:
    """Inside, new tensors are float32, whatever dtype the program has made the default.

    Afterwards the default dtype, VARIABLES and the choice of algorithms are what they were. A
    second training of a process would otherwise keep W&B's files in the folder of the first.
    """
    dtype = torch.get_default_dtype()
    deterministic = torch.get_deterministic_debug_mode()
    before = {name: os.environ.get(name) for name in VARIABLES}
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_deterministic_debug_mode(deterministic)
        for name, text in before.items():
            if text is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = text
