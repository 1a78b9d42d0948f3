"""What the prober reads from an InferencePool and its pods. Pure functions over dictionaries."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def selector_of(pool: Mapping[str, Any]) -> dict[str, str]:
    """Labels of the pool's pods: ``selector.matchLabels`` in v1, a flat map in v1alpha2."""
    selector = pool["spec"].get("selector") or {}
    labels = selector.get("matchLabels", selector)
    return {str(key): str(value) for key, value in labels.items()}


def ports_of(pool: Mapping[str, Any]) -> tuple[int, ...]:
    """Ports of one pod's model servers: ``targetPorts[]`` in v1, one number in v1alpha2."""
    spec = pool["spec"]
    if "targetPortNumber" in spec:
        return (int(spec["targetPortNumber"]),)
    return tuple(int(port["number"]) for port in spec.get("targetPorts", []))


def label_selector(labels: Mapping[str, str]) -> str:
    """The labels as a query of the API server."""
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def ready_since(pod: Mapping[str, Any]) -> float | None:
    """When the pod became ready, in seconds since the epoch; None if it is not, or is ending."""
    if pod["metadata"].get("deletionTimestamp"):
        return None
    status = pod.get("status", {})
    if not status.get("podIP"):
        return None
    for condition in status.get("conditions") or []:
        if condition["type"] == "Ready" and condition["status"] == "True":
            since = condition.get("lastTransitionTime") or status.get("startTime")
            return datetime.fromisoformat(since).timestamp() if since else 0.0
    return None


def is_stable(rollout: Mapping[str, Any] | None, revision: str | None) -> bool:
    """Whether ``revision`` (a pod-template-hash) is the Rollout's stable one."""
    if rollout is None or not revision:
        return False
    return bool(rollout.get("status", {}).get("stableRS") == revision)
