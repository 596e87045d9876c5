"""From rows that say what an image is, wherever they come from, to a listing: labels, splits and groups as words."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cnnsearch.data.dataset import SPLITS
from cnnsearch.data.examples import Example, FileContent, InnerContent, Listing
from cnnsearch.data.folders import look_alike
from cnnsearch.data.parts import part_of_file, part_of_word
from cnnsearch.errors import DataError
from cnnsearch.words import LISTED, decoded, listed, plural, printable, shortened

DELIMITED = {".csv": ",", ".tsv": "\t"}
"""Extension of a table of text -> what stands between its columns."""


@dataclass
class Rows:
    """What rows say of their images; every list has one entry for each row."""

    source: str
    """What the user asked for."""
    base: str
    """The folder that names are relative to, as messages show it."""
    names: Sequence[str]
    """What an image is called in messages and results."""
    order: Sequence[str]
    """Decides the order of the images of a class, by code point; rows with the same text stay in their order."""
    labels: Sequence[str]
    """"" where a row has no label."""
    splits: Sequence[str] | None
    """Words such as train; None if nothing says to which split an image belongs."""
    groups: Sequence[str] | None
    """"" where an image belongs to no group; None if there are no groups."""
    where: Callable[[int], str]
    """Row -> how a message names it, after the source: `row 3`."""
    content: Callable[[int], FileContent | InnerContent]
    classes: Sequence[str] | None = None
    """Names of the classes in their order; None: the labels, by code point."""
    problems: dict[int, str] = field(default_factory=dict)
    """Row -> why it cannot be used, worded to follow its name."""
    left_out: set[int] = field(default_factory=set)
    """Rows that are not taken, and are no problem."""
    warnings: list[str] = field(default_factory=list)

    def listing(self) -> Listing:
        """Return the images class by class.

        Raises:
            DataError: there are no rows, fewer than two classes, or splits that cannot be used.
        """
        if not self.names:
            raise DataError(f"{printable(self.source)} has no rows: it lists no image.")
        given, parts = self._parts()
        problems = {row: "has no label" for row, label in enumerate(self.labels) if not label} | self.problems
        used = {label for label in self.labels if label}
        classes = sorted(used) if self.classes is None else [name for name in self.classes if name in used]
        _refuse_one_class(self.source, classes)
        codes = {name: code for code, name in enumerate(classes)}
        taken = [row for row in range(len(self.names)) if row not in problems and row not in self.left_out]
        taken.sort(key=lambda row: (codes[self.labels[row]], self.order[row]))
        groups: Sequence[str] = self.groups or ()
        examples = tuple(
            Example(
                self.names[row],
                codes[self.labels[row]],
                parts[row] if parts else None,
                self.content(row),
                (groups[row] or None) if groups else None,
            )
            for row in taken
        )
        return Listing(
            self.source,
            tuple(classes),
            examples,
            given,
            tuple((self._named(row), reason) for row, reason in sorted(problems.items())),
            (*look_alike(classes), *self.warnings, *_about_groups(examples, given)),
            self.base,
        )

    def _named(self, row: int) -> str:
        where = self.where(row)
        return self.names[row] if where in self.names[row] else f"{self.names[row]} ({where})"

    def _parts(self) -> tuple[tuple[str, ...], list[str] | None]:
        """Return the splits that the rows bring, and that of each row; none if all rows are for training."""
        if self.splits is None or not any(self.splits):
            return (), None
        meant = {word: part_of_word(word) for word in set(self.splits)}
        if odd := {word for word, part in meant.items() if part is None}:
            row = next(row for row, word in enumerate(self.splits) if word in odd)
            said = f'split is "{printable(self.splits[row])}"' if self.splits[row] else "there is no split"
            raise DataError(f"{printable(f'{self.source}, {self.where(row)}')}: {said}; allowed: {', '.join(SPLITS)}")
        found = [part or "" for part in map(meant.__getitem__, self.splits)]
        given = tuple(part for part in SPLITS if part in set(found))
        if given == ("train",):
            return (), None
        if missing := [part for part in ("train", "test") if part not in given]:
            raise DataError(
                f"{printable(self.source)} has {listed(given)} images but none to {_VERBS[missing[0]]}.\n"
                "Give train, val and test; or train and test; or no splits, and let data.split divide."
            )
        return given, found


_VERBS = {"train": "train on (train)", "test": "test on (test)"}


def _refuse_one_class(source: str, classes: Sequence[str]) -> None:
    if len(classes) < 2:
        name = f', "{printable(classes[0])}"' if classes else ""
        raise DataError(f"{printable(source)} has {plural(len(classes), 'class')}{name}; at least two are needed.")


def _about_groups(examples: Sequence[Example], given: Collection[str]) -> tuple[str, ...]:
    """Say what groups do to the split, and warn of those with images in several splits that the source brings."""
    parts: dict[str, set[str | None]] = {}
    for example in examples:
        if example.group is not None:
            parts.setdefault(example.group, set()).add(example.part)
    shared = [(group, found) for group, found in parts.items() if len(found) > 1]
    stay = f"Images of a group stay together ({plural(len(parts), 'group')}): shares of the split are approximate."
    sentences = (stay,) if parts and "val" not in given else ()
    if not shared:
        return sentences
    group, found = shared[0]
    has = "1 group has" if len(shared) == 1 else f"{len(shared):,} groups have"
    return (
        *sentences,
        f"{has} images in more than one split, for example {printable(group)} "
        f"({listed([part for part in SPLITS if part in found])}): scores may be too high.",
    )


def grouped_by_name(listing: Listing, pattern: str) -> Listing:
    """Give each example the group that a regular expression finds in its name: its first group, else all it matches.

    Raises DataError where it finds nothing in some name.
    """
    found = [re.search(pattern, example.name) for example in listing.examples]
    lacking = [example.name for example, match in zip(listing.examples, found, strict=True) if match is None]
    if lacking:
        several = "none" if len(lacking) == len(found) else f"{len(found) - len(lacking):,}"
        raise DataError(
            f"data.split.group: {printable(pattern)!r} is found in the names of {several} of {len(found):,} images, "
            f"for example not in {printable(lacking[0])}.\nGive a regular expression that finds the group in every "
            "name, or a column of the table."
        )
    examples = tuple(
        replace(example, group=(match[1] if match.re.groups and match[1] is not None else match[0]))
        for example, match in zip(listing.examples, found, strict=True)
        if match is not None
    )
    about = _about_groups(examples, listing.parts)
    return replace(listing, examples=examples, warnings=(*listing.warnings, *about))


def splits_of(files: Sequence[Path]) -> list[str] | None:
    """Return the split that the name of each file means; None if there is one file, or no name means any.

    Raises DataError where some names do and others do not.
    """
    parts = [part_of_file(decoded(file.name)) for file in files]
    if len(files) == 1 or not any(parts):
        return None
    if None in parts:
        odd, other = files[parts.index(None)], files[next(at for at, part in enumerate(parts) if part)]
        raise DataError(
            f"{printable(decoded(other.name))} is named after a split and {printable(decoded(odd.name))} is not.\n"
            "Name all files after their splits, as train-0.parquet and test-0.parquet, or none."
        )
    return [part for part in parts if part is not None]


def refuse_contradictions(rows: Rows, same: dict[str, list[int]], noun: str) -> None:
    """Take images once that several rows name.

    Args:
        rows: gets a warning where rows repeat what an earlier one says.
        same: what an image is known by -> the rows that name it, for those named more than once.
        noun: what they name, such as "file".

    Raises:
        DataError: two rows say different things of the same image.
    """
    columns = {"label": rows.labels, "split": rows.splits, "group": rows.groups}
    lines, repeated = [], []
    for found in same.values():
        for row in found[1:]:
            differs = [(name, of) for name, of in columns.items() if of is not None and of[row] != of[found[0]]]
            if differs:
                name, of = differs[0]
                lines.append(
                    f"{printable(rows.source)}: {rows.where(found[0])} and {rows.where(row)} name the same {noun}, "
                    f'{printable(rows.names[row])}, with {name} "{printable(of[found[0]])}" and "{printable(of[row])}".'
                )
            else:
                repeated.append(row)
    if lines:
        raise DataError("\n".join(shortened(lines, "row")))
    if repeated:
        rows.left_out.update(repeated)
        shown = ", ".join(printable(rows.where(row)) for row in repeated[:LISTED])
        more = f" and {len(repeated) - LISTED:,} more" if len(repeated) > LISTED else ""
        verb = "says" if len(repeated) == 1 else "say"
        rows.warnings.append(
            f"{plural(len(repeated), 'row')} {verb} the same as an earlier one and {'is' if verb == 'says' else 'are'} "
            f"taken once: {shown}{more}."
        )
