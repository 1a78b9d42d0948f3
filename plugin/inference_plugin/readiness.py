"""Whether a destination can take traffic: ready pods, and a picker that runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from inference_common.kube import SERVICE
from inference_common.pods import is_ready
from inference_common.pools import picker_service, selector_of
from inference_plugin.hash_pools import PodCount
from inference_plugin.pools import title_of
from inference_plugin.targets import Wait, WaitReason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from inference_plugin.view import View

Object = dict[str, Any]
_RECHECK_S: Final = 5.0
"""Endpoints of a Service without a selector are not watched; they are asked for this often."""


def ready_pods(view: View, namespace: str, selector: Mapping[str, str]) -> int:
    """How many ready pods the selector matches."""
    return sum(is_ready(pod) for pod in view.pods(namespace, selector))


def live_pods(view: View, namespace: str, selector: Mapping[str, str]) -> int:
    """How many pods the selector matches that are not on their way out."""
    return sum("deletionTimestamp" not in pod["metadata"] for pod in view.pods(namespace, selector))


def pod_count(view: View, namespace: str, selector: Mapping[str, str]) -> PodCount:
    """Both at once."""
    pods = list(view.pods(namespace, selector))
    return PodCount(
        ready=sum(map(is_ready, pods)),
        live=sum("deletionTimestamp" not in pod["metadata"] for pod in pods),
    )


def pool_wait(view: View, pool: Object) -> Wait | None:
    """What keeps an InferencePool from taking traffic: no ready pod, or no ready picker."""
    namespace = pool["metadata"]["namespace"]
    selector = selector_of(pool)
    if not ready_pods(view, namespace, selector):
        found = live_pods(view, namespace, selector)
        return Wait(
            reason=WaitReason.READY_PODS,
            message=f"{title_of(pool)}: none of the {found} pods that match "
            f"{_labels(selector)} is ready.",
        )
    name = picker_service(pool)
    if name is None:
        return None
    wait = service_wait(view, namespace, name)
    if wait is None:
        return None
    return Wait(
        reason=WaitReason.PICKER,
        message=f"{title_of(pool)}: its endpoint picker is not ready: {wait.message}",
        retry_s=wait.retry_s,
    )


def service_wait(view: View, namespace: str, name: str) -> Wait | None:
    """What keeps a Service from taking traffic.

    The pods that its selector matches decide; EndpointSlices only for a Service without one.
    """
    service = view.get(SERVICE, namespace, name)
    if service is None:
        return Wait(
            reason=WaitReason.READY_PODS,
            message=f"Service {namespace}/{name} does not exist.",
        )
    selector = service.get("spec", {}).get("selector") or {}
    if selector:
        if ready_pods(view, namespace, selector):
            return None
        return Wait(
            reason=WaitReason.READY_PODS,
            message=f"Service {namespace}/{name}: no ready pod matches {_labels(selector)}.",
        )
    if view.endpoints(namespace, name):
        return None
    return Wait(
        reason=WaitReason.READY_PODS,
        message=f"Service {namespace}/{name} has no selector and no ready endpoint.",
        retry_s=_RECHECK_S,
    )


def _labels(selector: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(selector.items())) or "no labels"
