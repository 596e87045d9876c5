"""What a file's first bytes say that it is, where it is not what it should be."""

from __future__ import annotations

HEAD = 4096
"""Bytes at the beginning that are looked at."""

_KINDS = {
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
    b"\x89HDF\r\n\x1a\n": "an HDF5 file, such as Keras writes",
    b"GGUF": "a GGUF file",
    b"PAR1": "a Parquet table",
    b"\x7fELF": "a program",
    b"MZ": "a program",
}


def kind_of(data: bytes) -> str | None:
    """Return what the first bytes announce, such as `a zip archive`; None if nothing known."""
    return next((kind for magic, kind in _KINDS.items() if data.startswith(magic)), None)


def text_of(head: bytes) -> str | None:
    """Return the first bytes, at most `HEAD`, as text; None if they are not text."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = head.decode("utf-16", "replace")
    else:
        try:
            text = head.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            if len(head) < HEAD or error.start < len(head) - 3:
                return None
            text = head[: error.start].decode("utf-8-sig")
    return text if all(char.isprintable() or char in "\t\n\r\f\v" for char in text) else None


def is_lfs_pointer(text: str) -> bool:
    """Whether a text is what Git LFS leaves in the place of a file that it has not fetched."""
    return text.lstrip().lower().startswith("version https://git-lfs")


def is_web_page(text: str) -> bool:
    """Whether a text is HTML."""
    return text.lstrip().lower().startswith(("<!doctype html", "<html"))
