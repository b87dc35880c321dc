"""A bar of images."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def progress(items: Sequence[Item], sizes: Sequence[int], doing: str = "") -> Iterator[Item]:
    """The items, with a bar on a terminal that says how many images are done.

    Args:
        items: of so many images each.
        sizes: the images of each.
        doing: the words before the bar.
    """
    from tqdm import tqdm

    with tqdm(total=sum(sizes), unit="image", desc=doing, disable=None, leave=False) as bar:
        for item, size in zip(items, sizes, strict=True):
            yield item
            bar.update(size)
