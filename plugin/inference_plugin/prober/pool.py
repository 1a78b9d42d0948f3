"""What the prober reads from a pool's pods and its Rollout. Pure functions over dictionaries."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from inference_common.pods import takes_requests

if TYPE_CHECKING:
    from collections.abc import Mapping


def ready_since(pod: Mapping[str, Any]) -> float | None:
    """When the pod became ready, in seconds since the epoch; None if it is not, or is ending."""
    if not takes_requests(pod):
        return None
    status = pod["status"]
    [ready] = [item for item in status["conditions"] if item["type"] == "Ready"]
    since = ready.get("lastTransitionTime") or status.get("startTime")
    return datetime.fromisoformat(since).timestamp() if since else 0.0


def is_stable(rollout: Mapping[str, Any] | None, revision: str | None) -> bool:
    """Whether ``revision`` (a pod-template-hash) is the Rollout's stable one."""
    if rollout is None or not revision:
        return False
    return bool(rollout.get("status", {}).get("stableRS") == revision)
