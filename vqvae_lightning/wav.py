"""The bytes of a WAV file of one channel of 16 bits."""

import io
import wave


def wav_file(samples: bytes, rate: int) -> bytes:
    """Little-endian samples, so many per second, under a header."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(samples)
    return buffer.getvalue()
