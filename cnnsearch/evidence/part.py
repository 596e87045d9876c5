"""One of several sweeps that are compared."""

from __future__ import annotations

from dataclasses import dataclass

from cnnsearch.evidence.configurations import Configuration
from cnnsearch.evidence.evidence import Evidence


@dataclass(frozen=True)
class Part:
    """One sweep of several, under the name it goes by among them."""

    name: str
    evidence: Evidence

    @property
    def best(self) -> Configuration | None:
        """Its best configuration by validation accuracy."""
        return self.evidence.best

    def seconds(self, configuration: Configuration) -> float | None:
        """Seconds to train a network of this configuration, including the networks that it continued."""
        total, at = 0.0, configuration
        seen = set()
        while True:
            own = at.scores.get("seconds")
            if own is None or at.key in seen:
                return None
            seen.add(at.key)
            total += own
            if at.parent is None:
                return total
            if at.parent not in self.evidence.by_key:
                return None
            at = self.evidence.by_key[at.parent]
