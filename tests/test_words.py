"""Numbers, names and lists as people read them."""

from __future__ import annotations

import logging
import os
import sys

import pytest
from hypothesis import given, strategies as st

from cnnsearch import words
from cnnsearch.words import VisibleLines, decoded, plural, printable, say, shortened


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (0.6, "0.6 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (160, "2 min 40 s"),
        (3600, "1 h"),
        (11_100, "3 h 5 min"),
        (187_200, "2 d 4 h"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


def test_clock_and_size() -> None:
    assert (words.clock(62), words.clock(7384)) == ("1:02", "2:03:04")
    assert (words.size(90_400_000), words.size(1_130_000_000), words.size(10)) == ("90 MB", "1.1 GB", "1 MB")


def test_accuracy_carries_its_interval() -> None:
    # Wilson 95 % of 80/100, as in Newcombe (1998), table I: 0.7112 to 0.8666.
    assert words.accuracy(0.8, 100) == "80.0 % (71.1–86.7)"


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


def test_on_a_page_only_what_acts_on_other_text_is_escaped() -> None:
    assert printable("a\x1b[2J\u202eb", on_page=True) == "a\\x1b[2J\\u202eb"
    assert printable("line\nbreak\u00a0and 👩\u200d🚀", on_page=True) == "line\nbreak\u00a0and 👩\u200d🚀"
    assert printable("line\nbreak") == "line\\nbreak"


def test_lines_that_are_said_move_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    say("one\n\x1b[2Jtwo\r")
    say("three\x07", sys.stderr)
    assert capsys.readouterr() == ("one\n\\x1b[2Jtwo\\r\n", "three\\x07\n")
    record = logging.LogRecord("name", logging.WARNING, "file", 1, "%s is damaged", ("\x1b]0;x",), None)
    assert VisibleLines().format(record) == "\\x1b]0;x is damaged"
