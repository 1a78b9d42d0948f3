"""The shape of an InferencePool in both of its API groups.

v1 (inference.networking.k8s.io) has the labels of its members under ``selector.matchLabels`` and
a list of ``targetPorts``; v1alpha2 (inference.networking.x-k8s.io) has a flat ``selector`` and one
``targetPortNumber`` (gateway-api-inference-extension v1.0.0, api/v1 and apix/v1alpha2). Plugin,
prober, picker and the local gateway read a pool here and nowhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from inference_common.kube import INFERENCEPOOL, INFERENCEPOOL_X
from inference_common.names import HASH_LABEL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from inference_common.kube import Resource

POOLS: Final[dict[str, Resource]] = {
    INFERENCEPOOL.group: INFERENCEPOOL,
    INFERENCEPOOL_X.group: INFERENCEPOOL_X,
}
"""The resource type of pools by API group."""


def is_v1(pool: Mapping[str, Any]) -> bool:
    """Whether the pool is of the v1 API's group, by its apiVersion."""
    return str(pool.get("apiVersion", "")).startswith(f"{INFERENCEPOOL.group}/")


def selector_of(pool: Mapping[str, Any]) -> dict[str, str]:
    """The labels of the pool's members; empty selects none.

    The shape decides, not the apiVersion: a flat selector may well have a label ``matchLabels``.
    """
    selector: Mapping[str, Any] = (pool.get("spec") or {}).get("selector") or {}
    nested = selector.get("matchLabels", selector)
    labels: Mapping[str, Any] = selector if isinstance(nested, str) else (nested or {})
    return {str(key): str(value) for key, value in labels.items()}


def ports_of(pool: Mapping[str, Any]) -> tuple[int, ...]:
    """The target ports: one model server of each pod listens on each."""
    spec = pool.get("spec") or {}
    if "targetPortNumber" in spec:
        return (int(spec["targetPortNumber"]),)
    return tuple(int(port["number"]) for port in spec.get("targetPorts") or [])


def hash_of(pool: Mapping[str, Any]) -> str | None:
    """The pod-template-hash that the pool is aimed at, None where its selector has no such key."""
    return selector_of(pool).get(HASH_LABEL)


def picker_ref(pool: Mapping[str, Any]) -> dict[str, Any] | None:
    """The reference to the pool's endpoint picker, as it stands there; None without one."""
    spec = pool.get("spec") or {}
    ref: dict[str, Any] | None = spec.get("endpointPickerRef") or spec.get("extensionRef")
    return ref or None


def picker_service(pool: Mapping[str, Any]) -> str | None:
    """Name of the endpoint picker's Service; None where the pool has no picker."""
    ref = picker_ref(pool)
    if ref is None or (ref.get("kind") or "Service") != "Service":
        return None
    return str(ref["name"])
