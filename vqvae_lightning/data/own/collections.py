"""A person's own images: what a path holds, listed before any is decoded.

| path | is |
|---|---|
| a folder of image files | `ImageFolder`: flat, or with folders of classes, or of splits |
| a folder of WAV, FLAC or OGG files | `SoundFolder`: recordings as log-mel windows |
| `.npy`, `.npz` | `ArrayFile`: uint8 arrays, labels and splits by their names |
| `.parquet`, or a folder of them | `ParquetFiles`, as Hugging Face's datasets writes them |
"""

import os
import stat
from pathlib import Path

from vqvae_lightning.config.data import SoundConfig
from vqvae_lightning.config.values import visible
from vqvae_lightning.data.formats import DataError
from vqvae_lightning.data.own.arrays import ArrayFile
from vqvae_lightning.data.own.folders import IMAGE_ENDINGS, ImageFolder, ending, walk
from vqvae_lightning.data.own.listing import SPLITS, Collection, summary
from vqvae_lightning.data.own.parquet import ParquetFiles
from vqvae_lightning.data.own.pixels import NO_IMAGE, cannot_be_read
from vqvae_lightning.data.own.recordings import SOUND_ENDINGS, SoundFolder

__all__ = ["SPLITS", "Collection", "open_collection", "summary"]


def open_collection(path: Path, sound: SoundConfig | None = None) -> Collection:
    """The images at a path, none of which is decoded; `sound` is the window of recordings.

    Raises DataError: nothing there, no image in it, or a file of no known kind.
    """
    where = visible(str(path))
    try:
        status = os.stat(path)
    except OSError as error:
        raise DataError(f"{where}: {cannot_be_read(error)}, wanted images") from error
    if stat.S_ISDIR(status.st_mode):
        return _open_folder(Path(path), sound or SoundConfig())
    kind = ending(Path(path).name)
    if stat.S_ISREG(status.st_mode) and kind in ("npy", "npz"):
        return ArrayFile(Path(path))
    if stat.S_ISREG(status.st_mode) and kind == "parquet":
        file = Path(path).absolute()
        known = {file.name: (status.st_size, status.st_ctime_ns)}
        return ParquetFiles(file.parent, known, file.stem)
    got = f"a .{visible(kind)} file" if kind else "a file without an ending"
    got = got if stat.S_ISREG(status.st_mode) else "no regular file"
    raise DataError(f"{where}: got {got}, wanted a folder, .npy, .npz or .parquet")


def _open_folder(path: Path, sound: SoundConfig) -> Collection:
    """Image files, or Parquet files, or recordings, where no file has the ending of an image."""
    tree = walk(path)
    endings = {name: ending(name) for name in tree.files}
    kinds = set(endings.values())
    if kinds & SOUND_ENDINGS and kinds.isdisjoint({"parquet", *IMAGE_ENDINGS}):
        return SoundFolder(path, tree, sound.resolved())
    parquet = {name: tree.files[name] for name, kind in endings.items() if kind == "parquet"}
    if not parquet or not IMAGE_ENDINGS.isdisjoint(endings.values()):
        return ImageFolder(path, tree)
    others = [(name, NO_IMAGE) for name in tree.files if name not in parquet]
    title = path.absolute().resolve().name or "images"
    return ParquetFiles(path, parquet, title, sorted(tree.left_out + others))
