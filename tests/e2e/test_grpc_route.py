"""A GRPCRoute carries weights by the same rules as an HTTPRoute, and beside one.

The local gateway routes no gRPC: what a gateway would report about the GRPCRoute the test says.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from inference_common.errors import KubeError
from inference_common.kube import GRPCROUTE, ROLLOUT, PatchKind
from inference_common.names import COMMANDED_ANNOTATION
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
POOL_REFS = [m.pool_ref(name, weight) for name, weight in zip(POOLS, (100, 0), strict=True)]


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
                    if is_accepted(route):
                        continue
                    try:
                        await self._accept(route)
                    except KubeError:
                        # Deleted meanwhile, or an API server that is too busy: look again.
                        changed.set()
                        await asyncio.sleep(0.2)

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


async def until_grpc_weights(scenario: Scenario, a: int, b: int, **others: int) -> Object:
    expected = {"chat-a": a, "chat-b": b, **(others or {"other": 100})}
    return await scenario.until(
        GRPCROUTE,
        "chat",
        lambda obj: obj is not None and weights(obj) == expected,
        what=f"weights {expected}",
    )


async def test_an_http_route_and_a_grpc_route_move_together(scenario: Scenario) -> None:
    await scenario.apply(grpc_route("chat", *POOL_REFS, m.service_ref("other", 100)))
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


async def at_ten(scenario: Scenario, **config: Any) -> None:
    """Rollout ``chat`` in the middle of a canary, on an HTTPRoute and a GRPCRoute."""
    await hash_addressed(scenario, config={"grpcRoute": "chat", **config})
    await scenario.revise("chat", "2")
    await scenario.until_paused("chat", 10)
    await until_grpc_weights(scenario, 90, 10)


async def test_a_rollout_deleted_mid_canary_releases_its_grpc_route(scenario: Scenario) -> None:
    await scenario.apply(grpc_route("chat", *POOL_REFS, m.service_ref("other", 100)))
    async with grpc_gateway(scenario):
        await at_ten(scenario)
        await scenario.kube.delete(ROLLOUT, "chat", scenario.namespace)
        await until_grpc_weights(scenario, 100, 0)
        await scenario.until(
            GRPCROUTE,
            "chat",
            lambda obj: (
                obj is not None
                and COMMANDED_ANNOTATION not in (obj["metadata"].get("annotations") or {})
            ),
            what="no annotation of the plugin",
        )
        await scenario.until_weights("chat", {"chat-a": 100, "chat-b": 0})


async def test_an_edited_weight_of_a_grpc_route_is_adopted_until_the_next_command(
    scenario: Scenario,
) -> None:
    await scenario.apply(grpc_route("chat", *POOL_REFS, m.service_ref("other", 100)))
    async with grpc_gateway(scenario):
        await at_ten(scenario, drift="adopt")
        operations = [
            {"op": "replace", "path": f"/spec/rules/0/backendRefs/{at}/weight", "value": weight}
            for at, weight in enumerate((70, 30))
        ]
        await scenario.kube.patch(GRPCROUTE, "chat", operations, scenario.namespace)
        await scenario.until_event("DriftAdopted", "GRPCRoute")
        await scenario.reconcile("chat")
        await until_grpc_weights(scenario, 70, 30)
        await scenario.argo("promote", "chat")
        await scenario.until_paused("chat", 50)
        await until_grpc_weights(scenario, 50, 50)


async def test_rules_of_a_grpc_route_are_chosen_by_method(scenario: Scenario) -> None:
    route = grpc_route("chat", *POOL_REFS)
    infer, pinned = ({"service": "Infer", "method": name} for name in ("ModelInfer", "ModelReady"))
    route["spec"]["rules"] = [
        {"matches": [{"method": {"type": "Exact", **method}}], "backendRefs": POOL_REFS}
        for method in (pinned, infer)
    ]
    await scenario.apply(route)
    routes = [{"name": "chat", "rules": [infer]}]
    async with grpc_gateway(scenario):
        await hash_addressed(scenario, config={"grpcRoutes": routes})
        before = await scenario.get(GRPCROUTE, "chat")
        await scenario.revise("chat", "2")
        await scenario.until_paused("chat", 10)
        after = await scenario.get(GRPCROUTE, "chat")
        assert after["spec"]["rules"][0] == before["spec"]["rules"][0]
        refs = after["spec"]["rules"][1]["backendRefs"]
        assert [ref["weight"] for ref in refs] == [90, 10]
