"""The command that speaks."""

from collections.abc import Sequence
from pathlib import Path

from vqvae_lightning.cli import one_run


def say(arguments: Sequence[str]) -> Path:
    """`vqvae say RUN TEXT to=FILE.wav`; returns the file."""
    from vqvae_lightning.config import ConfigError, SayOptions, check_text, is_setting

    plain = [argument for argument in arguments if not is_setting(argument)]
    settings = [argument for argument in arguments if is_setting(argument)]
    if not 1 <= len(plain) <= 2:
        got = f"{len(plain)} of them" if plain else "none"
        raise ConfigError(f"text: got {got}, wanted one, alone or after a run folder")
    *folders, text = plain
    check_text(text, "text")
    run, chosen = one_run.run_and_options([*folders, *settings], SayOptions)
    from vqvae_lightning.evaluation.say import say as speak

    path = speak(run, text, chosen)
    one_run.say("sound", path)
    return path
