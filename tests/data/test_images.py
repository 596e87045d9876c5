"""Decoding: every format, upright, first frame, at several sizes; hostile bytes are refused by name and quietly."""

from __future__ import annotations

import io
import logging
import struct
import threading
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from cnnsearch.data import images
from cnnsearch.data.images import BadImageError, Reading, decode
from tests.data.making import encoded, photo, picture

LOSSLESS: dict[str, dict[str, Any]] = {"PNG": {}, "BMP": {}, "TIFF": {}, "WEBP": {"lossless": True}}
SCALED = Reading(scales_jpeg=True)
KINDS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")


def reason(data: bytes) -> str:
    with pytest.raises(BadImageError) as caught:
        decode(data, [8])
    return str(caught.value)


@pytest.mark.parametrize("kind", LOSSLESS)
def test_lossless_formats_give_their_pixels_back(kind: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(encoded(picture(1), kind, **LOSSLESS[kind]))
    decoded = decode(tmp_path / "x", [12])[0]
    assert decoded.dtype == np.uint8
    assert np.array_equal(decoded, np.asarray(picture(1)))


@pytest.mark.parametrize("kind", ["JPEG", "GIF"])
def test_lossy_formats_give_the_colour_back(kind: str) -> None:
    decoded = decode(encoded(Image.new("RGB", (16, 16), (200, 30, 40)), kind), [16])[0]
    assert np.abs(decoded.astype(int) - [200, 30, 40]).max() <= 3


def test_sizes_are_resized_with_antialias_and_do_not_depend_on_each_other() -> None:
    image = picture(2, 50).resize((50, 30))
    data = encoded(image, "PNG")
    both = decode(data, [16, 40])
    assert [array.shape for array in both] == [(16, 16, 3), (40, 40, 3)]
    assert np.array_equal(both[0], decode(data, [16])[0])
    assert np.array_equal(both[1], decode(data, [40])[0])
    assert np.array_equal(both[0], np.asarray(image.resize((16, 16), Image.Resampling.BILINEAR)))
    stripes = Image.fromarray(np.tile(np.array([0, 255], np.uint8), (64, 32)))
    assert np.abs(decode(encoded(stripes, "PNG"), [8])[0].astype(int) - 127).max() <= 12


def test_a_scaled_jpeg_looks_the_same_and_no_size_depends_on_another() -> None:
    data = encoded(photo(3, 500, 375), "JPEG", quality=90)
    whole, scaled = decode(data, [64, 200]), decode(data, [64, 200], reading=SCALED)
    assert [square.shape for square in scaled] == [(64, 64, 3), (200, 200, 3)]
    difference = np.abs(whole[0].astype(int) - scaled[0])
    assert 0 < difference.mean() < 3
    assert np.array_equal(scaled[1], whole[1])  # at half its size it has less than 200 pixels
    for number, size in enumerate((64, 200)):
        assert np.array_equal(scaled[number], decode(data, [size], reading=SCALED)[0])
    assert np.array_equal(
        decode(encoded(picture(1, 90), "PNG"), [8], reading=SCALED), decode(encoded(picture(1, 90), "PNG"), [8])
    )


def test_a_scaled_jpeg_is_turned_upright_and_its_damage_found() -> None:
    image = Image.new("RGB", (400, 200), (10, 20, 200))
    image.paste((250, 250, 0), (0, 0, 400, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise: the stripe comes to the right
    data = encoded(image, "JPEG", exif=exif.tobytes())
    (square,) = decode(data, [20], reading=SCALED)
    assert square[:, -1].mean(axis=0)[0] > 200 > 60 > square[:, 0].mean(axis=0)[0]
    with pytest.raises(BadImageError, match="truncated"):
        decode(data[: len(data) // 2], [20], reading=SCALED)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    upright = Image.new("RGB", (16, 16), (0, 0, 0))
    upright.paste((255, 0, 0), (0, 0, 8, 8))
    upright.paste((0, 0, 255), (8, 0, 16, 8))
    stored_from_upright = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = upright if stored_from_upright is None else upright.transpose(stored_from_upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"quality": 100, "subsampling": 0} if kind == "JPEG" else LOSSLESS[kind]
    decoded = decode(encoded(stored, kind, exif=exif, **options), [16])[0]
    assert np.abs(decoded.astype(int) - np.asarray(upright)).max() <= (5 if kind == "JPEG" else 0)


@pytest.mark.parametrize(
    "block", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12"]
)
def test_broken_exif_does_not_make_an_image_bad(block: bytes) -> None:
    assert decode(encoded(picture(3), "JPEG", exif=block), [8])[0].shape == (8, 8, 3)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_several_is_taken(kind: str) -> None:
    red, blue = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    data = encoded(red, kind, save_all=True, append_images=[blue], **({"lossless": True} if kind == "WEBP" else {}))
    assert decode(data, [8])[0][4, 4].tolist() == [255, 0, 0]


def test_a_phone_s_multi_picture_jpeg_is_read() -> None:
    red, blue = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    data = encoded(red, "MPO", save_all=True, append_images=[blue])
    assert decode(data, [8])[0][4, 4, 0] > 250


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_file_is_refused_as_truncated(kind: str) -> None:
    whole = encoded(picture(4, 60), kind)
    cut = whole[: len(whole) // 2]
    assert reason(cut).startswith("is truncated (")
    assert f"{len(cut):,}" in reason(cut)


def test_bmp_and_webp_tell_how_long_they_should_be() -> None:
    for kind in ("BMP", "WEBP"):
        whole = encoded(picture(4, 60), kind)
        assert reason(whole[:-100]) == f"is truncated ({len(whole) - 100:,} of {len(whole):,} bytes)"


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "jpeg", "packbits"])
def test_truncated_compressed_tiff_prints_nothing(compression: str, capfd: pytest.CaptureFixture[str]) -> None:
    whole = encoded(picture(5, 60), "TIFF", compression=compression)
    reason(whole[: len(whole) * 2 // 3])
    assert capfd.readouterr() == ("", "")


def test_a_header_alone_is_truncated() -> None:
    for kind in ("PNG", "JPEG", "GIF"):
        assert reason(encoded(picture(6), kind)[:20]).startswith("is truncated (20 bytes")


def test_a_damaged_file_is_refused() -> None:
    data = bytearray(encoded(picture(7, 40), "PNG"))
    middle = len(data) // 2
    data[middle : middle + 40] = bytes(40)
    assert reason(bytes(data)).startswith("is damaged (")


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("cat.png", "x")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty (0 bytes)"),
        (b"hello\n", "is not an image (its content is text)"),
        ("Grüße".encode("utf-16"), "is not an image (its content is text)"),
        ("ü".encode() * 5000, "is not an image (its content is text)"),
        (b"BMW drives by\n", "is not an image (its content is text)"),
        (b"<!DOCTYPE html><html>404</html>", "is not an image (its content is a web page)"),
        (b'<?xml version="1.0"?>\n<svg xmlns="x"/>', "is an SVG drawing; only pixel images can be read"),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "is a Git LFS pointer, not the image itself; run git lfs pull",
        ),
        (_zip(), "is not an image that can be read (its content is a zip archive)"),
        (b"%PDF-1.7\n\xff\xff", "is not an image that can be read (its content is a PDF document)"),
        (b"\0\0\0\x20ftypisom\0\0\0\0\xff", "is not an image that can be read (its content is a video)"),
        (bytes(1000), "is not an image (its 1,000 bytes are all zero)"),
        (b"\x01\x80\xff" * 9, "is not an image that can be read (its content is of no known kind)"),
    ],
)
def test_what_is_no_image_is_named(data: bytes, said: str) -> None:
    assert reason(data) == said


@pytest.mark.parametrize("kind", ["ICO", "TGA", "PCX"])
def test_other_formats_of_pillow_are_not_decoded(kind: str) -> None:
    with pytest.raises(BadImageError, match="is not an image"):
        decode(encoded(picture(8, 32), kind), [8])


def test_formats_can_be_added() -> None:
    assert decode(encoded(picture(8), "TGA"), [12], formats=("TGA",))[0].shape == (12, 12, 3)


def _png_of(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(10_001, 10_000), (20_000, 20_000), (200_000, 200_000)])
def test_too_many_pixels_are_refused_before_decoding(width: int, height: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(self: Image.Image) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", load)
    assert reason(_png_of(width, height)) == f"has {width * height:,} pixels; the limit is 100,000,000"


def test_below_the_limit_pillow_s_own_warning_is_kept_back() -> None:
    data = _png_of(9_900, 9_900)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        Image.open(io.BytesIO(data)).close()
        assert [entry.category for entry in seen] == [Image.DecompressionBombWarning]
        assert reason(data).startswith("is ")
    assert len(seen) == 1


def test_warnings_of_pillow_stay_inside_and_filters_come_back() -> None:
    data = encoded(picture(3), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12")

    def decode_often() -> None:
        for _ in range(20):
            decode(data, [8])

    before = list(warnings.filters)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        Image.open(io.BytesIO(data)).getexif()
        assert len(seen) == 1
        threads = [threading.Thread(target=decode_often) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        warnings.warn("mine", UserWarning, stacklevel=1)
    assert [str(entry.message) for entry in seen[1:]] == ["mine"]
    assert warnings.filters == before


def test_log_messages_of_pillow_do_not_reach_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("PIL.TiffImagePlugin")
    assert any(isinstance(handler, logging.NullHandler) for handler in logging.getLogger("PIL").handlers)
    logger.warning("More samples per pixel than can be decoded: %s", 9)
    assert capfd.readouterr().err == ""


def test_memory_running_out_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def to_rgb(image: Image.Image, grey_range: object) -> Image.Image:
        raise MemoryError

    monkeypatch.setattr(images, "to_rgb", to_rgb)
    assert reason(encoded(picture(9), "PNG")) == "needs more memory to decode than there is"


SEEDS = {kind: encoded(picture(10, 24), kind) for kind in KINDS} | {
    "P": encoded(picture(10, 24).convert("P"), "PNG"),
    "LZW": encoded(picture(10, 24), "TIFF", compression="tiff_lzw"),
}


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(sorted(SEEDS)),
    st.floats(0, 1),
    st.binary(min_size=1, max_size=8),
    st.booleans(),
)
def test_mangled_files_decode_or_are_refused_and_nothing_else(kind: str, at: float, junk: bytes, cut: bool) -> None:
    data = SEEDS[kind]
    place = int(at * len(data))
    mangled = data[:place] + junk + (b"" if cut else data[place + len(junk) :])
    refused = ""
    try:
        decoded = decode(mangled, [8, 9])
    except BadImageError as error:
        refused = str(error)
    if refused:
        assert refused.startswith(("is ", "has ", "needs "))
        assert refused.isprintable()
    else:
        assert [array.shape for array in decoded] == [(8, 8, 3), (9, 9, 3)]
