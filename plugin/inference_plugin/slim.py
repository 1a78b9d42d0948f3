"""The parts of large objects that the server keeps in memory."""

from __future__ import annotations

from typing import Any, Final

Object = dict[str, Any]
_METADATA: Final = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "labels",
    "ownerReferences",
    "deletionTimestamp",
)


_ROUTING_STEPS: Final = ("setWeight", "setHeaderRoute", "setMirrorRoute")


def slim_pod(pod: Object) -> Object:
    """Identity, labels, address, and whether it is ready."""
    status = pod.get("status") or {}
    conditions = status.get("conditions") or []
    return _slim(pod) | {
        "status": {key: status[key] for key in ("podIP",) if key in status}
        | {
            "conditions": [
                {"type": item["type"], "status": item["status"]}
                for item in conditions
                if item["type"] == "Ready"
            ]
        }
    }


def slim_replica_set(replica_set: Object) -> Object:
    """Identity, owner, size, and the annotations of its pod template."""
    spec = replica_set.get("spec") or {}
    status = replica_set.get("status") or {}
    template = (spec.get("template") or {}).get("metadata") or {}
    return _slim(replica_set) | {
        "spec": {
            "replicas": spec.get("replicas", 1),
            "template": {"metadata": {"annotations": template.get("annotations") or {}}},
        },
        "status": {
            "readyReplicas": status.get("readyReplicas", 0),
            "availableReplicas": status.get("availableReplicas", 0),
        },
    }


def slim_rollout(rollout: Object) -> Object:
    """Identity, the canary strategy with only what its steps route, and the status."""
    spec = rollout.get("spec") or {}
    canary = dict((spec.get("strategy") or {}).get("canary") or {})
    if "steps" in canary:
        canary["steps"] = [
            {key: step[key] for key in _ROUTING_STEPS if key in step}
            for step in canary["steps"] or []
        ]
    kept = {key: spec[key] for key in ("replicas",) if key in spec}
    return _slim(rollout) | {
        "spec": kept | {"strategy": {"canary": canary}},
        "status": rollout.get("status") or {},
    }


def _slim(obj: Object) -> Object:
    metadata = obj["metadata"]
    return {
        "apiVersion": obj.get("apiVersion"),
        "kind": obj.get("kind"),
        "metadata": {key: metadata[key] for key in _METADATA if key in metadata},
    }
