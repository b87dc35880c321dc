"""The commands of compressed images."""

from collections.abc import Sequence
from pathlib import Path

from vqvae_lightning.cli.one_run import run_and_options, say, split_arguments


def compress(arguments: Sequence[str]) -> Path:
    """`vqvae compress RUN PLACE … to=FILE.vqz`; returns the file."""
    from vqvae_lightning.config import CompressOptions, options

    places, settings = split_arguments(arguments)
    # The first place may be the run; images are in all others.
    runs = places[:1] if _is_run(places, options(CompressOptions, settings).runs) else []
    run, chosen = run_and_options([*runs, *settings], CompressOptions)
    from vqvae_lightning.codec.files import compress_run, sizes

    file = compress_run(run, places[len(runs) :], chosen)
    for label, text in sizes(file):
        say(label, text)
    say("file", file)
    return file


def decompress(arguments: Sequence[str]) -> Path:
    """`vqvae decompress FILE to=FOLDER`; returns the folder, or the .npz."""
    from vqvae_lightning.config import DecompressOptions, options

    file, settings = _file(arguments)
    chosen = options(DecompressOptions, settings)
    from vqvae_lightning.codec.files import decompress_file

    target = decompress_file(file, chosen)
    say("images", target)
    return target


def inspect(arguments: Sequence[str]) -> list[tuple[str, str]]:
    """`vqvae inspect FILE`; returns the lines that it prints."""
    from vqvae_lightning.config import InspectOptions, options

    file, settings = _file(arguments)
    chosen = options(InspectOptions, settings)
    from vqvae_lightning.codec.files import describe

    lines = describe(file, chosen.runs)
    for label, text in lines:
        say(label, text)
    return lines


def _is_run(places: Sequence[str], runs: str) -> bool:
    """Whether the first place is meant as a run: it is one, or lies where runs do.

    Raises ConfigError for a first place that does not exist.
    """
    from vqvae_lightning.config import ConfigError

    if not places:
        return False
    first = Path(places[0])
    if not first.exists() and not first.is_symlink():
        raise ConfigError(f"compress: {first} does not exist, wanted a run folder, or images")
    return (first / "run.json").is_file() or first.parent.resolve() == Path(runs).resolve()


def _file(arguments: Sequence[str]) -> tuple[Path, list[str]]:
    """The one file of a command, and its settings. Raises ConfigError."""
    from vqvae_lightning.config import ConfigError

    files, settings = split_arguments(arguments)
    if len(files) != 1:
        got = f"{len(files)} ({', '.join(files)})" if files else "none"
        raise ConfigError(f"file: got {got}, wanted one file of `vqvae compress`")
    return Path(files[0]), settings
