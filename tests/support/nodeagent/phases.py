"""What a node knows of a pod, and the phase that follows from it.

The rules are those of ``getPhase`` in k8s.io/kubernetes/pkg/kubelet/kubelet_pods.go.
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

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping, Sequence

FINISHED: Final = frozenset({"Succeeded", "Failed"})


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


def is_completed(record: ContainerRecord) -> bool:
    """Whether the container ended well."""
    return isinstance(record.state, Terminated) and record.state.exit_code == 0


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
        if is_sidecar(one) or is_completed(record):
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
