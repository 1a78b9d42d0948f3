"""The end of a Rollout's routing: what it managed goes to stable and is nobody's again.

Argo Rollouts calls nothing when a Rollout is deleted or its trafficRouting is removed, nor for a
route that its configuration no longer names. What was commanded stands on the objects, so that
all that is needed is there, also after a restart.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from inference_plugin import commanded, models, pool_shares, weighted
from inference_plugin.config import RouterConfig
from inference_plugin.made_rules import arranged
from inference_plugin.patches import ObjectPatch, guarded
from inference_plugin.route_drift import changes
from inference_plugin.routes import (
    entries_of,
    item_of_ref,
    namespace_of,
    place_of,
    refs_of,
    rules_of,
)
from inference_plugin.splits import split_of

if TYPE_CHECKING:
    from inference_common.kube import Resource
    from inference_plugin.commanded import Commanded
    from inference_plugin.patches import Operation

Object = dict[str, Any]
GATEWAY_GROUP = "gateway.networking.k8s.io"


def stays(entry: Commanded, stable_hash: str) -> bool:
    """Whether the weights stay as they are.

    They do if so configured, and when the canary that the entry tells of is stable by now (a
    promotion writes nothing). ``stable_hash`` is empty where no Rollout is left to say: then a
    canary that had everything counts as stable.
    """
    promoted = entry.desired >= entry.maximum if not stable_hash else stable_hash == entry.canary
    return entry.keep or not entry.home or (promoted and entry.canary != entry.stable)


def release(
    resource: Resource,
    obj: Object,
    entry: Commanded,
    config: RouterConfig | None,
    *,
    stable_hash: str,
) -> ObjectPatch:
    """The patch that gives everything to stable and takes the Rollout's mark off the object.

    Without a configuration only kinds whose lists need none can be moved; the mark goes anyway.
    """
    operations: list[Operation] = []
    moved = ""
    if resource.kind == "InferencePool":
        # Left behind, shares would keep every later version of the pool's pods at nothing.
        operations = [] if entry.keep else pool_shares.removal(obj)
        moved = "its shares taken off, " if operations else ""
    elif resource.group == GATEWAY_GROUP:
        operations, moved = _route_changes(obj, entry, moves=not stays(entry, stable_hash))
    elif not stays(entry, stable_hash):
        operations = _model_changes(resource, obj, entry, config)
        moved = f"everything to {entry.home}, " if operations else ""
    value = commanded.annotation_value(obj, forget=(entry.rollout,))
    title = f"{resource.kind} {obj['metadata']['namespace']}/{obj['metadata']['name']}"
    return ObjectPatch(
        resource=resource,
        namespace=obj["metadata"]["namespace"],
        name=obj["metadata"]["name"],
        operations=guarded(obj, operations, value),
        summary=f"{title}: {moved}no longer managed",
    )


def _route_changes(route: Object, entry: Commanded, *, moves: bool) -> tuple[list[Operation], str]:
    """Rules of managed routes go whatever becomes of the weights, and so do Experiments."""
    changed: dict[int, list[Object]] = {}
    for index in range(len(rules_of(route))):
        place = place_of(route, index)
        if place in entry.places and (moves or any(where == place for where, _ in entry.added)):
            after = _refs_after(route, index, entry) if moves else _kept(route, index, entry)
            if after != list(refs_of(route, index)):
                changed[index] = after
    ours = {made.name for made in entry.made}
    operations = changes(route, changed, arranged(route, changed, [], ours))
    told = f"everything to {entry.home}, " if changed else ""
    return operations, told + (f"rule {', '.join(sorted(ours))} taken away, " if ours else "")


def _kept(route: Object, index: int, entry: Commanded) -> list[Object]:
    """The weights as they are, but what exists only for an Experiment gives its own to stable."""
    namespace = namespace_of(route)
    place = place_of(route, index)
    passing = {item for where, item in entry.added if where == place}
    refs = refs_of(route, index)
    items = [item_of_ref(ref, namespace) for ref in refs]
    if entry.home not in items:
        return list(refs)
    freed = sum(
        ref.get("weight", 1) for item, ref in zip(items, refs, strict=True) if item in passing
    )
    return [
        {**ref, "weight": ref.get("weight", 1) + freed} if item == entry.home else ref
        for item, ref in zip(items, refs, strict=True)
        if item not in passing
    ]


def _refs_after(route: Object, index: int, entry: Commanded) -> list[Object]:
    """Everything to stable; references that had been taken out come back with weight 0."""
    namespace = namespace_of(route)
    place = place_of(route, index)
    refs = refs_of(route, index)
    present = {item_of_ref(ref, namespace) for ref in refs}
    spare = {
        item_of_ref(json.loads(text), namespace): json.loads(text)
        for where, text in entry.removed
        if where == place
    }
    if entry.home not in present and entry.home not in spare:
        return list(refs)
    known = {placed.item for placed in entry.placed if placed.place == place}
    entries = entries_of(refs, namespace, known)
    wanted = weighted.Wanted(
        shares={entry.home: entry.maximum}, maximum=entry.maximum, stable=entry.home
    )
    try:
        split = weighted.resplit(entries, wanted)
    except weighted.NoShareError:
        return list(refs)
    passing = {item for where, item in entry.added if where == place}
    after: list[Object] = []
    for at, ref in enumerate(refs):
        item = item_of_ref(ref, namespace)
        if item in passing:
            continue
        weight = split.managed[item] if item in known else split.others[at]
        after.append(ref if ref.get("weight", 1) == weight else {**ref, "weight": weight})
    after += [
        {**ref, "weight": split.managed.get(item, 0)}
        for item, ref in spare.items()
        if item not in present
    ]
    return after


def _model_changes(
    resource: Resource, obj: Object, entry: Commanded, config: RouterConfig | None
) -> list[Operation]:
    if config is None and resource.kind == "InferenceModel":
        config = RouterConfig(inferenceModel=obj["metadata"]["name"])
    if config is None or config.model_key is None:
        return []
    return models.stable_alone(split_of(obj, resource, config), entry)
