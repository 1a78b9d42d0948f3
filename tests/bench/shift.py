"""From a weight on the route to answers at that weight: ``python -m bench.shift``, in a cluster.

Streaming requests flow through the real Envoy all along, while the controller takes the canary
from 0 to 50 % and back, again and again. The audit log says when the plugin wrote each weight.
"""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import datetime
from typing import TYPE_CHECKING, Final

from bench.figures import Figure, milliseconds, show
from inference_common.kube import ROLLOUT, PatchKind
from support import manifests as m
from support.cluster.client import ClusterClient
from support.deployments import served
from support.scenario import Scenario
from support.traffic import Traffic

if TYPE_CHECKING:
    from support.traffic import Request

SHIFTS: Final = 5
RATE: Final = 60
"""Requests a second: at 50 %, the canary's first one is due after 33 ms on average."""
OLD, NEW = "Qwen-2.5-7B-Instruct", "DeepSeek-R1-Distill-Qwen-7B"


async def shift_figures(cluster: ClusterClient) -> list[Figure]:
    """Delay of each shift, and the requests that failed; makes and removes a namespace."""
    scenario = await Scenario.start(cluster, "bench-shift")
    try:
        await served(scenario, OLD)
        # A fixed scale: on the way down, Argo Rollouts otherwise ends the canary's pods first and
        # takes its weight away afterwards (v1.10.2, rollout/trafficrouting.go:249-260).
        steps = [{"setCanaryScale": {"replicas": 1}}, *m.steps(*[0, 50] * SHIFTS)]
        await scenario.kube.patch(
            ROLLOUT,
            "chat",
            {"spec": {"strategy": {"canary": {"steps": steps}}}},
            scenario.namespace,
            kind=PatchKind.MERGE,
        )
        await scenario.until_healthy("chat")
        async with Traffic(await scenario.address(), model="mymodel", rate=RATE) as traffic:
            written = await _shifts(scenario, traffic)
        delays = [_delay(moment, traffic.requests) for moment in written]
        failed = len(traffic.failures)
    finally:
        await scenario.stop()
    return [
        Figure(
            what="weight written to first answer of the canary, p50 / max",
            value=milliseconds(delays),
            note=f"{len(delays)} shifts from 0 to 50 %, {RATE} requests/s, first token included",
        ),
        Figure(
            what="failed requests",
            value=f"{failed} of {len(traffic.requests)}",
            aim="0",
            note=str(traffic.failures[0]) if failed else "",
            met=failed == 0,
        ),
    ]


async def _shifts(scenario: Scenario, traffic: Traffic) -> list[float]:
    """Play all steps; returns when each rise was written, by the event loop's clock."""
    behind = time.time() - asyncio.get_running_loop().time()
    await scenario.revise("chat", {"spec": {"containers": [m.simulated_vllm(NEW)]}})
    written = []
    await scenario.until_paused("chat", 0, timeout_s=180)
    for number in range(SHIFTS):
        position = scenario.cluster.audit_position()
        await scenario.argo("promote", "chat")
        await scenario.until_paused("chat", 50)
        await scenario.until_accepted("chat")
        await traffic.until_answers(RATE)
        written.append(_route_written(scenario, position) - behind)
        if number < SHIFTS - 1:
            await scenario.argo("promote", "chat")
            await scenario.until_paused("chat", 0)
            await scenario.until_accepted("chat")
            await traffic.until_answers(RATE)
    return written


def _route_written(scenario: Scenario, position: int) -> float:
    """Seconds since the epoch at which the API server received the plugin's patch of the route."""
    moments = [
        event.at
        for event in scenario.cluster.audit("plugin", since=position)
        if event.namespace == scenario.namespace
        and event.resource == "httproutes"
        and event.verb == "patch"
    ]
    if not moments:
        sys.exit("bench.shift: the plugin wrote no route; is it the one that holds the weights?")
    return datetime.fromisoformat(moments[0]).timestamp()


def _delay(written: float, requests: list[Request]) -> float:
    """Seconds from a write to the first token of the canary's first answer after it."""
    return min(
        request.start + (request.time_to_first_token or 0) - written
        for request in requests
        if request.version == NEW and request.start >= written
    )


async def _main() -> bool:
    return show("Shift", await shift_figures(ClusterClient.load()))


if __name__ == "__main__":
    sys.exit(not asyncio.run(_main()))
