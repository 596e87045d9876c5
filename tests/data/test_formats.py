"""The formats that people's images have: each is decoded, by content and by name, and refused like any other."""

from __future__ import annotations

import importlib
import importlib.util
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from cnnsearch.data import images, reasons
from cnnsearch.data.folders import EXTENSIONS, list_folder
from cnnsearch.data.images import BadImageError, Reading, decode
from tests.data.making import encoded, picture

HAS_HEIF = importlib.util.find_spec("pillow_heif") is not None
HEIC = pytest.param("HEIF", marks=pytest.mark.skipif(not HAS_HEIF, reason="needs the extra heic"))
LOSSLESS: dict[str, dict[str, Any]] = {"AVIF": {"quality": 100, "subsampling": "4:4:4"}, "JPEG2000": {}, "PPM": {}}


def reason(data: bytes) -> str:
    with pytest.raises(BadImageError) as caught:
        decode(data, [8])
    return str(caught.value)


@pytest.mark.parametrize("kind", ["AVIF", "JPEG2000", "PPM", HEIC])
def test_each_is_decoded_whatever_its_name(kind: str, tmp_path: Path) -> None:
    image = picture(1, 2).resize((48, 40), Image.Resampling.BICUBIC)
    (tmp_path / "x.jpg").write_bytes(encoded(image, kind, **LOSSLESS.get(kind, {"quality": 100})))
    found = decode(tmp_path / "x.jpg", [24])[0].astype(int)
    wanted = np.asarray(image.resize((24, 24), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(found - wanted).mean() < (0.01 if kind in ("JPEG2000", "PPM") else 8)


@pytest.mark.parametrize("kind", ["AVIF", HEIC])
def test_they_are_turned_upright(kind: str) -> None:
    image = Image.fromarray(np.repeat(np.repeat(np.array([[0, 0], [0, 255]], np.uint8), 32, 0), 32, 1)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 3
    found = decode(encoded(image, kind, exif=exif.tobytes()), [2])[0]
    assert found[0, 0].min() > 150
    assert found[1, 1].max() < 100


def test_text_and_16_bits_of_the_ppm_family() -> None:
    assert decode(b"P3 1 1 255 10 20 30", [1])[0].tolist() == [[[10, 20, 30]]]
    assert decode(b"P1 2 1 0 1", [2])[0][:, :, 0].tolist() == [[255, 0]] * 2
    values = np.array([[100, 200]], ">u2")
    pgm = b"P5 2 1 65535\n" + values.tobytes()
    assert images.greys(pgm) == (100, 200)
    assert decode(pgm, [2])[0][0, :, 0].tolist() == [0, 1]  # as 16-bit PNGs: black is 0, white is 65535
    assert decode(pgm, [2], reading=Reading((0, 255)))[0][0, :, 0].tolist() == [100, 200]


@pytest.mark.parametrize("kind", ["AVIF", "JPEG2000", HEIC])
def test_cut_off_files_say_how_long_they_should_be(kind: str) -> None:
    buffer = io.BytesIO()
    picture(4, 60).save(buffer, kind, **({"no_jp2": False} if kind == "JPEG2000" else {}))
    whole = buffer.getvalue()
    assert reason(whole[: len(whole) * 2 // 3]) == (f"is truncated ({len(whole) * 2 // 3:,} of {len(whole):,} bytes)")
    assert reason(whole[:20]).startswith(("is truncated (20 of", "is damaged ("))


def test_other_damage_is_named() -> None:
    assert reason(b"P6 20 20 255\nabc").startswith("is truncated (")
    assert reason(b"\xff\x4f\xff\x51" + bytes(40)).startswith("is damaged (")
    whole = bytearray(encoded(picture(4, 60), "AVIF"))
    whole[60:200] = bytes(140)
    assert reason(bytes(whole)).startswith("is damaged (")


@pytest.mark.parametrize("kind", ["AVIF", "JPEG2000", "PPM", HEIC])
def test_too_many_pixels_are_refused_before_decoding(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(picture(1, 40), kind)
    monkeypatch.setattr(images, "MAX_PIXELS", 1599)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with Image.open(io.BytesIO(data)) as opened:
        monkeypatch.setattr(type(opened), "load", lambda self: pytest.fail("decoded"))
    assert reason(data) == "has 1,600 pixels; the limit is 1,599"


def test_a_header_that_claims_too_much_is_refused() -> None:
    assert reason(b"P6 200000 200000 255\n" + bytes(100)) == "has 40,000,000,000 pixels; the limit is 100,000,000"


def test_without_the_extra_a_heic_image_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    heic = b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf" + bytes(range(200, 256))
    said = "is a HEIC image, which takes an extra to read: pip install 'cnnsearch[heic]'"
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert images._heif_version() is None
    monkeypatch.setattr(Image, "OPEN", {})
    assert reasons.not_an_image(heic) == said
    monkeypatch.setattr(features, "check", lambda feature: False)
    for data, name in ((encoded(picture(1), "AVIF"), "an AVIF"), (encoded(picture(1), "JPEG2000"), "a JPEG 2000")):
        said = f"is {name} image, which Pillow cannot read as it is installed here: pip install --upgrade pillow"
        assert reasons.not_an_image(data) == said


@pytest.mark.skipif(not HAS_HEIF, reason="needs the extra heic")
def test_the_version_of_the_extra_is_part_of_the_recipe() -> None:
    version = importlib.import_module("pillow_heif").__version__
    assert images.RECIPE.endswith(f", pillow-heif {version}")


def test_what_was_refused_is_tried_again_by_a_decoder_that_reads_more() -> None:
    assert images.RECIPE in images.DECODER
    assert all(name in images.DECODER for name in images.FORMATS)


def test_they_are_found_in_folders(tmp_path: Path) -> None:
    endings = (".avif", ".HEIC", ".heif", ".jp2", ".j2k", ".PPM", ".pgm", ".pbm", ".pnm")
    for at, ending in enumerate(endings):
        assert ending.lower() in EXTENSIONS
        folder = tmp_path / ("cat" if at % 2 else "dog")
        folder.mkdir(exist_ok=True)
        (folder / f"{at}{ending}").touch()
    listing = list_folder(str(tmp_path))
    assert len(listing.examples) == len(endings)
    assert listing.warnings == ()
