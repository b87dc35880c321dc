"""The commands that print lists: settings, runs, and the script of a shell's completion."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # imported by each command for itself, so that every one answers at once
    from vqvae_lightning.comparison.overview import Overview
    from vqvae_lightning.config.listing import Row

SHELLS = ("bash", "zsh")
MISSING = "–"


def settings(arguments: Sequence[str]) -> "list[Row]":
    """`vqvae settings model.quantizer`; prints and returns the rows of that setting or section."""
    from vqvae_lightning.cli.reference import kept
    from vqvae_lightning.config import ConfigError, visible
    from vqvae_lightning.config.listing import listed, owners_note

    everything = kept("experiment")
    if len(arguments) > 1:
        raise ConfigError(f"settings: got {len(arguments)} names, wanted one at most")
    name = arguments[0].strip(".") if arguments else ""
    found = [row for row in everything if f"{row.key}.".startswith(f"{name}." if name else "")]
    found = found or [row for row in everything if name in row.key.split(".")]
    found = found or [row for row in everything if name in row.key or name in row.meaning]
    if not found:
        known = {part for row in everything for part in (row.key, *row.key.split("."))}
        nearest = difflib.get_close_matches(name, sorted(known), n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else "`vqvae settings` lists all"
        raise ConfigError(f"settings: there is no {visible(name)}; {hint}")
    print(f"{owners_note(found)}\n\n{listed(found)}", end="")
    return found


def described(name: str) -> str:
    """The settings of an experiment or of a command's options, as the end of a command's help."""
    from vqvae_lightning.cli.reference import kept
    from vqvae_lightning.config.listing import listed, owners_note

    found = kept(name)
    return f"{owners_note(found)}\n\n{listed(found)}"


def runs(arguments: Sequence[str]) -> "list[Overview]":
    """`vqvae runs`; prints and returns a line for each run folder, oldest first."""
    from vqvae_lightning.comparison.overview import overviews
    from vqvae_lightning.config import RunsOptions, options, visible

    chosen = options(RunsOptions, arguments)
    found = overviews(Path(chosen.runs), chosen.dataset, chosen.path)
    if not found:
        such = [text for text in (chosen.dataset, chosen.path) if text is not None]
        of = f" of {' and '.join(such)}" if such else ""
        print(f"runs      there are none{visible(of)} in {chosen.runs}/")
    else:
        print("\n".join(_columns(_table(found))))
    return found


def _table(found: "Sequence[Overview]") -> list[list[str]]:
    """A header and a line of cells for each run. A figure that no run has is no column."""
    from vqvae_lightning.comparison.overview import FIGURES
    from vqvae_lightning.config import visible
    from vqvae_lightning.kinds import KINDS
    from vqvae_lightning.metrics.measures import sign

    measures = [m for m in FIGURES if any(m.key in run.figures for run in found)]
    heads = [f"{measure.title} {measure.unit}".strip() for measure in measures]
    lines = [["run", "status", "kind", "dataset", "steps", "split", *heads]]
    for run in found:
        figures = [
            sign(m.key, run.figures) + format(run.figures[m.key], m.format)
            if m.key in run.figures
            else MISSING
            for m in measures
        ]
        record = run.record
        texts = [run.name, run.status, KINDS[record.kind].title, record.dataset, _steps(run)]
        lines.append([visible(text) for text in (*texts, run.split or MISSING, *figures)])
    return lines


def _steps(run: "Overview") -> str:
    """The steps done, and of an unfinished run the planned ones: `300/1,200`."""
    known = [MISSING if count is None else f"{count:,}" for count in (run.step, run.steps)]
    return known[0] if run.step == run.steps else "/".join(known)


def _columns(lines: Sequence[Sequence[str]]) -> list[str]:
    """Lines of cells as text in columns, two blanks apart."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def completion(arguments: Sequence[str]) -> str:
    """`vqvae completion bash`; prints and returns the script for that shell."""
    from argcomplete.shell_integration import shellcode

    from vqvae_lightning.config import ConfigError, visible

    shell = " ".join(arguments)
    if shell not in SHELLS:
        raise ConfigError(f"completion: got '{visible(shell)}', wanted one of {', '.join(SHELLS)}")
    script: str = shellcode(["vqvae"], shell=shell)
    print(script)
    return script
