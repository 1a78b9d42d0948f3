"""How the plugin server grows with the number of Rollouts: ``python -m bench.plugin_scale``.

In a cluster without controller, gateway, node and plugin: the Rollouts are objects (bench.fleet),
the calls are those of the controller's ten workers over the server's own socket, and the server is
started anew for each size, so that its memory is that of this size.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import grpc.aio
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rich.console import Console
from rich.table import Table

from bench.figures import Figure, milliseconds, percentile, show
from bench.fleet import Fleet, plugin_config
from inference_common.kube import Kube
from inference_plugin._pb import traffic_router_pb2 as pb
from inference_plugin._pb import traffic_router_pb2_grpc
from support.cluster.client import ClusterClient
from support.cluster.layout import Layout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from bench.fleet import Member

SIZES: Final = (10, 100, 500, 1000)
PROMISED: Final = 500
WORKERS: Final = 10
"""Argo Rollouts' default of --rollout-threads: so many calls may be open at once."""
CALLS: Final = 3000
"""Unchanged reconciles that are measured for each size."""
UNCHANGED_P99_S: Final = 0.005
CHANGED_P99_S: Final = 0.050
MEMORY_MIB: Final = 150
_READY_S: Final = 60.0
_QUIET_S: Final = 120.0


@dataclass(slots=True, kw_only=True)
class Measured:
    """What was found at one size; durations in seconds, memory in MiB, CPU in s per reconcile.

    ``api`` is what the API server alone takes for a patch like those of a changed weight.
    """

    size: int
    ready_s: float = 0.0
    memory: float = 0.0
    busy: float = 0.0
    busy_changed: float = 0.0
    requests: str = ""
    api: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    unchanged: list[float] = field(default_factory=list)
    changed: list[float] = field(default_factory=list)
    verified: list[float] = field(default_factory=list)


async def scale_figures(cluster: ClusterClient, sizes: Sequence[int] = SIZES) -> list[Measured]:
    """Measure each size; the Rollouts of the smaller ones stay."""
    kube = await Kube.connect(cluster.kubeconfig)
    try:
        fleet = Fleet(kube)
        await fleet.found()
        found = []
        for size in sizes:
            await fleet.grow(size)
            found.append(await _measure(cluster, fleet))
            print(f"{size} Rollouts: measured", file=sys.stderr, flush=True)
        return found
    finally:
        await kube.close()


async def _measure(cluster: ClusterClient, fleet: Fleet) -> Measured:
    found = Measured(size=len(fleet.members))
    found.api = await fleet.patch_times(WORKERS)
    async with _server(cluster) as (server, process, ready_s):
        found.ready_s = ready_s
        # Two changes of each Rollout's weight; the second is measured, when nothing is new.
        for weight in (10, 20):
            before = _cpu_s(process)
            found.changed = await _all(server, fleet.members, weight, found.errors)
            found.busy_changed = (_cpu_s(process) - before) / found.size
            await fleet.accept()
        await _quiet(cluster)
        before = _cpu_s(process)
        position = cluster.audit_position()
        rounds = -(-CALLS // found.size)
        for _ in range(rounds):
            found.unchanged += await _all(
                server, fleet.members, 20, found.errors, verified=found.verified
            )
        found.busy = (_cpu_s(process) - before) / (rounds * found.size)
        found.requests = _requests(cluster, position)
        found.memory = process.memory_info().rss / 2**20
    return found


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _requests(cluster: ClusterClient, position: int) -> str:
    """What the server asked of the API server since then, watches and Leases left out."""
    counted = Counter(
        f"{event.verb} {event.resource}"
        for event in cluster.audit("plugin", since=position)
        if event.verb != "watch" and event.resource != "leases"
    )
    return ", ".join(f"{count} x {name}" for name, count in sorted(counted.items()))


async def _quiet(cluster: ClusterClient) -> None:
    """Return once the server has said all that it had to say: Events follow the writes."""
    async with asyncio.timeout(_QUIET_S):
        while True:
            position = cluster.audit_position()
            await asyncio.sleep(1.0)
            if not _requests(cluster, position):
                return


async def _all(
    server: Any,
    members: Sequence[Member],
    weight: int,
    errors: list[str],
    *,
    verified: list[float] | None = None,
) -> list[float]:
    """One reconcile of each member by the workers; how long each SetWeight took, in seconds."""
    left = list(members)
    durations: list[float] = []

    async def worker() -> None:
        while left:
            member = left.pop()
            durations.append(await _reconcile(server, member, weight, errors, verified))

    await asyncio.gather(*(worker() for _ in range(WORKERS)))
    return durations


async def _reconcile(
    server: Any, member: Member, weight: int, errors: list[str], verified: list[float] | None
) -> float:
    message = _message(member)
    status = member.rollout["status"]
    answer = await server.UpdateHash(
        pb.UpdateHashRequest(
            rollout=message, canary_hash=status["currentPodHash"], stable_hash=status["stableRS"]
        )
    )
    _note(errors, answer.error)
    start = time.perf_counter()
    answer = await server.SetWeight(pb.SetWeightRequest(rollout=message, desired_weight=weight))
    duration = time.perf_counter() - start
    _note(errors, answer.error)
    if verified is not None:
        start = time.perf_counter()
        answer = await server.VerifyWeight(
            pb.VerifyWeightRequest(rollout=message, desired_weight=weight)
        )
        verified.append(time.perf_counter() - start)
        if answer.verified != pb.VerifyWeightResponse.VERIFIED:
            errors.append(f"{member.name} is not verified")
    return duration


def _note(errors: list[str], error: str) -> None:
    if error:
        errors.append(error)


def _message(member: Member) -> pb.Rollout:
    """What the bridge sends of this Rollout (plugin/bridge/translate.go)."""
    metadata = member.rollout["metadata"]
    return pb.Rollout(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata["generation"],
        resource_version=metadata["resourceVersion"],
        plugin_config=json.dumps(plugin_config(member.rollout)).encode(),
    )


@asynccontextmanager
async def _server(cluster: ClusterClient) -> AsyncIterator[tuple[Any, psutil.Process, float]]:
    """A server of its own, once it has read the cluster: its stub, process, and seconds to start.

    It has the user, and so the rights and the lines in the audit log, of the cluster's plugin.
    """
    layout = Layout(Path(cluster.document["state_dir"]))
    with tempfile.TemporaryDirectory(prefix="plugin-") as folder:
        socket = Path(folder) / "s"
        command = [str(Path(sys.executable).with_name("inference-rollouts")), "plugin", "serve"]
        command += ["--socket", str(socket), "--kubeconfig", str(layout.kubeconfig("plugin"))]
        start = time.perf_counter()
        process = _start([*command, "--log-level", "warning"], layout.log("plugin-scale"))
        try:
            async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
                stub = traffic_router_pb2_grpc.TrafficRouterStub(channel)
                await _until_ready(channel, process)
                yield stub, psutil.Process(process.pid), time.perf_counter() - start
        finally:
            process.terminate()
            process.wait(timeout=30)


def _start(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("a") as stream:
        return subprocess.Popen(command, stdout=stream, stderr=stream)


async def _until_ready(channel: grpc.aio.Channel, process: subprocess.Popen[bytes]) -> None:
    states = health_pb2_grpc.HealthStub(channel)
    async with asyncio.timeout(_READY_S):
        while True:
            if process.poll() is not None:
                sys.exit(f"bench.plugin_scale: the server ended with code {process.returncode}")
            try:
                answer = await states.Check(health_pb2.HealthCheckRequest())
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
            else:
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
            await asyncio.sleep(0.05)


def figures(found: Sequence[Measured]) -> list[Figure]:
    """What is promised, at the size it is promised for."""
    [at] = [one for one in found if one.size == PROMISED]
    rate = 1 / at.busy if at.busy else 0
    return [
        Figure(
            what=f"{PROMISED} Rollouts, {WORKERS} callers: errors",
            value=str(len(at.errors)),
            aim="0",
            note=at.errors[0] if at.errors else f"{len(at.unchanged) + at.size * 2} reconciles",
            met=not at.errors,
        ),
        _duration("an unchanged SetWeight, p50 / p99", at.unchanged, UNCHANGED_P99_S),
        _duration("a changed SetWeight, p50 / p99", at.changed, CHANGED_P99_S),
        Figure(
            what="the API server alone, the same patch, p50 / p99",
            value=milliseconds(at.api),
            note=f"{WORKERS} at once",
        ),
        Figure(what="VerifyWeight, p50 / p99", value=milliseconds(at.verified)),
        Figure(
            what="requests to the API server while nothing changes",
            value=at.requests or "0",
            aim="0",
            met=not at.requests,
        ),
        Figure(
            what="CPU of an unchanged reconcile (three calls)",
            value=f"{1000 * at.busy:.2f} ms",
            note=f"{rate:.0f} reconciles/s on one core",
        ),
        Figure(
            what="CPU of a changed weight (two calls, watch events)",
            value=f"{1000 * at.busy_changed:.2f} ms",
        ),
        Figure(
            what=f"server's memory with {PROMISED} Rollouts",
            value=f"{at.memory:.0f} MiB",
            aim=f"< {MEMORY_MIB} MiB",
            met=at.memory < MEMORY_MIB,
        ),
    ]


def _duration(what: str, seconds: Sequence[float], limit_s: float) -> Figure:
    return Figure(
        what=what,
        value=milliseconds(seconds),
        aim=f"p99 < {1000 * limit_s:.0f} ms",
        note=f"{WORKERS} at once, {len(seconds)} calls",
        met=percentile(seconds, 0.99) < limit_s,
    )


def show_growth(found: Sequence[Measured]) -> None:
    """Print how each figure grows with the number of Rollouts."""
    table = Table(title="Growth", title_justify="left")
    rows: list[tuple[str, Callable[[Measured], str]]] = [
        ("Rollouts", lambda one: str(one.size)),
        ("ready after, s", lambda one: f"{one.ready_s:.1f}"),
        ("memory, MiB", lambda one: f"{one.memory:.0f}"),
        ("CPU of an unchanged reconcile, ms", lambda one: f"{1000 * one.busy:.2f}"),
        ("of a changed weight, ms", lambda one: f"{1000 * one.busy_changed:.2f}"),
        ("unchanged SetWeight, p50 / p99", lambda one: milliseconds(one.unchanged)),
        ("changed SetWeight, p50 / p99", lambda one: milliseconds(one.changed)),
        ("API alone, p50 / p99", lambda one: milliseconds(one.api)),
        ("VerifyWeight, p50 / p99", lambda one: milliseconds(one.verified)),
        ("errors", lambda one: str(len(one.errors))),
    ]
    for name, _ in rows:
        table.add_column(name, justify="right")
    for one in found:
        table.add_row(*(text(one) for _, text in rows))
    console = Console()
    (console if console.is_terminal else Console(width=220)).print(table)


async def _main(sizes: Sequence[int]) -> bool:
    found = await scale_figures(ClusterClient.load(), sizes)
    show_growth(found)
    return PROMISED not in sizes or show("Plugin server at scale", figures(found))


if __name__ == "__main__":
    sys.exit(not asyncio.run(_main([int(text) for text in sys.argv[1:]] or SIZES)))
