"""Conditions of a pod.

The rules are those of k8s.io/kubernetes/pkg/kubelet/status/generate.go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from support.nodeagent.moments import text_of
from support.nodeagent.phases import FINISHED, PodFacts, is_completed, is_sidecar, phase_of

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet

_Verdict = tuple[str, str, str]
"""Status, reason, message."""
_TRUE: Final[_Verdict] = ("True", "", "")


def conditions_of(
    pod: Mapping[str, Any],
    facts: PodFacts,
    ready: AbstractSet[str],
    previous: Mapping[str, Any],
    now: dt.datetime,
) -> list[dict[str, Any]]:
    """The conditions that a node writes, from the names of the ready containers.

    ``previous`` is the last status: a condition that did not turn keeps its transition time, and
    readiness gates are looked up in it.
    """
    phase = phase_of(pod, facts)
    known = {one["type"]: one for one in previous.get("conditions") or []}
    containers = _containers_ready(pod, ready, phase)
    computed = {
        "PodReadyToStartContainers": ("False" if phase in FINISHED else "True", "", ""),
        "Initialized": _initialised(pod, facts, phase),
        "Ready": containers if containers[0] == "False" else _gates_open(pod, known),
        "ContainersReady": containers,
        "PodScheduled": _TRUE,
    }
    generation = pod["metadata"].get("generation")
    found = []
    for kind, (value, reason, message) in computed.items():
        old = known.get(kind, {})
        turned = old.get("status") != value or "lastTransitionTime" not in old
        condition = {
            "type": kind,
            "status": value,
            "lastTransitionTime": text_of(now) if turned else old["lastTransitionTime"],
            "lastProbeTime": None,
            # Null removes what the condition said before, in a strategic merge patch.
            "reason": reason or None,
            "message": message or None,
        }
        if generation:
            condition["observedGeneration"] = generation
        found.append(condition)
    return found


def _containers_ready(pod: Mapping[str, Any], ready: AbstractSet[str], phase: str) -> _Verdict:
    if phase in FINISHED:
        return ("False", "PodFailed" if phase == "Failed" else "PodCompleted", "")
    spec = pod["spec"]
    wanted = [one["name"] for one in spec["containers"]]
    wanted += [one["name"] for one in spec.get("initContainers") or [] if is_sidecar(one)]
    unready = [name for name in wanted if name not in ready]
    if unready:
        message = f"containers with unready status: [{' '.join(unready)}]"
        return ("False", "ContainersNotReady", message)
    return _TRUE


def _gates_open(pod: Mapping[str, Any], known: Mapping[str, Mapping[str, Any]]) -> _Verdict:
    gates = [gate["conditionType"] for gate in pod["spec"].get("readinessGates") or []]
    closed = [gate for gate in gates if known.get(gate, {}).get("status") != "True"]
    if closed:
        return ("False", "ReadinessGatesNotReady", f"not true: {', '.join(closed)}")
    return _TRUE


def _initialised(pod: Mapping[str, Any], facts: PodFacts, phase: str) -> _Verdict:
    if phase == "Succeeded":
        return ("True", "PodCompleted", "")
    waiting = []
    for one in pod["spec"].get("initContainers") or []:
        record = facts.records[one["name"]]
        if not (record.started if is_sidecar(one) else is_completed(record)):
            waiting.append(one["name"])
    if waiting:
        message = f"containers with incomplete status: [{' '.join(waiting)}]"
        return ("False", "ContainersNotInitialized", message)
    return _TRUE
