"""Counts over the requests of a window of time."""

from __future__ import annotations

import collections
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from support.traffic.records import Request

CERTAIN: Final = 1 - 1e-7
"""How rarely chance alone may fail a test of a share that is drawn at random."""


@dataclass(frozen=True, slots=True)
class Window:
    """Finished requests that started in the window."""

    requests: Sequence[Request]

    @property
    def answers(self) -> list[Request]:
        """The complete answers."""
        return [request for request in self.requests if request.ok]

    @property
    def failures(self) -> list[Request]:
        """Everything that is no complete answer."""
        return [request for request in self.requests if not request.ok]

    @property
    def total(self) -> int:
        """Number of complete answers."""
        return len(self.answers)

    def counts(self) -> Mapping[str, int]:
        """Answers by who gave them: adapter, else version."""
        return dict(collections.Counter(request.answered_by for request in self.answers))

    def shares(self) -> Mapping[str, float]:
        """Shares of the answers; empty without answers."""
        return {name: count / self.total for name, count in self.counts().items()}

    def share(self, name: str) -> float:
        """Share of one version or adapter, 0.0 where it gave no answer."""
        return self.shares().get(name, 0.0)

    def fits(self, name: str, share: float, confidence: float = CERTAIN) -> bool:
        """Whether the answers are as likely as not those of a version with that share.

        30 of 300 fit any share from 3.2 to 21.8 per cent, 150 any from 34.9 to 65.1.
        """
        low, high = self.interval(name, confidence)
        return low <= share <= high

    def interval(self, name: str, confidence: float = 0.95) -> tuple[float, float]:
        """Exact (Clopper-Pearson) interval of a share; (0, 1) without answers."""
        if self.total == 0:
            return 0.0, 1.0
        # Takes half a second to import, which the client of a live view should not wait for.
        from scipy.stats import binomtest  # noqa: PLC0415

        count = self.counts().get(name, 0)
        found = binomtest(count, self.total).proportion_ci(confidence, method="exact")
        return float(found.low), float(found.high)
