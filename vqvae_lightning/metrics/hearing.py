"""How well speech is understood, and how good it sounds: STOI and PESQ of waveforms.

```
originals, waveforms found ──► one loudness ──► joined to 8 s ──► STOI, PESQ of each ──► mean
```

Both need the extra `speech`. A recording of a word is too short for either, so recordings are
joined in their order, each at one loudness: what a window does not keep is not judged.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Waveform = NDArray[np.float64]  # n samples
SECONDS = 8.0  # of joined recordings, at least: what PESQ was made for (ITU-T P.862, § 7)
LOUDNESS = 0.05  # root mean square of each recording, of full scale
RATES = (8000, 16000)  # samples per second for which narrow-band PESQ is defined
WORST = 1.0  # PESQ of what holds no utterance


def hearing(
    originals: Sequence[Waveform], found: Sequence[Waveform], rate: int
) -> dict[str, float]:
    """`stoi` and `pesq` of waveforms beside the recordings that they are of.

    STOI (Taal et al. 2011, "An algorithm for intelligibility prediction of time-frequency weighted
    noisy speech") is 1 for the original. PESQ is MOS-LQO of the narrow band (ITU-T P.862.1), 4.55
    for the original.

    Args:
        originals: recordings, (n,) each.
        found: waveforms; one that is shorter than its recording ends in silence, and one that is
            longer is cut off.
        rate: samples per second of all, 8000 or 16000.
    """
    from pesq import PesqError, pesq
    from pystoi import stoi

    assert rate in RATES, rate
    understood, quality = [], []
    for original, other in joined(originals, found, rate):
        understood.append(float(stoi(original, other, rate)))
        value = float(pesq(rate, original, other, "nb", on_error=PesqError.RETURN_VALUES))
        quality.append(value if value > WORST else WORST)  # also of NaN
    return {"stoi": float(np.mean(understood)), "pesq": float(np.mean(quality))}


def joined(
    originals: Sequence[Waveform], found: Sequence[Waveform], rate: int
) -> Iterator[tuple[Waveform, Waveform]]:
    """Pairs of 8 s or a little more: recordings in their order, and what was found of them.

    Recordings at the end that do not fill 8 s are left out, unless there are no others.
    """
    parts: list[tuple[Waveform, Waveform]] = []
    whole = False
    for original, other in zip(originals, found, strict=True):
        fitted = np.zeros(len(original))
        fitted[: len(other)] = other[: len(original)]
        parts.append((_at_one_loudness(original), _at_one_loudness(fitted)))
        if sum(len(part) for part, _ in parts) >= SECONDS * rate:
            yield _concatenated(parts)
            parts, whole = [], True
    if parts and not whole:
        yield _concatenated(parts)


def _concatenated(parts: Sequence[tuple[Waveform, Waveform]]) -> tuple[Waveform, Waveform]:
    originals, found = zip(*parts, strict=True)
    return np.concatenate(originals), np.concatenate(found)


def _at_one_loudness(waveform: Waveform) -> Waveform:
    loudness = float(np.sqrt(np.square(waveform).mean())) if len(waveform) else 0.0
    scaled: Waveform = waveform * (LOUDNESS / loudness) if loudness > 1e-6 else waveform
    return scaled
