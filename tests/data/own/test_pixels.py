"""One picture to uint8 (C, H, W), against PIL's and numpy's own arithmetic; hostile bytes."""

import errno
import io
import os
import random
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile

from vqvae_lightning.data.own import pixels
from vqvae_lightning.data.own.pixels import ImageError, decode, fit, fit_array

UPRIGHT = {  # a value of EXIF's orientation → what turns such a picture upright, in numpy
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(height=12, width=20, channels=3, seed=0):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def png_header(width, height):
    """A PNG that claims a size, and has no pixels."""

    def chunk(kind, data):
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"")


def reason(data, channels=3, size=None):
    with pytest.raises(ImageError) as caught:
        decode(data, channels, size)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "TGA", "WEBP", "JPEG2000"])
def test_a_lossless_file_keeps_its_values(kind):
    array = noise()
    options = {"lossless": True} if kind == "WEBP" else {}
    picture = decode(encoded(Image.fromarray(array), kind, **options), 3)
    assert (picture.pixels == array.transpose(2, 0, 1)).all()
    assert (picture.pixels.dtype, picture.animated) == (np.dtype(np.uint8), False)
    assert picture.pixels.flags.c_contiguous
    assert picture.pixels.flags.writeable


def test_a_path_gives_what_its_bytes_give(tmp_path):
    data = encoded(Image.fromarray(noise()))
    path = tmp_path / os.fsdecode(b"\xff odd\nname.png")
    path.write_bytes(data)
    assert (decode(path, 3, (8, 8)).pixels == decode(data, 3, (8, 8)).pixels).all()


def test_a_picture_of_the_wanted_size_keeps_its_values():
    array = noise()
    assert (fit(Image.fromarray(array), 3, (12, 20)) == array.transpose(2, 0, 1)).all()


@pytest.mark.parametrize(
    ("height", "width", "part"),
    [
        (12, 12, np.s_[:, 4:16]),  # as much to the left as to the right
        (12, 17, np.s_[:, 1:18]),  # of two middles the left one
        (11, 20, np.s_[0:11]),  # or the upper one
    ],
)
def test_a_crop_alone_keeps_the_values_of_the_middle(height, width, part):
    array = noise()
    got = fit(Image.fromarray(array), 3, (height, width))
    assert (got == array[part].transpose(2, 0, 1)).all()


@pytest.mark.parametrize(
    ("height", "width", "scale"),
    [(6, 8, 20), (12, 4, 10), (10, 20, 10), (24, 24, 5), (240, 200, 0.5)],
)
def test_a_resize_is_that_of_the_shorter_side_and_then_a_crop(height, width, scale):
    image = Image.fromarray(noise(120, 200))
    whole = image.resize((int(200 / scale), int(120 / scale)), Image.Resampling.BICUBIC)
    left, top = (whole.width - width) // 2, (whole.height - height) // 2
    reference = np.asarray(whole.crop((left, top, left + width, top + height)))
    got = fit(image, 3, (height, width))
    assert np.abs(got.astype(int) - reference.transpose(2, 0, 1)).max() <= 1


def test_a_checkerboard_becomes_grey_when_it_shrinks():
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    shrunk = fit(Image.fromarray(board), 1, (8, 8))
    # Without antialiasing every sample would fall on a square of one colour.
    assert np.abs(shrunk.astype(int) - 127.5).max() < 2


def test_a_flat_picture_stays_flat_larger_and_smaller():
    image = Image.new("RGB", (10, 7), (10, 20, 30))
    for size in ((3, 3), (70, 70)):
        assert (fit(image, 3, size) == np.array([10, 20, 30])[:, None, None]).all()


@pytest.mark.parametrize(("height", "width"), [(1, 60_000), (60_000, 1)])
def test_a_thread_of_pixels_takes_no_more_memory_than_its_target(height, width):
    assert fit(Image.new("L", (width, height)), 1, (64, 64)).shape == (1, 64, 64)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_turns_a_picture_upright(kind, orientation):
    array = np.kron(noise(2, 3), np.ones((16, 16, 1), np.uint8))
    exif = Image.Exif()
    exif[pixels.ORIENTATION] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(Image.fromarray(array), kind, exif=exif, **options)
    with Image.open(io.BytesIO(data)) as image:
        plain = np.asarray(image) if kind != "TIFF" else array  # of a TIFF, PIL turns it itself
    got = decode(data, 3).pixels.transpose(1, 2, 0)
    assert (got == UPRIGHT[orientation](plain)).all()


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_turns_nothing(orientation):
    exif = Image.Exif()
    exif[pixels.ORIENTATION] = orientation
    array = noise()
    got = decode(encoded(Image.fromarray(array), exif=exif), 3).pixels
    assert (got == array.transpose(2, 0, 1)).all()


def test_damaged_exif_does_not_cost_the_picture():
    data = encoded(Image.fromarray(noise()), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xffnonsense")
    assert decode(data, 3).pixels.shape == (3, 12, 20)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "LAB", "HSV", "RGBX"])
def test_every_mode_becomes_rgb_and_grey(mode):
    image: Image.Image | None
    red = Image.new("RGB", (4, 4), (255, 0, 0))
    if mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        image = ImageCms.profileToProfile(red, srgb, lab, outputMode="LAB")
    else:
        image = red.convert(mode)
    assert image is not None
    colour, grey = fit(image, 3), fit(image, 1)
    assert (colour.shape, grey.shape) == ((3, 4, 4), (1, 4, 4))
    wanted = {"1": (0, 0, 0), "L": (76, 76, 76)}.get(mode, (255, 0, 0))
    if mode != "1":  # dithered
        assert np.abs(colour[:, 0, 0].astype(int) - wanted).max() <= 6
        assert abs(int(grey[0, 0, 0]) - 76) <= 2


def test_grey_is_every_channel_of_rgb_and_back():
    array = noise(channels=1)
    assert (fit(Image.fromarray(array), 3) == array).all()
    assert (fit(Image.fromarray(np.stack([array] * 3, 2)), 1) == array).all()


def test_one_bit_is_black_and_white_and_antialiased():
    board = Image.fromarray(np.indices((64, 64)).sum(0) % 2 > 0)
    assert board.mode == "1"
    assert set(np.unique(fit(board, 1))) == {0, 255}
    assert np.abs(fit(board, 1, (8, 8)).astype(int) - 127.5).max() < 2


def transparent(kind):
    """A 2×1 picture: red where it is opaque, and a transparent pixel."""
    if kind == "RGBA":
        return Image.fromarray(np.array([[[255, 0, 0, 255], [9, 9, 9, 0]]], np.uint8))
    if kind == "LA":
        return Image.fromarray(np.array([[[0, 255], [9, 0]]], np.uint8))
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 9, 9, 9])
    image.putpixel((1, 0), 1)
    if kind == "PA":
        return transparent("RGBA").convert("PA")
    image.info["transparency"] = 1 if kind == "P with a colour" else b"\xff\x00"
    return image


@pytest.mark.parametrize("kind", ["RGBA", "LA", "PA", "P with a colour", "P with bytes"])
def test_a_transparent_pixel_is_white(kind):
    got = fit(transparent(kind), 3)
    assert got[:, 0, 1].tolist() == [255, 255, 255]
    assert got[:, 0, 0].tolist() == ([0, 0, 0] if kind == "LA" else [255, 0, 0])
    assert fit(transparent(kind), 1)[0, 0, 1] == 255


@pytest.mark.parametrize("mode", ["L", "RGB", "1"])
def test_a_transparent_colour_of_a_png_is_white(mode):
    image = Image.new(mode, (3, 3))
    clear = (0, 0, 0) if mode == "RGB" else 0
    assert (decode(encoded(image, transparency=clear), 3).pixels == 255).all()


def test_half_transparent_is_half_white():
    image = Image.new("RGBA", (2, 2), (0, 0, 0, 128))
    assert (fit(image, 3) == 127).all()


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I"])
def test_sixteen_bits_are_divided_by_257_and_rounded(mode):
    values = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    kinds = {"I;16": "<u2", "I;16B": ">u2", "I": "<i4"}
    image = Image.frombytes(mode, (6, 1), values.astype(kinds[mode]).tobytes())
    wanted = np.round(values / 257)
    assert (fit(image, 1) == wanted).all()
    assert (fit(image, 3) == wanted).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_a_file_of_sixteen_bits_is_read_as_one(kind):
    values = np.array([[0, 257 * 7, 257 * 200, 65535]], np.uint16)
    assert decode(encoded(Image.fromarray(values), kind), 1).pixels.tolist() == [[[0, 7, 200, 255]]]


def test_a_wider_range_than_sixteen_bits_is_refused():
    for value in (-1, 65536):
        with pytest.raises(ImageError, match=f"values from {value} to {value}"):
            fit(Image.new("I", (2, 2), value), 1)


def test_floating_point_is_refused():
    assert reason(encoded(Image.new("F", (2, 2), 0.5), "TIFF")) == "has floating-point pixels"


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_the_first_frame_is_taken_and_told(kind):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    picture = decode(data, 3)
    assert picture.animated
    assert np.abs(picture.pixels[:, 8, 8].astype(int) - [255, 0, 0]).max() < 8
    assert not decode(encoded(frames[0], kind), 3).animated


def test_the_previews_of_a_camera_are_no_animation():
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert not decode(data, 3).animated


def test_what_is_no_image_says_so():
    assert reason(b"") == "is empty"
    for data in (b"hello", b"\0" * 500, b"P1 is how a PPM starts", b"<svg></svg>", b"PK\x03\x04"):
        assert reason(data) in ("is no image", "is damaged")
    assert reason(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic") == "is HEIC, which is not supported"


@pytest.mark.parametrize("kind", ["EPS", "PDF"])
def test_a_format_that_starts_another_program_is_not_opened(kind):
    assert reason(encoded(Image.new("RGB", (9, 9)), kind)) == "is no image"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM"])
def test_a_truncated_file_ends_too_soon(kind):
    data = encoded(Image.fromarray(noise(64, 64)), kind)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    assert reason(data[: len(data) // 2]) == "ends too soon"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
def test_a_broken_header_is_damage_and_not_another_kind_of_file(kind):
    assert reason(encoded(Image.fromarray(noise()), kind)[:12]) in ("is damaged", "ends too soon")


@pytest.mark.parametrize("side", [10_000, 20_000])
def test_a_decompression_bomb_is_refused_unopened(side):
    assert reason(png_header(side, side)) == f"has {side * side:,} pixels, more than 89,478,485"


def test_nothing_is_warned_of_and_the_filters_stay():
    before = list(warnings.filters)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with pytest.raises(ImageError):
            decode(png_header(10_000, 10_000), 3)
        decode(encoded(Image.fromarray(noise()), "JPEG", exif=b"Exif\0\0junkjunk"), 3)
    assert not seen
    assert list(warnings.filters) == before


def test_no_pipe_and_no_folder_is_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    assert reason(tmp_path / "pipe.png") == "is no regular file"
    assert reason(tmp_path) == "is no regular file"
    assert reason(tmp_path / "absent.png") == "cannot be read (No such file or directory)"


def test_a_file_that_the_system_withholds_says_why(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", refuse)
    assert reason(tmp_path / "a.png") == "cannot be read (Permission denied)"


def test_no_descriptor_is_left_open(tmp_path):
    good, bad = tmp_path / "a.gif", tmp_path / "b.gif"
    frames = [Image.new("L", (4, 4), value) for value in (0, 255)]
    good.write_bytes(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    bad.write_bytes(good.read_bytes()[:30])
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        decode(good, 1)
        reason(bad)
        reason(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before


def corrupted(data, chance):
    damaged = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(damaged) or 1)
        match chance.randrange(4):
            case 0:
                damaged[at : at + 1] = chance.randbytes(1)
            case 1:
                del damaged[at : at + chance.randint(1, 20)]
            case 2:
                damaged[at:at] = chance.randbytes(5)
            case 3:
                del damaged[at:]
    return bytes(damaged)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF"])
def test_corrupted_bytes_give_an_image_or_an_image_error(kind):
    data = encoded(Image.fromarray(np.kron(noise(3, 4), np.ones((8, 8, 1), np.uint8))), kind)
    chance, reasons = random.Random(0), []
    for _ in range(500):
        try:
            assert decode(corrupted(data, chance), 3, (16, 16)).pixels.shape == (3, 16, 16)
        except ImageError as error:
            reasons.append(str(error))
    assert 0 < len(reasons) < 500
    assert "\n" not in "".join(reasons)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_an_array_is_fitted_as_its_picture_is(channels):
    array = noise(channels=channels).reshape(12, 20, channels)
    image = Image.fromarray(array[:, :, 0] if channels == 1 else array)
    for wanted in (1, 3):
        for size in (None, (12, 20), (5, 5)):
            assert (fit_array(array, wanted, size) == fit(image, wanted, size)).all()


def rgb_of_16_bits():
    rows = noise(2, 2).astype(">u2").tobytes()
    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" + rows[:12] + b"\0" + rows[12:]))]
    chunks = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in [*parts, (b"IEND", b"")]
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def turned():
    exif = Image.Exif()
    exif[pixels.ORIENTATION] = 6
    return encoded(Image.fromarray(noise(4, 4)), exif=exif)


def two_pictures():
    first, second = (Image.fromarray(noise(8, 8, seed=seed)) for seed in (0, 1))
    return encoded(first, "MPO", save_all=True, append_images=[second])


@pytest.mark.parametrize(
    ("source", "lost"),
    [
        (encoded(Image.fromarray(noise())), ""),
        (b"P6\n2 2\n255\n" + bytes(12), ""),
        (rgb_of_16_bits(), "RGB of more or less than 8 bits"),
        (b"P6\n2 2\n65535\n" + bytes(24), "RGB of more or less than 8 bits"),
        (b"P6\n2 2\n100\n" + bytes(12), "RGB of more or less than 8 bits"),
        (turned(), "RGB that is to be turned"),
        (two_pictures(), "one of several pictures"),
    ],
    ids=["png", "ppm", "16 bits", "wide ppm", "narrow ppm", "turned", "two"],
)
def test_what_the_pixels_do_not_say_of_a_file_is_named(source, lost):
    assert decode(source, 3).converted == lost
