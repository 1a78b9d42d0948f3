"""The status of a pod, computed from the records of its containers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from support.nodeagent.conditions import conditions_of
from support.nodeagent.containers import ContainerRecord, Running, Terminated, Waiting
from support.nodeagent.images import READY_ANNOTATION, is_noop
from support.nodeagent.moments import text_of
from support.nodeagent.phases import PodFacts, is_completed, phase_of

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping, Sequence


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
                ready=one["name"] in ready_names or is_completed(facts.records[one["name"]]),
            )
            for one in init
        ]
    if facts.failure is not None:
        status["reason"], status["message"] = facts.failure
    generation = pod["metadata"].get("generation")
    if generation:
        status["observedGeneration"] = generation
    status["conditions"] = conditions_of(pod, facts, ready_names, previous, now)
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


def _command(pod: Mapping[str, Any], name: str) -> Sequence[str] | None:
    spec = pod["spec"]
    for one in [*spec["containers"], *(spec.get("initContainers") or [])]:
        if one["name"] == name:
            found: Sequence[str] | None = one.get("command")
            return found
    return None


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
