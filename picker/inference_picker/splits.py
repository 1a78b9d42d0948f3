"""How the requests for one model name are divided among target models (LoRA adapters)."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

# 2**64 divided by the golden ratio: multiples of it, modulo 2**64, are spread as evenly as any
# sequence can be (Knuth, TAOCP vol. 3, 6.4), so that shares are near exact at every moment.
_STEP: Final = 0x9E3779B97F4A7C15
_RANGE: Final = 1 << 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A model name known to the servers, and its weight: a proportion, no percentage."""

    name: str
    weight: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSplit:
    """The targets of one client-visible model name. Without targets the name stands for itself.

    ``model`` is None for the split of every name that has none of its own.
    """

    model: str | None
    targets: tuple[Target, ...] = ()
    stable: str = ""
    """The target of the stable version, where something tells it."""

    @property
    def reserved(self) -> bool:
        """Whether targets are listed, and none of them may get requests."""
        return bool(self.targets) and all(target.weight <= 0 for target in self.targets)

    def target_at(self, point: int) -> str | None:
        """The target whose share of [0, 2**64) holds the point; None where the name stays."""
        if not self.targets:
            return None
        bounds = list(accumulate(max(0, target.weight) for target in self.targets))
        if not bounds[-1]:
            return None
        return self.targets[bisect_right(bounds, point * bounds[-1] >> 64)].name or None


class EvenSequence:
    """Points in [0, 2**64), each next one in the widest gap: low-discrepancy draws.

    The weights may change at any draw: the sequence knows nothing about them.
    """

    def __init__(self, start: int = 0) -> None:
        """Begin anywhere; several pickers begin at different points."""
        self._point = start % _RANGE

    def next(self) -> int:
        """The next point."""
        self._point = (self._point + _STEP) % _RANGE
        return self._point

    def next_below(self, share: float) -> bool:
        """Whether the next point lies in the first ``share`` of the range."""
        return self.next() < share * _RANGE
