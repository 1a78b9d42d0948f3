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
from inference_plugin.patches import ObjectPatch, guarded, pointer
from inference_plugin.routes import (
    entries_of,
    item_of_ref,
    namespace_of,
    place_of,
    refs_of,
    rules_of,
    test_refs,
)
from inference_plugin.splits import split_of

if TYPE_CHECKING:
    from inference_common.kube import Resource
    from inference_plugin.commanded import Commanded
    from inference_plugin.patches import Operation

Object = dict[str, Any]


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
    changes: list[Operation] = []
    moved = ""
    if resource.kind == "InferencePool":
        # Left behind, shares would keep every later version of the pool's pods at nothing.
        changes = [] if entry.keep else pool_shares.removal(obj)
        moved = "its shares taken off, " if changes else ""
    elif not stays(entry, stable_hash):
        if rules_of(obj) and resource.group == "gateway.networking.k8s.io":
            changes = _route_changes(obj, entry)
        else:
            changes = _model_changes(resource, obj, entry, config)
        moved = f"everything to {entry.home}, " if changes else ""
    value = commanded.annotation_value(obj, forget=(entry.rollout,))
    title = f"{resource.kind} {obj['metadata']['namespace']}/{obj['metadata']['name']}"
    return ObjectPatch(
        resource=resource,
        namespace=obj["metadata"]["namespace"],
        name=obj["metadata"]["name"],
        operations=guarded(obj, changes, value),
        summary=f"{title}: {moved}no longer managed",
    )


def _route_changes(route: Object, entry: Commanded) -> list[Operation]:
    changes: list[Operation] = []
    for index in range(len(rules_of(route))):
        place = place_of(route, index)
        if place in entry.places:
            changes += _rule_changes(route, index, entry)
    return changes


def _rule_changes(route: Object, index: int, entry: Commanded) -> list[Operation]:
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
        return []
    known = {placed.item for placed in entry.placed if placed.place == place}
    entries = entries_of(refs, namespace, known)
    wanted = weighted.Wanted(
        shares={entry.home: entry.maximum}, maximum=entry.maximum, stable=entry.home
    )
    try:
        split = weighted.resplit(entries, wanted)
    except weighted.NoShareError:
        return []
    after: list[Object] = []
    for at, ref in enumerate(refs):
        item = item_of_ref(ref, namespace)
        weight = split.managed[item] if item in known else split.others[at]
        after.append(ref if ref.get("weight", 1) == weight else {**ref, "weight": weight})
    after += [
        {**ref, "weight": split.managed.get(item, 0)}
        for item, ref in spare.items()
        if item not in present
    ]
    if after == list(refs):
        return []
    path = pointer("spec", "rules", index, "backendRefs")
    return [test_refs(index, refs), {"op": "replace", "path": path, "value": after}]


def _model_changes(
    resource: Resource, obj: Object, entry: Commanded, config: RouterConfig | None
) -> list[Operation]:
    if config is None and resource.kind == "InferenceModel":
        config = RouterConfig(inferenceModel=obj["metadata"]["name"])
    if config is None or config.model_key is None:
        return []
    return models.stable_alone(split_of(obj, resource, config), entry)
