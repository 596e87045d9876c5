"""16-bit grey images that use little of their range, so that 8 bits keep little of what they hold."""

from __future__ import annotations

from collections.abc import Sequence

from cnnsearch.data.examples import Example, FileContent, InnerContent
from cnnsearch.data.images import FULL, GreyRange
from cnnsearch.data.index import Index

LOOKED_AT = 16
"""Images of a data set whose values are looked at, evenly spaced."""
FEW_LEVELS = 64
"""Of 256 levels of grey: with fewer, the plan says so."""
_BITS = (10, 12, 14)


def few_levels(examples: Sequence[Example], digests: Sequence[str], index: Index, of: GreyRange) -> tuple[str, ...]:
    """Warn where 16-bit images use few of the levels that they are reduced to.

    Args:
        examples: [N] of the data set, some of which are looked at.
        digests: [N] SHA-256 of their contents.
        index: remembers what was seen, so that no file is read again.
        of: the range of greys that is asked for.
    """
    some = [*zip(examples, digests, strict=True)][:: max(1, len(examples) // LOOKED_AT)][:LOOKED_AT]
    found = [
        index.greys(digest, one.content.greys)
        for one, digest in sorted(some, key=lambda pair: pair[0].content.place)
        if isinstance(one.content, FileContent | InnerContent)
    ]
    known = [values for values in found if values is not None]
    if not known:
        return ()
    low, high = min(value for value, _ in known), max(value for _, value in known)
    levels = _levels(low, high, of)
    if levels >= FEW_LEVELS:
        return ()
    wider = next(((0, 2**bits - 1) for bits in _BITS if high < 2**bits), FULL)
    suits = wider if _levels(low, high, wider) >= FEW_LEVELS else (low, max(high, low + 1))
    return (
        f"16-bit images have values from {low:,} to {high:,}, in {len(known)} that were looked at: of 256 levels they "
        f"use {levels}. To use more: --set 'data.grey_range=[{suits[0]}, {suits[1]}]'",
    )


def _levels(low: int, high: int, of: GreyRange) -> int:
    """How many of 256 levels values from `low` to `high` fall on, if `of` becomes black to white."""
    ends = [round(255 * min(max((value - of[0]) / (of[1] - of[0]), 0), 1)) for value in (low, high)]
    return min(ends[1] - ends[0], high - low) + 1
