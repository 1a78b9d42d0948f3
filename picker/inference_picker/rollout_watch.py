"""Which Rollout divides a pool, from a watch of the namespace's Rollouts.

It is asked only where the pool's annotation is gone, and a picker starts no serving before it
knows, so that a restart can't open a pool to a canary.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

import structlog

from inference_common.errors import KubeError
from inference_common.governing import Governor, governor_of
from inference_common.kube import ROLLOUT
from inference_common.names import PLUGIN_NAME
from inference_common.watching import WatchCache

if TYPE_CHECKING:
    from collections.abc import Callable

    from inference_common.kube import Kube

Object = dict[str, Any]
_log = structlog.get_logger(__name__)

_FORBIDDEN: Final = 403
_FIRST_RETRY_S: Final = 1.0
_RETRY_S: Final = 30.0


class RolloutWatch:
    """The Rollouts of one namespace, where the cluster has them and lets them be read."""

    def __init__(self, kube: Kube, namespace: str, changed: Callable[[], None]) -> None:
        """Nothing runs before ``start``; ``changed`` is called when a Rollout changed."""
        self._kube = kube
        self._namespace = namespace
        self._changed = changed
        self._cache: WatchCache | None = None
        self._asked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look for Rollouts, and to watch them once they are there."""
        self._task = asyncio.get_running_loop().create_task(self._watch(), name="watch rollouts")

    async def stop(self) -> None:
        """End the watch."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._cache is not None:
            await self._cache.stop()

    @property
    def is_known(self) -> bool:
        """Whether the Rollouts have been listed, are not served, or may not be read."""
        return self._asked.is_set()

    async def known(self) -> None:
        """Return when that is so."""
        await self._asked.wait()

    def governor(self, pool: str, group: str) -> Governor | None:
        """The Rollout that divides this pool, as far as is known."""
        if self._cache is None:
            return None
        return governor_of(self._cache.items(self._namespace), self._namespace, pool, group)

    async def _watch(self) -> None:
        while True:
            try:
                if await self._kube.serves(ROLLOUT):
                    # Asked for once by itself: a watch that may not read would retry for ever.
                    await self._kube.list(ROLLOUT, self._namespace)
                    break
                self._asked.set()
            except KubeError as error:
                if error.status == _FORBIDDEN:
                    _log.warning(
                        "Rollouts may not be read: after a restart, a pool whose shares annotation "
                        "is gone is served whole. Allow get, list and watch of rollouts.argoproj.io"
                    )
                    self._asked.set()
                else:
                    _log.warning("asking for Rollouts failed", error=str(error))
            await asyncio.sleep(_RETRY_S if self._asked.is_set() else _FIRST_RETRY_S)
        cache = WatchCache(self._kube, ROLLOUT, self._namespace, reduce=slim)
        cache.subscribe(lambda _type, _obj: self._changed())
        cache.start()
        await cache.synced()
        self._cache = cache
        self._changed()
        self._asked.set()


def slim(rollout: Object) -> Object:
    """What decides about pools: identity, the plugin's configuration, the stable version."""
    metadata = rollout["metadata"]
    canary = ((rollout.get("spec") or {}).get("strategy") or {}).get("canary") or {}
    plugins = (canary.get("trafficRouting") or {}).get("plugins") or {}
    kept = {PLUGIN_NAME: plugins[PLUGIN_NAME]} if PLUGIN_NAME in plugins else {}
    return {
        "metadata": {
            key: metadata[key]
            for key in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
            if key in metadata
        },
        "spec": {"strategy": {"canary": {"trafficRouting": {"plugins": kept}}}},
        "status": {"stableRS": (rollout.get("status") or {}).get("stableRS", "")},
    }
