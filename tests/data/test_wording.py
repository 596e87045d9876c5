"""Names and counts in messages."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from cnnsearch.data.wording import decoded, plural, printable, shortened


@given(st.text())
def test_printable_text_is_printable_and_plain_text_unchanged(text: str) -> None:
    assert printable(text).isprintable()
    if text.isprintable():
        assert printable(text) == text


def test_controls_and_surrogates_become_visible() -> None:
    assert printable("a\x1b[2J\n") == "a\\x1b[2J\\n"
    assert printable("\udcff") == "\\udcff"


@given(st.binary().filter(lambda raw: b"\0" not in raw))
def test_any_file_name_can_be_encoded(raw: bytes) -> None:
    text = decoded(os.fsdecode(raw))
    text.encode()
    assert decoded(text) == text


def test_plural() -> None:
    assert [plural(count, "image") for count in (0, 1, 1200)] == ["no images", "1 image", "1,200 images"]
    assert plural(2, "class") == "2 classes"


def test_shortened() -> None:
    assert shortened(list("abcde"), "image") == list("abcde")
    assert shortened(list("abcdef"), "image") == [*"abcde", "and 1 more image."]
