"""Why an endpoint was picked: what the pick log keeps and `picker explain` shows."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from math import isinf
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from inference_picker.ranking import Floats, Pods


@dataclass(frozen=True, slots=True, kw_only=True)
class Considered:
    """One candidate as the scheduler saw it."""

    address: str
    version: str
    score: float
    """Weighted sum of the scorers, times the health."""
    parts: Mapping[str, float]
    """Score by scorer, before its weight."""
    in_flight: float
    seats: float
    """Requests that it serves at once; 0 where unknown."""
    pending_tokens: float
    cached_tokens: float
    kv_share: float
    """Share of the KV cache that requests in flight hold; 0 where its size is unknown."""
    health: float

    @classmethod
    def of(cls, pods: Pods, index: int, score: float, parts: Mapping[str, Floats]) -> Considered:
        """The candidate at this index."""
        endpoint = pods.endpoints[index]
        return cls(
            address=endpoint.address,
            version=endpoint.version,
            score=round(float(score), 6),
            parts={name: round(float(values[index]), 6) for name, values in parts.items()},
            in_flight=round(float(pods.in_flight[index]), 2),
            seats=0.0 if isinf(seats := float(pods.seats[index])) else seats,
            pending_tokens=round(float(pods.pending_tokens[index])),
            cached_tokens=round(float(pods.cached_tokens[index])),
            kv_share=round(float(pods.held_tokens[index] / pods.kv_tokens[index]), 4),
            health=round(float(pods.health[index]), 3),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """How a profile came to its order."""

    profile: str
    removed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Addresses that each filter took out, by the filter's name."""
    considered: tuple[Considered, ...] = ()
    """The candidates behind the filters, the chosen first, then by falling score; ten at most."""
    chosen: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON can carry it."""
        return asdict(self)
