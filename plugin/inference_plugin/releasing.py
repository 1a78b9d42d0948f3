"""Gives up objects that a Rollout no longer manages: weights, mark, and the pools' selectors."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog

from inference_common.errors import KubeError
from inference_common.kube import ROLLOUT
from inference_plugin import commanded
from inference_plugin.backends import backend_of_item
from inference_plugin.config import parse_config
from inference_plugin.ends import release
from inference_plugin.errors import ConfigError, ConflictError, PluginError
from inference_plugin.pools import is_ours, release_pool
from inference_plugin.rollouts import is_being_deleted, spec_of
from inference_plugin.telling import Teller
from inference_plugin.writing import Writer

if TYPE_CHECKING:
    from collections.abc import Collection

    from inference_common.kube import Resource
    from inference_plugin.config import RouterConfig
    from inference_plugin.rollouts import RolloutKey
    from inference_plugin.tools import Tools

Object = dict[str, Any]
Where = tuple["Resource", str, str]
_log = structlog.get_logger(__name__)
_ATTEMPTS: Final = 10
_FIRST_DELAY_S: Final = 0.5
_LAST_DELAY_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A Rollout whose routing has ended: who it was, and what is still known of it.

    ``config`` is the configuration that it had last, empty where that is not known.
    """

    key: RolloutKey
    uid: str
    rollout: Object | None
    config: bytes = b""


class Releaser:
    """Gives up what one Rollout has managed."""

    def __init__(self, key: RolloutKey, tools: Tools, writer: Writer, teller: Teller) -> None:
        """Work with these tools."""
        self._key = key
        self._cluster = tools.cluster
        self._locks = tools.locks
        self._writer = writer
        self._teller = teller

    def held(self, uid: str, keep: Collection[Where] = ()) -> list[Where]:
        """Objects that carry the mark of this very Rollout, other than those to keep."""
        found = []
        for where in self._cluster.carriers(str(self._key)):
            obj = self._cluster.get(*where)
            entry = commanded.read(obj, str(self._key)) if obj else None
            if entry is not None and entry.uid == uid and where not in keep:
                found.append(where)
        return found

    async def release(
        self,
        uid: str,
        rollout: Object | None,
        config: RouterConfig | None,
        *,
        keep: Collection[Where] = (),
        keep_pools: Collection[str] = (),
    ) -> None:
        """Give up every object with the Rollout's mark but those to keep.

        ``rollout`` is the Rollout as it was last known and ``config`` its configuration, None
        where that is not known. Pools whose
        selector this plugin has aimed match what their owner wrote again, except ``keep_pools``.
        Raises KubeError and ConflictError; what is left then can be given up by another call.
        """
        stable_hash = str(((rollout or {}).get("status") or {}).get("stableRS") or "")
        for where in self.held(uid, keep):
            items = await self._release(where, uid, config, stable_hash)
            for item in sorted(items):
                await self._release_pool(item, uid, keep_pools)

    async def _release(
        self, where: Where, uid: str, config: RouterConfig | None, stable_hash: str
    ) -> frozenset[str]:
        """Give up one object; the items that it sent to."""
        async with self._locks.hold([where]):
            for _ in range(_ATTEMPTS):
                obj = self._cluster.get(*where)
                entry = commanded.read(obj, str(self._key)) if obj else None
                if obj is None or entry is None or entry.uid != uid:
                    return frozenset()
                patch = release(where[0], obj, entry, config, stable_hash=stable_hash)
                if await self._writer.attempt(patch):
                    self._teller.change(uid, "Released", patch.summary)
                    _log.info("released", rollout=str(self._key), change=patch.summary)
                    return entry.items
        raise ConflictError(
            f"{where[0].kind} {where[1]}/{where[2]} changed under each of {_ATTEMPTS} attempts to "
            "give it up. It is tried again."
        )

    async def _release_pool(self, item: str, uid: str, keep: Collection[str]) -> None:
        backend = backend_of_item(item)
        if backend is None or backend.kind != "InferencePool":
            return
        if backend.name in keep:
            return
        for _ in range(_ATTEMPTS):
            pool = self._cluster.get(backend.resource, backend.namespace, backend.name)
            if pool is None or not is_ours(pool):
                return
            write = release_pool(backend.resource, pool)
            if await self._writer.attempt(write):
                self._teller.change(uid, "Released", write.summary)
                return


def has_ended(rollout: Object | None, uid: str) -> bool:
    """Whether the Rollout with this uid is gone, going, or no longer routed by this plugin."""
    return (
        rollout is None
        or rollout["metadata"]["uid"] != uid
        or is_being_deleted(rollout)
        or spec_of(rollout) is None
    )


async def release_ended(ended: Ended, tools: Tools) -> None:
    """Give up what an ended Rollout has managed, as often as it takes."""
    teller = Teller(ended.key, tools)
    releaser = Releaser(ended.key, tools, Writer(tools), teller)
    delay_s = _FIRST_DELAY_S
    while True:
        rollout = tools.cluster.get(ROLLOUT, ended.key.namespace, ended.key.name)
        if not has_ended(rollout, ended.uid):
            return
        try:
            await releaser.release(ended.uid, ended.rollout, _parsed(ended.config))
        except (KubeError, PluginError) as error:
            _log.warning("not given up yet", rollout=str(ended.key), error=str(error))
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, _LAST_DELAY_S)
        else:
            return


def _parsed(raw: bytes) -> RouterConfig | None:
    try:
        return parse_config(raw) if raw else None
    except ConfigError:
        return None
