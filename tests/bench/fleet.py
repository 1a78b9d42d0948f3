"""Many Rollouts that wait at a weight, as objects alone: no controller, no process, no gateway.

Each has what the plugin reads of a real one: two revisions with a ready pod each, two pools aimed
at them, a route with both, and the acceptance of a gateway. Pods have no node; their status is
written here, as is the routes'.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from inference_common.errors import KubeError
from inference_common.kube import (
    GATEWAY,
    HTTPROUTE,
    INFERENCEPOOL,
    NAMESPACE,
    POD,
    REPLICASET,
    ROLLOUT,
    SERVICE,
    Kube,
    PatchKind,
    Resource,
)
from inference_common.names import HASH_LABEL, PLUGIN_NAME
from inference_common.watching import WatchCache
from support import manifests as m

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

Object = dict[str, Any]
SPACE: Final = "bench-fleet"
PICKER: Final = "picker"
_ACCOUNT: Final = Resource("", "v1", "serviceaccounts", "ServiceAccount")
_PARALLEL: Final = 16
_NOBODY: Final = "nobody"
"""A scheduler and a GatewayClass that no program serves."""
_ACCEPTED: Final = ("Accepted", "ResolvedRefs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One Rollout as it was created."""

    rollout: Object

    @property
    def name(self) -> str:
        """Its name, and its route's."""
        return str(self.rollout["metadata"]["name"])


class Fleet:
    """Rollouts of one namespace, the worst case for whoever looks through a namespace."""

    def __init__(self, kube: Kube) -> None:
        """Nothing exists yet."""
        self._kube = kube
        self.members: list[Member] = []

    async def found(self) -> None:
        """Create the namespace and what all members share."""
        await self._kube.create(NAMESPACE, {"metadata": {"name": SPACE}})
        await self._retry(lambda: self._kube.get(_ACCOUNT, "default", SPACE))
        gateway = m.gateway()
        gateway["spec"]["gatewayClassName"] = _NOBODY
        await self._kube.create(GATEWAY, gateway, SPACE)
        await self._kube.create(SERVICE, m.service(PICKER, {"app": PICKER}, m.PICKER_PORT), SPACE)
        await self._pod(PICKER, {"app": PICKER}, "127.0.0.1")

    async def grow(self, size: int) -> None:
        """Create members until there are so many."""
        numbers = range(len(self.members), size)
        self.members += await _bounded(self._member(number) for number in numbers)

    async def accept(self, members: Iterable[Member] | None = None) -> None:
        """Have the gateway accept the routes as they now are."""
        chosen = self.members if members is None else members
        await _bounded(self._accept(member.name) for member in chosen)

    async def patch_times(self, workers: int, due: Sequence[float]) -> list[float]:
        """Seconds that the API server takes to patch routes in turn, some at once, by workers.

        ``due`` are the times of the patches, in seconds from now.
        """
        seconds: list[float] = []
        left = list(enumerate(due))[::-1]
        start = time.perf_counter()

        async def worker() -> None:
            while left:
                at, due_s = left.pop()
                name = self.members[at % len(self.members)].name
                await asyncio.sleep(start + due_s - time.perf_counter())
                change = {"metadata": {"annotations": {"example.com/at": str(time.time())}}}
                begun = time.perf_counter()
                await self._kube.patch(HTTPROUTE, name, change, SPACE, kind=PatchKind.MERGE)
                seconds.append(time.perf_counter() - begun)

        await asyncio.gather(*(worker() for _ in range(workers)))
        return seconds

    @contextlib.asynccontextmanager
    async def gateway(self) -> AsyncIterator[None]:
        """Accept each route as soon as it has changed, as a gateway's controller does."""
        busy: set[asyncio.Task[None]] = set()

        def on_change(_: str, route: Object) -> None:
            if _accepted(route) != route["metadata"]["generation"]:
                task = asyncio.get_running_loop().create_task(self._accept_now(route))
                busy.add(task)
                task.add_done_callback(busy.discard)

        cache = WatchCache(self._kube, HTTPROUTE, SPACE)
        cache.subscribe(on_change)
        async with cache:
            yield
            while busy:
                await asyncio.gather(*busy)

    async def _member(self, number: int) -> Member:
        name = f"chat-{number:04d}"
        labels = {"app": name}
        config = {"httpRoute": name, "inferencePools": [f"{name}-a", f"{name}-b"]}
        template = m.pod_template(m.simulated_vllm("1", "--seed", "1"), labels=labels)
        # The plugin never goes above the weight of the step: this one leaves room for the bench.
        steps = m.steps(100)
        rollout = await self._kube.create(
            ROLLOUT, m.rollout(name, template, config, replicas=2, canary_steps=steps), SPACE
        )
        hashes = (f"{number:04d}aaaa", f"{number:04d}bbbb")
        for letter, pod_template_hash in zip("ab", hashes, strict=True):
            await self._revision(rollout, template, pod_template_hash)
            selector = labels | {HASH_LABEL: pod_template_hash}
            pool = m.pool(f"{name}-{letter}", selector, picker=PICKER)
            await self._kube.create(INFERENCEPOOL, pool, SPACE)
        route = m.route(name, m.pool_ref(f"{name}-a", 100), m.pool_ref(f"{name}-b", 0))
        await self._kube.create(HTTPROUTE, route, SPACE)
        await self._accept(name)
        stable, canary = hashes
        status = {
            "stableRS": stable,
            "currentPodHash": canary,
            "currentStepIndex": 1,
            "phase": "Paused",
            "observedGeneration": "1",
        }
        return Member(rollout=await self._status(ROLLOUT, name, status))

    async def _revision(self, rollout: Object, template: Object, pod_template_hash: str) -> None:
        name = f"{rollout['metadata']['name']}-{pod_template_hash}"
        labels = template["metadata"]["labels"] | {HASH_LABEL: pod_template_hash}
        owner = {
            "apiVersion": rollout["apiVersion"],
            "kind": rollout["kind"],
            "name": rollout["metadata"]["name"],
            "uid": rollout["metadata"]["uid"],
            "controller": True,
        }
        # A label of its own keeps the ReplicaSet's controller from taking the pods over.
        mark = labels | {"bench": "replica-set"}
        metadata = template["metadata"] | {"labels": mark}
        replica_set = {
            "metadata": {"name": name, "labels": labels, "ownerReferences": [owner]},
            "spec": {
                "replicas": 0,
                "selector": {"matchLabels": mark},
                "template": {**template, "metadata": metadata},
            },
        }
        await self._kube.create(REPLICASET, replica_set, SPACE)
        await self._pod(f"{name}-0", labels, "127.0.0.2")

    async def _pod(self, name: str, labels: dict[str, str], address: str) -> None:
        template = m.pod_template(m.noop(), labels=labels)
        pod = {
            "metadata": {"name": name, "labels": labels},
            "spec": {**template["spec"], "schedulerName": _NOBODY},
        }
        await self._kube.create(POD, pod, SPACE)
        status = {"podIP": address, "conditions": [{"type": "Ready", "status": "True"}]}
        await self._status(POD, name, status)

    async def _accept(self, name: str) -> None:
        await self._accept_now(await self._kube.get(HTTPROUTE, name, SPACE))

    async def _accept_now(self, route: Object) -> None:
        conditions = [
            {
                "type": kind,
                "status": "True",
                "reason": kind,
                "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
                "observedGeneration": route["metadata"]["generation"],
            }
            for kind in _ACCEPTED
        ]
        parent = {
            "parentRef": {"name": m.GATEWAY},
            "controllerName": "example.com/bench",
            "conditions": conditions,
        }
        await self._status(HTTPROUTE, route["metadata"]["name"], {"parents": [parent]})

    async def _status(self, resource: Resource, name: str, status: Object) -> Object:
        return await self._kube.patch(
            resource,
            name,
            {"status": status},
            SPACE,
            kind=PatchKind.MERGE,
            subresource="status",
            field_manager="bench",
        )

    async def _retry(self, call: Callable[[], Awaitable[Object]]) -> None:
        async with asyncio.timeout(30):
            while True:
                try:
                    await call()
                except KubeError as error:
                    if not error.not_found:
                        raise
                    await asyncio.sleep(0.1)
                else:
                    return


def plugin_config(rollout: Object) -> Object:
    """The plugin's configuration in a Rollout."""
    routing = rollout["spec"]["strategy"]["canary"]["trafficRouting"]
    config: Object = routing["plugins"][PLUGIN_NAME]
    return config


def _accepted(route: Object) -> int:
    """The generation that the gateway has accepted, -1 for none."""
    parents = (route.get("status") or {}).get("parents") or []
    return min(
        (int(each["observedGeneration"]) for one in parents for each in one["conditions"]),
        default=-1,
    )


async def _bounded(calls: Iterable[Awaitable[Any]]) -> list[Any]:
    """Await all, a bounded number at once, in order."""
    slots = asyncio.Semaphore(_PARALLEL)

    async def one(call: Awaitable[Any]) -> Any:
        async with slots:
            return await call

    return list(await asyncio.gather(*(one(call) for call in calls)))
