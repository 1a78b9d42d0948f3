"""The node: registration, heartbeat, scheduling, and one worker for each pod."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final, Self

import structlog

from inference_common.errors import KubeError
from inference_common.kube import LEASE, NODE, POD, PatchKind
from inference_common.watching import WatchCache
from support.nodeagent.addresses import Addresses
from support.nodeagent.api import PodApi
from support.nodeagent.moments import now_utc
from support.nodeagent.nodes import (
    CAPACITY,
    LEASE_NAMESPACE,
    LEASE_RENEWAL_S,
    lease_object,
    node_object,
    node_status,
)
from support.nodeagent.probing import Prober
from support.nodeagent.processes import launcher, sweep
from support.nodeagent.scheduling import binding, choose_node, wants_node
from support.nodeagent.workers import Host, PodWorker

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence
    from pathlib import Path

    from inference_common.kube import Kube
    from support.nodeagent.places import Cluster

_log = structlog.get_logger(__name__)

_WRITES_IN_FLIGHT: Final = 16
_RETRY_S: Final = 1.0
_FAREWELL_S: Final = 3.0
"""How long containers may take to end when the agent itself is stopped."""


class NodeAgent:
    """Nodes of the given names and everything on them."""

    def __init__(
        self, kube: Kube, *, network: str, root: Path, cluster: Cluster, names: Sequence[str]
    ) -> None:
        """Nothing runs before the agent is entered."""
        self._kube = kube
        self._addresses = Addresses(network)
        self._names = {name: index for index, name in enumerate(names)}
        self._root = root
        self._cluster = cluster
        self._api = PodApi(kube)
        self._prober = Prober()
        self._writes = asyncio.Semaphore(_WRITES_IN_FLIGHT)
        self._pods = WatchCache(kube, POD)
        self._nodes = WatchCache(kube, NODE)
        self._workers: dict[str, PodWorker] = {}
        self._removed: set[str] = set()
        """Uids whose worker is done while the watch has not reported the deletion yet."""
        self._uids: dict[tuple[str, str], str] = {}
        self._binding: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        launcher()
        killed = sweep(self._root / "node-agent" / "processes")
        if killed:
            _log.warning("processes of an earlier run were still there", killed=killed)
        await self._prober.__aenter__()
        for name in self._names:
            await self._register(name)
            self._spawn(self._heartbeat(name), f"lease {name}")
        self._nodes.start()
        await self._nodes.synced()
        self._pods.start()
        await self._pods.synced()
        self._adopt()
        _log.info(
            "node ready",
            nodes=sorted(self._names),
            pods=len(self._workers),
            in_cluster_config="not covered: pods get KUBECONFIG instead of the standard path",
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop all containers; the pods stay as they are on the API server."""
        await self._pods.stop()
        await self._nodes.stop()
        workers = list(self._workers.values())
        await asyncio.gather(*(worker.halt(_FAREWELL_S) for worker in workers))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._prober.__aexit__()

    def _adopt(self) -> None:
        """Take over the pods that are there, then follow what happens."""
        # Every address that is in use must be known before a new one is given out.
        for pod in self._pods.items():
            if address := (pod.get("status") or {}).get("podIP"):
                self._addresses.reserve(address)
        for pod in self._pods.items():
            self._on_pod("ADDED", pod)
        self._pods.subscribe(self._on_pod)
        # A cordon or a new label may make room for a pod that fitted nowhere.
        self._nodes.subscribe(lambda _, __: self._schedule_waiting())

    async def _register(self, name: str) -> None:
        """Create the Node, or take over the one that is there; its Lease follows."""
        while True:
            try:
                with contextlib.suppress(KubeError):
                    await self._kube.create(NODE, node_object(name))
                address = self._addresses.node(self._names[name])
                await self._kube.patch(
                    NODE,
                    name,
                    node_status(name, address, now_utc()),
                    kind=PatchKind.STRATEGIC,
                    subresource="status",
                )
                await self._renew(name)
            except KubeError as error:
                _log.warning("node not registered", node=name, error=str(error), retry_s=_RETRY_S)
                await asyncio.sleep(_RETRY_S)
            else:
                return

    async def _renew(self, name: str) -> None:
        node = await self._kube.get(NODE, name)
        body = lease_object(name, node["metadata"]["uid"], now_utc())
        await self._kube.patch(
            LEASE,
            name,
            body,
            LEASE_NAMESPACE,
            kind=PatchKind.APPLY,
            field_manager="node-agent",
            force=True,
        )

    async def _heartbeat(self, name: str) -> None:
        while True:
            await asyncio.sleep(LEASE_RENEWAL_S)
            try:
                await self._renew(name)
            except KubeError as error:
                _log.warning("lease not renewed", node=name, error=str(error))
                if error.not_found:
                    await self._register(name)

    def _on_pod(self, kind: str, pod: dict[str, Any]) -> None:
        metadata = pod["metadata"]
        uid: str = metadata["uid"]
        key = (metadata["namespace"], metadata["name"])
        before = self._uids.get(key)
        self._uids[key] = uid
        if before is not None and before != uid:
            # Deleted and made anew while the watch was interrupted.
            self._leave(before)
        if kind == "DELETED":
            del self._uids[key]
            self._leave(uid)
        elif wants_node(pod):
            self._schedule(pod)
        elif pod["spec"].get("nodeName") in self._names:
            self._take(pod)

    def _leave(self, uid: str) -> None:
        """A pod is gone from the API server."""
        self._removed.discard(uid)
        if (worker := self._workers.get(uid)) is not None:
            worker.gone()

    def _take(self, pod: dict[str, Any]) -> None:
        """Hand the pod to its worker, which is made where there is none."""
        uid = pod["metadata"]["uid"]
        if (worker := self._workers.get(uid)) is not None:
            worker.update(pod)
            return
        if uid in self._removed or _is_removed(pod):
            return
        address = (pod.get("status") or {}).get("podIP")
        if address:
            self._addresses.reserve(address)
        else:
            address = self._addresses.allocate()
        node = self._addresses.node(self._names[pod["spec"]["nodeName"]])
        host = Host(
            api=self._api,
            prober=self._prober,
            cluster=self._cluster,
            root=self._root,
            address=node,
            allocatable=CAPACITY,
            writes=self._writes,
        )
        worker = PodWorker(pod, address, host)
        self._workers[uid] = worker
        self._spawn(self._work(worker, uid, address), f"pod {pod['metadata']['name']}")

    async def _work(self, worker: PodWorker, uid: str, address: str) -> None:
        try:
            await worker.run()
        finally:
            del self._workers[uid]
            if not worker.is_gone:
                self._removed.add(uid)
            self._addresses.release(address)

    def _schedule_waiting(self) -> None:
        for pod in self._pods.items():
            if wants_node(pod):
                self._schedule(pod)

    def _schedule(self, pod: dict[str, Any]) -> None:
        uid = pod["metadata"]["uid"]
        own = [node for node in self._nodes.items() if node["metadata"]["name"] in self._names]
        load = dict.fromkeys(self._names, 0)
        if len(self._names) > 1:
            for other in self._pods.items():
                if (where := other["spec"].get("nodeName")) in load:
                    load[where] += 1
        name = choose_node(pod, own, load)
        if name is None or uid in self._binding:
            return
        self._binding.add(uid)
        self._spawn(self._bind(pod, name), f"bind {pod['metadata']['name']}")

    async def _bind(self, pod: dict[str, Any], node: str) -> None:
        uid = pod["metadata"]["uid"]
        try:
            while True:
                try:
                    async with self._writes:
                        await self._api.bind(pod, binding(pod, node))
                except KubeError as error:
                    if not error.retryable:
                        # Deleted, replaced or bound by somebody else: the watch tells.
                        _log.info("not bound", pod=pod["metadata"]["name"], error=str(error))
                        return
                    await asyncio.sleep(_RETRY_S)
                else:
                    break
            # The watch is a little behind: the pod may start without waiting for it.
            if self._pods.get(pod["metadata"]["name"], pod["metadata"]["namespace"]) is pod:
                self._take(pod | {"spec": pod["spec"] | {"nodeName": node}})
        finally:
            self._binding.discard(uid)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a task failed", task=task.get_name(), exc_info=error)


def _is_removed(pod: dict[str, Any]) -> bool:
    """Whether only finalizers of others keep the object: its grace period is over."""
    metadata = pod["metadata"]
    return "deletionTimestamp" in metadata and metadata.get("deletionGracePeriodSeconds") == 0
