"""Which Rollout divides the requests of an InferencePool between versions of its pods.

A picker that starts while the pool's annotation is gone learns here that it must not serve all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inference_common.kube import INFERENCEPOOL
from inference_common.names import PLUGIN_NAME

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True, kw_only=True)
class Governor:
    """The Rollout that divides a pool: ``rollout`` is ``NS/NAME``, ``stable`` its stable version.

    ``stable`` is empty before the first version is available.
    """

    rollout: str
    uid: str
    stable: str


def governor_of(
    rollouts: Iterable[Mapping[str, Any]], namespace: str, pool: str, group: str
) -> Governor | None:
    """The Rollout whose traffic routing names this pool as ``sharedPool``, or None.

    Of several, which the plugin refuses, the oldest. Rollouts are objects of the Kubernetes API.
    """
    found = []
    for rollout in rollouts:
        metadata = rollout["metadata"]
        canary = ((rollout.get("spec") or {}).get("strategy") or {}).get("canary") or {}
        plugins = (canary.get("trafficRouting") or {}).get("plugins") or {}
        config = plugins.get(PLUGIN_NAME) or {}
        if metadata["namespace"] != namespace or not isinstance(config, Mapping):
            continue
        if (config.get("sharedPool"), config.get("poolGroup", INFERENCEPOOL.group)) == (
            pool,
            group,
        ):
            found.append((str(metadata.get("creationTimestamp", "")), metadata["name"], rollout))
    if not found:
        return None
    _, name, oldest = min(found, key=lambda each: each[:2])
    return Governor(
        rollout=f"{namespace}/{name}",
        uid=str(oldest["metadata"]["uid"]),
        stable=str((oldest.get("status") or {}).get("stableRS") or ""),
    )
