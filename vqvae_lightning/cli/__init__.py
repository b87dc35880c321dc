"""The command line: one command per function, `key=value` for every setting.

Heavy imports wait until a command needs them, so that `vqvae --help` answers at once.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from vqvae_lightning.cli.many_runs import ablate, compare, dashboard, study, sweep
from vqvae_lightning.cli.one_run import (
    classifier,
    config,
    data,
    doctor,
    evaluate,
    fid_calibrate,
    sample,
    train,
)
from vqvae_lightning.interrupts import caught, follow_parent
from vqvae_lightning.streams import protect_streams
from vqvae_lightning.training.launch import is_first_process

__all__ = [
    "COMMANDS",
    "ablate",
    "classifier",
    "compare",
    "complain",
    "config",
    "dashboard",
    "data",
    "doctor",
    "evaluate",
    "fid_calibrate",
    "main",
    "parser",
    "run",
    "sample",
    "study",
    "sweep",
    "train",
]


def parser() -> argparse.ArgumentParser:
    """The parser of the console script `vqvae`."""
    top = argparse.ArgumentParser(
        prog="vqvae",
        description="Train, compare and sample autoencoders, and priors over their codes.",
    )
    top.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        sub = commands.add_parser(name, help=command.sentence, description=command.sentence)
        sub.add_argument("arguments", nargs="*", metavar=command.arguments, help=command.example)
    return top


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command of the command line.

    Exit codes: 2 invalid input (one line); 1 non-finite loss or OS error (one line; `train` also
    prints the traceback of an OS error); 128 + n ended by signal n, in every phase: 143 SIGTERM,
    130 Ctrl-C, 129 SIGHUP. Output that cannot be written changes no exit code.
    """
    protect_streams()
    follow_parent()
    with caught(ends_process=True):
        options = parser().parse_args(arguments)
        from vqvae_lightning.allocator import keep_freed_memory

        keep_freed_memory()
        run(options)


def run(options: argparse.Namespace) -> None:
    """Runs the command of parsed options; an expected error becomes a line and an exit code."""
    try:
        COMMANDS[options.command].run(options.arguments)
    except ArithmeticError as error:
        if options.debug:
            raise
        complain(error)  # each rank says what it saw
        sys.exit(1)
    except OSError as error:
        if options.debug or options.command == "train":
            raise
        complain(error, " (vqvae --debug shows where)")
        sys.exit(1)
    except ValueError as error:
        if options.debug:
            raise
        if is_first_process():  # once, however many ranks find it
            complain(error)
        sys.exit(2)


def complain(error: Exception, hint: str = "") -> None:
    """Prints an error on one line; control characters, which may come from a file, are escaped."""
    from vqvae_lightning.config import one_line

    print(f"vqvae: {one_line(error)}{hint}", file=sys.stderr)


class Command(NamedTuple):
    """One command: its function, what it does, and the arguments that it takes."""

    run: Callable[[Sequence[str]], object]
    sentence: str
    arguments: str
    example: str


RUN = ("RUN|key=value", "run folder (default: the newest), then settings")
COMMANDS = {
    "train": Command(
        train,
        "train the experiment of FILE, or go on with resume=RUN",
        "FILE|key=value",
        "a YAML file, then settings as key=value, for example trainer.steps=500",
    ),
    "config": Command(
        config, "print what `train` would run, and run nothing", "FILE|key=value", "as for train"
    ),
    "data": Command(
        data, "fetch and verify a dataset", "key=value", "name=cifar10 root=data download=false"
    ),
    "doctor": Command(
        doctor,
        "versions, devices, disk, data and W&B of this machine; exit code 1 if something is wrong",
        "key=value",
        "runs=runs root=data",
    ),
    "evaluate": Command(
        evaluate, "test metrics of a run's best checkpoint, and what is asked for besides", *RUN
    ),
    "sample": Command(sample, "draw images from a run into a PNG grid", *RUN),
    "compare": Command(
        compare,
        "several runs as a table and one HTML page",
        "RUN|key=value",
        "run folders (default: all), then settings",
    ),
    "study": Command(
        study,
        "every kind of model with several seeds: train, evaluate, compare, mean and spread",
        "key=value",
        "dataset=mnist seeds=3, then settings of the evaluations and of the runs",
    ),
    "sweep": Command(
        sweep,
        "the grid of a W&B sweep file, run here without a server",
        "FILE|key=value",
        "a sweep file, then settings of the runs",
    ),
    "ablate": Command(
        ablate,
        "variants of one experiment with several seeds: train, evaluate, compare, mean and spread",
        "FILE|key=value",
        "an ablation file, seeds=3, then settings of the runs",
    ),
    "classifier": Command(
        classifier,
        "train the classifier whose features and labels judge samples of a dataset",
        "key=value",
        "dataset=mnist, then settings",
    ),
    "fid-calibrate": Command(
        fid_calibrate,
        "check FID against the literature: CIFAR-10 train and test must be 3.15 apart",
        "key=value",
        "root=data",
    ),
    "dashboard": Command(
        dashboard,
        "build the W&B workspace of a project, and save it if there is a server and a key",
        "key=value",
        "project=vqvae_lightning entity=NAME",
    ),
}
