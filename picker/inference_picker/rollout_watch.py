"""Which Rollout divides a pool, from a watch of the namespace's Rollouts.

It is asked only where the pool's annotation is gone, and a picker starts no serving before it
knows, so that a restart can't open a pool to a canary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from inference_common.governing import Governor, governor_of
from inference_common.kube import ROLLOUT
from inference_common.names import PLUGIN_NAME
from inference_picker.optional_watch import OptionalWatch

if TYPE_CHECKING:
    from inference_common.kube import Kube

Object = dict[str, Any]

_UNREAD: Final = "after a restart, a pool whose shares annotation is gone is served whole"


class RolloutWatch:
    """The Rollouts of one namespace, where the cluster has them and lets them be read."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        """Nothing runs before the watch is started."""
        self.watch = OptionalWatch(kube, ROLLOUT, namespace, unread=_UNREAD, reduce=slim)
        self._namespace = namespace

    @property
    def is_known(self) -> bool:
        """Whether the Rollouts have been listed, are not served, or may not be read."""
        return self.watch.is_known

    def governor(self, pool: str, group: str) -> Governor | None:
        """The Rollout that divides this pool, as far as is known."""
        return governor_of(self.watch.items(), self._namespace, pool, group)


def slim(rollout: Object) -> Object:
    """What decides about pools: identity, the plugin's configuration, the stable version."""
    metadata = rollout["metadata"]
    canary = ((rollout.get("spec") or {}).get("strategy") or {}).get("canary") or {}
    plugins = (canary.get("trafficRouting") or {}).get("plugins") or {}
    kept = {PLUGIN_NAME: plugins[PLUGIN_NAME]} if PLUGIN_NAME in plugins else {}
    return {
        "metadata": {
            key: metadata[key]
            for key in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
            if key in metadata
        },
        "spec": {"strategy": {"canary": {"trafficRouting": {"plugins": kept}}}},
        "status": {"stableRS": (rollout.get("status") or {}).get("stableRS", "")},
    }
