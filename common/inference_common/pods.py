"""When a pod takes traffic, and how pods are asked for by their labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def shows_ready(pod: Mapping[str, Any]) -> bool:
    """Whether the pod's Ready condition is true, be it on its way out or not."""
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Whether the pod is Ready and not being deleted.

    A terminating pod takes no new request even while it still reports Ready.
    """
    return not pod["metadata"].get("deletionTimestamp") and shows_ready(pod)


def takes_requests(pod: Mapping[str, Any]) -> bool:
    """Whether the pod is ready and has an address."""
    return is_ready(pod) and bool((pod.get("status") or {}).get("podIP"))


def is_member(pod: Mapping[str, Any], selector: Mapping[str, str]) -> bool:
    """Whether the pod carries all these labels. An empty selector has no members."""
    labels: Mapping[str, str] = pod["metadata"].get("labels") or {}
    return bool(selector) and selector.items() <= labels.items()


def label_selector(labels: Mapping[str, str]) -> str:
    """The labels as a query of the API server."""
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
