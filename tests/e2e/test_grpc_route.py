"""A GRPCRoute carries weights by the same rules as an HTTPRoute, and beside one.

The local gateway routes no gRPC: what a gateway would report about the GRPCRoute the test says.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from inference_common.kube import GRPCROUTE, PatchKind
from inference_common.watching import WatchCache
from support import manifests as m
from support.deployments import POOLS, hash_addressed
from support.scenario import is_accepted, weights

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.scenario import Scenario

Object = dict[str, Any]
GATEWAY = "grpc-gateway"
SINCE = "2026-01-01T00:00:00Z"


class GrpcGateway:
    """Accepts every generation of the scenario's GRPCRoutes, for as long as it is attentive."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._attentive = asyncio.Event()
        self._attentive.set()

    def look_away(self) -> None:
        self._attentive.clear()

    def look_again(self) -> None:
        self._attentive.set()

    async def run(self) -> None:
        changed = asyncio.Event()
        kube, namespace = self._scenario.kube, self._scenario.namespace
        async with WatchCache(kube, GRPCROUTE, namespace) as cache:
            cache.subscribe(lambda *_: changed.set())
            while True:
                await changed.wait()
                changed.clear()
                await self._attentive.wait()
                for route in cache.items():
                    if not is_accepted(route):
                        await self._accept(route)

    async def _accept(self, route: Object) -> None:
        conditions = [
            {
                "type": kind,
                "status": "True",
                "reason": kind,
                "message": "",
                "lastTransitionTime": SINCE,
                "observedGeneration": route["metadata"]["generation"],
            }
            for kind in ("Accepted", "ResolvedRefs")
        ]
        ref = {"group": GRPCROUTE.group, "kind": "Gateway", "name": GATEWAY}
        parent = {"parentRef": ref, "controllerName": "example.com/grpc", "conditions": conditions}
        await self._scenario.kube.patch(
            GRPCROUTE,
            route["metadata"]["name"],
            {"status": {"parents": [parent]}},
            self._scenario.namespace,
            kind=PatchKind.MERGE,
            subresource="status",
        )


@contextlib.asynccontextmanager
async def grpc_gateway(scenario: Scenario) -> AsyncIterator[GrpcGateway]:
    gateway = GrpcGateway(scenario)
    task = asyncio.create_task(gateway.run())
    try:
        yield gateway
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def grpc_route(name: str, *refs: Object) -> Object:
    return {
        "apiVersion": GRPCROUTE.api_version,
        "kind": GRPCROUTE.kind,
        "metadata": {"name": name},
        "spec": {"parentRefs": [{"name": GATEWAY}], "rules": [{"backendRefs": list(refs)}]},
    }


async def until_grpc_weights(scenario: Scenario, a: int, b: int) -> None:
    expected = {"chat-a": a, "chat-b": b, "other": 100}
    await scenario.until(
        GRPCROUTE,
        "chat",
        lambda obj: obj is not None and weights(obj) == expected,
        what=f"weights {expected}",
    )


async def test_an_http_route_and_a_grpc_route_move_together(scenario: Scenario) -> None:
    refs = [m.pool_ref(name, weight) for name, weight in zip(POOLS, (100, 0), strict=True)]
    await scenario.apply(grpc_route("chat", *refs, m.service_ref("other", 100)))
    async with grpc_gateway(scenario) as gateway:
        await hash_addressed(scenario, config={"grpcRoute": "chat"})
        await scenario.revise("chat", "2")
        await scenario.until_paused("chat", 10)
        # The third backend keeps its half.
        await until_grpc_weights(scenario, 90, 10)
        await scenario.until_weights("chat", {"chat-a": 90, "chat-b": 10})
        # A step is complete once both gateways have taken it in.
        gateway.look_away()
        await scenario.argo("promote", "chat")
        await until_grpc_weights(scenario, 50, 50)
        await scenario.until_event("WaitingForGateway", "GRPCRoute")
        gateway.look_again()
        await scenario.until_paused("chat", 50)
        await scenario.argo("abort", "chat")
        await until_grpc_weights(scenario, 100, 0)
        await scenario.until_weights("chat", {"chat-a": 100, "chat-b": 0})
