"""One picture: bytes of an image file, or an array, to uint8 (C, H, W).

```
bytes ─► PIL, raster formats only ─► upright ─► on white ─► L or RGB ─► resize, centre crop ─► C,H,W
```

Nothing here trusts its input: whatever PIL raises on hostile bytes becomes an `ImageError`. No
format that starts another program (EPS) or asks a driver for help (WMF) is opened. Colour profiles
are ignored. libtiff's own complaints about a damaged TIFF go to stderr.
"""

import io
import os
import re
import stat
import warnings
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

FORMATS = (
    *("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "AVIF", "JPEG2000", "MPO", "ICO"),
    "TGA",  # last, for it has no magic number
)
# Files that start so are images, even if PIL makes nothing of the rest.
MAGIC = re.compile(rb"\x89PNG|\xff\xd8\xff|GIF8|II\*\0|MM\0\*|RIFF....WEBP|....ftypavi", re.DOTALL)
HEIC = re.compile(rb"....ftyp(hei|hev|mif1|msf1)", re.DOTALL)
EMPTY, NO_IMAGE, NO_FILE = "is empty", "is no image", "is no regular file"
DAMAGED, TOO_SHORT = "is damaged", "ends too soon"
ORIENTATION = 0x0112  # the tag of EXIF, whose value k means TURNS[k]
TURNS = (
    *(None, None, "FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM"),
    *("TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90"),
)
Size = tuple[int, int]  # H, W


class ImageError(ValueError):
    """A picture cannot be used. The message is a short reason that follows its name: `is empty`."""


@dataclass(frozen=True)
class Picture:
    """A decoded picture."""

    pixels: NDArray[np.uint8]  # C, H, W
    animated: bool = False  # it has further frames or pages, which are left out
    converted: str = ""  # from which mode, if the pixels do not say all that the file's own do


def decode(source: bytes | Path, channels: int, size: Size | None = None) -> Picture:
    """The first frame of an image file, as `fit` makes it.

    Python's warning filters are changed while it runs, so it belongs in one thread at a time.

    Args:
        source: The bytes of a file, or its path. Only a regular file is opened.
        channels: 1 for grey, 3 for RGB.
        size: H, W of the result; None keeps the picture's own.

    Raises:
        ImageError: no picture, or a damaged one, or one of more than `Image.MAX_IMAGE_PIXELS`.
    """
    from PIL import Image

    try:
        with regular_file(source) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with _open(file) as image:
                animated, lost = _is_animated(image), lost_mode(image, channels)
                return Picture(fit(image, channels, size), animated, lost)
    except ImageError:
        raise
    except Exception as error:  # PIL's plugins raise anything on hostile bytes
        raise ImageError(_reason(error)) from error


def fit(image: "Image.Image", channels: int, size: Size | None = None) -> NDArray[np.uint8]:
    """The pixels of a picture, upright, without transparency, of a wanted size: uint8 (C, H, W).

    The largest centred part of the target's aspect ratio is resized to the target, smaller or
    larger, with PIL's antialiased BICUBIC: it rings less beside the hard edges of digits and
    drawings than LANCZOS does. A picture that needs no resize keeps its values. The part starts at
    a whole pixel, the upper or left one of two, so that a crop never blurs.

    Args:
        image: A picture of any mode but F. 16 bits (I;16 and I) are divided by 257 and rounded.
        channels: 1 for grey, 3 for RGB.
        size: H, W of the result; None keeps the picture's own.

    Raises:
        ImageError: floating-point pixels, whose range is unknown, or I beyond 16 bits; no pixels.
    """
    from PIL import Image

    assert channels in (1, 3), channels
    if 0 in image.size:
        raise ImageError("has no pixels")
    image = _plain(_upright(image), "L" if channels == 1 else "RGB")
    if size and image.size != (size[1], size[0]):
        image = image.resize((size[1], size[0]), Image.Resampling.BICUBIC, _centre(image, size))
    pixels = np.asarray(image)  # H,W or H,W,3
    return np.array(pixels[None] if channels == 1 else pixels.transpose(2, 0, 1), order="C")


def fit_array(
    pixels: NDArray[np.uint8], channels: int, size: Size | None = None
) -> NDArray[np.uint8]:
    """The same as `fit` for an array (H, W, C) of 1 (grey), 3 (RGB) or 4 (RGBA) channels."""
    from PIL import Image

    if pixels.shape[2] == channels and size in (None, pixels.shape[:2]):
        return np.array(pixels.transpose(2, 0, 1), order="C")
    grey = pixels.shape[2] == 1
    array = np.ascontiguousarray(pixels[:, :, 0] if grey else pixels)
    return fit(Image.fromarray(array), channels, size)


def lost_mode(image: "Image.Image", channels: int) -> str:
    """What a picture that is not loaded yet is, if 8-bit grey or RGB pixels do not say all of it;
    else empty.
    """
    whole = ("1", "L") if channels == 1 else ("1", "L", "RGB", "P")
    if image.has_transparency_data:
        return f"{image.mode} with transparency"
    if image.mode not in whole:
        return str(image.mode)
    if not _has_eight_bits(image):
        return f"{image.mode} of more or less than 8 bits"
    if getattr(image, "n_frames", 1) > 1 and image.format == "MPO":
        return "one of several pictures"
    return f"{image.mode} that is to be turned" if _turn(image) else ""


def _has_eight_bits(image: "Image.Image") -> bool:
    """Whether PIL reads the file's values as they are: it has no mode for RGB of 16 bits, which
    come as RGB, and scales those of a PPM with another maximum than 255.
    """
    tiles = getattr(image, "tile", [])  # of a picture that comes from a file
    said = [tile.args if isinstance(tile.args, tuple) else (tile.args,) for tile in tiles]
    depths = [part for part in chain.from_iterable(said) if isinstance(part, str)]
    maxima = [args[-1] for args in said if image.format == "PPM" and isinstance(args[-1], int)]
    return not any(";16" in depth for depth in depths) and all(top == 255 for top in maxima)


def cannot_be_read(error: OSError) -> str:
    """The reason for a file that the system does not give."""
    return f"cannot be read ({error.strerror or type(error).__name__})"


def max_pixels() -> float:
    """Pixels of a picture above which it is taken for an attack: PIL's own limit."""
    from PIL import Image

    return Image.MAX_IMAGE_PIXELS or float("inf")


def too_many(pixels: int, limit: float) -> str:
    """The reason for a picture of more pixels than the limit."""
    return f"has {pixels:,} pixels, more than {limit:,.0f}"


def regular_file(source: bytes | Path) -> IO[bytes]:
    """Bytes, or a regular file, to be read. Raises ImageError for a path of anything else."""
    if isinstance(source, bytes):
        return io.BytesIO(source)
    # A pipe that took the file's name since it was listed must not block.
    descriptor = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise ImageError(NO_FILE)


@cache
def _formats() -> tuple[str, ...]:
    """The formats that this build of PIL has."""
    from PIL import Image

    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _open(file: IO[bytes]) -> "Image.Image":
    from PIL import Image, UnidentifiedImageError

    head = file.read(16)
    file.seek(0)
    if not head:
        raise ImageError(EMPTY)
    try:
        return Image.open(file, formats=_formats())
    except UnidentifiedImageError:
        if HEIC.match(head):
            raise ImageError("is HEIC, which is not supported") from None
        raise ImageError(DAMAGED if MAGIC.match(head) else NO_IMAGE) from None


def _is_animated(image: "Image.Image") -> bool:
    """Whether a file has further frames. Those of an MPO are previews, or the other eye's."""
    try:
        return image.format != "MPO" and bool(getattr(image, "is_animated", False))
    except Exception:  # the first frame may be sound where the second is not
        return True


def _reason(error: Exception) -> str:
    from PIL import Image

    if isinstance(error, OSError) and error.errno is not None:  # the system's; PIL's have none
        return cannot_be_read(error)
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        found = re.search(r"\((\d+) pixels\)", str(error))
        return too_many(int(found[1]), max_pixels()) if found else "has too many pixels"
    if isinstance(error, MemoryError):
        return "needs more memory than there is"
    return TOO_SHORT if isinstance(error, EOFError) or "truncated" in str(error) else DAMAGED


def _upright(image: "Image.Image") -> "Image.Image":
    """The picture turned as its EXIF orientation says; PIL turns a TIFF itself as it loads it."""
    from PIL import Image

    image.load()
    turn = _turn(image)
    return image.transpose(Image.Transpose[turn]) if turn else image


def _turn(image: "Image.Image") -> str | None:
    """How its EXIF orientation says that a picture is turned."""
    try:
        orientation = int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # sound pixels beside damaged metadata
        return None
    return TURNS[orientation] if 0 <= orientation < len(TURNS) else None


def _plain(image: "Image.Image", mode: str) -> "Image.Image":
    """The picture in mode L or RGB: on white where it is transparent, 16 bits as 8."""
    from PIL import Image

    if image.mode == "F":
        raise ImageError("has floating-point pixels")
    if image.mode.startswith("I"):
        image = Image.fromarray(_eight_bits(np.asarray(image)))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    elif image.mode not in ("1", "L"):
        image = image.convert("RGB")  # LAB and CMYK have no direct way to L
    return image.convert(mode)


def _eight_bits(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """0 to 65535 as 0 to 255, rounded; 257 is odd, so there are no ties."""
    wide = values.astype(np.int32)  # H,W
    low, high = wide.min(), wide.max()
    if low < 0 or high > 65535:
        raise ImageError(f"has values from {low} to {high}, outside 0 to 65535")
    return ((wide + 128) // 257).astype(np.uint8)


def _centre(image: "Image.Image", size: Size) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of the largest centred part with the aspect ratio of H, W."""
    width = min(image.width, image.height * size[1] / size[0])
    height = min(image.height, image.width * size[0] / size[1])
    left, top = int((image.width - width) / 2), int((image.height - height) / 2)
    return left, top, left + width, top + height
