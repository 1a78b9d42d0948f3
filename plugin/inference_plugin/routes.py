"""A route as the plugin sees it: its rules, and the managed backendRefs in them."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

from inference_common.kube import GRPCROUTE, HTTPROUTE
from inference_plugin import commanded, weighted
from inference_plugin.backends import Backend, backend_of
from inference_plugin.errors import ConfigError
from inference_plugin.patches import Operation, pointer
from inference_plugin.rule_choice import chosen_rule

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

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


def made_names(route: Object) -> frozenset[str]:
    """Names of the rules that were made for managed routes, of whichever Rollout."""
    return frozenset(
        made.name for entry in commanded.read_all(route).values() for made in entry.made
    )


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
    made = made_names(route)
    # Rules made for managed routes follow the managed ones, and are none of them.
    found = {
        index: {backend_of(ref, namespace_of(route)) for ref in refs_of(route, index)}
        for index, rule in enumerate(rules_of(route))
        if rule.get("name") not in made
    }
    wanted = set(required)
    if names:
        return _named_rules(route, names, wanted, found, entry)
    recorded = entry.places if entry else frozenset()
    chosen = [
        index
        for index, present in found.items()
        if wanted <= present or (place_of(route, index) in recorded and wanted & present)
    ]
    if not chosen and may_add:
        chosen = [index for index, present in found.items() if wanted & present]
    if chosen:
        return tuple(chosen)
    listed = "; ".join(
        f"rule {place_of(route, index)}: {listing(present)}" for index, present in found.items()
    )
    raise ConfigError(
        f"{title_of(route)}: no rule has backendRefs to {listing(wanted)} "
        f"(found {listed or 'none'}). Add them to one rule, or correct the names in the Rollout."
    )


def place_of(route: Object, index: int) -> str:
    """How the annotation names a rule: by its name, else ``#`` and its index.

    Rules made for managed routes do not count, so that they change no other rule's index.
    """
    name = rules_of(route)[index].get("name")
    if name:
        return str(name)
    before = [rule["name"] for rule in rules_of(route)[:index] if rule.get("name")]
    return f"#{index - len(made_names(route) & set(before)) if before else index}"


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
    found: Mapping[int, set[Backend]],
    entry: Commanded | None,
) -> tuple[int, ...]:
    chosen = []
    rules = [rules_of(route)[index] for index in found]
    for choice in names:
        index = list(found)[chosen_rule(title_of(route), rules, choice)]
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


def live_weights(refs: Sequence[Object], namespace: str) -> dict[str, int]:
    """The weights of backendRefs by item; an absent one is 1."""
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
