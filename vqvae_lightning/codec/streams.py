"""A stream of symbols, each with its table: constriction's range coder, and the check for it.

First in, first out, so that a model may ask for the symbols so far before it says how the next one
is distributed.
"""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqvae_lightning.codec.tables import Weights
from vqvae_lightning.config import ConfigError

WORD = 4  # bytes of a word of a stream
Symbols = NDArray[np.int32]


def coder_version() -> str:
    """The version of constriction, of which a file records the part that decides its bits.

    Raises ConfigError, one line, unless it is installed.
    """
    try:
        return version("constriction")
    except PackageNotFoundError:
        raise ConfigError(
            "codec: needs the package constriction, which is not installed; run `pip install"
            " 'vqvae_lightning[codec]'`, here with `--constraint .ci/constraints.txt`"
        ) from None


def coder_series(found: str) -> str:
    """What constriction raises when its output changes: 0.5 of 0.5.0, and 1 of 1.2.0."""
    first, second, *_ = [*found.split("."), ""]
    return f"{first}.{second}" if first == "0" else first


def models(weights: Weights) -> tuple[Any, ...]:
    """constriction's arguments for weights (K,), or (n, K): its model, and a row for each symbol.

    The weights sum to 2^24 − K. With perfect=False constriction then scales them by exactly 1 and
    adds 1 to each, so that its frequencies are integers that are known here.
    """
    import constriction

    categorical, given = constriction.stream.model.Categorical, weights.astype(np.float64)
    if given.ndim == 1:
        return (categorical(given, perfect=False),)
    return categorical(perfect=False), given


def words_of(data: bytes) -> NDArray[np.uint32]:
    """The words of a stream. Raises ValueError for a part of one."""
    if len(data) % WORD:
        raise ValueError(f"codec: got a stream of {len(data)} bytes, wanted whole words")
    return np.frombuffer(data, "<u4").astype(np.uint32)


class Writer:
    """Symbols to bytes. Where there is one symbol only, nothing is written."""

    def __init__(self) -> None:
        import constriction

        self._coder = constriction.stream.queue.RangeEncoder()

    def write(self, symbols: Symbols, weights: Weights) -> None:
        """Appends symbols (n,), each by its row of weights (n, K), or all by weights (K,)."""
        if len(symbols) and weights.shape[-1] > 1:
            self._coder.encode(symbols.astype(np.int32), *models(weights))

    def data(self) -> bytes:
        """All that was written."""
        return bytes(self._coder.get_compressed().astype("<u4").tobytes())


class Reader:
    """Bytes back to symbols. Raises ValueError for bytes that no `Writer` wrote by such weights."""

    def __init__(self, data: bytes) -> None:
        import constriction

        self._coder = constriction.stream.queue.RangeDecoder(words_of(data))

    def read(self, n: int, weights: Weights) -> Symbols:
        """The next symbols (n,), by weights (n, K) or (K,)."""
        if not n or weights.shape[-1] == 1:
            return np.zeros(n, np.int32)
        model, *rows = models(weights)
        try:
            found = self._coder.decode(model, *(rows or [n]))
        except AssertionError as error:
            raise ValueError("codec: bytes that were coded by other tables") from error
        return np.asarray(found, np.int32)


class Stack:
    """Symbols to bytes and back, last in, first out: what bits-back coding needs.

    Where there is one symbol only, nothing is pushed.
    """

    def __init__(self, data: bytes = b"") -> None:
        import constriction

        self._coder = (
            constriction.stream.stack.AnsCoder(words_of(data))
            if data
            else (constriction.stream.stack.AnsCoder())
        )

    @property
    def bits(self) -> int:
        """How many bits it holds."""
        return int(self._coder.num_bits())

    def push(self, symbols: Symbols, weights: Weights) -> None:
        """Adds symbols (n,), by weights (n, K) or (K,), such that `pop` gives them in order."""
        if len(symbols) and weights.shape[-1] > 1:
            self._coder.encode_reverse(symbols.astype(np.int32), *models(weights))

    def pop(self, n: int, weights: Weights) -> Symbols:
        """Takes symbols (n,) off, by the weights that they were pushed by, or by any others."""
        if not n or weights.shape[-1] == 1:
            return np.zeros(n, np.int32)
        model, *rows = models(weights)
        return np.asarray(self._coder.decode(model, *(rows or [n])), np.int32)

    def data(self) -> bytes:
        """All that it holds."""
        return bytes(self._coder.get_compressed().astype("<u4").tobytes())
