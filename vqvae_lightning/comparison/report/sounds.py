"""The sounds of a report: which of a run's, and in how many bytes."""

import base64
import io
import wave
from collections.abc import Collection, Sequence
from pathlib import Path

from vqvae_lightning.comparison.rows import Row
from vqvae_lightning.config import visible
from vqvae_lightning.wav import wav_file

# Of all sounds together. base64 makes 4 MB of them, beside the 2 MB of the page without sounds.
SOUND_BYTES = 3_000_000
RATES = range(4_000, 48_001)  # samples per second that a recording may have


def encode_sounds(
    rows: Sequence[Row], shown: Collection[tuple[int, str]], limit: int = SOUND_BYTES
) -> dict[tuple[int, str], str]:
    """Addresses of sounds by run number and name, in the order of `shown`, as many as fit.

    Args:
        rows: the runs.
        shown: number and name of the pictures that the page has: a sound stands beside its own.
        limit: bytes of all WAV files together; base64 makes four of three.
    """
    files = sound_files(rows)
    found: dict[tuple[int, str], str] = {}
    for key in shown:
        data = open_sound(files[key], limit) if key in files else None
        if data is not None:
            limit -= len(data)
            found[key] = f"data:audio/wav;base64,{base64.b64encode(data).decode()}"
    return found


def sound_files(rows: Sequence[Row]) -> dict[tuple[int, str], Path]:
    """The WAV files of runs, by run number and name."""
    return {(row.number, path.stem): path for row in rows for path in row.run.sounds()}


def open_sound(path: Path, limit: int = SOUND_BYTES) -> bytes | None:
    """The samples of a WAV file under a header of our own: of 16 bits, one channel.

    None, after one line, for a file that is none. None without a line for one of more than `limit`
    bytes, of which nothing is read.
    """
    try:
        if path.stat().st_size > limit:
            return None
        with path.open("rb") as file:
            data = file.read(limit)
        with wave.open(io.BytesIO(data)) as sound:
            form = sound.getnchannels(), sound.getsampwidth()
            rate, samples = sound.getframerate(), sound.readframes(sound.getnframes())
        if form != (1, 2) or rate not in RATES or not samples:
            raise wave.Error(
                f"it has {form[0]} channels of {8 * form[1]} bits, {rate} Hz and {len(samples)}"
                " bytes of samples"
            )
    except (OSError, wave.Error, EOFError) as error:
        reason = str(error) or "it ends too soon"
        print(f"left out  {visible(f'{path}: {reason}')}", flush=True)
        return None
    return wav_file(samples[: len(samples) // 2 * 2], rate)
