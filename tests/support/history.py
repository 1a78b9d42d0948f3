"""Every version of a namespace's objects, in the order in which the API server stored them.

What must hold at every moment, and not only at the end, is asked of a history: it is replayed
version by version. Versions of all resource types come from one etcd, which makes their
resourceVersions one order.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Final, Self

from inference_common.kube import HTTPROUTE, INFERENCEMODEL, INFERENCEPOOL, POD, Resource
from inference_common.pods import is_member, is_ready
from inference_common.pools import selector_of
from inference_common.watching import WatchCache, version_of
from support.scenario import TIMEOUT_S, is_accepted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.scenario import Scenario

Object = dict[str, Any]
State = dict[tuple[str, str], Object]
_RECORDED: Final = (HTTPROUTE, INFERENCEMODEL, INFERENCEPOOL, POD)


class History:
    """Records from entering to leaving the context."""

    def __init__(self, scenario: Scenario) -> None:
        """Describe what is recorded: routes, models, pools and pods of the namespace."""
        self._scenario = scenario
        self._events: list[tuple[int, str, str, Object]] = []
        self._caches = [WatchCache(scenario.kube, kind, scenario.namespace) for kind in _RECORDED]

    async def __aenter__(self) -> Self:
        for cache in self._caches:
            cache.subscribe(self._recorder(cache.resource))
            cache.start()
        for cache in self._caches:
            await cache.synced()
        self._start = max((event[0] for event in self._events), default=0)
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            for cache in self._caches:
                await self._caught_up(cache)
        finally:
            for cache in self._caches:
                await cache.stop()

    async def _caught_up(self, cache: WatchCache) -> None:
        """Return once the watch has told all that there is now: others may have told it before."""
        found = await self._scenario.kube.list(cache.resource, self._scenario.namespace)
        there = {obj["metadata"]["name"]: version_of(obj) for obj in found["items"]}
        listed_at = int(found["metadata"]["resourceVersion"])

        def told(cache: WatchCache) -> bool:
            seen: dict[str, int] = {}
            for version, _, kind, obj in self._events:
                if kind == cache.resource.kind:
                    seen[obj["metadata"]["name"]] = version
            known = {obj["metadata"]["name"]: version_of(obj) for obj in cache.items()}
            return all(seen.get(name, -1) >= at for name, at in there.items()) and all(
                name in there or at > listed_at for name, at in known.items()
            )

        await cache.until(told, TIMEOUT_S)

    def states(self) -> Iterator[State]:
        """The namespace after each change, by (kind, name); the first one is how it began."""
        state: State = {}
        for version, change, kind, obj in sorted(self._events, key=lambda event: event[0]):
            key = (kind, obj["metadata"]["name"])
            if change == "DELETED":
                state.pop(key, None)
            else:
                state[key] = obj
            if version >= self._start:
                yield state

    def weights(self, route: str) -> list[dict[str, int | None]]:
        """The weights of a route's first rule, each time that they changed."""
        found: list[dict[str, int | None]] = []
        for state in self.states():
            obj = state.get((HTTPROUTE.kind, route))
            if obj is None:
                continue
            refs = obj["spec"]["rules"][0]["backendRefs"]
            now = {ref["name"]: ref.get("weight") for ref in refs}
            if not found or found[-1] != now:
                found.append(now)
        return found

    def targets(self, model: str) -> list[dict[str, int | None]]:
        """The targets of an InferenceModel, each time that they changed."""
        found: list[dict[str, int | None]] = []
        for state in self.states():
            obj = state.get((INFERENCEMODEL.kind, model))
            if obj is None:
                continue
            now = {item["name"]: item.get("weight") for item in obj["spec"]["targetModels"]}
            if not found or found[-1] != now:
                found.append(now)
        return found

    def unanswered(self) -> list[str]:
        """Moments at which a weighted reference led to a pool without a ready pod.

        Weighted counts both in the route as it stands and as the gateway last accepted it: the
        data plane serves the latter until it has caught up.
        """
        in_effect: dict[str, Object] = {}
        found: list[str] = []
        for state in self.states():
            for (kind, name), obj in state.items():
                if kind == HTTPROUTE.kind and is_accepted(obj):
                    in_effect[name] = obj
            for (kind, name), obj in state.items():
                if kind != HTTPROUTE.kind:
                    continue
                for route in (obj, in_effect.get(name, obj)):
                    found += [text for text in _empty_references(route, state) if text not in found]
        return found

    def _recorder(self, resource: Resource) -> Any:
        def record(change: str, obj: Object) -> None:
            self._events.append((version_of(obj), change, resource.kind, copy.deepcopy(obj)))

        return record


def _empty_references(route: Object, state: State) -> Iterator[str]:
    for rule in route["spec"]["rules"]:
        for ref in rule["backendRefs"]:
            pool = state.get((INFERENCEPOOL.kind, ref["name"]))
            if not ref.get("weight", 1) or pool is None or ref.get("kind") != INFERENCEPOOL.kind:
                continue
            wanted = selector_of(pool)
            if not any(
                is_member(pod, wanted) and is_ready(pod)
                for (kind, _), pod in state.items()
                if kind == POD.kind
            ):
                generation = route["metadata"]["generation"]
                yield (
                    f"generation {generation}: {ref['name']} has weight {ref.get('weight')} and "
                    f"selects no ready pod by {wanted}"
                )
