"""Model splits as the cluster's objects say them: InferenceModel and InferenceModelRewrite.

Where both API groups of InferenceModelRewrite are installed the older one is ignored, as by
upstream's picker (llm-d-router pkg/epp/server/controller_config.go).
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

import structlog

from inference_common.errors import KubeError
from inference_common.kube import (
    INFERENCEMODEL,
    INFERENCEMODELREWRITE,
    INFERENCEMODELREWRITE_X,
    INFERENCEPOOL,
    INFERENCEPOOL_X,
)
from inference_common.names import COMMANDED_ANNOTATION
from inference_common.shares import commanded_homes
from inference_common.watching import WatchCache
from inference_picker.splits import ModelSplit, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from inference_common.kube import Kube, Resource

_log = structlog.get_logger(__name__)

KINDS: Final = (INFERENCEMODEL, INFERENCEMODELREWRITE, INFERENCEMODELREWRITE_X)
_FIRST_RETRY_S: Final = 1.0
_RETRY_S: Final = 15.0


def inference_models(
    pool_name: str, pool_group: str, objects: Iterable[Mapping[str, Any]]
) -> Iterator[ModelSplit]:
    """The splits of the InferenceModels that refer to the pool, the oldest first.

    The oldest of several for one model name is the valid one (InferenceModel v1alpha2,
    ``modelName``).
    """
    for model in _of_pool(pool_name, pool_group, objects, INFERENCEPOOL_X.group):
        spec = model["spec"]
        targets = _targets(spec.get("targetModels") or [], "name")
        yield ModelSplit(model=spec["modelName"], targets=targets, stable=_stable(model, targets))


def model_rewrites(
    pool_name: str, pool_group: str, objects: Iterable[Mapping[str, Any]]
) -> Iterator[ModelSplit]:
    """The splits of the InferenceModelRewrites that refer to the pool, the first to count first.

    A rule without matches is for every model that no other one is for; then the oldest object
    counts, then the first rule in it (llm-d-router apix/v1alpha2, InferenceModelRewriteSpec).
    """
    generic: list[ModelSplit] = []
    for rewrite in _of_pool(pool_name, pool_group, objects, INFERENCEPOOL.group):
        for rule in rewrite["spec"].get("rules") or []:
            targets = _targets(rule.get("targets") or [], "modelRewrite")
            stable = _stable(rewrite, targets)
            if not rule.get("matches"):
                generic.append(ModelSplit(model=None, targets=targets, stable=stable))
            for match in rule.get("matches") or []:
                model = match["model"]["value"]
                yield ModelSplit(model=model, targets=targets, stable=stable)
    yield from generic


def _of_pool(
    pool_name: str, pool_group: str, objects: Iterable[Mapping[str, Any]], default_group: str
) -> list[Mapping[str, Any]]:
    """The objects that refer to the pool, the oldest first."""

    def age(obj: Mapping[str, Any]) -> tuple[str, str]:
        metadata = obj["metadata"]
        return str(metadata.get("creationTimestamp", "")), str(metadata["name"])

    found = []
    for obj in sorted(objects, key=age):
        ref = obj.get("spec", {}).get("poolRef", {})
        group = ref.get("group", default_group)
        if ref.get("name") == pool_name and group == pool_group:
            found.append(obj)
    return found


def _targets(entries: Iterable[Mapping[str, Any]], key: str) -> tuple[Target, ...]:
    """Without any weight the shares are equal; beside weighted entries one without gets none.

    The same as upstream's draw (llm-d-router pkg/epp/requestcontrol/director.go,
    selectWeightedModel).
    """
    listed = list(entries)
    absent = 0 if any("weight" in each for each in listed) else 1
    return tuple(Target(name=each[key], weight=int(each.get("weight", absent))) for each in listed)


def _stable(obj: Mapping[str, Any], targets: Iterable[Target]) -> str:
    """The target that the plugin's mark on the object names as stable's; empty where none does."""
    names = {target.name for target in targets}
    mark = (obj["metadata"].get("annotations") or {}).get(COMMANDED_ANNOTATION, "")
    return next((home for home in commanded_homes(mark) if home in names), "")


class SplitWatch:
    """The splits of one namespace, from the kinds that the cluster serves."""

    def __init__(self, kube: Kube, namespace: str, changed: Callable[[], None]) -> None:
        """Nothing runs before ``start``; ``changed`` is called whenever a split may differ."""
        self._kube = kube
        self._namespace = namespace
        self._changed = changed
        self._caches: dict[Resource, WatchCache] = {}
        self._asked = {kind: asyncio.Event() for kind in KINDS}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to look for each kind, and to watch those that are there."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._watch(kind), name=f"watch {kind}") for kind in KINDS]

    async def stop(self) -> None:
        """End the watches."""
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for cache in self._caches.values():
            await cache.stop()

    @property
    def is_known(self) -> bool:
        """Whether every kind has been listed, or is not served."""
        return all(asked.is_set() for asked in self._asked.values())

    async def known(self) -> None:
        """Return when every kind has been listed, or is not served."""
        for asked in self._asked.values():
            await asked.wait()

    def splits(self, pool_name: str, pool_group: str) -> Iterator[ModelSplit]:
        """The splits of a pool, the first to count for a model name first."""
        rewrite = INFERENCEMODELREWRITE
        if rewrite not in self._caches:
            rewrite = INFERENCEMODELREWRITE_X
        yield from model_rewrites(pool_name, pool_group, self._objects(rewrite))
        yield from inference_models(pool_name, pool_group, self._objects(INFERENCEMODEL))

    def _objects(self, kind: Resource) -> Iterator[dict[str, Any]]:
        if kind in self._caches:
            yield from self._caches[kind].items()

    async def _watch(self, kind: Resource) -> None:
        """Watch a kind as soon as the cluster has it: most clusters lack some of them."""
        asked = self._asked[kind]
        while True:
            try:
                served = await self._kube.find(kind.group, kind.kind, kind.version)
                if served is not None:
                    break
                asked.set()
            except KubeError as error:
                _log.warning(
                    "asking for a kind failed", kind=kind.kind, group=kind.group, error=str(error)
                )
            await asyncio.sleep(_RETRY_S if asked.is_set() else _FIRST_RETRY_S)
        cache = WatchCache(self._kube, served, self._namespace)
        cache.subscribe(lambda _type, _obj: self._changed())
        cache.start()
        await cache.synced()
        # Only now: until the newer group is listed the older one is not ignored.
        self._caches[kind] = cache
        self._changed()
        asked.set()
