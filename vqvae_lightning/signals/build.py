"""From what a data set says of itself to its signal: the one place that tells them apart."""

from vqvae_lightning.config import MelWindow
from vqvae_lightning.signals.image import Images
from vqvae_lightning.signals.mel import Vocoder
from vqvae_lightning.signals.signal import Signal
from vqvae_lightning.signals.sound import Recordings


def signal_of(sound: MelWindow | None, vocoder: Vocoder | None = None) -> Signal:
    """The signal of recordings with these windows, heard through a vocoder, by default
    Griffin-Lim; that of images without any.
    """
    return Images() if sound is None else Recordings(sound, vocoder)
