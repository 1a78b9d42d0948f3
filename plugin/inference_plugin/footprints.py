"""What a plan has looked at: nothing but a change of that can change its outcome.

With hundreds of Rollouts that wait in one namespace, waking each of them for every change would
make each step cost as many plans as there are Rollouts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inference_common.kube import POD, REPLICASET
from inference_common.names import HASH_LABEL

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from inference_common.kube import Resource
    from inference_plugin.pool_shares import Acknowledgement
    from inference_plugin.rollouts import RolloutKey
    from inference_plugin.view import View

Object = dict[str, Any]


def marks_of(resource: Resource, obj: Object) -> set[Hashable]:
    """The marks that a look at this object leaves in a footprint, whichever way it was found."""
    metadata = obj["metadata"]
    namespace = metadata.get("namespace", "")
    marks: set[Hashable] = {(resource, namespace, metadata["name"]), (resource, namespace)}
    labels = metadata.get("labels") or {}
    if resource == POD:
        marks |= {(resource, namespace, *label) for label in labels.items()}
    elif resource == REPLICASET:
        marks.add((resource, namespace, HASH_LABEL, labels.get(HASH_LABEL)))
    return marks


class Interests:
    """Which Rollouts have looked at what, by their last plan."""

    def __init__(self) -> None:
        """Nobody has looked at anything."""
        self._marks: dict[RolloutKey, AbstractSet[Hashable]] = {}
        self._interested: dict[Hashable, set[RolloutKey]] = {}

    def note(self, key: RolloutKey, marks: AbstractSet[Hashable]) -> None:
        """The Rollout has looked at this, and no longer at what it looked at before."""
        before = self._marks.get(key, frozenset())
        if marks == before:
            return
        self._marks[key] = marks
        for mark in marks - before:
            self._interested.setdefault(mark, set()).add(key)
        self._drop(key, before - marks)

    def forget(self, key: RolloutKey) -> None:
        """The Rollout is gone."""
        self._drop(key, self._marks.pop(key, frozenset()))

    def of(self, marks: Iterable[Hashable]) -> set[RolloutKey]:
        """The Rollouts that have looked at what bears one of these marks."""
        return set().union(*(self._interested.get(mark, ()) for mark in marks))

    def _drop(self, key: RolloutKey, marks: Iterable[Hashable]) -> None:
        for mark in marks:
            interested = self._interested[mark]
            interested.discard(key)
            if not interested:
                del self._interested[mark]


class Footprint:
    """A view that passes everything on and notes what was asked for in ``marks``."""

    def __init__(self, view: View) -> None:
        """Nothing has been looked at."""
        self._view = view
        self.marks: set[Hashable] = set()

    def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        """As View.get; an object that is not there yet is waited for by its name."""
        self.marks.add((resource, namespace, name))
        return self._view.get(resource, namespace, name)

    def names(self, resource: Resource, namespace: str) -> list[str]:
        """As View.names."""
        self.marks.add((resource, namespace))
        return self._view.names(resource, namespace)

    def serves(self, resource: Resource) -> bool:
        """As View.serves."""
        return self._view.serves(resource)

    def kind(self, group: str, kind: str) -> Resource | None:
        """As View.kind."""
        return self._view.kind(group, kind)

    def schema(self, resource: Resource) -> Object:
        """As View.schema."""
        return self._view.schema(resource)

    def pods(self, namespace: str, selector: Mapping[str, str]) -> Iterable[Object]:
        """As View.pods; one label stands for all, that of a revision if there is one."""
        if selector:
            key = HASH_LABEL if HASH_LABEL in selector else max(selector)
            self.marks.add((POD, namespace, key, selector[key]))
        return self._view.pods(namespace, selector)

    def replica_sets(
        self, namespace: str, pod_template_hash: str | None = None
    ) -> Iterable[Object]:
        """As View.replica_sets."""
        self._mark_revision(namespace, pod_template_hash)
        return self._view.replica_sets(namespace, pod_template_hash)

    def available(self, namespace: str, rollout_uid: str, pod_template_hash: str) -> int:
        """As View.available."""
        self._mark_revision(namespace, pod_template_hash)
        return self._view.available(namespace, rollout_uid, pod_template_hash)

    def endpoints(self, namespace: str, service: str) -> int | None:
        """As View.endpoints; its Service has been looked at."""
        return self._view.endpoints(namespace, service)

    def accepted_for_s(self, route: Object) -> float | None:
        """As View.accepted_for_s."""
        return self._view.accepted_for_s(route)

    def aimed_for_s(self, pool: Object) -> float:
        """As View.aimed_for_s."""
        return self._view.aimed_for_s(pool)

    def acknowledged(
        self, pool: Object, pickers: Sequence[Object], port: int
    ) -> Mapping[str, Acknowledgement]:
        """As View.acknowledged; news of it is told as a change of the pool."""
        return self._view.acknowledged(pool, pickers, port)

    def _mark_revision(self, namespace: str, pod_template_hash: str | None) -> None:
        if pod_template_hash is None:
            self.marks.add((REPLICASET, namespace))
        else:
            self.marks.add((REPLICASET, namespace, HASH_LABEL, pod_template_hash))
