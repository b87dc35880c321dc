"""A group of images that share a stream: codes, then pixels where the file is lossless."""

import zlib

import torch
from torch import Tensor

from vqvae_lightning.codec.coded import Decoded
from vqvae_lightning.codec.codes import CodeCoder, Codes
from vqvae_lightning.codec.container import Group
from vqvae_lightning.codec.pixels import PixelCoder, Pixels
from vqvae_lightning.codec.streams import Reader, Writer


class GroupCoder:
    """Codes (n, T), and pixels (n, C, H, W) of a lossless file, to a group and back."""

    def __init__(self, codes: CodeCoder, pixels: PixelCoder | None = None) -> None:
        self.codes, self.pixels = codes, pixels

    def write(self, codes: Codes, labels: Codes | None, pixels: Pixels | None = None) -> Group:
        """The group of images; pixels of a lossy file are not looked at."""
        writer = Writer()
        self.codes.write(writer, codes, labels)
        if self.pixels is None:
            return Group(writer.data(), check_of(codes, None))
        assert pixels is not None
        self.pixels.write(writer, self._latents(self.pixels, codes), pixels)
        return Group(writer.data(), check_of(codes, pixels))

    def read(self, group: Group, n: int) -> Decoded:
        """The codes and, of a lossless file, the pixels of a group.

        Raises ValueError unless they are those that were coded.
        """
        reader = Reader(group.data)
        codes, pixels = self.codes.read(reader, n), None
        if self.pixels is not None:
            pixels = self.pixels.read(reader, self._latents(self.pixels, codes))
        if check_of(codes, pixels) != group.check:
            raise ValueError("codec: another CRC32")
        return Decoded(codes, pixels)

    @torch.no_grad()
    def _latents(self, coder: PixelCoder, codes: Codes) -> Tensor:
        """z (n, D, h, w) of codes (n, T), float64."""
        grids = self.codes.layout.unflatten(torch.from_numpy(codes))
        return coder.net.bottleneck.codes_to_latents(grids)


def check_of(codes: Codes, pixels: Pixels | None) -> int:
    """The CRC32 of what a group decodes to."""
    found = zlib.crc32(codes.astype("<i4").tobytes())
    return found if pixels is None else zlib.crc32(pixels.tobytes(), found)
