"""The command line: one command per function, `key=value` for every setting.

Heavy imports wait until a command needs them, so that `vqvae --help` answers at once. A command's
function is imported when it is called, or asked for as an attribute of this module.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from vqvae_lightning.cli.commands import COMMANDS, Command, function
from vqvae_lightning.cli.plugins import use_named_plugins
from vqvae_lightning.interrupts import caught, follow_parent
from vqvae_lightning.streams import protect_streams

if TYPE_CHECKING:
    from vqvae_lightning.cli.compression import compress, decompress, inspect
    from vqvae_lightning.cli.listings import completion, runs, settings
    from vqvae_lightning.cli.many_runs import ablate, compare, dashboard, study, sweep
    from vqvae_lightning.cli.one_run import (
        classifier,
        config,
        data,
        doctor,
        evaluate,
        export,
        fid_calibrate,
        sample,
        train,
    )

__all__ = [
    "COMMANDS",
    "Command",
    "ablate",
    "classifier",
    "compare",
    "complain",
    "completion",
    "compress",
    "config",
    "dashboard",
    "data",
    "decompress",
    "doctor",
    "evaluate",
    "export",
    "fid_calibrate",
    "inspect",
    "main",
    "parser",
    "run",
    "runs",
    "sample",
    "settings",
    "study",
    "sweep",
    "train",
]


def __getattr__(name: str) -> Any:
    """The function of a command, such as `cli.train`."""
    try:
        return function(name)
    except KeyError:
        raise AttributeError(f"module {__name__} has no attribute {name}") from None


class _CommandParser(argparse.ArgumentParser):
    """The parser of one command, whose help ends with the command's settings."""

    def format_help(self) -> str:
        command = COMMANDS.get(self.prog.rpartition(" ")[2])
        if command is None or not command.settings:
            return super().format_help()
        from vqvae_lightning.cli.listings import described

        return f"{super().format_help()}\n{described(command.settings)}"


class _Version(argparse.Action):
    """Prints the version. It is looked up only then, because that takes an import."""

    def __call__(self, top: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"vqvae_lightning {version('vqvae_lightning')}")
        top.exit()


def parser(completer: Callable[[str], object] | None = None) -> argparse.ArgumentParser:
    """The parser of the console script `vqvae`.

    `completer(name)` gives the function that completes the arguments of a command.
    """
    top = argparse.ArgumentParser(
        prog="vqvae",
        description="Train, compare and sample autoencoders, and priors over their codes.",
        epilog="Every command takes plugins=FILE.py: a file of your own parts, which is executed.",
    )
    top.add_argument("--debug", action="store_true", help="show the traceback of an error")
    top.add_argument("--version", action=_Version, nargs=0, help="show the version")
    commands = top.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=_CommandParser
    )
    for name, command in COMMANDS.items():
        sub = commands.add_parser(name, help=command.sentence, description=command.sentence)
        taken: Any = sub.add_argument(
            "arguments", nargs="*", metavar=command.arguments, help=command.example
        )
        if completer:
            taken.completer = completer(name)
    return top


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command of the command line.

    Exit codes: 2 invalid input (one line); 1 non-finite loss or OS error (one line; `train` also
    prints the traceback of an OS error); 128 + n ended by signal n, in every phase: 143 SIGTERM,
    130 Ctrl-C, 129 SIGHUP. Output that cannot be written changes no exit code.
    """
    if "_ARGCOMPLETE" in os.environ:  # a shell asks what a line may go on with
        from vqvae_lightning.cli.completing import Completer, complete

        complete(parser(Completer))
    protect_streams()
    follow_parent()
    with caught(ends_process=True):
        arguments = sys.argv[1:] if arguments is None else arguments
        refuse_unknown(arguments)
        options = parser().parse_args(arguments)
        if COMMANDS[options.command].takes_long:
            announce(options)
        from vqvae_lightning.allocator import end_soon, keep_freed_memory

        keep_freed_memory()
        end_soon()
        run(options)


def refuse_unknown(arguments: Sequence[str]) -> None:
    """Ends the process for an unknown command, with one line that names the nearest one."""
    name = next((word for word in arguments if not word.startswith("-")), None)
    if name is None or name in COMMANDS:
        return
    import difflib

    nearest = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"did you mean {nearest[0]}?" if nearest else f"known: {', '.join(COMMANDS)}"
    complain(ValueError(f"there is no command '{name}'; {hint}"))
    sys.exit(2)


def announce(options: argparse.Namespace) -> None:
    """Prints the command line, before imports that take seconds."""
    from vqvae_lightning.config import command_line, one_line
    from vqvae_lightning.training.launch import is_first_process

    if is_first_process():
        line = command_line(options.command, *options.arguments)
        print(f"vqvae     {one_line(line)}", flush=True)


def run(options: argparse.Namespace) -> None:
    """Runs a parsed command. An expected error becomes one line and an exit code."""
    try:
        COMMANDS[options.command].run(use_named_plugins(options.arguments))
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
        from vqvae_lightning.training.launch import is_first_process

        if is_first_process():  # once, however many ranks find it
            complain(error)
        sys.exit(2)


def complain(error: Exception, hint: str = "") -> None:
    """Prints an error on one line. Control characters, as of a file's text, are escaped."""
    from vqvae_lightning.config import one_line

    print(f"vqvae: {one_line(error)}{hint}", file=sys.stderr)
