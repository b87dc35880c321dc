"""How to read a table: sentences about the runs in it, and only these."""

import math
from collections.abc import Iterable, Sequence

from vqvae_lightning.comparison.rows import Row
from vqvae_lightning.kinds import KINDS

SHOWN = 20  # names of labels in a sentence


def notes(rows: Sequence[Row]) -> Iterable[str]:
    """What a reader must know to read the numbers of these rows."""
    for kind in KINDS.values():
        models = [row.settings["model"] for row in rows if row.kind.name == kind.name]
        yield from (note.text for note in kind.notes if any(map(note.is_for, models)))
    labels = {tuple(row.record.images.classes) for row in rows if row.conditional}
    if labels:
        most = " or ".join(f"{math.log2(count):.1f}" for count in sorted(set(map(len, labels))))
        yield (
            "Class-conditional: the rate is of latents given the label. Without labels at"
            f" most {most} bits per image come on top, so its sum is not ranked against the others."
        )
    for names in sorted(labels):
        if not all(map(str.isdigit, names)):
            shown = ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
            yield f"The labels of the images, in the order of the samples' rows: {shown}."
    if not all(row.exact for row in rows):
        yield (
            "Masked prior: its rate is an upper bound on −log P(codes), shown with ≤, and what it"
            " saves with ≥. Bounds are not ranked against exact rates of codes; sums are, for each"
            " is a bound on −log p(x)."
        )
    if len({str(row.likelihood) for row in rows if row.likelihood}) > 1:
        yield (
            "The runs differ in p(x|z): their distortions are on different scales, and are not"
            " ranked."
        )
    if any(row.kind.stage == 2 and "distortion" not in row.values for row in rows):
        yield (
            "A prior without distortion: the run of its first stage is gone, or was trained again"
            " since."
        )
