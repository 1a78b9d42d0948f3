"""A route against what was commanded on it: weights, and the rules of managed routes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from inference_plugin import commanded
from inference_plugin.backends import backend_of
from inference_plugin.commanded import Made
from inference_plugin.made_rules import arranged, stand
from inference_plugin.patches import ObjectPatch, Operation, guarded, pointer
from inference_plugin.routes import (
    item_of,
    live_weights,
    namespace_of,
    place_of,
    refs_of,
    resource_of,
    rules_of,
    test_refs,
    title_of,
)

if TYPE_CHECKING:
    from inference_plugin.commanded import Commanded

Object = dict[str, Any]


def differs(route: Object, entry: Commanded) -> bool:
    """Whether a managed weight, or a rule that was made, is not what was commanded."""
    return bool(drift_of(route, entry))


def drift_of(route: Object, entry: Commanded) -> str:
    """What is not as it was commanded, in words; empty when all is."""
    places = {place_of(route, index): index for index in range(len(rules_of(route)))}
    found = []
    for placed in entry.placed:
        index = places.get(placed.place)
        live = (
            None
            if index is None
            else live_weights(refs_of(route, index), namespace_of(route)).get(placed.item)
        )
        if (live or 0) != placed.weight:
            shown = "absent" if live is None else str(live)
            found.append(f"rule {placed.place} {placed.item}: {shown}, commanded {placed.weight}")
    if entry.made and not _made_stand(route, entry):
        names = ", ".join(made.name for made in entry.made)
        found.append(f"rule {names} of a managed route: not as it was made, or not in front")
    return "; ".join(found)


def restore(route: Object, entry: Commanded) -> ObjectPatch | None:
    """The patch that brings back the commanded weights and the rules that were made.

    None when nothing differs or a backendRef is gone: then only the next command can plan anew.
    """
    places = {place_of(route, index): index for index in range(len(rules_of(route)))}
    changed: dict[int, list[Object]] = {}
    for place in sorted(entry.places):
        if place not in places:
            return None
        index = places[place]
        refs = list(refs_of(route, index))
        found = {item_of(backend_of(ref, namespace_of(route))): at for at, ref in enumerate(refs)}
        for placed in entry.placed:
            if placed.place != place:
                continue
            if placed.item not in found:
                if placed.weight:
                    return None
                continue
            at = found[placed.item]
            if refs[at].get("weight", 1) != placed.weight:
                refs[at] = {**refs[at], "weight": placed.weight}
                changed[index] = refs
    wanted = [made.rule for made in entry.made]
    rules = arranged(route, changed, wanted, {made.name for made in entry.made})
    operations = changes(route, changed, rules)
    if not operations:
        return None
    return ObjectPatch(
        resource=resource_of(route),
        namespace=namespace_of(route),
        name=route["metadata"]["name"],
        operations=guarded(route, operations, None),
        summary=f"{title_of(route)}: {drift_of(route, entry)}; put back",
    )


def adopt(route: Object, entry: Commanded) -> ObjectPatch | None:
    """The patch that makes what stands there the commanded state.

    None where the managed backendRefs of a rule have weight 0 in all, or the rule is gone.
    """
    places = {place_of(route, index): index for index in range(len(rules_of(route)))}
    placed = []
    for place in sorted(entry.places):
        if place not in places:
            return None
        live = live_weights(refs_of(route, places[place]), namespace_of(route))
        here = [
            replace(item, weight=live.get(item.item, 0))
            for item in entry.placed
            if item.place == place
        ]
        if not any(item.weight for item in here):
            return None
        placed += here
    ours = {made.name: made.managed for made in entry.made}
    made = tuple(
        Made(managed=ours[rule["name"]], text=commanded.canonical(rule))
        for rule in rules_of(route)
        if rule.get("name") in ours
    )
    taken = replace(entry, placed=tuple(placed), made=made, adopted=True)
    return ObjectPatch(
        resource=resource_of(route),
        namespace=namespace_of(route),
        name=route["metadata"]["name"],
        operations=guarded(route, [], commanded.annotation_value(route, taken)),
        summary=f"{title_of(route)}: {drift_of(route, entry)}; taken over until the next command",
    )


def changes(
    route: Object, changed: dict[int, list[Object]], rules: list[Object] | None
) -> list[Operation]:
    """The operations for new backendRefs by rule, or for a whole new list of rules.

    Weight by weight where a list keeps its entries, the whole list where it does not.
    """
    if rules is not None:
        path = pointer("spec", "rules")
        return [
            {"op": "test", "path": path, "value": list(rules_of(route))},
            {"op": "replace", "path": path, "value": rules},
        ]
    operations: list[Operation] = []
    for index, after in sorted(changed.items()):
        before = refs_of(route, index)
        operations.append(test_refs(index, before))
        where = ("spec", "rules", index, "backendRefs")
        pairs = list(zip(before, after, strict=False))
        if len(before) != len(after) or any(_bare(old) != _bare(new) for old, new in pairs):
            operations.append({"op": "replace", "path": pointer(*where), "value": after})
            continue
        operations += [
            {"op": "add", "path": pointer(*where, at, "weight"), "value": new["weight"]}
            for at, (old, new) in enumerate(pairs)
            if old != new
        ]
    return operations


def _made_stand(route: Object, entry: Commanded) -> bool:
    wanted = [made.rule for made in entry.made]
    return stand(route, wanted, {made.name for made in entry.made})


def _bare(ref: Object) -> Object:
    return {key: value for key, value in ref.items() if key != "weight"}
