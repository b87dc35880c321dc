"""A person's own images in a folder of a test, and what opening them gives."""

import io
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress

import pytest
from PIL import Image

from vqvae_lightning.config.values import visible
from vqvae_lightning.data.formats import DataError
from vqvae_lightning.data.own.collections import SPLITS, open_collection
from vqvae_lightning.data.own.pixels import ImageError


def png(value=0, size=(3, 2), kind="PNG"):
    buffer = io.BytesIO()
    Image.new("L", size, value).save(buffer, kind)
    return buffer.getvalue()


def place(root, *names, data=None):
    """Files of different grey values, by their relative names."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number) if data is None else data)
    return root


def classes_of(found):
    """Name of each image → its class."""
    return {
        name: found.classes[label] for name, label in zip(found.names, found.labels, strict=True)
    }


def splits_of(found):
    return {name: SPLITS[split] for name, split in zip(found.names, found.splits, strict=True)}


def values(found, *arguments):
    """The first value of every image."""
    return [int(found.read(n, 1, *arguments).pixels[0, 0, 0]) for n in range(len(found))]


def refusal(path):
    with pytest.raises(DataError) as caught:
        open_collection(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(visible(str(path)))
    return message


def unread(found, index):
    with pytest.raises(ImageError) as caught:
        found.read(index, 1)
    return str(caught.value)


def check_damaged(path):
    """A damaged file is refused in a line, or opened, and then each image is read or refused."""
    try:
        found = open_collection(path)
    except DataError as error:
        message = str(error)
        assert "\n" not in message
        return
    for n in range(len(found)):
        with suppress(ImageError):
            found.read(n, 1)


def value_of(found, index):
    return int(found.read(index, 1).pixels[0, 0, 0])


def check_in_processes(found, wanted, method="fork"):
    """Reads in this process first, so that a fork inherits whatever is open."""
    assert values(found) == wanted
    order = [*range(len(found)), *reversed(range(len(found)))]
    with ProcessPoolExecutor(2, multiprocessing.get_context(method)) as pool:
        got = list(pool.map(value_of, [found] * len(order), order))
    assert got == [wanted[n] for n in order]
