"""Rules that this plugin makes for managed routes: rendering them, and finding them again.

A header route or a mirror becomes a rule in front of each of the user's rules whose weights are
managed. It bears the managed route's name (``-2`` and so on from the second rule on), and is ours
only while the annotation beside it says so: a rule of that name that somebody else wrote is
never touched.
"""

from __future__ import annotations

import copy
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from inference_plugin import commanded
from inference_plugin.commanded import Made
from inference_plugin.errors import ConfigError
from inference_plugin.matching import combined
from inference_plugin.routes import item_of_ref, made_names, resource_of, rules_of, title_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from inference_plugin.commanded import Commanded
    from inference_plugin.managed_routes import ManagedRoute

Object = dict[str, Any]
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_MOST_RULES: Final = 16
_MOST_MATCHES: Final = 64
_MOST_IN_ALL: Final = 128
"""Names and limits of rules: gateway-api v1.6 apis/v1 (SectionName, HTTPRouteSpec.rules)."""
_OWN_KEYS: Final = ("name", "matches", "filters", "backendRefs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A managed rule of the user: with its new backendRefs, and the one of the canary."""

    rule: Object
    refs: Sequence[Object]
    canary: Object


def make(
    route: Object, sources: Sequence[Source], wished: Sequence[ManagedRoute]
) -> list[tuple[str, Object]]:
    """The rules that these managed routes need, in order, each with its managed route's name.

    Raises ConfigError for what the route can't express.
    """
    made: list[tuple[str, Object]] = []
    for managed in wished:
        where = f"{title_of(route)}, managed route {managed.name!r}"
        if not _NAME.fullmatch(managed.name):
            raise ConfigError(
                f"{where}: a rule of a route can't be called that. Use lower-case letters, digits, "
                "'-' and '.' in managedRoutes."
            )
        found = [
            rule
            for source in sources
            if (rule := _rule(resource_of(route).kind, source, managed, where)) is not None
        ]
        if not found:
            raise ConfigError(
                f"{where}: its match has nothing in common with the matches of the managed rules. "
                "Correct the match in the step, or the rules in the configuration."
            )
        for at, rule in enumerate(found, start=1):
            name = managed.name if at == 1 else f"{managed.name}-{at}"
            made.append((managed.name, {"name": name, **rule}))
    return made


def _rule(kind: str, source: Source, managed: ManagedRoute, where: str) -> Object | None:
    matches = combined(kind, source.rule.get("matches") or [], managed.matches, where)
    if not matches:
        return None
    filters = copy.deepcopy(list(source.rule.get("filters") or []))
    if managed.percent is None:
        refs = [{**source.canary, "weight": 1}]
    else:
        if any(match.path for match in managed.matches) and _replaces_prefix(source.rule):
            raise ConfigError(
                f"{where}: the rule it stands in front of replaces the prefix of the path, which "
                "another path would change. Leave the path out of the step's match."
            )
        refs = copy.deepcopy(list(source.refs))
        mirrored = {
            key: source.canary[key]
            for key in ("group", "kind", "namespace", "name", "port")
            if key in source.canary
        }
        mirror = {"backendRef": {"group": "", "kind": "Service"} | mirrored}
        filters.append(
            {"type": "RequestMirror", "requestMirror": mirror | {"percent": managed.percent}}
        )
    others = {key: value for key, value in source.rule.items() if key not in _OWN_KEYS}
    return {
        "matches": matches,
        **({"filters": filters} if filters else {}),
        "backendRefs": refs,
        **others,
    }


def arranged(
    route: Object,
    changed: Mapping[int, Sequence[Object]],
    wanted: Sequence[Object],
    ours: Collection[str],
) -> list[Object] | None:
    """``spec.rules`` with just the wanted rules of ours in front; None if they stand there.

    ``changed`` gives new backendRefs by index; rules of anybody else stay as they are.
    """
    if stand(route, wanted, ours):
        return None
    foreign = made_names(route) - set(ours)
    rules = [
        {**rule, "backendRefs": list(changed[at])} if at in changed else rule
        for at, rule in enumerate(rules_of(route))
        if rule.get("name") not in ours
    ]
    return [
        *(rule for rule in rules if rule.get("name") in foreign),
        *wanted,
        *(rule for rule in rules if rule.get("name") not in foreign),
    ]


def stand(route: Object, wanted: Sequence[Object], ours: Collection[str]) -> bool:
    """Whether just these of our rules are there, in order and before every rule of a user."""
    names = made_names(route) | set(ours)
    live = rules_of(route)
    first = next((at for at, rule in enumerate(live) if rule.get("name") not in names), len(live))
    found = [(at, rule) for at, rule in enumerate(live) if rule.get("name") in ours]
    return (
        len(found) == len(wanted)
        and all(at < first for at, _ in found)
        and all(same(rule, want) for (_, rule), want in zip(found, wanted, strict=True))
    )


def same(live: Object, wanted: Object) -> bool:
    """Whether a rule is as it was made; what the API server fills in deeper down is not seen."""
    return live.keys() == wanted.keys() and _covers(live, wanted)


def not_kept(wanted: Sequence[Object], route: Object) -> str:
    """What the API server would drop of these rules, by its answer to a dry run; empty if nothing.

    It drops without a word the fields that its schema lacks: names of rules and shares of mirrors
    are missing in older versions of the Gateway API.
    """
    if stand(route, wanted, {rule["name"] for rule in wanted}):
        return ""
    names = ", ".join(rule["name"] for rule in wanted)
    return (
        f"{title_of(route)}: the API server would not keep rule {names} as it has to be: its "
        "CustomResourceDefinition lacks spec.rules[].name, or the share of a mirror. Install one "
        "of a later Gateway API (v1.6 has both in its standard channel); nothing was written."
    )


def recorded(made: Sequence[tuple[str, Object]]) -> tuple[Made, ...]:
    """Made rules for the annotation."""
    return tuple(Made(managed=name, text=commanded.canonical(rule)) for name, rule in made)


def sent_to(rules: Sequence[Object], namespace: str) -> set[str]:
    """Items that requests go to, or are mirrored to, by these rules."""
    refs = [
        *(ref for rule in rules for ref in rule.get("backendRefs") or [] if ref.get("weight", 1)),
        *(
            entry["requestMirror"]["backendRef"]
            for rule in rules
            for entry in rule.get("filters") or []
            if entry["type"] == "RequestMirror"
        ),
    ]
    return {item_of_ref(ref, namespace) for ref in refs}


def foreign_rules(route: Object, names: Collection[str], entry: Commanded | None) -> list[str]:
    """Names of managed routes that rules of somebody else bear."""
    ours = {item.name for item in entry.made} if entry else set()
    return [
        str(rule["name"])
        for rule in rules_of(route)
        if rule.get("name") in names and rule["name"] not in ours
    ]


def refuse(route: Object, wanted: Sequence[Object], entry: Commanded | None, rollout: str) -> None:
    """Raise ConfigError where the Rollout of that name can't have just these rules made."""
    names = [str(rule["name"]) for rule in wanted]
    if len(set(names)) != len(names):
        raise ConfigError(
            f"{title_of(route)}: the managed routes need two rules of one name ("
            f"{', '.join(names)}). Choose names in managedRoutes of which none is another one "
            "with a number."
        )
    refuse_taken(route, names, entry, rollout)
    ours = {made.name for made in entry.made} if entry else set()
    _refuse_large(route, [*wanted, *(r for r in rules_of(route) if r.get("name") not in ours)])


def refuse_taken(
    route: Object, names: Collection[str], entry: Commanded | None, rollout: str
) -> None:
    """Raise ConfigError where a rule that was not made for this Rollout has one of the names."""
    taken = foreign_rules(route, names, entry)
    if not taken:
        return
    owners = [
        name
        for name, other in commanded.read_all(route).items()
        if name != rollout and set(taken) & {made.name for made in other.made}
    ]
    whose = f"made for Rollout {owners[0]}" if owners else "not made by this plugin"
    raise ConfigError(
        f"{title_of(route)}: rule {', '.join(taken)} is {whose}, and stays as it is. Choose "
        "another name in managedRoutes and in the steps, or rename the rule."
    )


def _refuse_large(route: Object, rules: Sequence[Object]) -> None:
    counts = [len(rule.get("matches") or []) for rule in rules]
    if len(rules) <= _MOST_RULES and sum(counts) <= _MOST_IN_ALL and max(counts) <= _MOST_MATCHES:
        return
    raise ConfigError(
        f"{title_of(route)} would have {len(rules)} rules with {sum(counts)} matches, at most "
        f"{max(counts)} in one; a route allows {_MOST_RULES}, {_MOST_IN_ALL} and {_MOST_MATCHES}. "
        "Name fewer rules in the configuration, or split the route."
    )


def _replaces_prefix(rule: Object) -> bool:
    return "ReplacePrefixMatch" in json.dumps([rule.get("filters"), rule.get("backendRefs")])


def _covers(live: Any, wanted: Any) -> bool:
    """Whether everything wanted is there; an object may have more."""
    if isinstance(wanted, dict):
        return isinstance(live, dict) and all(
            key in live and _covers(live[key], value) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(live, list)
            and len(live) == len(wanted)
            and all(_covers(one, two) for one, two in zip(live, wanted, strict=True))
        )
    return bool(live == wanted)
