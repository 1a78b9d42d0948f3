"""The prober's eyes: the InferencePool, its pods and its Rollout, kept up to date by watches."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Self

from inference_common.kube import POD, ROLLOUT
from inference_common.pods import label_selector
from inference_common.pools import POOLS, ports_of, selector_of
from inference_common.watching import WatchCache
from inference_plugin.prober.pool import is_stable
from inference_plugin.prober.rounds import View

if TYPE_CHECKING:
    from inference_common.kube import Kube, Resource


class PoolWatch:
    """Watches one pool, the pods that it selects now, and (if named) one Rollout."""

    def __init__(
        self,
        kube: Kube,
        *,
        namespace: str,
        pool: str,
        pool_group: str,
        rollout: str | None,
        revision: str | None,
    ) -> None:
        """Describe what is watched; ``revision`` is this prober's own pod-template-hash."""
        self._kube = kube
        self._namespace = namespace
        self._pool = pool
        self._rollout = rollout
        self._revision = revision
        self._pools = _one(kube, POOLS[pool_group], namespace, pool)
        self._rollouts = _one(kube, ROLLOUT, namespace, rollout) if rollout else None
        self._pods: WatchCache | None = None
        self._selector = ""

    async def __aenter__(self) -> Self:
        self._pools.start()
        if self._rollouts is not None:
            self._rollouts.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for cache in (self._pools, self._rollouts, self._pods):
            if cache is not None:
                with contextlib.suppress(Exception):
                    await cache.stop()

    async def view(self) -> View:
        """The pool as of now; waits for the first list of what has not been read yet."""
        await self._pools.synced()
        pool = self._pools.get(self._pool, self._namespace)
        if pool is None:
            return View(pods=(), ports=(), stable=self._is_stable())
        await self._select(label_selector(selector_of(pool)))
        pods: list[dict[str, Any]] = []
        if self._pods is not None:
            await self._pods.synced()
            pods = list(self._pods.items())
        return View(pods=pods, ports=ports_of(pool), stable=self._is_stable())

    async def _select(self, selector: str) -> None:
        """Watch the pods of another selector, if it has changed. An empty one selects none."""
        if selector == self._selector:
            return
        if self._pods is not None:
            await self._pods.stop()
        self._selector = selector
        self._pods = None
        if selector:
            self._pods = WatchCache(self._kube, POD, self._namespace, selector)
            self._pods.start()

    def _is_stable(self) -> bool:
        # A Rollout that can't be read leaves the strict rule in force.
        if self._rollouts is None or self._rollout is None:
            return False
        return is_stable(self._rollouts.get(self._rollout, self._namespace), self._revision)


def _one(kube: Kube, resource: Resource, namespace: str, name: str) -> WatchCache:
    return WatchCache(kube, resource, namespace, field_selector=f"metadata.name={name}")
