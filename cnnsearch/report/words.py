"""Numbers as people read them. Accuracies and intervals are fractions here and percent in the words."""

from __future__ import annotations

from collections.abc import Sequence

from cnnsearch.plots.evidence import Score
from cnnsearch.stats import Estimate


def percent(score: Score) -> str:
    """An accuracy with its interval: "78.9 % (76.3–81.3)"."""
    return f"{100 * score.value:.1f} % ({100 * score.low:.1f}–{100 * score.high:.1f})"


def share(fraction: float) -> str:
    """A fraction that is no estimate, such as chance: "10 %", "12.5 %"."""
    return f"{100 * fraction:.3g} %"


def signed(points: float) -> str:
    """Points with a true minus sign and never "−0.0"."""
    text = f"{points:.1f}"
    return text.replace("-", "−") if float(text) != 0 else "0.0"


def points(difference: Estimate, sign: int = 1) -> str:
    """A difference of accuracies with its interval: "2.7 points (0.4 to 5.0)". `sign` -1 turns it round."""
    low, high = sorted((sign * difference.low, sign * difference.high))
    return f"{signed(100 * sign * difference.value)} points ({signed(100 * low)} to {signed(100 * high)})"


def listed(items: Sequence[str], conjunction: str = "and") -> str:
    """ "a", "a and b", "a, b and c"."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {conjunction} {items[-1]}" if items else ""


def counted(count: int, singular: str, plural: str | None = None) -> str:
    """ "1 setting", "1,000 settings"."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"


def capitalised(text: str) -> str:
    """The text with its first letter large and the rest untouched."""
    return text[:1].upper() + text[1:]
