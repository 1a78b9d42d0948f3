"""What a node agent that starts anew makes of the pods that it finds on its node."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final

from support.nodeagent.containers import ContainerRecord, Running, Terminated, new_record
from support.nodeagent.images import is_noop
from support.nodeagent.moments import moment_of, now_utc, text_of

if TYPE_CHECKING:
    from collections.abc import Mapping

LOST_EXIT_CODE: Final = 255


def restored_records(pod: Mapping[str, Any]) -> dict[str, ContainerRecord]:
    """The records of all containers of a pod, from its status; fresh ones where it has none."""
    spec, status = pod["spec"], pod.get("status") or {}
    records = {}
    waiting = "PodInitializing" if spec.get("initContainers") else "ContainerCreating"
    for key, containers in (
        ("initContainerStatuses", spec.get("initContainers") or []),
        ("containerStatuses", spec["containers"]),
    ):
        known = {one["name"]: one for one in status.get(key) or []}
        for container in containers:
            name = container["name"]
            records[name] = restored(container, known.get(name), waiting)
    return records


def restored(
    container: Mapping[str, Any], status: Mapping[str, Any] | None, reason: str
) -> ContainerRecord:
    """The record of a container from the pod's status after the node agent started anew.

    What ran is lost, as after a reboot: it ended with exit code 255 and reason Unknown. A no-op
    container loses nothing.
    """
    fresh = new_record(container, reason)
    if not status:
        return fresh
    last = _terminated((status.get("lastState") or {}).get("terminated"))
    known = dataclasses.replace(fresh, last=last, restarts=int(status.get("restartCount", 0)))
    state = status.get("state") or {}
    if ended := _terminated(state.get("terminated")):
        return dataclasses.replace(known, state=ended)
    if running := state.get("running"):
        since = moment_of(running["startedAt"])
        if is_noop(dict(container)):
            return dataclasses.replace(
                known, state=Running(since=since), started=True, probed_ready=True
            )
        runs = dataclasses.replace(known, state=Running(since=since))
        return runs.ends(LOST_EXIT_CODE, now_utc(), "Unknown", "the node agent was restarted")
    return known


def _terminated(found: Mapping[str, Any] | None) -> Terminated | None:
    if not found:
        return None
    return Terminated(
        exit_code=int(found["exitCode"]),
        reason=found.get("reason", ""),
        message=found.get("message", ""),
        since=moment_of(found.get("startedAt") or text_of(now_utc())),
        until=moment_of(found.get("finishedAt") or text_of(now_utc())),
    )
