"""One managed rule of a route: from shares to its new backendRefs."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from inference_plugin import commanded, weighted
from inference_plugin.backends import Backend, backend_of, new_ref
from inference_plugin.commanded import Placed
from inference_plugin.errors import ConfigError
from inference_plugin.routes import (
    entries_of,
    item_of,
    listing,
    namespace_of,
    place_of,
    refs_of,
    title_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from inference_plugin.commanded import Commanded
    from inference_plugin.targets import Context, Target, Wait

Object = dict[str, Any]
_MAX_REFS: Final = 16
"""Most backendRefs of a rule (gateway-api apis/v1/httproute_types.go, grpcroute_types.go)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RulePlan:
    """One managed rule: its new backendRefs and what is recorded about them.

    ``added`` are (place, item) of backendRefs that are there for an Experiment only.
    """

    index: int
    place: str
    before: Sequence[Object]
    after: Sequence[Object]
    placed: tuple[Placed, ...]
    removed: tuple[tuple[str, str], ...]
    added: tuple[tuple[str, str], ...]
    drained: tuple[Backend, ...]
    changed: bool
    exact: bool


def plan_rule(
    route: Object,
    index: int,
    target: Target[Backend],
    context: Context,
    entry: Commanded | None,
    gates: dict[Backend, Wait | None],
) -> RulePlan:
    """New backendRefs for one rule; ``gates`` keeps what each destination's gate has said.

    Raises ConfigError where there is no share to split, or a backendRef is missing.
    """
    refs = refs_of(route, index)
    namespace = namespace_of(route)
    place = place_of(route, index)
    items = {item_of(backend): backend for backend in target.shares}
    known = dict(items)
    for ref in refs:
        backend = backend_of(ref, namespace)
        # What the configuration no longer names is managed until it has no weight.
        retired = context.forgets and not ref.get("weight", 1)
        if entry and item_of(backend) in entry.items and not retired:
            known.setdefault(item_of(backend), backend)
    entries = entries_of(refs, namespace, known)
    _refuse_doubles(route, index, entries)
    wanted = weighted.Wanted(
        shares={item_of(backend): share for backend, share in target.shares.items()},
        maximum=target.maximum,
        stable=item_of(target.stable),
    )
    raised = weighted.raised(entries, wanted)
    for item in raised:
        backend = items[item]
        if backend not in gates:
            gates[backend] = target.gate(backend)
    blocked = {item for item in raised if gates[items[item]] is not None}
    try:
        split = weighted.resplit(entries, replace(wanted, blocked=blocked))
    except weighted.NoShareError as error:
        raise ConfigError(
            f"{title_of(route)} rule {place}: {listing(known.values())} have weight 0 in all while "
            "other backendRefs have weight, so there is no share to split. Give the stable one a "
            "weight."
        ) from error
    draft = _Draft(place, namespace, known, split, context, entry)
    for at, ref in enumerate(refs):
        draft.take(at, ref)
    for item, weight in split.managed.items():
        if item not in draft.present:
            draft.bring(item, weight, target)
    if len(draft.after) > _MAX_REFS:
        raise ConfigError(
            f"Rule {place} would have {len(draft.after)} backendRefs; a route allows {_MAX_REFS}. "
            "Remove the ones that are no longer needed."
        )
    return RulePlan(
        index=index,
        before=refs,
        after=draft.after,
        place=place,
        placed=tuple(draft.placed),
        removed=tuple(draft.removed),
        added=tuple(draft.added),
        drained=tuple(
            known[item.item]
            for item in entries
            if item.managed and item.weight and not split.managed.get(item.item, 0)
        ),
        changed=list(refs) != draft.after,
        exact=split.exact,
    )


class _Draft:
    """The backendRefs of a rule as they come together."""

    def __init__(
        self,
        place: str,
        namespace: str,
        known: Mapping[str, Backend],
        split: weighted.Resplit,
        context: Context,
        entry: Commanded | None,
    ) -> None:
        """Nothing is taken over yet."""
        self._place = place
        self._namespace = namespace
        self._known = known
        self._split = split
        self._context = context
        self._passing = {item for where, item in (entry.added if entry else ()) if where == place}
        self._spare = {
            item_of(backend_of(json.loads(text), namespace)): json.loads(text)
            for where, text in (entry.removed if entry else ())
            if where == place
        }
        self._sibling: Object | None = None
        self.after: list[Object] = []
        self.placed: list[Placed] = []
        self.removed: list[tuple[str, str]] = []
        self.added: list[tuple[str, str]] = []
        self.present: set[str] = set()

    def take(self, at: int, ref: Object) -> None:
        """A backendRef that is there: with its new weight, or gone."""
        item = item_of(backend_of(ref, self._namespace))
        if item not in self._known:
            self.after.append(_with_weight(ref, self._split.others[at]))
            return
        self.present.add(item)
        self._sibling = self._sibling or ref
        weight = self._split.managed[item]
        if item in self._passing:
            # It exists for an Experiment only, and goes with its share.
            if not weight:
                return
            self.added.append((self._place, item))
        self.placed.append(Placed(place=self._place, item=item, weight=weight))
        if weight == 0 and self._context.remove_zero:
            self.removed.append((self._place, commanded.canonical(bare(ref))))
        else:
            self.after.append(_with_weight(ref, weight))

    def bring(self, item: str, weight: int, target: Target[Backend]) -> None:
        """A destination that the rule has no backendRef to."""
        spare = self._spare.get(item)
        if weight == 0:
            if spare is not None:
                self.removed.append((self._place, commanded.canonical(bare(spare))))
                self.placed.append(Placed(place=self._place, item=item, weight=0))
            return
        backend = self._known[item]
        extra = backend in target.extras
        if spare is None and not self._context.may_add and not extra:
            found = listing([backend_of(ref, self._namespace) for ref in self.after])
            raise ConfigError(
                f"Rule {self._place} has no backendRef to {backend} (found {found}). Add it."
            )
        ref = spare
        if ref is None:
            ref = new_ref(backend, self._namespace, self._sibling, target.ports.get(backend, ()))
            if extra:
                self.added.append((self._place, item))
        self.after.append({**ref, "weight": weight})
        self.placed.append(Placed(place=self._place, item=item, weight=weight))


def bare(ref: Object) -> Object:
    """The backendRef without its weight."""
    return {key: value for key, value in ref.items() if key != "weight"}


def _refuse_doubles(route: Object, index: int, entries: Sequence[weighted.Entry]) -> None:
    managed = [entry.item for entry in entries if entry.managed]
    for item in managed:
        if managed.count(item) > 1:
            raise ConfigError(
                f"{title_of(route)} rule {place_of(route, index)}: {item} appears "
                f"{managed.count(item)} times among the backendRefs. Keep one."
            )


def _with_weight(ref: Object, weight: int) -> Object:
    """The backendRef with that weight; the same one where it has it (an absent weight is 1)."""
    return ref if ref.get("weight", 1) == weight else {**ref, "weight": weight}
