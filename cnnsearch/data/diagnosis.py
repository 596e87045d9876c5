"""What to tell a person about bytes that are not a readable image."""

from __future__ import annotations

from cnnsearch.data.wording import printable

_HEAD = 4096
"""Bytes looked at to name a kind of content."""
_TAIL = 64
"""Bytes at the end among which a whole file has its end marker."""
_REASON_LENGTH = 100
"""Characters of a decoder's own message that are passed on."""

_IMAGES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}
_END_MARKERS = {"JPEG": b"\xff\xd9", "PNG": b"IEND", "GIF": b";"}
_OTHERS = {
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "gzip data",
    b"BZh": "bzip2 data",
    b"\xfd7zXZ\0": "xz data",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"%PDF": "a PDF document",
    b"%!PS": "PostScript",
    b"8BPS": "a Photoshop document",
    b"\0\0\1\0": "an icon (.ico)",
    b"\0\0\0\x0cjP  ": "a JPEG 2000 image",
    b"\xff\x4f\xff\x51": "a JPEG 2000 image",
    b"\xff\x0a": "a JPEG XL image",
    b"\0\0\0\x0cJXL ": "a JPEG XL image",
    b"\x93NUMPY": "a NumPy array",
    b"\x7fELF": "a program",
    b"MZ": "a program",
}
_BRANDS = {b"avif": "an AVIF image", b"avis": "an AVIF image"} | dict.fromkeys(
    (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"), "a HEIC image"
)


def not_an_image(data: bytes) -> str:
    """Why content that no image decoder took is refused, to be read after a file name."""
    text = _text(data[:_HEAD])
    if text is not None:
        return _not_text(text)
    if image_kind(data):
        return damaged(data, "its header is not complete")
    if data[4:8] == b"ftyp":
        return f"is not an image that can be read (its content is {_BRANDS.get(data[8:12], 'a video')})"
    for magic, kind in _OTHERS.items():
        if data.startswith(magic):
            return f"is not an image that can be read (its content is {kind})"
    if not data.strip(b"\0"):
        return f"is not an image (its {len(data):,} bytes are all zero)"
    return "is not an image that can be read (its content is of no known kind)"


def damaged(data: bytes, reason: str) -> str:
    """Why an image whose decoding failed with `reason` is refused, to be read after a file name."""
    kind = image_kind(data)
    expected = _declared_length(data, kind)
    if expected is not None and expected > len(data):
        return f"is truncated ({len(data):,} of {expected:,} bytes)"
    marker = _END_MARKERS.get(kind or "")
    if "truncated" in reason.lower() or (marker is not None and marker not in data[-_TAIL:]):
        return f"is truncated ({len(data):,} bytes, and the image goes on)"
    return f"is damaged ({_one_line(reason)})"


def image_kind(data: bytes) -> str | None:
    """The format that the first bytes promise; None where it is none of those read here."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    return next((kind for magic, kind in _IMAGES.items() if data.startswith(magic)), None)


def _declared_length(data: bytes, kind: str | None) -> int | None:
    """The length of the whole file in bytes, where its header tells."""
    if kind == "WEBP":
        return int.from_bytes(data[4:8], "little") + 8
    if kind == "BMP" and len(data) >= 6:
        return int.from_bytes(data[2:6], "little")
    return None


def _text(head: bytes) -> str | None:
    """The first bytes as text; None where they are not text."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = head.decode("utf-16", "replace")
    else:
        try:
            text = head.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            if len(head) < _HEAD or error.start < len(head) - 3:
                return None
            text = head[: error.start].decode("utf-8-sig")
    return text if all(char.isprintable() or char in "\t\n\r\f\v" for char in text) else None


def _not_text(text: str) -> str:
    start = text.lstrip().lower()
    if not text:
        return "is empty (0 bytes)"
    if start.startswith("version https://git-lfs"):
        return "is a Git LFS pointer, not the image itself; run git lfs pull"
    if "<svg" in start:
        return "is an SVG drawing; only pixel images can be read"
    if start.startswith(("<!doctype html", "<html")):
        return "is not an image (its content is a web page)"
    return "is not an image (its content is text)"


def _one_line(reason: str) -> str:
    line = printable(reason.strip().splitlines()[0] if reason.strip() else "no reason given")
    return line if len(line) <= _REASON_LENGTH else line[:_REASON_LENGTH] + "…"
