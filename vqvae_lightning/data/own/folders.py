"""A folder of image files: flat, or with a folder for each class, or for each split and class.

```
photos/a.jpg            photos/cat/a.jpg            photos/train/cat/a.jpg
photos/b.png            photos/dog/old/b.png        photos/test/dog/b.png
one class, no name      cat, dog                    train: cat; test: dog
```

Ignored without a word: names that begin with a dot, and what systems leave behind (`IGNORED`).
Everything else that is not decoded is named. Links to files are followed, links to folders are not.
"""

import errno
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from vqvae_lightning.config.values import visible
from vqvae_lightning.data.formats import DataError
from vqvae_lightning.data.own.listing import SPLIT_OF, Collection, LeftOut, stamp_of, summary
from vqvae_lightning.data.own.pixels import NO_FILE, NO_IMAGE, Picture, Size, cannot_be_read, decode

IGNORED = {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini"}  # in small letters
IMAGES = (
    "png apng jpg jpeg jpe jfif gif webp tif tiff bmp ppm pgm pbm pnm avif jp2 j2k mpo ico tga",
    "heic heif",
)
OTHERS = (
    "txt text md rst tex csv tsv json jsonl ndjson xml html htm css js yaml yml toml ini cfg log",
    "py ipynb sh c h cpp m mat npy npz pkl pickle pt pth ckpt safetensors h5 hdf5 parquet arrow",
    "feather tfrecord lmdb mdb db sqlite zip tar gz tgz bz2 xz 7z rar pdf doc docx xls xlsx ppt",
    "pptx odt ps eps svg svgz ai psd mp3 wav flac ogg mp4 mov avi mkv webm lnk url exe dll so",
    "sha256 md5 bak tmp part crdownload xmp aae cache",
)
IMAGE_ENDINGS = frozenset(" ".join(IMAGES).split())
# Files that are left out unopened. What any other ending means, its content says when it is read.
OTHER_ENDINGS = frozenset(" ".join(OTHERS).split())
# What marks a folder that holds pictures made by this program: `data.path=.` may hold runs.
OWN_RECORDS = {"run.json", "store.json"}
NO_CLASS, NO_SPLIT = "lies in no class folder", "lies in no folder of a split"


@dataclass
class Tree:
    """The files and folders below a folder, by their relative names."""

    # Name → size in bytes, time of change in ns.
    files: dict[str, tuple[int, int]] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)  # names end with a slash
    left_out: list[LeftOut] = field(default_factory=list)


def walk(root: Path) -> Tree:
    """Everything below a folder that is not hidden; no file is opened.

    Raises DataError if the folder itself cannot be read. One inside it is left out and named.
    """
    tree, waiting = Tree(), [""]
    while waiting:
        inside = waiting.pop()
        try:
            with os.scandir(os.path.join(root, inside)) as scanned:
                entries = list(scanned)
            if inside and not OWN_RECORDS.isdisjoint(entry.name for entry in entries):
                tree.left_out.append((inside, "is a run, or a store, of this program"))
                continue
            for entry in entries:
                if entry.name[0] == "." or entry.name.lower() in IGNORED:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(f"{inside}{entry.name}/")
                    tree.folders.append(waiting[-1])
                else:
                    _note(entry, inside + entry.name, tree)
        except OSError as error:
            if not inside:
                raise DataError(f"{visible(str(root))}: {cannot_be_read(error)}") from error
            tree.left_out.append((inside, cannot_be_read(error)))
    tree.folders.sort()
    return tree


def _note(entry: "os.DirEntry[str]", name: str, tree: Tree) -> None:
    """Puts an entry that is no folder among the files, or among what is left out."""
    try:
        status = entry.stat()
    except OSError as error:
        lost = entry.is_symlink() and error.errno in (errno.ENOENT, errno.ELOOP)
        tree.left_out.append((name, "is a link to nothing" if lost else cannot_be_read(error)))
        return
    if stat.S_ISREG(status.st_mode):
        tree.files[name] = (status.st_size, status.st_ctime_ns)
    else:
        is_folder = stat.S_ISDIR(status.st_mode)
        tree.left_out.append((name, "is a link to a folder" if is_folder else NO_FILE))


def ending(name: str) -> str:
    """The ending of a file's name, in small letters without its dot."""
    _, dot, last = name.rpartition(".")
    return last.lower() if dot else ""


class ImageFolder(Collection):
    """Image files below a folder, in the order of their names.

    A class is the first folder of a name; deeper folders belong to it. Folders at the top that are
    named as splits are splits where one is for training and another is not, or where there is no
    other folder: a class may be called `train`. Classes are then those of all splits together. With
    classes, a file in none of them is left out.

    Raises DataError for a folder without images, and for splits of which none is for training.
    """

    wanted: ClassVar[str] = "images"
    no_wanted: ClassVar[str] = NO_IMAGE  # the reason for a file that its ending leaves out

    def __init__(self, root: Path, tree: Tree) -> None:
        self.root = Path(root).absolute()
        self.title = self.root.resolve().name or "images"
        self.left_out = list(tree.left_out)
        found = sorted(name for name in tree.files if self.may_be(ending(name)))
        self.left_out += [(name, self.no_wanted) for name in tree.files.keys() - set(found)]
        splits = _splits(root, found)
        level = 1 if splits else 0  # the class is this part of a name
        images = [name for name in found if not splits or name.partition("/")[0] in splits]
        has_classes = any(name.count("/") > level for name in images)
        self.left_out += [(name, NO_SPLIT) for name in set(found) - set(images)]
        if has_classes:
            self.left_out += [(name, NO_CLASS) for name in images if name.count("/") <= level]
            images = [name for name in images if name.count("/") > level]
            self._name_empty_folders(tree, found, level + 1)
        self.left_out.sort()
        if not images:
            why = f" ({summary(self.left_out)})" if self.left_out else ""
            raise DataError(
                f"{visible(str(root))}: got a folder without {self.wanted}{why}, wanted some"
            )
        self.names: Sequence[str] = images
        labels = [name.split("/", level + 1)[level] if has_classes else "" for name in images]
        self.classes = tuple(sorted(set(labels)))
        position = {name: number for number, name in enumerate(self.classes)}
        self.labels = np.array([position[name] for name in labels], np.int64)
        self.splits = np.zeros(len(images), np.uint8)
        if splits:
            self.splits[:] = [splits[name.partition("/")[0]] for name in images]
        self.stamp = stamp_of(((name, *tree.files[name]) for name in images), self.left_out)

    @staticmethod
    def may_be(kind: str) -> bool:
        """Whether a file whose name ends so is opened."""
        return kind not in OTHER_ENDINGS

    def read(self, index: int, channels: int, size: Size | None = None) -> Picture:
        return decode(self.root / self.names[index], channels, size)

    def _name_empty_folders(self, tree: Tree, images: Sequence[str], depth: int) -> None:
        """Leaves out each folder of up to this depth that holds no image, but none inside it."""
        heads = (folder.split("/")[:depth] for folder in _folders_of(images))
        full = {"/".join(head[:n]) + "/" for head in heads for n in range(1, depth + 1)}
        known = full | {name for name, _ in tree.left_out}
        for folder in tree.folders:
            parent = folder[:-1].rpartition("/")[0] + "/"
            is_due = folder.count("/") <= depth and (parent == "/" or parent in full)
            if is_due and folder not in known:
                self.left_out.append((folder, "holds no image"))


def _folders_of(images: Sequence[str]) -> set[str]:
    return {name.rpartition("/")[0] for name in images}


def _splits(root: Path, images: Sequence[str]) -> dict[str, int]:
    """The folders at the top that are splits → positions in SPLITS; none if they are classes.

    Raises DataError if all of them are splits and none is for training.
    """
    tops = {folder.partition("/")[0] for folder in _folders_of(images) if folder}
    splits = {top: SPLIT_OF[top.lower()] for top in sorted(tops) if top.lower() in SPLIT_OF}
    if splits and len(splits) == len(tops) and 1 not in splits.values():
        got = ", ".join(map(visible, splits))
        raise DataError(f"{visible(str(root))}: got {got} without a folder train, wanted one")
    several = len(set(splits.values())) > 1
    return splits if 1 in splits.values() and (several or len(splits) == len(tops)) else {}
