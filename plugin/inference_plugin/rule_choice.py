"""Which rule of a route a configuration means: by its name, or by what it matches.

Older versions of the Gateway API have no names of rules; what a rule matches is in all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from inference_plugin.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from inference_plugin.config import MatchConfig

Object = dict[str, Any]
_EVERYTHING: Final[Object] = {"path": {"type": "PathPrefix", "value": "/"}}
"""What a rule of an HTTPRoute matches that says nothing (gateway-api apis/v1, HTTPRouteRule)."""


def chosen_rule(title: str, rules: Collection[Object], choice: str | MatchConfig) -> int:
    """Index of the rule that is meant. ``title`` names the route in messages.

    Raises ConfigError where there is none, or where several match alike.
    """
    if isinstance(choice, str):
        return _named(title, rules, choice)
    found = [at for at, rule in enumerate(rules) if any(_fits(choice, one) for one in _ways(rule))]
    if len(found) == 1:
        return found[0]
    if found:
        listed = " and ".join(f"#{at}" for at in found)
        raise ConfigError(
            f"{title}: rules {listed} both match {choice}. Say more of the match that is meant "
            "under rules[] (path, pathType, method, service, headers), or name the rule."
        )
    have = "; ".join(
        f"#{at} {', '.join(_shown(way) for way in _ways(rule))}" for at, rule in enumerate(rules)
    )
    raise ConfigError(
        f"{title} has no rule that matches {choice} (found {have or 'no rule'}). Correct rules[] "
        "of the route in the Rollout."
    )


def _named(title: str, rules: Iterable[Object], name: str) -> int:
    by_name = {rule.get("name"): at for at, rule in enumerate(rules)}
    if name in by_name:
        return by_name[name]
    have = ", ".join(repr(known) for known in by_name if known) or "no named rule"
    raise ConfigError(
        f"{title} has no rule {name!r} (found {have}). Name the rule (spec.rules[].name), or "
        "correct rules[] of the route in the Rollout; a rule may also be given by what it "
        "matches, as {path: /v1}."
    )


def _ways(rule: Object) -> list[Object]:
    return rule.get("matches") or [_EVERYTHING]


def _fits(choice: MatchConfig, match: Object) -> bool:
    """Whether the match says all that the choice says; it may say more."""
    path = match.get("path") or _EVERYTHING["path"]
    # In a GRPCRoute method is {type, service, method}, in an HTTPRoute a word.
    method = match.get("method") or {}
    word = method.get("method") if isinstance(method, dict) else method
    service = method.get("service") if isinstance(method, dict) else None
    return (
        choice.path in {None, path.get("value", "/")}
        and choice.pathType in {None, path.get("type", "PathPrefix")}
        and choice.method in {None, word}
        and choice.service in {None, service}
        and choice.headers.items() <= _headers(match).items()
    )


def _headers(match: Object) -> Mapping[str, str]:
    return {item["name"].lower(): item["value"] for item in match.get("headers") or []}


def _shown(match: Object) -> str:
    """One match for a message."""
    path, method = match.get("path") or {}, match.get("method") or {}
    if isinstance(method, dict):
        method = "/".join(filter(None, (method.get("service"), method.get("method"))))
    parts = [method, path.get("value"), *(f"{k}={v}" for k, v in _headers(match).items())]
    return " ".join(part for part in parts if part) or "everything"
