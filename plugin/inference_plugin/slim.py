"""The parts of large objects that the server keeps in memory."""

from __future__ import annotations

from typing import Any, Final

from inference_common.names import EXPERIMENT_ANNOTATION, TEMPLATE_ANNOTATION

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
_OF_EXPERIMENT: Final = (EXPERIMENT_ANNOTATION, TEMPLATE_ANNOTATION)


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
    """Identity, owner, size, its template in an Experiment, and its pod template's annotations."""
    spec = replica_set.get("spec") or {}
    status = replica_set.get("status") or {}
    template = (spec.get("template") or {}).get("metadata") or {}
    slim = _slim(replica_set)
    annotations = replica_set["metadata"].get("annotations") or {}
    of_experiment = {key: annotations[key] for key in _OF_EXPERIMENT if key in annotations}
    if of_experiment:
        slim["metadata"]["annotations"] = of_experiment
    return slim | {
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
            {key: step[key] for key in _ROUTING_STEPS if key in step} | _slim_experiment(step)
            for step in canary["steps"] or []
        ]
    kept = {key: spec[key] for key in ("replicas",) if key in spec}
    return _slim(rollout) | {
        "spec": kept | {"strategy": {"canary": canary}},
        "status": rollout.get("status") or {},
    }


def _slim_experiment(step: Object) -> Object:
    """Names and weights of an experiment step's templates."""
    if "experiment" not in step:
        return {}
    templates = [
        {key: template[key] for key in ("name", "weight") if key in template}
        for template in (step["experiment"] or {}).get("templates") or []
    ]
    return {"experiment": {"templates": templates}}


def _slim(obj: Object) -> Object:
    metadata = obj["metadata"]
    return {
        "apiVersion": obj.get("apiVersion"),
        "kind": obj.get("kind"),
        "metadata": {key: metadata[key] for key in _METADATA if key in metadata},
    }
