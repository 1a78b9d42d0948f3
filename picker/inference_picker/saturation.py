"""Whether a pool can take more at all.

llm-d-router's utilization detector: the mean over the pods of max(queue / threshold, KV usage /
threshold); 1 or more is saturated. Other than there, a pod whose page is not fresh is left out
instead of counting as full: an outage of the metrics must not stop the traffic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from inference_picker.board import Board


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """What counts as full; the defaults are llm-d-router's."""

    queue_depth: int = 5
    kv_usage: float = 0.8
    in_flight: int | None = None
    """Requests in flight per pod, by this picker's count, where that is limited as well."""


def saturation(board: Board, thresholds: Thresholds, *, at: float) -> float:
    """0 for an idle pool, 1 for a full one, more for one with queues; 0 without endpoints."""
    waiting, usage = board.readings_of(at=at)
    level = 0.0
    if len(waiting):
        parts = np.maximum(waiting / thresholds.queue_depth, usage / thresholds.kv_usage)
        level = float(parts.mean())
    if thresholds.in_flight is not None:
        mine = board.in_flight_of()
        if len(mine):
            level = max(level, float((mine / thresholds.in_flight).mean()))
    return level
