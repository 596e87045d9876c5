"""Every mode an image file can have becomes the RGB a person would expect."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cnnsearch.data.images import decode, to_rgb
from tests.data.making import encoded


def greys(data: bytes, side: int) -> NDArray[np.uint8]:
    """Decoded at its own size, which must be grey: [S, S]."""
    image = decode(data, [side])[0]
    assert (image == image[..., :1]).all()
    return image[..., 0]


def first_pixel(data: bytes, side: int = 8) -> list[int]:
    return [int(value) for value in decode(data, [side])[0][0, 0]]


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_transparent_pixels_become_white_and_half_ones_half_white(kind: str) -> None:
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:, :4] = (200, 0, 100, 0)
    pixels[:, 4:] = (200, 0, 100, 128)
    image = decode(encoded(Image.fromarray(pixels), kind, **({"lossless": True} if kind == "WEBP" else {})), [8])[0]
    assert image[0, 0].tolist() == [255, 255, 255]
    assert np.abs(image[0, 7].astype(int) - [227, 127, 177]).max() <= 1


def test_grey_with_alpha_is_laid_over_white() -> None:
    image = Image.new("LA", (8, 8), (0, 0))
    image.paste((10, 255), (4, 0, 8, 8))
    assert greys(encoded(image, "PNG"), 8)[0].tolist() == [255] * 4 + [10] * 4


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_transparent_palette_entry_becomes_white(kind: str) -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(0, (0, 0, 8, 4))
    decoded = decode(encoded(image, kind, transparency=0), [8])[0]
    assert decoded[0, 0].tolist() == [255, 255, 255]
    assert decoded[7, 7].tolist() == [0, 0, 255]


def test_palette_with_a_table_of_transparencies() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    assert first_pixel(encoded(image, "PNG", transparency=b"\xff\x00")) == [255, 255, 255]


def test_transparent_colour_of_rgb_and_grey_png_becomes_white() -> None:
    assert first_pixel(encoded(Image.new("RGB", (8, 8), (1, 2, 3)), "PNG", transparency=(1, 2, 3))) == [255] * 3
    assert first_pixel(encoded(Image.new("L", (8, 8), 7), "PNG", transparency=7)) == [255] * 3


def test_opaque_palette_and_1_bit() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([255, 0, 0, 10, 20, 30])
    assert first_pixel(encoded(image, "PNG")) == [10, 20, 30]
    assert first_pixel(encoded(Image.new("1", (8, 8), 1), "PNG")) == [255] * 3
    assert first_pixel(encoded(Image.new("1", (8, 8), 1), "TIFF", compression="group4")) == [255] * 3


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_divided_by_257(kind: str) -> None:
    values = np.array([[0, 128, 129, 257], [32768, 65407, 65406, 65535]] * 2, np.uint16)
    assert greys(encoded(Image.fromarray(values), kind), 4)[:2].tolist() == [[0, 0, 1, 1], [128, 255, 254, 255]]


def test_16_bit_png_of_older_pillow_is_not_taken_for_32_bit() -> None:
    image = Image.fromarray(np.full((4, 4), 200, np.int32))
    image.format = "PNG"
    assert np.asarray(to_rgb(image)).max() == 1


def test_big_endian_16_bit_tiff() -> None:
    image = Image.frombytes("I;16B", (4, 4), np.full((4, 4), 257 * 77, ">u2").tobytes())
    assert first_pixel(encoded(image, "TIFF"), 4) == [77] * 3


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([0, 1, 200, 255], [0, 1, 200, 255]),
        ([0, 257, 25700, 65535], [0, 1, 100, 255]),
        ([-100, 0, 0, 155], [0, 100, 100, 255]),
        ([0, 1 << 30, 1 << 30, (1 << 31) - 1], [0, 128, 128, 255]),
        ([-5, -5, -5, -5], [0, 0, 0, 0]),
    ],
)
def test_32_bit_integers_take_their_range_from_the_values(values: list[int], wanted: list[int]) -> None:
    image = Image.fromarray(np.array([values] * 4, np.int32))
    assert greys(encoded(image, "TIFF"), 4)[0].tolist() == wanted


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([0.0, 0.2, 0.5, 1.0], [0, 51, 128, 255]),
        ([0.0, 1.4, 200.0, 255.0], [0, 1, 200, 255]),
        ([0.0, 257.0, 25700.0, 65535.0], [0, 1, 100, 255]),
        ([-1.0, 0.0, 0.0, 1.0], [0, 128, 128, 255]),
        ([np.nan, 0.0, np.inf, 1.0], [0, 0, 0, 255]),
        ([np.nan] * 4, [0] * 4),
    ],
)
def test_floats_take_their_range_from_the_values(values: list[float], wanted: list[int]) -> None:
    image = Image.fromarray(np.array([values] * 4, np.float32))
    assert greys(encoded(image, "TIFF"), 4)[0].tolist() == wanted


@pytest.mark.parametrize(("mode", "kind"), [("CMYK", "JPEG"), ("CMYK", "TIFF"), ("YCbCr", "TIFF"), ("LAB", "TIFF")])
def test_other_colour_spaces_give_the_colour_back(mode: str, kind: str) -> None:
    red = Image.new("RGB", (16, 16), (200, 30, 40))
    if mode == "LAB":
        from PIL import ImageCms

        profile = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(red, *profile, outputMode="LAB")
        assert image is not None
    else:
        image = red.convert(mode)
    assert image.mode == mode
    decoded = first_pixel(encoded(image, kind), 16)
    assert np.abs(np.array(decoded) - [200, 30, 40]).max() <= 6


def test_16_bit_rgb_png(tmp_path: Path) -> None:
    import struct
    import zlib

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    row = b"\0" + struct.pack(">3H", 257 * 10, 257 * 20, 257 * 30) * 8
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0))
    png += chunk(b"IDAT", zlib.compress(row * 8)) + chunk(b"IEND", b"")
    assert first_pixel(png) == [10, 20, 30]
