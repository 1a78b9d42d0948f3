"""All keepers: made for each Rollout that is routed here, and woken by what concerns them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from inference_common.kube import ROLLOUT
from inference_plugin import commanded
from inference_plugin.footprints import marks_of
from inference_plugin.keeper import Keeper
from inference_plugin.releasing import Ended, has_ended, release_ended
from inference_plugin.rollouts import RolloutKey, is_being_deleted, key_of, spec_of

if TYPE_CHECKING:
    from inference_common.kube import Resource
    from inference_plugin.tools import Tools

Object = dict[str, Any]


class Keepers:
    """Finds or makes the keeper of a Rollout, and relays changes of the cluster."""

    def __init__(self, tools: Tools) -> None:
        """Listen to the cluster."""
        self._tools = tools
        self._keepers: dict[RolloutKey, Keeper] = {}
        self._ends: set[asyncio.Task[None]] = set()
        tools.cluster.listen(self._on_change)

    def of(self, key: RolloutKey) -> Keeper:
        """The keeper of that Rollout."""
        keeper = self._keepers.get(key)
        if keeper is None:
            keeper = self._keepers[key] = Keeper(key, self._tools)
            keeper.start()
            self._tools.metrics.rollouts.set(len(self._keepers))
        return keeper

    def wake_all(self) -> None:
        """Have every keeper look: after the first read of the cluster, or when this server leads.

        What was managed for Rollouts that ended while the server was away is given up.
        """
        if not self._tools.cluster.serves(ROLLOUT):
            # Nothing is known of any Rollout, which is not to say that there is none.
            return
        for where in self._tools.cluster.carriers():
            obj = self._tools.cluster.get(*where) or {}
            for name, entry in commanded.read_all(obj).items():
                namespace, _, short = name.partition("/")
                rollout = self._tools.cluster.get(ROLLOUT, namespace, short)
                if has_ended(rollout, entry.uid):
                    key = RolloutKey(namespace=namespace, name=short)
                    known = rollout if rollout and rollout["metadata"]["uid"] == entry.uid else None
                    self._end(Ended(key=key, uid=entry.uid, rollout=known))
        for keeper in self._keepers.values():
            keeper.wake()

    def __len__(self) -> int:
        """How many Rollouts are routed here."""
        return len(self._keepers)

    async def stop(self) -> None:
        """End all background loops."""
        for keeper in self._keepers.values():
            await keeper.stop()
        for task in self._ends:
            task.cancel()
        await asyncio.gather(*self._ends, return_exceptions=True)

    def _end(self, ended: Ended) -> None:
        """Give up in the background what an ended Rollout has managed, if there is anything."""
        if not self._tools.leadership.leads or not self._tools.cluster.carriers(str(ended.key)):
            # A new leader looks for what ended before it led.
            return
        work = release_ended(ended, self._tools)
        task = asyncio.get_running_loop().create_task(work, name=f"release {ended.key}")
        self._ends.add(task)
        task.add_done_callback(self._ends.discard)

    def _on_change(self, resource: Resource, kind: str, obj: Object) -> None:
        for concerned in self._tools.interests.of(marks_of(resource, obj)):
            if concerned in self._keepers:
                self._keepers[concerned].look_again()
        if resource == ROLLOUT:
            self._on_rollout(kind, obj)
            return
        for name in commanded.read_all(obj):
            namespace, _, short = name.partition("/")
            keeper = self._keepers.get(RolloutKey(namespace=namespace, name=short))
            if keeper is not None and not keeper.is_active:
                keeper.wake()

    def _on_rollout(self, kind: str, rollout: Object) -> None:
        key = key_of(rollout)
        if kind == "DELETED" or is_being_deleted(rollout) or spec_of(rollout) is None:
            uid = rollout["metadata"]["uid"]
            spec = spec_of(rollout)
            config = spec.config if spec else b""
            self._tools.interests.forget(key)
            keeper = self._keepers.pop(key, None)
            if keeper is not None:
                config = config or keeper.config
                keeper.discard(uid)
                self._tools.metrics.rollouts.set(len(self._keepers))
            self._end(Ended(key=key, uid=uid, rollout=rollout, config=config))
            return
        self.of(key).wake()
