"""Probes of a container: what is asked, how often, and when the verdict turns.

No I/O here. ``ProbeState`` is the verdict of k8s.io/kubernetes/pkg/kubelet/prober/worker.go: it
turns only after as many equal answers in a row as the thresholds say.
"""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


class ProbeKind(enum.StrEnum):
    """Which decision a probe serves."""

    STARTUP = "startup"
    READINESS = "readiness"
    LIVENESS = "liveness"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpGet:
    """GET; any status from 200 to 399 is a success."""

    host: str | None
    port: int | str
    path: str
    scheme: str
    headers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpSocket:
    """A connection that opens is a success."""

    host: str | None
    port: int | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Exec:
    """A command whose exit code 0 is a success."""

    command: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grpc:
    """grpc.health.v1 Check answering SERVING is a success."""

    port: int
    service: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sleep:
    """Only for lifecycle hooks: wait."""

    seconds: float


Action = HttpGet | TcpSocket | Exec | Grpc | Sleep


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One probe, times in seconds. ``grace_s`` overrides the pod's grace period on failure."""

    kind: ProbeKind
    action: Action
    initial_delay_s: float
    period_s: float
    timeout_s: float
    success_threshold: int
    failure_threshold: int
    grace_s: float | None


def action_of(found: Mapping[str, Any]) -> Action:
    """The action of a probe or lifecycle hook. Raises ValueError when there is none."""
    if (http := found.get("httpGet")) is not None:
        return HttpGet(
            host=http.get("host"),
            port=http["port"],
            path=http.get("path") or "/",
            scheme=(http.get("scheme") or "HTTP").lower(),
            headers=tuple((one["name"], one["value"]) for one in http.get("httpHeaders") or []),
        )
    if (tcp := found.get("tcpSocket")) is not None:
        return TcpSocket(host=tcp.get("host"), port=tcp["port"])
    if (command := found.get("exec")) is not None:
        return Exec(command=tuple(command.get("command") or ()))
    if (grpc := found.get("grpc")) is not None:
        return Grpc(port=int(grpc["port"]), service=grpc.get("service") or "")
    if (sleep := found.get("sleep")) is not None:
        return Sleep(seconds=float(sleep["seconds"]))
    raise ValueError(f"none of httpGet, tcpSocket, exec, grpc, sleep in {sorted(found)}")


def probes_of(container: Mapping[str, Any]) -> dict[ProbeKind, Probe]:
    """The probes that a container has, with the API's defaults."""
    found = {}
    for kind in ProbeKind:
        spec = container.get(f"{kind.value}Probe")
        if spec is None:
            continue
        grace = spec.get("terminationGracePeriodSeconds")
        found[kind] = Probe(
            kind=kind,
            action=action_of(spec),
            initial_delay_s=float(spec.get("initialDelaySeconds", 0)),
            period_s=float(spec.get("periodSeconds") or 10),
            timeout_s=float(spec.get("timeoutSeconds") or 1),
            success_threshold=int(spec.get("successThreshold") or 1),
            failure_threshold=int(spec.get("failureThreshold") or 3),
            grace_s=None if grace is None else float(grace),
        )
    return found


def port_number(container: Mapping[str, Any], port: int | str) -> int:
    """The number of a port that is given by number or by the name of a containerPort.

    Raises ValueError for a name that the container does not have.
    """
    if isinstance(port, int) or port.isdigit():
        return int(port)
    for entry in container.get("ports") or []:
        if entry.get("name") == port:
            return int(entry["containerPort"])
    raise ValueError(f'container "{container["name"]}" has no port named "{port}"')


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeState:
    """The verdict so far: None until the first threshold is met."""

    verdict: bool | None = None
    answer: bool | None = None
    run: int = 0

    def after(self, probe: Probe, *, answer: bool) -> ProbeState:
        """The state after one more answer."""
        run = self.run + 1 if answer == self.answer else 1
        threshold = probe.success_threshold if answer else probe.failure_threshold
        verdict = answer if run >= threshold else self.verdict
        return dataclasses.replace(self, verdict=verdict, answer=answer, run=run)
