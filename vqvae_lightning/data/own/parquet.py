"""Images in Parquet files, as Hugging Face's datasets writes them; needs the extra `parquet`.

The images are a column of `struct{bytes, path}` or of binary values, each the bytes of an image
file. The labels are a column of integers, booleans or texts, or of floating point where all values
are whole: so pandas writes integers of which some are missing. The names of classes may stand in
the schema. One row group at a time is in memory.
"""

import json
import os
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqvae_lightning.config.values import one_line, visible
from vqvae_lightning.data.formats import DataError
from vqvae_lightning.data.own.listing import SPLIT_OF, Collection, LeftOut, RowNames, stamp_of
from vqvae_lightning.data.own.pixels import (
    DAMAGED,
    ImageError,
    Picture,
    Size,
    cannot_be_read,
    decode,
)

IMAGES = ("image", "img", "images", "picture", "pixel_values")  # the first of them that is there
LABELS = ("label", "labels", "fine_label", "class", "target", "y")
NO_LABEL, NO_SPLIT = "has no label", "is of no known split"


@dataclass(frozen=True)
class Columns:
    """The columns of a file that are of use."""

    image: str
    label: str | None
    classes: tuple[str, ...] | None  # the names that the schema gives to labels 0, 1, …

    def __str__(self) -> str:
        label = f"labels {self.label}" if self.label else "no labels"
        return f"images {self.image}, {label}, {len(self.classes or ())} names of classes"


@dataclass(frozen=True)
class File:
    """One file and its rows."""

    name: str  # relative to the root
    columns: Columns
    groups: tuple[int, ...]  # number of rows of each row group
    labels: NDArray[Any]  # of each row: integers or texts
    has_label: NDArray[np.bool_]  # of each row


class ParquetFiles(Collection):
    """The rows of Parquet files, in the order of the files' names.

    The split of a file is the first word of its name (`train-00000-of-00002.parquet`) or a folder
    that it lies in (`train/0000.parquet`). A single file is of no split. A row without a label
    among rows with one is left out.

    Raises DataError: files that are no Parquet, hold no images, or differ in their columns, or no
    pyarrow.
    """

    noun = "row"

    def __init__(
        self,
        root: Path,
        files: Mapping[str, tuple[int, int]],
        title: str,
        left_out: Sequence[LeftOut] = (),
    ) -> None:
        """`files` are names relative to `root`, with bytes and time of change in ns."""
        path = Path(root).absolute() / next(iter(files)) if len(files) == 1 else Path(root)
        arrow = _pyarrow(path)
        self.root, self.title, self.left_out = Path(root).absolute(), title, list(left_out)
        self.stamp = stamp_of(((name, *files[name]) for name in sorted(files)), left_out)
        splits = self._splits(sorted(files))
        found = [_file(arrow, self.root, name) for name in splits]
        columns, first = found[0].columns, found[0].name
        for file in found:
            if file.columns != columns:
                where, wanted = self.root / file.name, f"{columns}, as in {first}"
                raise DataError(visible(f"{where}: got {file.columns}, wanted {wanted}"))
        self.column, rows = columns.image, [sum(file.groups) for file in found]
        names = RowNames(list(zip(splits, rows, strict=True)))
        if not len(names):
            raise DataError(f"{visible(str(path))}: got no row, wanted some")
        self.rows = self._label(found, names)  # N, of all rows
        self.splits = np.repeat(np.array(list(splits.values()), np.uint8), rows)[self.rows]
        # The row after the last of each row group, and the group's file and number in it.
        self.ends = np.cumsum([count for file in found for count in file.groups])
        self.groups = [(file.name, n) for file in found for n in range(len(file.groups))]

    def _splits(self, names: Sequence[str]) -> dict[str, int]:
        """The files that are of use → positions in SPLITS; all 0 where no file is of a split."""
        splits = {name: _split_of(name) for name in names}
        if len(names) == 1 or not any(splits.values()):
            return dict.fromkeys(names, 0)
        if 1 not in splits.values():
            where = visible(str(self.root))
            raise DataError(
                f"{where}: got {', '.join(map(visible, names))}, wanted a train-*.parquet"
            )
        self.left_out += [(name, NO_SPLIT) for name, split in splits.items() if not split]
        return {name: split for name, split in splits.items() if split}

    def _label(self, files: Sequence[File], names: RowNames) -> NDArray[np.int64]:
        """Sets names, labels and classes; the rows that have a label, or all if none has."""
        values = np.concatenate([file.labels for file in files])
        has_label = np.concatenate([file.has_label for file in files])
        classes = files[0].columns.classes
        if classes:
            has_label &= (values >= 0) & (values < len(classes))
        rows = np.flatnonzero(has_label)
        if not rows.size:
            rows, values, classes = np.arange(len(names)), np.zeros(len(names), np.int64), ("",)
        self.left_out += [(names[int(row)], NO_LABEL) for row in np.delete(range(len(names)), rows)]
        values = values[rows]
        if not classes:
            kinds, values = np.unique(values, return_inverse=True)
            classes = tuple(map(str, kinds.tolist()))
        self.classes, self.labels = classes, values.astype(np.int64)
        self.names: Sequence[str] = names.only(rows)
        return rows

    def read(self, index: int, channels: int, size: Size | None = None) -> Picture:
        row = self.rows[index]
        at = int(np.searchsorted(self.ends, row, side="right"))
        name, group = self.groups[at]
        start = self.ends[at - 1] if at else 0
        try:
            worker = (os.getpid(), threading.get_ident())
            path = self.root / name
            column = _group(path, self.stamp, self.column, group, worker)
            value = column[int(row - start)].as_py()
        except OSError as error:
            raise ImageError(cannot_be_read(error) if error.errno else DAMAGED) from error
        except Exception as error:  # pyarrow raises anything on hostile bytes
            raise ImageError(DAMAGED) from error
        data = value["bytes"] if isinstance(value, dict) else value
        if data is None:
            raise ImageError("has no bytes")
        return decode(data, channels, size)


@lru_cache(maxsize=2)
def _group(path: Path, stamp: str, column: str, group: int, worker: tuple[int, int]) -> Any:
    """The images of one row group, for one thread of one process."""
    with open(path, "rb") as stream, _pyarrow(path).parquet.ParquetFile(stream) as parquet:
        return parquet.read_row_group(group, columns=[column], use_threads=False).column(0)


def _pyarrow(path: Path) -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(
            f"{visible(str(path))}: Parquet needs the package pyarrow, which is not installed; run"
            " pip install 'vqvae_lightning[parquet]'"
        ) from error
    return pyarrow


def _split_of(name: str) -> int:
    """Position in SPLITS that the file's name says, or a folder of it; 0 if none does."""
    *folders, last = name.lower().split("/")
    words = [re.split(r"[^a-z]", last)[0], *reversed(folders)]
    return next((SPLIT_OF[word] for word in words if word in SPLIT_OF), 0)


def _file(arrow: Any, root: Path, name: str) -> File:
    where = visible(str(root / name))
    try:
        with open(root / name, "rb") as stream, arrow.parquet.ParquetFile(stream) as parquet:
            return _look(arrow, parquet, name)
    except OSError as error:
        why = cannot_be_read(error) if error.errno else one_line(error)
        raise DataError(f"{where}: {why}") from error
    except Exception as error:  # pyarrow raises anything on hostile bytes
        raise DataError(f"{where}: {one_line(error)}") from error


def _look(arrow: Any, parquet: Any, name: str) -> File:
    columns = _columns(arrow, parquet.schema_arrow)
    groups = tuple(parquet.metadata.row_group(n).num_rows for n in range(parquet.num_row_groups))
    count = sum(groups)
    first = next(parquet.iter_batches(1, columns=[columns.image], use_threads=False), None)
    value = first.column(0)[0].as_py() if first is not None and len(first) else None
    if isinstance(value, dict) and value["bytes"] is None and value.get("path"):
        raise DataError(f"column {columns.image}: got paths of images, wanted their bytes")
    labels: NDArray[Any] = np.zeros(count, np.int64)
    has_label = np.zeros(count, np.bool_)
    if columns.label:
        column = parquet.read(columns=[columns.label], use_threads=False).column(0)
        labels, has_label = _label_values(arrow, column.cast(_plain(arrow, column.type)))
    return File(name, columns, groups, labels, has_label)


def _label_values(arrow: Any, column: Any) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Integers or texts of a column of labels, and which of them there are.

    Raises DataError for an integer that is too large.
    """
    has_label = np.array(column.is_valid().to_numpy(), np.bool_)
    if not _is_number(arrow.types, column.type):
        return column.fill_null("").to_numpy(), has_label
    labels = column.fill_null(0).to_numpy()
    if labels.dtype.kind == "f":
        has_label &= ~np.isnan(labels)
        labels = np.where(has_label, labels, 0)
        if not np.array_equal(labels, np.round(labels)):  # measured values, no classes
            return np.zeros(len(labels), np.int64), np.zeros(len(labels), np.bool_)
    largest = np.abs(labels).max(initial=0)
    if labels.dtype.kind in "fu" and largest >= 2**63:
        raise DataError(f"got a label of {largest}, wanted less than 2^63")
    return labels.astype(np.int64), has_label


def _plain(arrow: Any, kind: Any) -> Any:
    """The type of the values of a column: of pandas' categories that of the categories, and of
    booleans an integer.
    """
    kind = kind.value_type if arrow.types.is_dictionary(kind) else kind
    return arrow.int8() if arrow.types.is_boolean(kind) else kind


def _is_number(types: Any, kind: Any) -> bool:
    return bool(types.is_integer(kind) or types.is_floating(kind))


def _columns(arrow: Any, schema: Any) -> Columns:
    features = _features(schema)
    types = arrow.types
    images, labels = [], []
    for field in schema:
        kind = field.type
        if types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            kind = kind.field("bytes").type
        if types.is_binary(kind) or types.is_large_binary(kind):
            images.append(field.name)
        kind = _plain(arrow, kind)
        if types.is_integer(kind) and field.name in features:
            labels.append(field.name)
        elif field.name in LABELS and (
            _is_number(types, kind) or types.is_string(kind) or types.is_large_string(kind)
        ):
            labels.append(field.name)
            features.pop(field.name, None)
    image = _chosen(images, IMAGES)
    if image is None or (len(images) > 1 and image not in IMAGES):
        got = ", ".join(f"{field.name}: {field.type}" for field in schema)
        raise DataError(f"got columns {got}; wanted one of struct{{bytes, path}} or binary")
    label = _chosen([name for name in labels if name in features] or labels, LABELS)
    return Columns(image, label, features.get(label or ""))


def _chosen(names: Sequence[str], preferred: Sequence[str]) -> str | None:
    """The first preferred name that is there, or else the first of all."""
    return next((name for name in (*preferred, *names) if name in names), None)


def _features(schema: Any) -> dict[str, tuple[str, ...]]:
    """Columns that Hugging Face's metadata declares as labels → the names of their classes."""
    try:
        told = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {
            str(column): tuple(map(str, feature["names"]))
            for column, feature in told.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        return {}
