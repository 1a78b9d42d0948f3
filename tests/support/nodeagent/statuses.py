"""The status of a pod, computed from the records of its containers.

The rules are those of k8s.io/kubernetes/pkg/kubelet/kubelet_pods.go (phase) and
pkg/kubelet/status/generate.go (conditions).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from support.nodeagent.containers import (
    ContainerRecord,
    Running,
    Terminated,
    Waiting,
    restart_policy,
    restarts_after,
)
from support.nodeagent.images import READY_ANNOTATION, is_noop
from support.nodeagent.moments import text_of

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping, Sequence

_UNREADY_REASON: Final = "ContainersNotReady"


@dataclass(frozen=True, slots=True, kw_only=True)
class PodFacts:
    """What the node knows of a pod besides its spec.

    ``records`` hold every container, init containers included, by name. ``failure`` is the reason
    and message of a pod that the node ended as a whole (DeadlineExceeded).
    """

    records: Mapping[str, ContainerRecord]
    pod_ip: str
    host_ip: str
    started_at: dt.datetime
    terminating: bool = False
    failure: tuple[str, str] | None = None


def is_sidecar(container: Mapping[str, Any]) -> bool:
    """Whether an init container keeps running beside the others (KEP-753)."""
    return container.get("restartPolicy") == "Always"


def pod_status(
    pod: Mapping[str, Any],
    facts: PodFacts,
    previous: Mapping[str, Any],
    now: dt.datetime,
) -> dict[str, Any]:
    """The whole status to be written.

    ``previous`` is the last status; conditions that did not turn keep their transition time.
    """
    spec = pod["spec"]
    ready_names = {
        name for name, record in facts.records.items() if container_ready(pod, record, facts)
    }
    status: dict[str, Any] = {
        "phase": phase_of(pod, facts),
        "hostIP": facts.host_ip,
        "hostIPs": [{"ip": facts.host_ip}],
        "podIP": facts.pod_ip,
        "podIPs": [{"ip": facts.pod_ip}],
        "startTime": text_of(facts.started_at),
        "containerStatuses": [
            _container_status(facts.records[one["name"]], ready=one["name"] in ready_names)
            for one in spec["containers"]
        ],
    }
    if init := spec.get("initContainers"):
        status["initContainerStatuses"] = [
            _container_status(
                facts.records[one["name"]],
                ready=one["name"] in ready_names or _completed(facts.records[one["name"]]),
            )
            for one in init
        ]
    if facts.failure is not None:
        status["reason"], status["message"] = facts.failure
    generation = pod["metadata"].get("generation")
    if generation:
        status["observedGeneration"] = generation
    status["conditions"] = _conditions(pod, facts, ready_names, previous, now)
    return status


def container_ready(pod: Mapping[str, Any], record: ContainerRecord, facts: PodFacts) -> bool:
    """Whether a container counts as ready.

    Nothing is ready in a pod that is being deleted; a no-op container is ready unless the live
    pod's annotation says otherwise.
    """
    if facts.terminating or facts.failure is not None or not record.ready:
        return False
    if is_noop({"image": record.image, "command": _command(pod, record.name)}):
        annotations = pod["metadata"].get("annotations") or {}
        return bool(annotations.get(READY_ANNOTATION) != "false")
    return True


def phase_of(pod: Mapping[str, Any], facts: PodFacts) -> str:
    """Pending, Running, Succeeded or Failed."""
    if facts.failure is not None:
        return "Failed"
    records = [facts.records[one["name"]] for one in pod["spec"]["containers"]]
    if facts.terminating and all(isinstance(one.state, Terminated) for one in records):
        return _final_phase(records)
    return _phase_of_init(pod, facts) or _phase_of_main(pod, records)


def _phase_of_init(pod: Mapping[str, Any], facts: PodFacts) -> str | None:
    """The phase while init containers decide it, else None."""
    spec = pod["spec"]
    for one in spec.get("initContainers") or []:
        record = facts.records[one["name"]]
        if is_sidecar(one) or _completed(record):
            continue
        ended = isinstance(record.state, Terminated)
        final = ended and restart_policy(pod, one, init=True) == "Never"
        return "Failed" if final else "Pending"
    return None


def _phase_of_main(pod: Mapping[str, Any], records: Sequence[ContainerRecord]) -> str:
    if any(isinstance(one.state, Running) for one in records):
        return "Running"
    if any(isinstance(one.state, Waiting) and one.last is None for one in records):
        return "Pending"
    policy = pod["spec"].get("restartPolicy", "Always")
    if any(restarts_after(policy, _exit_code(one)) for one in records):
        return "Running"
    return _final_phase(records)


def _final_phase(records: Sequence[ContainerRecord]) -> str:
    return "Succeeded" if all(_exit_code(one) == 0 for one in records) else "Failed"


def _exit_code(record: ContainerRecord) -> int:
    """The last exit code; 0 where there was none."""
    ended = record.state if isinstance(record.state, Terminated) else record.last
    return 0 if ended is None else ended.exit_code


def _command(pod: Mapping[str, Any], name: str) -> Sequence[str] | None:
    spec = pod["spec"]
    for one in [*spec["containers"], *(spec.get("initContainers") or [])]:
        if one["name"] == name:
            found: Sequence[str] | None = one.get("command")
            return found
    return None


def _completed(record: ContainerRecord) -> bool:
    return isinstance(record.state, Terminated) and record.state.exit_code == 0


def _container_status(record: ContainerRecord, *, ready: bool) -> dict[str, Any]:
    status: dict[str, Any] = {
        "name": record.name,
        "image": record.image,
        "imageID": record.image,
        "state": _state(record.state, record.container_id),
        "ready": ready,
        "restartCount": record.restarts,
        "started": record.started if isinstance(record.state, Running) else False,
    }
    status["lastState"] = _state(record.last, "") if record.last is not None else {}
    if not isinstance(record.state, Waiting):
        status["containerID"] = record.container_id
    return status


def _state(state: Waiting | Running | Terminated, container_id: str) -> dict[str, Any]:
    match state:
        case Waiting():
            found = {"reason": state.reason}
            if state.message:
                found["message"] = state.message
            return {"waiting": found}
        case Running():
            return {"running": {"startedAt": text_of(state.since)}}
        case Terminated():
            ended: dict[str, Any] = {
                "exitCode": state.exit_code,
                "reason": state.reason,
                "startedAt": text_of(state.since),
                "finishedAt": text_of(state.until),
            }
            if state.message:
                ended["message"] = state.message
            if container_id:
                ended["containerID"] = container_id
            return {"terminated": ended}


def _conditions(
    pod: Mapping[str, Any],
    facts: PodFacts,
    ready_names: set[str],
    previous: Mapping[str, Any],
    now: dt.datetime,
) -> list[dict[str, Any]]:
    spec = pod["spec"]
    phase = phase_of(pod, facts)
    finished = phase in {"Succeeded", "Failed"}
    init = spec.get("initContainers") or []
    uninitialised = [
        one["name"]
        for one in init
        if not (
            facts.records[one["name"]].started
            if is_sidecar(one)
            else _completed(facts.records[one["name"]])
        )
    ]
    wanted = [one["name"] for one in spec["containers"]]
    wanted += [one["name"] for one in init if is_sidecar(one)]
    unready = [name for name in wanted if name not in ready_names]

    containers_ready: tuple[str, str, str] = ("True", "", "")
    if finished:
        reason = "PodFailed" if phase == "Failed" else "PodCompleted"
        containers_ready = ("False", reason, "")
    elif unready:
        message = f"containers with unready status: [{' '.join(unready)}]"
        containers_ready = ("False", _UNREADY_REASON, message)

    known = {one["type"]: one for one in previous.get("conditions") or []}
    ready = containers_ready
    closed = [
        gate["conditionType"]
        for gate in spec.get("readinessGates") or []
        if known.get(gate["conditionType"], {}).get("status") != "True"
    ]
    if ready[0] == "True" and closed:
        ready = ("False", "ReadinessGatesNotReady", f"not true: {', '.join(closed)}")

    initialised: tuple[str, str, str] = ("True", "", "")
    if uninitialised and phase != "Succeeded":
        message = f"containers with incomplete status: [{' '.join(uninitialised)}]"
        initialised = ("False", "ContainersNotInitialized", message)
    elif phase == "Succeeded":
        initialised = ("True", "PodCompleted", "")

    computed = {
        "PodReadyToStartContainers": ("False" if finished else "True", "", ""),
        "Initialized": initialised,
        "Ready": ready,
        "ContainersReady": containers_ready,
        "PodScheduled": ("True", "", ""),
    }
    generation = pod["metadata"].get("generation")
    conditions = []
    for kind, (value, reason, message) in computed.items():
        old = known.get(kind, {})
        turned = old.get("status") != value or "lastTransitionTime" not in old
        condition = {
            "type": kind,
            "status": value,
            "lastTransitionTime": text_of(now) if turned else old["lastTransitionTime"],
            "lastProbeTime": None,
            "reason": reason or None,
            "message": message or None,
        }
        if generation:
            condition["observedGeneration"] = generation
        conditions.append(condition)
    return conditions
