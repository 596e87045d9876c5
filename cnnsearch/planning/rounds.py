"""Adding fresh seeds to contenders until the best one is told from the rest. Pure.

After each round the contenders left are compared, all with each other. One that is worse than another is dropped and
gets no more seeds. It ends when one is left, or when all that are left are shown to be about as good as the best.

Whoever looks again and again finds something in the end. So each look may err with a probability that was fixed before
the first, and these add up to 5 % (Lan and DeMets 1983, Biometrika 70:659, with equal shares); each look's share is
divided among all pairs of contenders. That bounds the probability of any wrong statement, however looks and pairs
depend on each other, whichever looks are left out, and whatever was dropped before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from cnnsearch.planning.confirm import Confirmation, Contender
from cnnsearch.planning.trial import Outcome, Status
from cnnsearch.spec.cells import Cell

LOOKS = (3, 4, 5, 7, 10, 14, 20, 28, 40, 56)
"""Numbers of seeds after which contenders are compared."""
ERROR = 0.05
"""Probability of any wrong statement, over all looks and pairs."""

CLEAR, WITHIN_MARGIN, OUT_OF_LOOKS, SEEDS_LOST = "clear", "within margin", "out of looks", "seeds lost"
"""Why no more seeds are added. With the first and the last of these one contender is left, or none; with the last one,
others were left out because a seed of theirs failed or diverged."""

Bounds = tuple[float, float, float]
"""A difference of two settings' accuracies, and the ends of its interval."""
Compare = Callable[[Contender, Contender, int, float], Bounds]
"""Compares two contenders on their first so many fresh seeds: (A, B, seeds, level) -> A minus B."""


def share(pairs: int) -> float:
    """Return the probability with which one pair may be told apart wrongly at one look."""
    return ERROR / len(LOOKS) / max(1, pairs)


def next_round(
    found: Confirmation, outcomes: Mapping[str, Outcome], seeds: int, margin: float, compare: Compare
) -> Cell | None:
    """Return the round after the last one, all of whose trials have ended; None where nothing is left to do.

    It names the contenders that are left and their number of seeds. The round that ends it has no more seeds than the
    last, and says under `ended` why.

    Args:
        found: the rounds so far.
        outcomes: of all trials of these rounds.
        seeds: fresh seeds of the first round.
        margin: difference in accuracy, as a fraction, below which settings are about as good as each other.
        compare: see `Compare`.
    """
    rounds = found.study.suggestions
    if not rounds or found.is_settled:
        return None
    reached = rounds[-1].get("seeds", seeds)
    left = [index for index in rounds[-1]["contenders"] if _is_whole(found.of(index), outcomes)]
    lost = sorted({*rounds[-1].get("lost", ()), *rounds[-1]["contenders"]} - {*left})
    of_round: Cell = {"lost": lost} if lost else {}

    def bounds(a: int, b: int, level: float) -> Bounds:
        return compare(found.of(a), found.of(b), reached, level)

    left, why = judge(left, len(rounds[0]["contenders"]), margin, bounds)
    if why:
        return {"contenders": left, "seeds": reached, **of_round, "ended": SEEDS_LOST if why == CLEAR and lost else why}
    more = next((look for look in LOOKS if look > reached), None)
    if more is None:
        return {"contenders": left, "seeds": reached, **of_round, "ended": OUT_OF_LOOKS}
    return {"contenders": left, "seeds": more, **of_round}


def judge(
    contenders: Sequence[int], several: int, margin: float, bounds: Callable[[int, int, float], Bounds]
) -> tuple[list[int], str]:
    """Return the contenders that may still be best, and why there is nothing left to tell; "" where there is.

    Args:
        contenders: those that are left so far.
        several: number of all contenders, also of those that were dropped.
        margin: see `next_round`.
        bounds: compares two of them: (A, B, level) -> A minus B.
    """
    level = 1 - share(several * (several - 1) // 2)
    found = {(a, b): bounds(a, b, level) for a in contenders for b in contenders if a < b}
    found |= {(b, a): (-value, -high, -low) for (a, b), (value, low, high) in found.items()}
    left = [b for b in contenders if not any(found[a, b][1] > 0 for a in contenders if a != b)]
    if len(left) < 2:
        return left, CLEAR
    best = max(left, key=lambda a: sum(found[a, b][0] for b in left if b != a))
    others = [found[best, b] for b in left if b != best]
    is_near = all(-margin <= low and high <= margin for _, low, high in others)
    return left, WITHIN_MARGIN if is_near else ""


def _is_whole(contender: Contender, outcomes: Mapping[str, Outcome]) -> bool:
    """Whether all its seeds finished; one that lost a seed cannot be compared with the others."""
    found: Sequence[Outcome | None] = [outcomes.get(trial.id) for trial in contender.again]
    return all(outcome is not None and outcome.status is Status.DONE for outcome in found)
