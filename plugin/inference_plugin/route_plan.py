"""A route: from shares to a JSON Patch of exactly the managed weights."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from inference_plugin import commanded, weighted
from inference_plugin.apportion import LIMIT
from inference_plugin.backends import Backend, backend_of, new_ref
from inference_plugin.commanded import Commanded, Placed
from inference_plugin.errors import ConfigError
from inference_plugin.patches import ObjectPatch, Operation, guarded, pointer
from inference_plugin.routes import (
    adopt,
    differs,
    drift_of,
    entries_of,
    item_of,
    listing,
    namespace_of,
    place_of,
    refs_of,
    resource_of,
    test_refs,
    title_of,
)
from inference_plugin.targets import Context, ObjectPlan, Target, Wait, WaitReason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Object = dict[str, Any]
_MAX_REFS: Final = 16
"""Most backendRefs of a rule (gateway-api apis/v1/httproute_types.go, grpcroute_types.go)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _RulePlan:
    """One managed rule: its new backendRefs and what is recorded about them."""

    index: int
    place: str
    before: Sequence[Object]
    after: Sequence[Object]
    placed: tuple[Placed, ...]
    removed: tuple[tuple[str, str], ...]
    drained: tuple[Backend, ...]
    changed: bool
    exact: bool


def plan_route(
    route: Object,
    target: Target[Backend],
    *,
    context: Context,
    rules: Sequence[int],
) -> ObjectPlan:
    """The patch that gives the managed backends their shares in each of these rules.

    Laws: other backends keep their share and all else is untouched; the managed backends of a
    rule never have weight 0 in all; a second plan on the patched object is empty.
    """
    entry = commanded.read(route, context.rollout)
    current = entry if entry and entry.uid == context.uid else None
    _refuse_claimed(route, target, rules, context)
    drifted = current is not None and differs(route, current)
    if current is not None and _is_kept(current, target.maximum, context):
        if not drifted and current.adopted:
            return ObjectPlan(patch=None, entry=entry, waits=())
        patch = adopt(route, current) if drifted and context.adopt_drift else None
        if patch is not None:
            return ObjectPlan(patch=patch, entry=entry, waits=(), drifted=True)
    gates: dict[Backend, Wait | None] = {}
    plans = [_plan_rule(route, index, target, context, current, gates) for index in rules]
    waits = [wait for wait in gates.values() if wait]
    if drifted and context.report_drift and current and _says_the_same(current, target):
        waits.append(
            Wait(
                reason=WaitReason.DRIFT,
                message=f"{title_of(route)}: weights differ from what was commanded "
                f"({drift_of(route, current)}); drift is only reported.",
            )
        )
        return ObjectPlan(patch=None, entry=entry, waits=tuple(waits), drifted=True)
    placed = tuple(item for plan in plans for item in plan.placed)
    changed = [plan for plan in plans if plan.changed]
    if not changed and current is not None and set(current.placed) == set(placed):
        return ObjectPlan(patch=None, entry=entry, waits=tuple(waits))
    drained = sorted({backend for plan in plans for backend in plan.drained} - target.untied)
    keeps = current is not None and not changed
    new = Commanded(
        rollout=context.rollout,
        uid=context.uid,
        stable=context.hashes.stable,
        canary=context.hashes.canary,
        desired=context.desired,
        maximum=target.maximum,
        placed=placed,
        drained=current.drained if keeps and current else tuple(map(item_of, drained)),
        gone=current.gone
        if keeps and current
        else tuple(item_of(backend) for backend in drained if backend not in target.homes),
        since=current.since if keeps and current else context.now,
        removed=tuple(pair for plan in plans for pair in plan.removed),
        home=item_of(target.stable),
        keep=context.keeps_at_end,
    )
    operations = [operation for plan in changed for operation in _operations(plan)]
    patch = ObjectPatch(
        resource=resource_of(route),
        namespace=namespace_of(route),
        name=route["metadata"]["name"],
        operations=guarded(route, operations, commanded.annotation_value(route, new)),
        summary=f"{title_of(route)}: {_summary(changed) or 'taken over as it is'}",
    )
    notes = tuple(
        f"{title_of(route)} rule {plan.place}: no weights up to {LIMIT} hold the split "
        "exactly; it was rounded."
        for plan in changed
        if not plan.exact
    )
    return ObjectPlan(patch=patch, entry=entry, waits=tuple(waits), notes=notes, drifted=drifted)


def _is_kept(entry: Commanded, maximum: int, context: Context) -> bool:
    """Whether the command is the one that the annotation tells of."""
    return entry.asks_for(context.hashes.stable, context.hashes.canary, context.desired, maximum)


def _plan_rule(
    route: Object,
    index: int,
    target: Target[Backend],
    context: Context,
    entry: Commanded | None,
    gates: dict[Backend, Wait | None],
) -> _RulePlan:
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
    return _rule_plan(index, place, refs, namespace, known, split, context, entry, entries)


def _rule_plan(
    index: int,
    place: str,
    refs: Sequence[Object],
    namespace: str,
    known: Mapping[str, Backend],
    split: weighted.Resplit,
    context: Context,
    entry: Commanded | None,
    entries: Sequence[weighted.Entry],
) -> _RulePlan:
    spare = {
        item_of(backend_of(json.loads(text), namespace)): json.loads(text)
        for where, text in (entry.removed if entry else ())
        if where == place
    }
    after: list[Object] = []
    removed: list[tuple[str, str]] = []
    placed: list[Placed] = []
    present: set[str] = set()
    sibling: Object | None = None
    for at, ref in enumerate(refs):
        item = item_of(backend_of(ref, namespace))
        if item not in known:
            weight = split.others[at]
            after.append(_with_weight(ref, weight))
            continue
        present.add(item)
        sibling = sibling or ref
        weight = split.managed[item]
        placed.append(Placed(place=place, item=item, weight=weight))
        if weight == 0 and context.remove_zero:
            removed.append((place, _canonical(ref)))
        else:
            after.append(_with_weight(ref, weight))
    for item, weight in split.managed.items():
        if item in present:
            continue
        if weight == 0:
            if item in spare:
                removed.append((place, _canonical(spare[item])))
                placed.append(Placed(place=place, item=item, weight=0))
            continue
        if item not in spare and not context.may_add:
            raise ConfigError(
                f"Rule {place} has no backendRef to {known[item]} (found "
                f"{listing([backend_of(ref, namespace) for ref in refs])}). Add it."
            )
        ref = spare.get(item) or new_ref(known[item], namespace, sibling)
        after.append({**ref, "weight": weight})
        placed.append(Placed(place=place, item=item, weight=weight))
    if len(after) > _MAX_REFS:
        raise ConfigError(
            f"Rule {place} would have {len(after)} backendRefs; a route allows {_MAX_REFS}. "
            "Remove the ones that are no longer needed."
        )
    before = {item.item: item.weight for item in entries if item.managed}
    return _RulePlan(
        index=index,
        place=place,
        before=refs,
        after=after,
        placed=tuple(placed),
        removed=tuple(removed),
        drained=tuple(
            known[item]
            for item, weight in before.items()
            if weight and not split.managed.get(item, 0)
        ),
        changed=list(refs) != after,
        exact=split.exact,
    )


def _operations(plan: _RulePlan) -> list[Operation]:
    """Weight by weight where the list keeps its entries, the whole list where it does not."""
    operations = [test_refs(plan.index, plan.before)]
    path = ("spec", "rules", plan.index, "backendRefs")
    same = len(plan.before) == len(plan.after) and all(
        _bare(old) == _bare(new) for old, new in zip(plan.before, plan.after, strict=True)
    )
    if not same:
        value = list(plan.after)
        return [*operations, {"op": "replace", "path": pointer(*path), "value": value}]
    for at, (old, new) in enumerate(zip(plan.before, plan.after, strict=True)):
        if old != new:
            where = pointer(*path, at, "weight")
            operations.append({"op": "add", "path": where, "value": new["weight"]})
    return operations


def _refuse_doubles(route: Object, index: int, entries: Sequence[weighted.Entry]) -> None:
    managed = [entry.item for entry in entries if entry.managed]
    for item in managed:
        if managed.count(item) > 1:
            raise ConfigError(
                f"{title_of(route)} rule {place_of(route, index)}: {item} appears "
                f"{managed.count(item)} times among the backendRefs. Keep one."
            )


def _refuse_claimed(
    route: Object, target: Target[Backend], rules: Sequence[int], context: Context
) -> None:
    places = {place_of(route, index) for index in rules}
    items = {item_of(backend) for backend in target.shares}
    for name, entry in commanded.read_all(route).items():
        if name == context.rollout:
            continue
        shared = {placed.item for placed in entry.placed if placed.place in places} & items
        if shared and context.owner_lives(name, entry.uid):
            raise ConfigError(
                f"{title_of(route)}: {', '.join(sorted(shared))} is managed by Rollout "
                f"{name}. Give each Rollout its own rule or its own backends."
            )


def _says_the_same(entry: Commanded, target: Target[Backend]) -> bool:
    """Whether the target asks for what was commanded already."""
    wanted = weighted.Wanted(
        shares={item_of(backend): share for backend, share in target.shares.items()},
        maximum=target.maximum,
        stable=item_of(target.stable),
    )
    return all(
        not weighted.resplit(
            [
                weighted.Entry(item=placed.item, weight=placed.weight, managed=True)
                for placed in entry.placed
                if placed.place == place
            ],
            wanted,
        ).changed
        for place in entry.places
    )


def _with_weight(ref: Object, weight: int) -> Object:
    """The backendRef with that weight; the same one where it has it (an absent weight is 1)."""
    return ref if ref.get("weight", 1) == weight else {**ref, "weight": weight}


def _summary(plans: Sequence[_RulePlan]) -> str:
    parts = []
    for plan in plans:
        old = {item["name"]: item.get("weight", 1) for item in plan.before}
        new = {item["name"]: item.get("weight", 1) for item in plan.after}
        moved = [
            f"{name} {old.get(name, 'absent')} to {new.get(name, 'absent')}"
            for name in [*old, *(name for name in new if name not in old)]
            if old.get(name) != new.get(name)
        ]
        parts.append(f"rule {plan.place}: {', '.join(moved)}")
    return "; ".join(parts)


def _canonical(ref: Object) -> str:
    return json.dumps(_bare(ref), separators=(",", ":"), sort_keys=True)


def _bare(ref: Object) -> Object:
    return {key: value for key, value in ref.items() if key != "weight"}
