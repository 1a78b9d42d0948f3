"""Which node a pod goes to.

Honoured: schedulerName, schedulingGates, nodeSelector, cordoned nodes, the node with the fewest
pods first. Not looked at: affinity, taints, resource requests, topology spread; a node of this
kind has no resources of its own to run out of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from support.nodeagent.phases import FINISHED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_SCHEDULER: Final = "default-scheduler"


def wants_node(pod: Mapping[str, Any]) -> bool:
    """Whether the pod waits for this scheduler to bind it."""
    spec, metadata = pod["spec"], pod["metadata"]
    return (
        not spec.get("nodeName")
        and spec.get("schedulerName", _SCHEDULER) == _SCHEDULER
        and not spec.get("schedulingGates")
        and "deletionTimestamp" not in metadata
        and pod.get("status", {}).get("phase") not in FINISHED
    )


def choose_node(
    pod: Mapping[str, Any], nodes: Iterable[Mapping[str, Any]], load: Mapping[str, int]
) -> str | None:
    """Name of the fitting node with the fewest pods (``load``), or None."""
    selector = (pod["spec"].get("nodeSelector") or {}).items()
    fitting = [
        node["metadata"]["name"]
        for node in nodes
        if not node.get("spec", {}).get("unschedulable")
        and selector <= (node["metadata"].get("labels") or {}).items()
    ]
    return min(fitting, key=lambda name: (load.get(name, 0), name), default=None)


def binding(pod: Mapping[str, Any], node: str) -> dict[str, Any]:
    """Body for pods/binding; the uid keeps a pod of the same name from being bound instead."""
    metadata = pod["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {key: metadata[key] for key in ("name", "namespace", "uid")},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    }
