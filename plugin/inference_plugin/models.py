"""InferenceModel: from shares to a new ``spec.targetModels``.

The CRD (gateway-api-inference-extension v0.5.1, inferencemodels) wants a weight of at least 1,
weights on all targets or on none, and at most 10 targets. A share of zero therefore removes the
target, and everything on one revision leaves its target alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from inference_common.kube import INFERENCEMODEL
from inference_plugin import commanded, weighted
from inference_plugin.apportion import LIMIT
from inference_plugin.commanded import Commanded, Placed
from inference_plugin.errors import ConfigError
from inference_plugin.patches import ObjectPatch, Operation, guarded
from inference_plugin.targets import Context, ObjectPlan, Target, Wait, WaitReason

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

Object = dict[str, Any]
_PLACE: Final = ""
_MAX_TARGETS: Final = 10


def plan_model(model: Object, target: Target[str], *, context: Context) -> ObjectPlan:
    """The patch that gives the managed targets their shares; others keep theirs.

    Raises ConfigError when the list holds only targets that are not managed: then there is no
    share to split.
    """
    entry = commanded.read(model, context.rollout)
    current = entry if entry and entry.uid == context.uid else None
    _refuse_claimed(model, target, context)
    drift = drift_of(model, current) if current else ""
    targets = targets_of(model)
    known = set(target.shares) | (set(current.items) if current else set())
    entries = _entries(targets, known)
    wanted = weighted.Wanted(shares=target.shares, maximum=target.maximum, stable=target.stable)
    gates = {name: target.gate(name) for name in weighted.raised(entries, wanted)}
    waits = [wait for wait in gates.values() if wait]
    if drift and context.report_drift and current and _says_the_same(current, wanted):
        message = f"{title_of(model)}: targets differ from what was commanded ({drift}); drift is "
        waits.append(Wait(reason=WaitReason.DRIFT, message=f"{message}only reported."))
        return ObjectPlan(patch=None, entry=entry, waits=tuple(waits), drifted=True)
    blocked = {name for name, wait in gates.items() if wait}
    try:
        split = weighted.resplit(entries, replace(wanted, blocked=blocked))
    except weighted.NoShareError as error:
        found = ", ".join(repr(item["name"]) for item in targets)
        wants = ", ".join(map(repr, sorted(target.shares)))
        raise ConfigError(
            f"{title_of(model)}: spec.targetModels has none of {wants} (found {found}). Add the "
            "stable one, or correct the annotation of the Rollout's pod template."
        ) from error
    placed = tuple(
        Placed(place=_PLACE, item=name, weight=weight) for name, weight in split.managed.items()
    )
    if not split.changed and current is not None and set(current.placed) == set(placed):
        return ObjectPlan(patch=None, entry=entry, waits=tuple(waits))
    after = _targets(targets, split) if split.changed else list(targets)
    before = {item.item: item.weight for item in entries if item.managed}
    drained = sorted(
        name for name, weight in before.items() if weight and not split.managed.get(name, 0)
    )
    new = Commanded(
        rollout=context.rollout,
        uid=context.uid,
        stable=context.hashes.stable,
        canary=context.hashes.canary,
        desired=context.desired,
        maximum=target.maximum,
        placed=placed,
        drained=tuple(drained),
        gone=tuple(name for name in drained if name not in target.homes),
        since=context.now,
    )
    notes = (
        ()
        if split.exact
        else (
            f"{title_of(model)}: no weights up to {LIMIT} hold the split exactly; it was rounded.",
        )
    )
    return ObjectPlan(
        patch=_patch(model, after, new, changed=split.changed),
        entry=entry,
        waits=tuple(waits),
        notes=notes,
        drifted=bool(drift),
    )


def drift_of(model: Object, entry: Commanded) -> str:
    """The managed targets that are not what was commanded, in words; empty when none differs."""
    live = {item["name"]: int(item.get("weight", 1)) for item in targets_of(model)}
    return "; ".join(
        f"{placed.item}: {live.get(placed.item, 'absent')}, commanded {placed.weight or 'absent'}"
        for placed in entry.placed
        if live.get(placed.item, 0) != placed.weight
    )


def restore(model: Object, entry: Commanded) -> ObjectPatch | None:
    """The patch that puts back the managed targets as commanded; None when nothing differs."""
    drift = drift_of(model, entry)
    if not drift:
        return None
    wanted = {placed.item: placed.weight for placed in entry.placed}
    split = weighted.Resplit(
        managed=wanted,
        others={
            at: int(item.get("weight", 1))
            for at, item in enumerate(targets_of(model))
            if item["name"] not in wanted
        },
        changed=True,
        exact=True,
    )
    changes = _changes(model, _targets(targets_of(model), split))
    return ObjectPatch(
        resource=INFERENCEMODEL,
        namespace=model["metadata"]["namespace"],
        name=model["metadata"]["name"],
        operations=guarded(model, changes, None),
        summary=f"{title_of(model)}: {drift}; put back",
    )


def targets_of(model: Object) -> Sequence[Object]:
    """``spec.targetModels``; empty where there is none."""
    targets: Sequence[Object] = model.get("spec", {}).get("targetModels") or []
    return targets


def title_of(model: Object) -> str:
    """The model for a message."""
    metadata = model["metadata"]
    return f"InferenceModel {metadata['namespace']}/{metadata['name']}"


def _targets(targets: Sequence[Object], split: weighted.Resplit) -> list[Object]:
    after = []
    for at, item in enumerate(targets):
        weight = split.others[at] if at in split.others else split.managed[item["name"]]
        if weight:
            after.append({**item, "weight": weight})
    present = {item["name"] for item in targets}
    after += [
        {"name": name, "weight": weight}
        for name, weight in split.managed.items()
        if weight and name not in present
    ]
    if len(after) > _MAX_TARGETS:
        raise ConfigError(
            f"spec.targetModels would have {len(after)} targets; {_MAX_TARGETS} are allowed. "
            "Remove the ones that are no longer needed."
        )
    return after


def _patch(model: Object, after: list[Object], entry: Commanded, *, changed: bool) -> ObjectPatch:
    changes = _changes(model, after) if changed else []
    summary = _summary(targets_of(model), after) if changed else "taken over as it is"
    return ObjectPatch(
        resource=INFERENCEMODEL,
        namespace=model["metadata"]["namespace"],
        name=model["metadata"]["name"],
        operations=guarded(model, changes, commanded.annotation_value(model, entry)),
        summary=f"{title_of(model)}: {summary}",
    )


def _changes(model: Object, after: list[Object]) -> list[Operation]:
    path = "/spec/targetModels"
    if "targetModels" not in model["spec"]:
        return [{"op": "add", "path": path, "value": after}]
    return [
        {"op": "test", "path": path, "value": list(targets_of(model))},
        {"op": "replace", "path": path, "value": after},
    ]


def _summary(before: Sequence[Object], after: Sequence[Object]) -> str:
    old: Mapping[str, Any] = {item["name"]: item.get("weight", 1) for item in before}
    new: Mapping[str, Any] = {item["name"]: item.get("weight", 1) for item in after}
    return ", ".join(
        f"{name} {old.get(name, 'absent')} to {new.get(name, 'absent')}"
        for name in [*old, *(name for name in new if name not in old)]
        if old.get(name) != new.get(name)
    )


def _entries(targets: Sequence[Object], known: Collection[str]) -> list[weighted.Entry]:
    return [
        weighted.Entry(
            item=item["name"], weight=int(item.get("weight", 1)), managed=item["name"] in known
        )
        for item in targets
    ]


def _says_the_same(entry: Commanded, wanted: weighted.Wanted) -> bool:
    placed = [
        weighted.Entry(item=item.item, weight=item.weight, managed=True) for item in entry.placed
    ]
    return not weighted.resplit(placed, wanted).changed


def _refuse_claimed(model: Object, target: Target[str], context: Context) -> None:
    for name, entry in commanded.read_all(model).items():
        shared = entry.items & set(target.shares)
        if name != context.rollout and shared and context.owner_lives(name, entry.uid):
            raise ConfigError(
                f"{title_of(model)}: {', '.join(sorted(shared))} is managed by Rollout {name}. "
                "Give each Rollout its own InferenceModel."
            )
