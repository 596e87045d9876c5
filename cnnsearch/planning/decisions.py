"""What stopping rules have decided, and on which values: the notes that a sweep keeps of it. Pure.

A rule compares trials with what others had shown by then. Were a decision made again from what is left after a crash,
it could come out differently. So it is written down before anybody acts on it, and read again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from cnnsearch.spec.stage import StopEarly
from cnnsearch.storage.checksums import canonical_json


@dataclass(frozen=True)
class Note:
    """A value that a rule took in, or what it decided at an epoch."""

    rule: str
    """See `rule_key`."""
    trial: str
    """Id of the trial; of a decision, of the setting's first trial."""
    epoch: int
    value: float | None = None
    """Of the rule's metric; None for a decision."""
    reason: str | None = None
    """Of a decision: why the trial stops; "" if it goes on. None for a value."""

    @property
    def is_decision(self) -> bool:
        """Whether it is a decision, rather than a value."""
        return self.reason is not None


@dataclass
class Notes:
    """The notes on one rule: those that are written down, and new ones that are not yet."""

    rule: str
    values: dict[str, dict[int, float]] = field(default_factory=dict)
    """Trial id -> epoch -> value."""
    reasons: dict[tuple[str, int], str] = field(default_factory=dict)
    """(trial id, epoch) -> why it stops there; "" if it goes on."""
    new: list[Note] = field(default_factory=list)
    """Notes that have yet to be written down, in order."""

    def take_in(self, trial: str, epoch: int, value: float) -> None:
        """Note a value, unless it is noted already."""
        if epoch not in self.values.setdefault(trial, {}):
            self.values[trial][epoch] = value
            self.new.append(Note(self.rule, trial, epoch, value=value))

    def decide(self, trial: str, epoch: int, reason: str) -> None:
        """Note a decision."""
        self.reasons[trial, epoch] = reason
        self.new.append(Note(self.rule, trial, epoch, reason=reason))

    def recall(self, note: Note) -> None:
        """Take in a note that is written down. The first one on an epoch counts."""
        if note.reason is not None:
            self.reasons.setdefault((note.trial, note.epoch), note.reason)
        elif note.value is not None:
            self.values.setdefault(note.trial, {}).setdefault(note.epoch, note.value)


def rule_key(rule: StopEarly) -> str:
    """Return a short name for a rule with its settings: a changed rule decides anew."""
    return hashlib.sha256(canonical_json(rule.model_dump(mode="json")).encode()).hexdigest()[:8]


def by_rule(notes: Iterable[Note]) -> dict[str, Notes]:
    """Group what is written down by the rule that it is about."""
    found: dict[str, Notes] = {}
    for note in notes:
        found.setdefault(note.rule, Notes(note.rule)).recall(note)
    return found
