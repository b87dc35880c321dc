"""What a mistyped name may have meant."""

import difflib
from collections.abc import Collection

SHOWN = 8  # names of a list


def meant(name: str, known: Collection[str]) -> str:
    """`did you mean …?` with the nearest of the known names, or else what there is."""
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"did you mean {near[0]}?"
    rest = len(known) - SHOWN
    more = f" and {rest} more" if rest > 0 else ""
    return f"known: {', '.join(list(known)[:SHOWN])}{more}"
