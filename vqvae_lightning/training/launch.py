"""Processes: how many a run needs, how many were launched, and which one prints."""

import math
import os
import sys

from vqvae_lightning.config import ConfigError, Experiment


def is_first_process() -> bool:
    """Whether this is rank 0 of what Lightning, torchrun or SLURM launched; True without a
    launcher.
    """
    ranks = (os.environ.get(name) for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))
    return all(int(rank) == 0 for rank in ranks if rank is not None)


def is_interactive() -> bool:
    """Whether this is a notebook or a Python prompt, which cannot be started again as a rank."""
    return hasattr(sys, "ps1")


def device_count(experiment: Experiment) -> int:
    """Devices per machine; `auto` is every GPU, or one process on a machine without.

    A notebook or a Python prompt starts no processes, so there `auto` is one. Raises ConfigError
    for settings that cannot run on this machine.
    """
    import torch

    from vqvae_lightning.data.imageset import image_set, split_sizes

    settings = experiment.trainer
    gpus = torch.cuda.device_count() if settings.accelerator != "cpu" else 0
    if settings.accelerator == "gpu" and gpus == 0:
        raise ConfigError(
            "trainer.accelerator: got gpu, but this machine has none; use trainer.accelerator=cpu"
        )
    every = 1 if is_interactive() else max(1, gpus)
    count = every if settings.devices == "auto" else int(settings.devices)
    if count > 1 and is_interactive():
        raise ConfigError(
            f"trainer.devices: got {count}, but a notebook or prompt starts no processes; wanted 1,"
            " or a script"
        )
    if gpus and count > gpus:
        raise ConfigError(f"trainer.devices: got {count}, but this machine has {gpus} GPUs")
    cuts = count * settings.nodes * settings.accumulate
    if experiment.data.batch_size % cuts:
        raise ConfigError(
            f"data.batch_size: got {experiment.data.batch_size}, wanted a multiple of {cuts}: "
            f"{count * settings.nodes} devices x {settings.accumulate} micro-batches"
        )
    data = experiment.data
    sizes = split_sizes(data, image_set(data))
    for split, size in (("validation", sizes["val"]), ("test", sizes["test"])):
        batches = math.ceil(size / data.eval_batch_size)
        if batches < count * settings.nodes:  # the loaders split global batches among ranks
            raise ConfigError(
                f"data.eval_batch_size: got {data.eval_batch_size}, which makes {batches}"
                f" batch{'es' * (batches > 1)} of {size} {split} images, wanted one for each of"
                f" {count * settings.nodes} devices at least"
            )
    return count


def check_launch(devices: int, nodes: int) -> None:
    """Raises ConfigError if torchrun or SLURM launched another number of processes than configured,
    or if nothing launched those of several machines, which would wait for each other in vain.

    An interactive shell of SLURM has the variables of a batch job although nothing was launched, so
    they are ignored there. `NODE_RANK` is how Lightning is told of a machine by hand.
    """
    world = devices * nodes
    interactive = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")
    launchers = {"torchrun": "WORLD_SIZE"} | ({} if interactive else {"SLURM": "SLURM_NTASKS"})
    for launcher, variable in launchers.items():
        launched = int(os.environ.get(variable, world))
        if launched != world:
            raise ConfigError(
                f"launch: {launcher} started {launched} process{'es' * (launched > 1)}"
                f" ({variable}={launched}), but trainer.devices x trainer.nodes is {world}; wanted"
                " the same number"
            )
    if nodes > 1 and not {*launchers.values(), "NODE_RANK"} & os.environ.keys():
        raise ConfigError(
            f"trainer.nodes: got {nodes}, but nothing started processes on {nodes} machines; wanted"
            " a launch by torchrun or SLURM, or 1"
        )
