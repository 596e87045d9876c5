"""What the networks of several sweeps cost to train, and the accuracy they reach for it."""

from __future__ import annotations

from collections.abc import Sequence

from cnnsearch.evidence.comparisons import Score
from cnnsearch.evidence.configurations import Configuration, is_missing
from cnnsearch.evidence.contrasts import Entry
from cnnsearch.evidence.part import Part
from cnnsearch.evidence.verdicts import CANNOT_TELL, CLEAR, SUGGESTIVE, Verdict
from cnnsearch.report.claims import Finding
from cnnsearch.report.method import hardware
from cnnsearch.report.words import in_label
from cnnsearch.words import counted, duration, listed, number_word

LONGER = 1.2
"""Ratio of two times below which they cannot be told apart, because each was measured only once."""
_CLEARLY_LONGER = 2.0
_MOST_UNBEATEN = 5


def machine(part: Part) -> str:
    """Name of the machine of the sweep's last run; empty if not recorded."""
    return hardware(part.evidence.runs[-1]) if part.evidence.runs else ""


def timed(ranked: Sequence[Entry]) -> list[tuple[Entry, float]]:
    """List entries with the training seconds of their best networks, shortest first."""
    known = [(entry, seconds) for entry in ranked if (seconds := entry.part.seconds(entry.best))]
    return sorted(known, key=lambda item: item[1])


def of_time(ranked: Sequence[Entry]) -> list[Finding]:
    """Say how long the best networks, and all trials of each sweep, took to train."""
    known = timed(ranked)
    if len(known) < 2:
        return []
    (first, least), rest = known[0], known[1:]
    others = [f"that of {e.part.name} {duration(s)}, {times(s / least)} as long" for e, s in rest]
    sentence = f"The best network of {first.part.name} took {duration(least)} to train, {listed(others)}."
    totals = [(entry.part, total) for entry in ranked if (total := total_seconds(entry.part)) is not None]
    whole = [f"{part.name} {duration(total)} for {counted(_ended(part), 'trial')}" for part, total in totals]
    sentence += f" All trials of a sweep together: {listed(whole)}." if whole else ""
    verdict = _how_much_longer(rest[0][1] / least, [entry for entry, _ in known])
    return [Finding(sentence, verdict, "time")]


def times(ratio: float) -> str:
    """Word a ratio: "1.5 times", "1,200 times"."""
    return f"{ratio:,.0f} times" if ratio >= 9.95 else f"{ratio:.1f} times"


def _how_much_longer(ratio: float, compared: Sequence[Entry]) -> Verdict:
    """How sure a ratio of times is: clear only if it is large and on one machine, as each time was measured once."""
    if ratio < LONGER:
        return CANNOT_TELL
    same = len({machine(entry.part) for entry in compared}) == 1
    return CLEAR if ratio >= _CLEARLY_LONGER and same else SUGGESTIVE


def _ended(part: Part) -> int:
    return len(part.evidence.tables.trials)


def total_seconds(part: Part) -> float | None:
    """Training seconds of all trials of a sweep; None where none is recorded."""
    known = [float(value) for value in part.evidence.tables.trials["seconds"] if not is_missing(value)]
    return sum(known) if known else None


def of_unbeaten(parts: Sequence[Part]) -> list[Finding]:
    """Name the settings that no other setting beats in both accuracy and time."""
    known = [
        (part, c, score, seconds)
        for part in parts
        for c in part.evidence.configurations
        if (score := part.evidence.score(c, "test")) is not None and (seconds := part.seconds(c)) is not None
    ]
    known.sort(key=lambda item: (item[3], -item[2].value))
    unbeaten: list[tuple[Part, Configuration, Score, float]] = []
    for item in known:
        if not unbeaten or item[2].value > unbeaten[-1][2].value:
            unbeaten.append(item)
    if len(known) < 3 or len({part.name for part, *_ in known}) < 2 or len(unbeaten) > _MOST_UNBEATEN:
        return []
    shown = [
        f"{part.name} ({in_label(part.evidence, configuration)}) with {score.text} after {duration(seconds)}"
        for part, configuration, score, seconds in unbeaten
    ]
    if len(unbeaten) == 1:
        sentence = f"One setting of {len(known)} is both fastest and most accurate on the test images: {shown[0]}."
    else:
        sentence = (
            f"Of {len(known)} settings, {number_word(len(unbeaten))} are beaten by none in both test accuracy and "
            f"time: {'; '.join(shown)}."
        )
    return [Finding(sentence, SUGGESTIVE, "time")]
