"""A model split: from shares to a new weighted list.

The CRDs want a weight of at least 1 (gateway-api-inference-extension v0.5.1, inferencemodels;
llm-d-router apix/v1alpha2, inferencemodelrewrites). A share of zero therefore removes the target,
and everything on one revision leaves its target alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from inference_plugin import commanded, weighted
from inference_plugin.apportion import LIMIT
from inference_plugin.commanded import Commanded, Placed
from inference_plugin.errors import ConfigError
from inference_plugin.patches import ObjectPatch, Operation, guarded
from inference_plugin.targets import Context, ObjectPlan, Target, Wait, WaitReason

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from inference_plugin.splits import ModelSplit

Object = dict[str, Any]


def plan_model(split: ModelSplit, target: Target[str], *, context: Context) -> ObjectPlan:
    """The patch that gives the managed targets their shares; others keep theirs.

    Raises ConfigError when the list holds only targets that are not managed: then there is no
    share to split.
    """
    entry = commanded.read(split.obj, context.rollout)
    current = entry if entry and entry.uid == context.uid else None
    _refuse_claimed(split, target, context)
    drift = drift_of(split, current) if current else ""
    if current is not None and context.repeats(current, target.maximum):
        if current.adopted and not drift:
            return ObjectPlan(patch=None, entry=entry, waits=())
        patch = adopt(split, current) if drift and context.adopt_drift else None
        if patch is not None:
            return ObjectPlan(patch=patch, entry=entry, waits=(), drifted=True)
    known = set(target.shares) | {placed.item for placed in _placed_here(split, current)}
    entries = _entries(split, known)
    _refuse_doubles(split, entries)
    wanted = weighted.Wanted(shares=target.shares, maximum=target.maximum, stable=target.stable)
    gates = {name: target.gate(name) for name in weighted.raised(entries, wanted)}
    waits = [wait for wait in gates.values() if wait]
    if drift and context.report_drift and current and _says_the_same(split, current, wanted):
        message = f"{split.title}: targets differ from what was commanded ({drift}); drift is only "
        waits.append(Wait(reason=WaitReason.DRIFT, message=f"{message}reported."))
        return ObjectPlan(patch=None, entry=entry, waits=tuple(waits), drifted=True)
    blocked = {name for name, wait in gates.items() if wait}
    try:
        resplit = weighted.resplit(entries, replace(wanted, blocked=blocked))
    except weighted.NoShareError as error:
        found = ", ".join(map(repr, split.names))
        wants = ", ".join(map(repr, sorted(target.shares)))
        raise ConfigError(
            f"{split.title}: {split.field} has none of {wants} (found {found}). Add the "
            "stable one, or correct the annotation of the Rollout's pod template."
        ) from error
    placed = tuple(
        Placed(place=split.place, item=name, weight=weight)
        for name, weight in resplit.managed.items()
    )
    if not resplit.changed and current is not None and set(current.placed) == set(placed):
        return ObjectPlan(patch=None, entry=entry, waits=tuple(waits))
    after = _targets(split, resplit) if resplit.changed else list(split.entries)
    before = {item.item: item.weight for item in entries if item.managed}
    drained = sorted(
        name for name, weight in before.items() if weight and not resplit.managed.get(name, 0)
    )
    new = replace(
        context.entry(maximum=target.maximum, home=target.stable, placed=placed),
        drained=tuple(drained),
        gone=tuple(name for name in drained if name not in target.homes),
    )
    notes = (
        ()
        if resplit.exact
        else (f"{split.title}: no weights up to {LIMIT} hold the split exactly; it was rounded.",)
    )
    return ObjectPlan(
        patch=_patch(split, after, new, changed=resplit.changed),
        entry=entry,
        waits=tuple(waits),
        notes=notes,
        drifted=bool(drift),
    )


def drift_of(split: ModelSplit, entry: Commanded) -> str:
    """The managed targets that are not what was commanded, in words; empty when none differs."""
    live = dict(zip(split.names, split.weights, strict=True))
    return "; ".join(
        f"{placed.item}: {live.get(placed.item, 'absent')}, commanded {placed.weight or 'absent'}"
        for placed in _placed_here(split, entry)
        if live.get(placed.item, 0) != placed.weight
    )


def restore(split: ModelSplit, entry: Commanded) -> ObjectPatch | None:
    """The patch that puts back the managed targets as commanded; None when nothing differs."""
    drift = drift_of(split, entry)
    if not drift:
        return None
    wanted = {placed.item: placed.weight for placed in _placed_here(split, entry)}
    names = split.names
    resplit = weighted.Resplit(
        managed=wanted,
        others={at: weight for at, weight in enumerate(split.weights) if names[at] not in wanted},
        changed=True,
        exact=True,
    )
    changes = _changes(split, _targets(split, resplit))
    return ObjectPatch(
        resource=split.resource,
        namespace=split.obj["metadata"]["namespace"],
        name=split.obj["metadata"]["name"],
        operations=guarded(split.obj, changes, None),
        summary=f"{split.title}: {drift}; put back",
    )


def adopt(split: ModelSplit, entry: Commanded) -> ObjectPatch | None:
    """The patch that makes the targets as they stand the commanded ones; None if none is left."""
    live = dict(zip(split.names, split.weights, strict=True))
    here = _placed_here(split, entry)
    taken = [replace(placed, weight=live.get(placed.item, 0)) for placed in here]
    if not any(placed.weight for placed in taken):
        return None
    others = tuple(placed for placed in entry.placed if placed not in here)
    new = replace(entry, placed=(*others, *taken), adopted=True)
    return ObjectPatch(
        resource=split.resource,
        namespace=split.obj["metadata"]["namespace"],
        name=split.obj["metadata"]["name"],
        operations=guarded(split.obj, [], commanded.annotation_value(split.obj, new)),
        summary=f"{split.title}: {drift_of(split, entry)}; taken over until the next command",
    )


def stable_alone(split: ModelSplit, entry: Commanded) -> list[Operation]:
    """The changes that leave the stable target alone with what all managed ones had."""
    known = {placed.item for placed in _placed_here(split, entry)}
    entries = _entries(split, known)
    wanted = weighted.Wanted(
        shares={entry.home: entry.maximum}, maximum=entry.maximum, stable=entry.home
    )
    try:
        resplit = weighted.resplit(entries, wanted)
    except weighted.NoShareError:
        return []
    return _changes(split, _targets(split, resplit)) if resplit.changed else []


def _placed_here(split: ModelSplit, entry: Commanded | None) -> list[Placed]:
    """What was commanded in this list; another list of the object is none of its business."""
    return [placed for placed in (entry.placed if entry else ()) if placed.place == split.place]


def _targets(split: ModelSplit, resplit: weighted.Resplit) -> list[Object]:
    """The list with its new weights: a managed target without one leaves it, another one stays."""
    after = []
    names = split.names
    for at, item in enumerate(split.entries):
        weight = resplit.others[at] if at in resplit.others else resplit.managed[names[at]]
        if weight:
            after.append({**item, split.weight_key: weight})
        elif at in resplit.others:
            after.append(item)
    after += [
        split.entry(name, weight)
        for name, weight in resplit.managed.items()
        if weight and name not in names
    ]
    if split.most is not None and len(after) > split.most:
        raise ConfigError(
            f"{split.field} would have {len(after)} targets; {split.most} are allowed. "
            "Remove the ones that are no longer needed."
        )
    return after


def _patch(
    split: ModelSplit, after: list[Object], entry: Commanded, *, changed: bool
) -> ObjectPatch:
    changes = _changes(split, after) if changed else []
    summary = _summary(split, after) if changed else "taken over as it is"
    return ObjectPatch(
        resource=split.resource,
        namespace=split.obj["metadata"]["namespace"],
        name=split.obj["metadata"]["name"],
        operations=guarded(split.obj, changes, commanded.annotation_value(split.obj, entry)),
        summary=f"{split.title}: {summary}",
    )


def _changes(split: ModelSplit, after: list[Object]) -> list[Operation]:
    parent: Any = split.obj
    for part in split.path[:-1]:
        parent = parent.get(part) if isinstance(parent, dict) else parent[part]
        if parent is None:
            raise ConfigError(
                f"{split.title} has no {split.field}, nor what it would stand in. Write the list "
                "with the stable target."
            )
    if split.path[-1] not in parent:
        return [{"op": "add", "path": split.pointer, "value": after}]
    return [
        {"op": "test", "path": split.pointer, "value": list(split.entries)},
        {"op": "replace", "path": split.pointer, "value": after},
    ]


def _summary(split: ModelSplit, after: Sequence[Object]) -> str:
    old = dict(zip(split.names, split.weights, strict=True))
    new: Mapping[str, Any] = {
        str(item.get(split.name_key, "")): item.get(split.weight_key, 0) for item in after
    }
    moved = ", ".join(
        f"{name} {old.get(name, 'absent')} to {new.get(name, 'absent')}"
        for name in [*old, *(name for name in new if name not in old)]
        if old.get(name) != new.get(name)
    )
    where = f"{split.place}: " if split.place else ""
    return where + moved


def _entries(split: ModelSplit, known: Collection[str]) -> list[weighted.Entry]:
    return [
        weighted.Entry(item=name, weight=weight, managed=name in known)
        for name, weight in zip(split.names, split.weights, strict=True)
    ]


def _says_the_same(split: ModelSplit, entry: Commanded, wanted: weighted.Wanted) -> bool:
    placed = [
        weighted.Entry(item=item.item, weight=item.weight, managed=True)
        for item in _placed_here(split, entry)
    ]
    return not weighted.resplit(placed, wanted).changed


def _refuse_doubles(split: ModelSplit, entries: Sequence[weighted.Entry]) -> None:
    managed = [entry.item for entry in entries if entry.managed]
    for item in managed:
        if managed.count(item) > 1:
            raise ConfigError(
                f"{split.title}: {item!r} appears {managed.count(item)} times in {split.field}. "
                "Keep one."
            )


def _refuse_claimed(split: ModelSplit, target: Target[str], context: Context) -> None:
    for name, entry in commanded.read_all(split.obj).items():
        shared = {placed.item for placed in _placed_here(split, entry)} & set(target.shares)
        if name != context.rollout and shared and context.owner_lives(name, entry.uid):
            raise ConfigError(
                f"{split.title}: {', '.join(sorted(shared))} is managed by Rollout {name}. "
                f"Give each Rollout its own {split.resource.kind}."
            )
