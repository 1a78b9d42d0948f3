"""All keepers: made for each Rollout that is routed here, and woken by what concerns them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inference_common.kube import HTTPROUTE, ROLLOUT
from inference_plugin import commanded
from inference_plugin.keeper import Keeper, Tools
from inference_plugin.rollouts import RolloutKey, is_being_deleted, key_of, spec_of

if TYPE_CHECKING:
    from inference_common.kube import Resource

Object = dict[str, Any]


class Keepers:
    """Finds or makes the keeper of a Rollout, and relays changes of the cluster."""

    def __init__(self, tools: Tools) -> None:
        """Listen to the cluster."""
        self._tools = tools
        self._keepers: dict[RolloutKey, Keeper] = {}
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
        """Have every keeper look: after the first read of the cluster."""
        for keeper in self._keepers.values():
            keeper.wake()

    async def stop(self) -> None:
        """End all background loops."""
        for keeper in self._keepers.values():
            await keeper.stop()

    def _on_change(self, resource: Resource, kind: str, obj: Object) -> None:
        if resource == ROLLOUT:
            self._on_rollout(kind, obj)
            return
        for name in commanded.read_all(obj):
            namespace, _, short = name.partition("/")
            keeper = self._keepers.get(RolloutKey(namespace=namespace, name=short))
            if keeper is not None and not keeper.is_active:
                keeper.wake()
        namespace = obj["metadata"].get("namespace", "")
        for key, keeper in self._keepers.items():
            if keeper.is_active and (key.namespace == namespace or resource == HTTPROUTE):
                keeper.wake()

    def _on_rollout(self, kind: str, rollout: Object) -> None:
        key = key_of(rollout)
        if kind == "DELETED" or is_being_deleted(rollout) or spec_of(rollout) is None:
            keeper = self._keepers.pop(key, None)
            if keeper is not None:
                keeper.discard(rollout["metadata"]["uid"])
                self._tools.metrics.rollouts.set(len(self._keepers))
            return
        self.of(key).wake()
