"""What a reconcile costs in the plugin server: ``python -m bench.plugin_calls``, in a cluster.

A Rollout that waits at 10 % is reconciled as the controller does it, by UpdateHash, SetWeight and
VerifyWeight over the server's own socket; the API server's audit log says what the server asked
for meanwhile. Then the controller itself moves on to 50 %.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import grpc.aio
import psutil

from bench.figures import Figure, milliseconds, show
from inference_common.kube import ROLLOUT
from inference_common.names import PLUGIN_NAME
from inference_plugin._pb import traffic_router_pb2 as pb
from inference_plugin._pb import traffic_router_pb2_grpc
from support.cluster.client import AuditEvent, ClusterClient
from support.deployments import hash_addressed
from support.scenario import Scenario

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

RECONCILES: Final = 300
WORKERS: Final = 10
"""Argo Rollouts' default of --rollout-threads: so many calls may be open at once."""


@dataclass(slots=True)
class Durations:
    """Seconds of each call, by method."""

    by_method: dict[str, list[float]] = field(default_factory=dict)

    async def of(self, method: str, call: Any) -> Any:
        """Await the call, note how long it took and return its answer."""
        start = time.perf_counter()
        answer = await call
        self.by_method.setdefault(method, []).append(time.perf_counter() - start)
        return answer


async def plugin_figures(cluster: ClusterClient) -> list[Figure]:
    """All figures of this file; makes and removes a namespace."""
    scenario = await Scenario.start(cluster, "bench-plugin-calls")
    try:
        await hash_addressed(scenario)
        await scenario.revise("chat", "2")
        await scenario.until_paused("chat", 10)
        await scenario.until_accepted("chat")
        rollout = await scenario.get(ROLLOUT, "chat")
        async with _server(cluster) as server:
            unchanged = await _unchanged(cluster, server, rollout)
            crowd = await _crowd(server, rollout)
        return [*unchanged, *crowd, *await _changed(scenario), *_memory(cluster)]
    finally:
        await scenario.stop()


async def _unchanged(cluster: ClusterClient, server: Any, rollout: dict[str, Any]) -> list[Figure]:
    durations = Durations()
    position = cluster.audit_position()
    for _ in range(RECONCILES):
        await _reconcile(server, rollout, durations)
    reads, writes, listed = _sorted_out(cluster.audit("plugin", since=position))
    whole = [sum(parts) for parts in zip(*durations.by_method.values(), strict=True)]
    return [
        Figure(
            what="reads per unchanged reconcile",
            value=f"{len(reads) / RECONCILES:g}",
            aim="0",
            note=_names(reads),
            met=not reads,
        ),
        Figure(
            what="writes per unchanged reconcile",
            value=f"{len(writes) / RECONCILES:g}",
            aim="0",
            note=_names(writes),
            met=not writes,
        ),
        Figure(
            what=f"watches and Leases during {RECONCILES} reconciles",
            value=str(len(listed)),
            note=_names(listed),
        ),
        *(
            Figure(what=f"{method}, p50 / p99", value=milliseconds(seconds))
            for method, seconds in durations.by_method.items()
        ),
        Figure(what="all three, p50 / p99", value=milliseconds(whole), note="one after the other"),
    ]


async def _crowd(server: Any, rollout: dict[str, Any]) -> list[Figure]:
    durations = Durations()

    async def worker() -> None:
        for _ in range(RECONCILES // WORKERS):
            await _reconcile(server, rollout, durations)

    start = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(WORKERS)))
    rate = RECONCILES // WORKERS * WORKERS / (time.perf_counter() - start)
    every = [seconds for method in durations.by_method.values() for seconds in method]
    return [
        Figure(
            what=f"one call of {WORKERS} at once, p50 / p99",
            value=milliseconds(every),
            note=f"{rate:.0f} reconciles/s",
        )
    ]


async def _changed(scenario: Scenario) -> list[Figure]:
    """The controller's own step from 10 to 50: what is written, and when it counts as verified."""
    cluster = scenario.cluster
    position, log_position = cluster.audit_position(), len(cluster.log("argo-rollouts"))
    await scenario.argo("promote", "chat")
    await scenario.until_paused("chat", 50)
    await scenario.until_accepted("chat")
    events = [
        event
        for event in cluster.audit("plugin", since=position)
        if event.namespace == scenario.namespace
    ]
    _, every, _ = _sorted_out(events)
    writes = [event for event in every if event.resource != "events"]
    calls = _calls_until_verified(
        cluster.log("argo-rollouts")[log_position:], scenario.namespace, 50
    )
    return [
        Figure(
            what="writes for one changed weight",
            value=str(len(writes)),
            aim="1 per object",
            note=_names(every),
            met=len(writes) == len({(event.resource, event.name) for event in writes}) == 1,
        ),
        Figure(
            what="VerifyWeight calls until verified",
            value=str(calls),
            aim="1 or 2",
            note="at a healthy gateway",
            met=calls in {1, 2},
        ),
    ]


def _calls_until_verified(log: str, namespace: str, weight: int) -> int:
    """Count the controller's answers to VerifyWeight up to the first "verified"; 0: none came.

    The lines are those of argo-rollouts v1.10.2, rollout/trafficrouting.go:339-341.
    """
    count = 0
    for line in log.splitlines():
        if namespace not in line:
            continue
        found = re.search(rf"\) {weight} (not yet )?verified", line)
        count += found is not None
        if found is not None and found[1] is None:
            return count
    return 0


def _memory(cluster: ClusterClient) -> list[Figure]:
    controller = psutil.Process(cluster.pid("argo-rollouts"))
    bridges = [child for child in controller.children() if child.exe().endswith(f"/{PLUGIN_NAME}")]
    figures = [
        Figure(
            what="plugin server, memory", value=_resident([psutil.Process(cluster.pid("plugin"))])
        )
    ]
    if bridges:
        figures.append(Figure(what="bridge in the controller, memory", value=_resident(bridges)))
    return figures


def _resident(processes: Sequence[psutil.Process]) -> str:
    return f"{sum(process.memory_info().rss for process in processes) / 2**20:.0f} MiB"


async def _reconcile(server: Any, rollout: dict[str, Any], durations: Durations) -> None:
    """One reconcile at the step's weight; exits when the server does not agree with it."""
    status, message = rollout["status"], _message(rollout)
    answer = await durations.of(
        "UpdateHash",
        server.UpdateHash(
            pb.UpdateHashRequest(
                rollout=message,
                canary_hash=status["currentPodHash"],
                stable_hash=status["stableRS"],
            )
        ),
    )
    _agreed("UpdateHash", answer.error)
    answer = await durations.of(
        "SetWeight", server.SetWeight(pb.SetWeightRequest(rollout=message, desired_weight=10))
    )
    _agreed("SetWeight", answer.error)
    answer = await durations.of(
        "VerifyWeight",
        server.VerifyWeight(pb.VerifyWeightRequest(rollout=message, desired_weight=10)),
    )
    verified = answer.verified == pb.VerifyWeightResponse.VERIFIED
    _agreed("VerifyWeight", answer.error or ("" if verified else "not verified"))


def _agreed(method: str, error: str) -> None:
    if error:
        sys.exit(f"bench.plugin_calls: {method} answered {error!r} at an unchanged weight")


def _message(rollout: dict[str, Any]) -> pb.Rollout:
    """What the bridge sends of this Rollout (plugin/bridge/translate.go)."""
    metadata = rollout["metadata"]
    routing = rollout["spec"]["strategy"]["canary"]["trafficRouting"]
    return pb.Rollout(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata["generation"],
        resource_version=metadata["resourceVersion"],
        plugin_config=json.dumps(routing["plugins"][PLUGIN_NAME]).encode(),
    )


@asynccontextmanager
async def _server(cluster: ClusterClient) -> AsyncIterator[Any]:
    socket = cluster.document["plugin_socket"]
    async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        yield traffic_router_pb2_grpc.TrafficRouterStub(channel)


def _sorted_out(
    events: Iterable[AuditEvent],
) -> tuple[list[AuditEvent], list[AuditEvent], list[AuditEvent]]:
    """Reads, writes (Events included), and what is listed apart: watches and Leases."""
    reads: list[AuditEvent] = []
    writes: list[AuditEvent] = []
    apart: list[AuditEvent] = []
    for event in events:
        if event.verb == "watch" or event.resource == "leases":
            apart.append(event)
        else:
            (writes if event.writes else reads).append(event)
    return reads, writes, apart


def _names(events: Iterable[AuditEvent]) -> str:
    counted = Counter(f"{event.verb} {event.resource}" for event in events)
    return ", ".join(f"{count} x {name}" for name, count in sorted(counted.items()))


async def _main() -> bool:
    return show("Plugin server", await plugin_figures(ClusterClient.load()))


if __name__ == "__main__":
    sys.exit(not asyncio.run(_main()))
