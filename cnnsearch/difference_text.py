"""Two results folders held against each other, in words, for a terminal of any width."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Sequence

from cnnsearch import told
from cnnsearch.evidence.comparisons import Score
from cnnsearch.words import counted, listed, printable, signed

WIDEST = 100
"""Characters of a line where the width of the terminal is not known."""
LEAST_NAME = 24
"""Characters of a setting's name below which each setting gets lines of its own in place of a row."""
INDENT = "  "
_WHOLE = re.compile(r"[−\d.]+( %)?( \([−\d.]+(–| to )[−\d.]+\))?")
"""A number with its unit and interval, which are not torn apart."""
_STAYS = "\xa0"


def difference_text(one: told.Diff, width: int | None = None) -> str:
    """The answer as lines of at most `width` characters, unless a single word is longer; None: that of the terminal."""
    width = width or shutil.get_terminal_size((WIDEST, 24)).columns
    parts = [
        _wrapped([f"A  {one.a} ({one.sweep_a})", f"B  {one.b} ({one.sweep_b})"], width),
        _section("images", _images(one.images), width),
        _section("settings of the sweeps", _changes(one.settings), width),
        _section("versions and machines of the last runs", _changes(one.versions), width),
        _cells(one, width),
        _section("only in A", _others(one.only_a), width) if one.only_a else "",
        _section("only in B", _others(one.only_b), width) if one.only_b else "",
        _section("to know", one.notes, width) if one.notes else "",
        _wrapped([_verdict(one)], width),
    ]
    return "\n\n".join(part for part in parts if part)


def _wrapped(lines: Sequence[str], width: int, indent: str = "") -> str:
    """Lines broken between words, what is left of one indented below it."""
    found: list[str] = []
    for line in lines:
        found += textwrap.wrap(
            _WHOLE.sub(lambda number: number[0].replace(" ", _STAYS), printable(line)),
            max(width, 20),
            initial_indent=indent,
            subsequent_indent=indent + INDENT,
            break_long_words=False,
            break_on_hyphens=False,
        )
    return "\n".join(found).replace(_STAYS, " ")


def _section(title: str, lines: Sequence[str], width: int) -> str:
    return f"{_wrapped([title], width)}\n{_wrapped(lines, width, INDENT)}"


def _changes(found: Sequence[told.Differing]) -> list[str]:
    return [f"{one.name}: {_value(one.a)} → {_value(one.b)}" for one in found] or ["the same"]


def _value(text: str | None) -> str:
    return text or "none"


def _images(found: told.ImagesOfBoth) -> list[str]:
    if found.are_same:
        return ["the same images, split in the same way"]
    lines = [f"not the same images, or not the same split: fingerprint {found.fingerprint_a} → {found.fingerprint_b}"]
    for side, names in (("A", found.classes_only_a), ("B", found.classes_only_b)):
        lines += [f"classes of {side} alone: {listed(names)}"] if names else []
    for split in found.splits:
        shared = "" if split.both is None else f", {split.both:,} of the same name and class"
        lines.append(f"{split.split}: {split.a:,} in A, {split.b:,} in B{shared}")
    return lines


def _others(settings: Sequence[told.Setting]) -> list[str]:
    return [f"{one.name}: {_score(one.test or one.validation)}" for one in settings]


def _score(score: told.Score | None) -> str:
    return "–" if score is None else Score(score.value, score.low, score.high, score.images, score.seeds).text


def _points(held: told.HeldAgainst | None) -> str:
    if held is None:
        return "–"
    value, low, high = (signed(100 * number) for number in (held.difference, held.low, held.high))
    return f"{value} ({low} to {high})"


def _said(held: told.HeldAgainst | None) -> str:
    if held is None:
        return "not measured"
    if held.same_answers:
        return "same answers"
    if held.verdict == "cannot tell":
        return held.verdict
    return f"{held.verdict}: B {'better' if held.difference > 0 else 'worse'}"


Row = tuple[str, str, str, str, str]


def _rows(one: told.Diff) -> list[Row]:
    """Name, A, B, B − A and the verdict of each setting, and of all together."""
    is_test = one.judged_on == "test"
    rows: list[Row] = [
        (
            printable(both.name),
            _score(both.a.test if is_test else both.a.validation),
            _score(both.b.test if is_test else both.b.validation),
            _points(both.held),
            _said(both.held),
        )
        for both in one.both
    ]
    if one.overall is not None:
        rows.append((f"all {one.overall.pairs} together", "", "", _points(one.overall), _said(one.overall)))
    return rows


_HEAD = ("setting", "A", "B", "B − A, points", "")


def _cells(one: told.Diff, width: int) -> str:
    title = f"{counted(len(one.both), 'setting')} in both, by {one.judged_on} accuracy"
    if not one.both:
        return "no setting is finished in both"
    rows = [_HEAD, *_rows(one)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    room = width - sum(widths[1:]) - len(INDENT) * len(_HEAD)
    if room < min(LEAST_NAME, widths[0]):
        return f"{_wrapped([title], width)}\n{_stacked(rows[1:], width)}"
    widths[0] = min(room, widths[0])
    lines = [_wrapped([title], width)]
    for row in rows:
        names = textwrap.wrap(row[0], widths[0], break_long_words=False, break_on_hyphens=False)
        lines += [_line((names[0], *row[1:]), widths), *(f"{INDENT}{INDENT}{name}" for name in names[1:])]
    return "\n".join(lines)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
    return f"{INDENT}{INDENT.join(cells)}".rstrip()


def _stacked(rows: Sequence[Row], width: int) -> str:
    """Each setting on lines of its own."""
    lines = []
    for name, a, b, points, said in rows:
        lines.append(_wrapped([name], width, INDENT))
        parts = [f"A {a}, B {b}"] if a else []
        lines.append(_wrapped([*parts, f"B − A {points}: {said}"], width, INDENT * 2))
    return "\n".join(lines)


def _verdict(one: told.Diff) -> str:
    if one.is_regression:
        worse = [both.name for both in one.both if both.held is not None and both.held.is_regression]
        whole = ["all settings together"] if one.overall is not None and one.overall.is_regression else []
        return f"B is clearly worse in {listed([*whole, *worse])}."
    better = [both.name for both in one.both if both.held is not None and _is_clear(both.held)]
    whole = ["all settings together"] if one.overall is not None and _is_clear(one.overall) else []
    if whole or better:
        return f"B is clearly better in {listed([*whole, *better])}, and nowhere clearly worse."
    if one.both and all(both.held is not None and both.held.same_answers for both in one.both):
        return "No difference: both are right on the same images."
    return "No difference is clear." if one.both else "Nothing can be compared."


def _is_clear(held: told.HeldAgainst) -> bool:
    return held.verdict == "clear"
