"""Priorities as the cluster's InferenceObjectives say them, of both API groups."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

import structlog

from inference_common.errors import KubeError
from inference_common.kube import INFERENCEPOOL, Resource
from inference_common.watching import WatchCache

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from inference_common.kube import Kube

_log = structlog.get_logger(__name__)

INFERENCEOBJECTIVE: Final = Resource(
    "llm-d.ai", "v1alpha2", "inferenceobjectives", "InferenceObjective"
)
INFERENCEOBJECTIVE_X: Final = Resource(
    "inference.networking.x-k8s.io", "v1alpha2", "inferenceobjectives", "InferenceObjective"
)
_RETRY_S: Final = 30.0


def priorities(
    pool_name: str, pool_group: str, objects: Iterable[Mapping[str, Any]]
) -> dict[str, int]:
    """Priority by the objective's name, of those that refer to the pool.

    Without ``priority`` it is 0 (InferenceObjective v1alpha2, spec.priority). Of two groups with
    the same name the first in ``objects`` counts.
    """
    found: dict[str, int] = {}
    for objective in objects:
        spec = objective.get("spec") or {}
        ref = spec.get("poolRef") or {}
        if ref.get("name") == pool_name and ref.get("group", INFERENCEPOOL.group) == pool_group:
            found.setdefault(objective["metadata"]["name"], int(spec.get("priority") or 0))
    return found


class ObjectiveWatch:
    """The objectives of one namespace, where the cluster has them and lets them be read.

    Nothing waits for it: without priorities every request has the usual one.
    """

    def __init__(self, kube: Kube, namespace: str, changed: Callable[[], None]) -> None:
        """Nothing runs before ``start``; ``changed`` is called when a priority may differ."""
        self._kube = kube
        self._namespace = namespace
        self._changed = changed
        self._caches: dict[Resource, WatchCache] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to look for both kinds."""
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._watch(kind), name="watch objectives")
            for kind in (INFERENCEOBJECTIVE, INFERENCEOBJECTIVE_X)
        ]

    async def stop(self) -> None:
        """End the watches."""
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for cache in self._caches.values():
            await cache.stop()

    def priorities(self, pool_name: str, pool_group: str) -> dict[str, int]:
        """Priority by the objective's name, as far as is known."""
        kinds = (INFERENCEOBJECTIVE, INFERENCEOBJECTIVE_X)
        known = (
            obj for kind in kinds if kind in self._caches for obj in self._caches[kind].items()
        )
        return priorities(pool_name, pool_group, known)

    async def _watch(self, kind: Resource) -> None:
        while True:
            try:
                if await self._kube.serves(kind):
                    # Asked for once by itself: a watch that may not read would retry for ever.
                    await self._kube.list(kind, self._namespace)
                    break
            except KubeError as error:
                _log.info("no priorities from InferenceObjectives", error=str(error))
            await asyncio.sleep(_RETRY_S)
        cache = WatchCache(self._kube, kind, self._namespace)
        cache.subscribe(lambda _type, _obj: self._changed())
        cache.start()
        self._caches[kind] = cache
