"""STOI and PESQ of joined recordings: what is perfect, what is worse, and how they are joined."""

import numpy as np
import pytest

from vqvae_lightning.metrics.hearing import LOUDNESS, hearing, joined

RATE = 8000


def word(seed: int, seconds: float = 0.7) -> np.ndarray:
    """A waveform with the slow changes of speech: harmonics under a swelling noise."""
    random = np.random.default_rng(seed)
    times = np.arange(int(seconds * RATE)) / RATE
    pitch = 110 + 60 * random.random()
    voice = sum(np.sin(2 * np.pi * k * pitch * times + random.random()) / k for k in range(1, 20))
    swell = np.sin(np.pi * times / seconds) * (1 + 0.8 * np.sin(2 * np.pi * 5 * times))
    return 0.1 * voice * swell + random.normal(0, 1e-3, len(times))


WORDS = [word(seed) for seed in range(24)]


def test_recordings_are_joined_to_eight_seconds_each_at_one_loudness() -> None:
    pairs = list(joined(WORDS, [2 * word for word in WORDS], RATE))
    assert [len(original) for original, _ in pairs] == [12 * len(WORDS[0])] * 2
    for original, other in pairs:
        np.testing.assert_allclose(original, other)
        loudness = np.sqrt(np.square(original[: len(WORDS[0])]).mean())
        assert loudness == pytest.approx(LOUDNESS)


def test_fewer_than_eight_seconds_are_judged_alone_and_a_rest_is_left_out() -> None:
    assert len(list(joined(WORDS[:3], WORDS[:3], RATE))) == 1
    assert len(list(joined(WORDS[:14], WORDS[:14], RATE))) == 1


def test_a_waveform_is_fitted_to_the_length_of_its_recording() -> None:
    ((original, other),) = joined(WORDS[:2], [WORDS[0][:100], np.ones(99_999)], RATE)
    assert len(original) == len(other)
    assert not other[100 : len(WORDS[0])].any()


def test_silence_is_no_fault() -> None:
    ((_, other),) = joined(WORDS[:1], [np.zeros(0)], RATE)
    assert not other.any()


class TestMeasures:
    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        pytest.importorskip("pesq")
        pytest.importorskip("pystoi")

    def test_an_original_is_perfect_and_noise_makes_it_worse(self) -> None:
        words, random = WORDS[:12], np.random.default_rng(0)
        perfect = hearing(words, words, RATE)
        assert perfect["stoi"] == pytest.approx(1, abs=1e-6)
        assert perfect["pesq"] > 4.5
        values = [
            hearing(words, [w + random.normal(0, size, len(w)) for w in words], RATE)
            for size in (0.01, 0.1)
        ]
        for name in ("stoi", "pesq"):
            assert perfect[name] > values[0][name] > values[1][name]

    def test_silence_has_the_worst_values(self) -> None:
        found = hearing(WORDS[:12], [np.zeros(1)] * 12, RATE)
        assert found["pesq"] == 1
        assert found["stoi"] < 0.1
