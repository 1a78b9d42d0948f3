"""What every keeper shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inference_plugin.carriers import Permissions
    from inference_plugin.cluster import Cluster
    from inference_plugin.events import Recorder
    from inference_plugin.locks import ObjectLocks, WaitSlots
    from inference_plugin.telemetry import Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """The cluster, the ways to tell of it, and the bounds on what is done at once."""

    cluster: Cluster
    recorder: Recorder
    metrics: Metrics
    locks: ObjectLocks
    slots: WaitSlots
    permissions: Permissions
