"""How the plugin server grows with the number of Rollouts: ``python -m bench.plugin_scale``.

In a cluster without controller, gateway, node and plugin: the Rollouts are objects (bench.fleet),
the calls are those of the controller's ten workers over the server's own socket (bench.caller), and
the server is started anew for each size, so that its memory is that of this size.

Each size is measured at the bound of what a controller asks for, and with ten callers that never
pause; the promised size also at the pace that a controller keeps in practice.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import grpc.aio
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rich.console import Console
from rich.table import Table

from bench.caller import Reconcile, built_caller
from bench.figures import Figure, milliseconds, percentile, show
from bench.fleet import Fleet
from inference_common.kube import Kube
from support.cluster.client import ClusterClient
from support.cluster.layout import Layout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from bench.caller import Caller, Timed

SIZES: Final = (10, 100, 500, 1000)
PROMISED: Final = 500
WORKERS: Final = 10
"""Argo Rollouts' default of --rollout-threads: so many calls may be open at once."""
BOUND_PER_S: Final = 40.0
"""Argo Rollouts' default of --qps (v1.10.2, utils/defaults/defaults.go). A changed weight is always
followed by a write of the Rollout's status (rollout/trafficrouting.go, sync.go
persistRolloutStatus), so that no controller changes more weights for long."""
PACE_PER_S: Final = BOUND_PER_S / 5
"""In practice it writes Rollouts five times for each changed weight: 865 writes for 158 changed
weights in an end-to-end run."""
UNCHANGED_PER_CHANGE: Final = 7
"""Reconciles that repeat a weight for each one that changes it: 1060 beside 158 in the same run."""
CHANGES: Final = 1000
CALLS: Final = 3000
"""Changed and unchanged reconciles that are measured for each size, at least."""
UNCHANGED_P99_S: Final = 0.005
CHANGED_P99_S: Final = 0.050
MEMORY_MIB: Final = 150
_FIRST, _ONE, _OTHER = 10, 20, 30
"""Weights: those that a weight changes between come after one that brings all into place."""
_API_CALLS: Final = 400
"""Patches at a pace, for the API server alone."""
_READY_S: Final = 60.0
_QUIET_S: Final = 120.0


@dataclass(slots=True, kw_only=True)
class Latencies:
    """Seconds of each SetWeight, by whether it changes anything, and of VerifyWeight.

    ``waited`` is until one of the workers was free. ``api`` is what the API server alone takes for
    a patch like those of a changed weight, at the same pace.
    """

    changed: list[float] = field(default_factory=list)
    unchanged: list[float] = field(default_factory=list)
    verified: list[float] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    api: list[float] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Measured:
    """What was found at one size; memory in MiB, CPU in seconds per reconcile."""

    size: int
    ready_s: float = 0.0
    memory: float = 0.0
    busy: float = 0.0
    busy_changed: float = 0.0
    requests: str = ""
    errors: list[str] = field(default_factory=list)
    reconciles: int = 0
    paced: Latencies = field(default_factory=Latencies)
    bound: Latencies = field(default_factory=Latencies)
    full: Latencies = field(default_factory=Latencies)


async def scale_figures(cluster: ClusterClient, sizes: Sequence[int] = SIZES) -> list[Measured]:
    """Measure each size; the Rollouts of the smaller ones stay."""
    kube = await Kube.connect(cluster.kubeconfig)
    try:
        with built_caller(WORKERS) as caller:
            fleet = Fleet(kube)
            await fleet.found()
            found = []
            for size in sizes:
                await fleet.grow(size)
                found.append(await _measure(cluster, fleet, caller))
                print(f"{size} Rollouts: measured", file=sys.stderr, flush=True)
            return found
    finally:
        await kube.close()


async def _measure(cluster: ClusterClient, fleet: Fleet, caller: Caller) -> Measured:
    found = Measured(size=len(fleet.members))
    found.full.api = await fleet.patch_times(WORKERS, [0.0] * CHANGES)
    paces = {BOUND_PER_S: found.bound}
    if found.size == PROMISED:
        paces[PACE_PER_S] = found.paced
    for per_s, into in paces.items():
        into.api = await fleet.patch_times(WORKERS, list(_arrivals(per_s, _API_CALLS)))
    async with _server(cluster) as (socket, process, ready_s):
        found.ready_s = ready_s

        async def make(reconciles: Sequence[Reconcile]) -> list[Timed]:
            timed = await caller.make(socket, fleet.members, reconciles)
            found.reconciles += len(timed)
            found.errors += [one.error for one in timed if one.error]
            return timed

        await make(_round(found.size, _FIRST))
        await fleet.accept()
        before = _cpu_s(process)
        rounds = -(-CHANGES // (2 * found.size))
        changes = [_round(found.size, weight) for weight in [_OTHER, _ONE] * rounds]
        timed = await make([one for changed in changes for one in changed])
        found.busy_changed = (_cpu_s(process) - before) / len(timed)
        found.full.changed = [one.set_weight for one in timed]
        await fleet.accept()
        await _quiet(cluster)

        before = _cpu_s(process)
        position = cluster.audit_position()
        rounds = -(-CALLS // found.size)
        timed = await make(_round(found.size, _ONE, verify=True) * rounds)
        found.busy = (_cpu_s(process) - before) / len(timed)
        found.requests = _requests(cluster, position)
        found.full.unchanged = [one.set_weight for one in timed]
        found.full.verified = [one.verify_weight for one in timed]
        found.errors += ["not verified" for one in timed if not one.verified]

        weights = [_ONE] * found.size
        async with fleet.gateway():
            for per_s, into in paces.items():
                for one in await make(list(_at_pace(weights, per_s))):
                    (into.changed if one.asked.changes else into.unchanged).append(one.set_weight)
                    into.waited.append(one.waited)
        found.memory = process.memory_info().rss / 2**20
    return found


def _round(size: int, weight: int, *, verify: bool = False) -> list[Reconcile]:
    """One reconcile of each member, all due at once."""
    return [Reconcile(member=at, weight=weight, verify=verify) for at in range(size)]


def _at_pace(weights: list[int], changes_per_s: float) -> Iterator[Reconcile]:
    """Reconciles as they come to a controller that changes so many weights a second.

    ``weights`` are those of the members now, and are kept up to date.
    """
    size = len(weights)
    every = UNCHANGED_PER_CHANGE + 1
    for number, at in enumerate(_arrivals(changes_per_s * every, CHANGES * every)):
        change, after = divmod(number, every)
        if after == 0:
            member = change % size
            weights[member] = _OTHER if weights[member] == _ONE else _ONE
        else:
            # Others than those that were changed a moment ago, also among few.
            member = (change + size // 2 + after) % size
        yield Reconcile(member=member, weight=weights[member], at=at, changes=after == 0)


def _arrivals(per_s: float, count: int) -> Iterator[float]:
    """Times of a Poisson process, the same ones each time; its bursts are harder than even gaps."""
    draw = random.Random(1)
    now = 0.0
    for _ in range(count):
        now += draw.expovariate(per_s)
        yield now


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


@asynccontextmanager
async def _server(cluster: ClusterClient) -> AsyncIterator[tuple[Path, psutil.Process, float]]:
    """A server of its own, once it has read the cluster: socket, process, and seconds to start.

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
                await _until_ready(channel, process)
            yield socket, psutil.Process(process.pid), time.perf_counter() - start
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
    pace = f"as a controller asks: {PACE_PER_S:.0f} changes/s, {UNCHANGED_PER_CHANGE} beside each"
    bound = f"at its bound, {BOUND_PER_S:.0f} changes/s"
    full = f"{WORKERS} callers without a pause"
    return [
        Figure(
            what=f"{PROMISED} Rollouts, {WORKERS} callers: errors",
            value=str(len(at.errors)),
            aim="0",
            note=at.errors[0] if at.errors else f"{at.reconciles} reconciles",
            met=not at.errors,
        ),
        _promise("an unchanged SetWeight, p50 / p99", at.paced.unchanged, UNCHANGED_P99_S, pace),
        _promise("a changed SetWeight, p50 / p99", at.paced.changed, CHANGED_P99_S, pace),
        _seen("the API server alone, the same patch", at.paced.api, f"{PACE_PER_S:.0f}/s"),
        _seen("an unchanged SetWeight", at.bound.unchanged, bound),
        _seen("a changed SetWeight", at.bound.changed, bound),
        _seen("the API server alone", at.bound.api, f"{BOUND_PER_S:.0f}/s"),
        _seen("the wait for one of the workers", at.bound.waited, bound),
        _seen("an unchanged SetWeight, saturated", at.full.unchanged, full),
        _seen("a changed SetWeight, saturated", at.full.changed, full),
        _seen("the API server alone, saturated", at.full.api, full),
        _seen("VerifyWeight, saturated", at.full.verified, full),
        Figure(
            what="requests to the API server while nothing changes",
            value=at.requests or "0",
            aim="0",
            met=not at.requests,
        ),
        Figure(
            what="CPU of an unchanged reconcile (three calls)",
            value=f"{1000 * at.busy:.2f} ms",
            note=f"{1 / at.busy if at.busy else 0:.0f} reconciles/s on one core",
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


def _promise(what: str, seconds: Sequence[float], limit_s: float, note: str) -> Figure:
    return Figure(
        what=what,
        value=milliseconds(seconds),
        aim=f"p99 < {1000 * limit_s:.0f} ms",
        note=f"{note}; {len(seconds)} calls",
        met=percentile(seconds, 0.99) < limit_s,
    )


def _seen(what: str, seconds: Sequence[float], note: str) -> Figure:
    return Figure(what=what, value=milliseconds(seconds), note=f"{note}; {len(seconds)} calls")


def show_growth(found: Sequence[Measured]) -> None:
    """Print how each figure grows with the number of Rollouts."""
    table = Table(title="Growth; times are p50 / p99", title_justify="left")
    rows: list[tuple[str, Callable[[Measured], str]]] = [
        ("Rollouts", lambda one: str(one.size)),
        ("ready after, s", lambda one: f"{one.ready_s:.1f}"),
        ("memory, MiB", lambda one: f"{one.memory:.0f}"),
        ("CPU of an unchanged reconcile, ms", lambda one: f"{1000 * one.busy:.2f}"),
        ("of a changed weight, ms", lambda one: f"{1000 * one.busy_changed:.2f}"),
        ("unchanged, at the bound", lambda one: milliseconds(one.bound.unchanged)),
        ("changed, at the bound", lambda one: milliseconds(one.bound.changed)),
        ("API alone, at the bound", lambda one: milliseconds(one.bound.api)),
        ("unchanged, saturated", lambda one: milliseconds(one.full.unchanged)),
        ("changed, saturated", lambda one: milliseconds(one.full.changed)),
        ("API alone, saturated", lambda one: milliseconds(one.full.api)),
        ("errors", lambda one: str(len(one.errors))),
    ]
    for name, _ in rows:
        table.add_column(name, justify="right")
    for one in found:
        table.add_row(*(text(one) for _, text in rows))
    console = Console()
    (console if console.is_terminal else Console(width=200)).print(table)


async def _main(sizes: Sequence[int]) -> bool:
    found = await scale_figures(ClusterClient.load(), sizes)
    show_growth(found)
    return PROMISED not in sizes or show("Plugin server at scale", figures(found))


if __name__ == "__main__":
    sys.exit(not asyncio.run(_main([int(text) for text in sys.argv[1:]] or SIZES)))
