"""Output that cannot be written costs no result, and what a file contains does not reach the
terminal raw.
"""

import io
import os
import subprocess
import sys
import threading
from contextlib import suppress

import pytest

from vqvae_lightning import cli
from vqvae_lightning.config import visible
from vqvae_lightning.streams import protected


@pytest.fixture
def text():
    """(descriptor, encoding) → a text stream of it, closed when the test ends."""
    opened: list[io.TextIOWrapper] = []

    def text(descriptor: int, encoding: str = "utf-8") -> io.TextIOWrapper:
        opened.append(os.fdopen(os.dup(descriptor), "w", encoding=encoding))
        return opened[-1]

    yield text
    for stream in opened:
        with suppress(OSError, ValueError):
            stream.close()


def test_a_reader_that_has_gone_is_written_to_without_an_error(text):
    reader, writer = os.pipe()
    stream = protected(text(writer), writer)
    os.close(reader)
    for _ in range(3):
        stream.write("line\n" * 10_000)
        stream.flush()


def test_a_full_disk_is_written_to_without_an_error(text):
    with open("/dev/full", "wb", buffering=0) as full:
        stream = protected(text(full.fileno()), full.fileno())
        stream.write("line\n" * 10_000)
        stream.flush()


def test_a_slow_reader_of_a_pipe_that_does_not_block_gets_everything(text):
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    given = text(writer)
    stream = protected(given, writer)
    got: list[bytes] = []
    thread = threading.Thread(target=lambda: got.extend(iter(lambda: os.read(reader, 1000), b"")))
    thread.start()
    stream.write("line\n" * 100_000)
    stream.flush()
    stream.close()
    given.close()
    os.close(writer)
    thread.join()
    assert len(b"".join(got)) == 500_000


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_every_character_can_be_written_in_every_encoding(text, encoding):
    reader, writer = os.pipe()
    stream = protected(text(writer, encoding), writer)
    stream.write("±10⁻³ ρ \udcff")
    stream.flush()
    written = os.read(reader, 100).decode(encoding)
    assert (
        written
        == {
            "latin-1": r"±10\u207b³ \u03c1 \udcff",
            "ascii": r"\xb110\u207b\xb3 \u03c1 \udcff",
            "utf-8": r"±10⁻³ ρ \udcff",
        }[encoding]
    )


@pytest.mark.parametrize(
    "redirections", [">&-", "<&- >&- 2>&-", ">/dev/full", "2>/dev/full >&2", "| true"]
)
def test_a_command_ends_well_whatever_its_streams_are(redirections):
    command = f'"{sys.executable}" -m vqvae_lightning --help {redirections}'
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], stderr=subprocess.PIPE, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b2J", r"\x9b2J"),
        ("a\u202etxt.exe", r"a\u202etxt.exe"),
        ("two\r\nlines", "two lines"),
        ("Größe 10⁻³ ≤ β, σ", "Größe 10⁻³ ≤ β, σ"),
    ],
)
def test_control_characters_are_escaped(raw, shown):
    assert visible(" ".join(raw.split())) == shown


@pytest.mark.parametrize(
    "words",
    [["data", "name=\x1b[31mred"], ["train", "\x1b]0;title\x07.yaml"], ["config", "\x9b2J=1"]],
)
def test_an_error_does_not_bring_control_characters_to_the_terminal(words, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    shown = capsys.readouterr().err
    assert stop.value.code == 2
    assert shown.count("\n") == 1
    assert shown.rstrip("\n").isprintable()


def test_a_system_error_does_not_either(monkeypatch, capsys):
    def fails(words):
        raise OSError("no \x1b[31mspace")

    monkeypatch.setitem(cli.COMMANDS, "data", cli.COMMANDS["data"]._replace(run=fails))
    with pytest.raises(SystemExit) as stop:
        cli.main(["data"])
    assert (stop.value.code, capsys.readouterr().err) == (
        1,
        "vqvae: no \\x1b[31mspace (vqvae --debug shows where)\n",
    )
