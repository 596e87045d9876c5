"""Why bytes cannot be decoded as an image: what they are instead, or how they are damaged; all to follow a name."""

from __future__ import annotations

from PIL import Image, features

from cnnsearch.storage.contents import HEAD, is_lfs_pointer, is_web_page, kind_of, text_of
from cnnsearch.words import printable

_TAIL = 64
"""Bytes at the end, among which a complete file has its end marker."""
_REASON_LENGTH = 100
"""Characters of a decoder's own message that are shown at most."""

_IMAGES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"\0\0\0\x0cjP  ": "JPEG2000",
    b"\xff\x4f\xff\x51": "JPEG2000",
}
_END_MARKERS = {"JPEG": b"\xff\xd9", "PNG": b"IEND", "GIF": b";"}
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF"} | dict.fromkeys(
    (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"), "HEIF"
)
_TO_READ = {
    "HEIF": "is a HEIC image, which takes an extra to read: pip install 'cnnsearch[heic]'",
    "AVIF": "is an AVIF image, which Pillow cannot read as it is installed here: pip install --upgrade pillow",
    "JPEG2000": "is a JPEG 2000 image, which Pillow cannot read as it is installed here: pip install --upgrade pillow",
}
"""Format that needs something else to be installed -> the reason and what to do."""


def not_an_image(data: bytes) -> str:
    """Say why content that no decoder recognised is refused; worded to follow a file name."""
    text = text_of(data[:HEAD])
    if text is not None:
        return _not_text(text)
    if kind := image_kind(data):
        return damaged(data, "its header is not complete") if _can_read(kind) else _TO_READ[kind]
    if data[4:8] == b"ftyp":
        return "is not an image that can be read (its content is a video)"
    if kind := kind_of(data):
        return f"is not an image that can be read (its content is {kind})"
    if not data.strip(b"\0"):
        return f"is not an image (its {len(data):,} bytes are all zero)"
    return "is not an image that can be read (its content is of no known kind)"


def damaged(data: bytes, reason: str) -> str:
    """Say whether an image whose decoding failed with the message `reason` is truncated or damaged.

    The text is worded to follow a file name.
    """
    kind = image_kind(data)
    expected = _declared_length(data, kind)
    if expected is not None and expected > len(data):
        return f"is truncated ({len(data):,} of {expected:,} bytes)"
    marker = _END_MARKERS.get(kind or "")
    if "truncated" in reason.lower() or (marker is not None and marker not in data[-_TAIL:]):
        return f"is truncated ({len(data):,} bytes, and the image goes on)"
    return f"is damaged ({one_line(reason)})"


def image_kind(data: bytes) -> str | None:
    """Return the format that the first bytes announce; None if it is none that this package reads."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12])
    return next((kind for magic, kind in _IMAGES.items() if data.startswith(magic)), None)


def _can_read(kind: str) -> bool:
    """Whether what is installed here can decode a format."""
    if kind == "HEIF":
        return kind in Image.OPEN
    feature = {"AVIF": "avif", "JPEG2000": "jpg_2000"}.get(kind)
    return feature is None or bool(features.check(feature))


def _declared_length(data: bytes, kind: str | None) -> int | None:
    """Return the length of the complete file in bytes, if its header contains it."""
    if kind == "WEBP":
        return int.from_bytes(data[4:8], "little") + 8
    if kind == "BMP" and len(data) >= 6:
        return int.from_bytes(data[2:6], "little")
    if kind in ("AVIF", "HEIF") or data.startswith(b"\0\0\0\x0cjP  "):
        return _end_of_boxes(data)
    return None


def _end_of_boxes(data: bytes) -> int | None:
    """Return where the last of the boxes ends that files of ISO's base format consist of; None if it does not say."""
    at = 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4])
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16])
        if size < 8:  # 0: up to the end of the file
            return None
        at += size
    return at


def _not_text(text: str) -> str:
    if not text:
        return "is empty (0 bytes)"
    if is_lfs_pointer(text):
        return "is a Git LFS pointer, not the image itself; run git lfs pull"
    if "<svg" in text.lower():
        return "is an SVG drawing; only pixel images can be read"
    if is_web_page(text):
        return "is not an image (its content is a web page)"
    return "is not an image (its content is text)"


def one_line(reason: str) -> str:
    line = printable(reason.strip().splitlines()[0] if reason.strip() else "no reason given")
    return line if len(line) <= _REASON_LENGTH else line[:_REASON_LENGTH] + "…"
