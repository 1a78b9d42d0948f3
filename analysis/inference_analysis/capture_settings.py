"""How the answers of Prometheus are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from inference_analysis.observations import Arm

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet

    from inference_analysis.increments import Grid


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureSettings:
    """How answers are read."""

    grid: Grid
    warm_up_s: float
    pod_label: str = "pod"
    node_label: str = "node"
    hardware_label: str = ""
    error_reasons: AbstractSet[str] = frozenset({"error"})
    required: AbstractSet[str] = frozenset()
    """Metrics without which nothing is written."""
    arms: tuple[Arm, ...] = tuple(Arm)
    """Stable alone for its history."""
    shared: Mapping[Arm, str] | None = None
    """What an arm's entries are called, after their pod's name, where arms share pods."""
    no_pods: str = "Check the pods' labels"
    """What to do when an arm has no pods."""
