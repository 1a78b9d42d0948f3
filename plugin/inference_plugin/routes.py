"""A route as the plugin sees it: its rules, the managed backendRefs in them, and drift."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

from inference_common.kube import GRPCROUTE, HTTPROUTE
from inference_plugin import commanded, weighted
from inference_plugin.backends import Backend, backend_of
from inference_plugin.errors import ConfigError
from inference_plugin.patches import ObjectPatch, Operation, guarded, pointer
from inference_plugin.rule_choice import chosen_rule

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from inference_common.kube import Resource
    from inference_plugin.commanded import Commanded
    from inference_plugin.config import MatchConfig

Object = dict[str, Any]
ROUTES: Final = {resource.kind: resource for resource in (HTTPROUTE, GRPCROUTE)}
"""The kinds of routes whose backendRefs carry weights."""


def item_of(backend: Backend) -> str:
    """The backend as the annotation writes it: ``kind.group/namespace/name``."""
    suffix = f".{backend.group}" if backend.group else ""
    return f"{backend.kind}{suffix}/{backend.namespace}/{backend.name}"


def item_of_ref(ref: Object, namespace: str) -> str:
    """The backend of a backendRef as the annotation writes it."""
    return item_of(backend_of(ref, namespace))


def shares_of(
    route: Object, backends: Collection[Backend], places: Sequence[int]
) -> dict[Backend, Fraction]:
    """The largest share that each backend has in any of these rules."""
    items = {item_of(backend): backend for backend in backends}
    shares = dict.fromkeys(backends, Fraction(0))
    for index in places:
        now = weighted.current_shares(entries_of(refs_of(route, index), namespace_of(route), items))
        for item, share in now.items():
            shares[items[item]] = max(shares[items[item]], share)
    return shares


def managed_rules(
    route: Object,
    *,
    required: Collection[Backend],
    names: Sequence[str | MatchConfig],
    entry: Commanded | None,
    may_add: bool,
) -> tuple[int, ...]:
    """Indexes of the rules whose weights are managed.

    Rules chosen in the configuration; else those that refer to all of ``required`` and those that
    were managed before; else, where backendRefs may be added, those that refer to one of them.
    Raises ConfigError when there is none, naming what was found.
    """
    found = [
        {backend_of(ref, namespace_of(route)) for ref in refs_of(route, index)}
        for index in range(len(rules_of(route)))
    ]
    wanted = set(required)
    if names:
        return _named_rules(route, names, wanted, found, entry)
    recorded = entry.places if entry else frozenset()
    chosen = [
        index
        for index, present in enumerate(found)
        if wanted <= present or (place_of(route, index) in recorded and wanted & present)
    ]
    if not chosen and may_add:
        chosen = [index for index, present in enumerate(found) if wanted & present]
    if chosen:
        return tuple(chosen)
    listed = "; ".join(
        f"rule {place_of(route, index)}: {listing(present)}" for index, present in enumerate(found)
    )
    raise ConfigError(
        f"{title_of(route)}: no rule has backendRefs to {listing(wanted)} "
        f"(found {listed or 'none'}). Add them to one rule, or correct the names in the Rollout."
    )


def differs(route: Object, entry: Commanded) -> bool:
    """Whether a managed weight is not what was commanded."""
    return bool(drift_of(route, entry))


def drift_of(route: Object, entry: Commanded) -> str:
    """The managed weights that are not what was commanded, in words; empty when there are none."""
    places = {place_of(route, index): index for index in range(len(rules_of(route)))}
    found = []
    for placed in entry.placed:
        index = places.get(placed.place)
        live = (
            None
            if index is None
            else _live_weights(refs_of(route, index), namespace_of(route)).get(placed.item)
        )
        if (live or 0) != placed.weight:
            shown = "absent" if live is None else str(live)
            found.append(f"rule {placed.place} {placed.item}: {shown}, commanded {placed.weight}")
    return "; ".join(found)


def restore(route: Object, entry: Commanded) -> ObjectPatch | None:
    """The patch that gives each managed backendRef the weight that was commanded.

    None when nothing differs or a backendRef is gone: then only the next command can plan anew.
    """
    places = {place_of(route, index): index for index in range(len(rules_of(route)))}
    operations: list[Operation] = []
    for place in sorted(entry.places):
        if place not in places:
            return None
        index = places[place]
        refs = refs_of(route, index)
        found = {item_of(backend_of(ref, namespace_of(route))): at for at, ref in enumerate(refs)}
        changes = []
        for placed in entry.placed:
            if placed.place != place:
                continue
            if placed.item not in found:
                if placed.weight:
                    return None
                continue
            at = found[placed.item]
            if refs[at].get("weight", 1) != placed.weight:
                path = pointer("spec", "rules", index, "backendRefs", at, "weight")
                changes.append({"op": "add", "path": path, "value": placed.weight})
        if changes:
            operations.append(test_refs(index, refs))
            operations += changes
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
    """The patch that makes the weights as they stand the commanded ones.

    None where the managed backendRefs of a rule have weight 0 in all, or the rule is gone.
    """
    places = {place_of(route, index): index for index in range(len(rules_of(route)))}
    placed = []
    for place in sorted(entry.places):
        if place not in places:
            return None
        live = _live_weights(refs_of(route, places[place]), namespace_of(route))
        here = [
            replace(item, weight=live.get(item.item, 0))
            for item in entry.placed
            if item.place == place
        ]
        if not any(item.weight for item in here):
            return None
        placed += here
    taken = replace(entry, placed=tuple(placed), adopted=True)
    return ObjectPatch(
        resource=resource_of(route),
        namespace=namespace_of(route),
        name=route["metadata"]["name"],
        operations=guarded(route, [], commanded.annotation_value(route, taken)),
        summary=f"{title_of(route)}: {drift_of(route, entry)}; taken over until the next command",
    )


def place_of(route: Object, index: int) -> str:
    """How the annotation names a rule: by its name, else ``#`` and its index."""
    return str(rules_of(route)[index].get("name") or f"#{index}")


def test_refs(index: int, refs: Sequence[Object]) -> Operation:
    """The operation that fails unless the rule's backendRefs are as they were read."""
    return {
        "op": "test",
        "path": pointer("spec", "rules", index, "backendRefs"),
        "value": list(refs),
    }


def _named_rules(
    route: Object,
    names: Sequence[str | MatchConfig],
    wanted: set[Backend],
    found: Sequence[set[Backend]],
    entry: Commanded | None,
) -> tuple[int, ...]:
    chosen = []
    for choice in names:
        index = chosen_rule(title_of(route), rules_of(route), choice)
        place = place_of(route, index)
        if not wanted & found[index] and not (entry and place in entry.places):
            raise ConfigError(
                f"{title_of(route)} rule {place!r} has no backendRef to {listing(wanted)} (found "
                f"{listing(found[index])}). Add it, or correct the names in the Rollout."
            )
        chosen.append(index)
    return tuple(dict.fromkeys(chosen))


def entries_of(
    refs: Sequence[Object], namespace: str, known: Collection[str]
) -> list[weighted.Entry]:
    """The backendRefs as weighted entries; those whose item is in ``known`` are managed."""
    entries = []
    for ref in refs:
        item = item_of(backend_of(ref, namespace))
        weight = int(ref.get("weight", 1))
        entries.append(weighted.Entry(item=item, weight=weight, managed=item in known))
    return entries


def _live_weights(refs: Sequence[Object], namespace: str) -> dict[str, int]:
    return {item_of(backend_of(ref, namespace)): int(ref.get("weight", 1)) for ref in refs}


def listing(backends: Collection[Backend]) -> str:
    """Backends for a message, in order."""
    return ", ".join(str(backend) for backend in sorted(backends)) or "none"


def rules_of(route: Object) -> Sequence[Object]:
    """``spec.rules``."""
    rules: Sequence[Object] = route.get("spec", {}).get("rules") or []
    return rules


def refs_of(route: Object, index: int) -> Sequence[Object]:
    """``spec.rules[index].backendRefs``."""
    refs: Sequence[Object] = rules_of(route)[index].get("backendRefs") or []
    return refs


def namespace_of(route: Object) -> str:
    """The route's namespace, where its backendRefs point by default."""
    return str(route["metadata"]["namespace"])


def resource_of(route: Object) -> Resource:
    """The resource type of a route, by its kind: both have the same rules and backendRefs."""
    return ROUTES[route.get("kind", HTTPROUTE.kind)]


def title_of(route: Object) -> str:
    """The route for a message."""
    return f"{resource_of(route).kind} {namespace_of(route)}/{route['metadata']['name']}"
