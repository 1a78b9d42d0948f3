"""What several pools of one namespace have in common, watched once for all of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from inference_common.kube import POD
from inference_common.watching import WatchCache
from inference_picker.model_splits import SplitWatch
from inference_picker.objectives import ObjectiveWatch
from inference_picker.rollout_watch import RolloutWatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from inference_common.kube import Kube
    from inference_picker.optional_watch import OptionalWatch


class NamespaceWatch:
    """Pods, model splits, priorities and Rollouts of one namespace."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        """Nothing runs before it is entered."""
        self.kube = kube
        self.namespace = namespace
        # All pods of the namespace: a rollout re-aims a pool's selector, and the members of the
        # new one must be known at once.
        self.pods = WatchCache(kube, POD, namespace)
        self.splits = SplitWatch(kube, namespace)
        self.rollouts = RolloutWatch(kube, namespace)
        self.objectives = ObjectiveWatch(kube, namespace)
        # Priorities are waited for by nobody: without them every request has the usual one.
        self._needed = (*self.splits.watches.values(), self.rollouts.watch)

    def _optional(self) -> tuple[OptionalWatch, ...]:
        return (*self._needed, *self.objectives.watches)

    def subscribe(self, changed: Callable[[], None]) -> None:
        """Call ``changed`` whenever any of the objects may differ."""
        self.pods.subscribe(lambda _type, _obj: changed())
        for watch in self._optional():
            watch.subscribe(changed)

    async def __aenter__(self) -> Self:
        self.pods.start()
        for watch in self._optional():
            watch.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(self.pods.stop(), *(watch.stop() for watch in self._optional()))

    @property
    def is_known(self) -> bool:
        """Whether pods, splits and Rollouts have been listed, as far as the cluster has them."""
        return self.pods.is_synced and all(watch.is_known for watch in self._needed)

    async def known(self) -> None:
        """Return when that is so."""
        await self.pods.synced()
        for watch in self._needed:
            await watch.known()
