"""What recordings say: a text for each label, after the name of who says it where that is known."""

from collections.abc import Iterable

BETWEEN = ": "  # the speaker and what is said


def said_by(speaker: str, text: str) -> str:
    """A text with its speaker: `george: four`."""
    return f"{speaker}{BETWEEN}{text}"


def speakers_of(texts: Iterable[str]) -> list[str]:
    """The speakers that texts name, each once, in their order; none unless each text names one."""
    named = [text.partition(BETWEEN) for text in texts if text]
    if not all(between for _, between, _ in named):
        return []
    return list(dict.fromkeys(speaker for speaker, _, _ in named))
