"""Matches and filters of an HTTPRoute rule in Envoy's words, and the order of matches."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from support.gateway.snapshot import Object

HEADER_FILTERS: Final = frozenset({"RequestHeaderModifier", "ResponseHeaderModifier"})
FILTERS: Final = HEADER_FILTERS | {"RequestMirror"}
_PATH_RANK: Final = {"Exact": 0, "RegularExpression": 1, "PathPrefix": 2}
_EVERYTHING: Final = {"path": {"type": "PathPrefix", "value": "/"}}
"""A rule without matches matches every request (Gateway API, HTTPRouteRule.matches)."""

Precedence = tuple[int, int, int, int, int]


def matches_of(rule: Object) -> Sequence[Object]:
    """The rule's matches, or the one that matches everything."""
    return rule.get("matches") or (_EVERYTHING,)


def precedence(match: Object) -> Precedence:
    """Sort key, most specific first.

    HTTPRouteRule.matches: exact path, longest prefix, method, most headers, most query
    parameters. Regular expressions are left to the implementation: here after exact paths.
    """
    kind, value = _path(match)
    return (
        _PATH_RANK[kind],
        -len(value),
        0 if match.get("method") else 1,
        -len(match.get("headers") or ()),
        -len(match.get("queryParams") or ()),
    )


def envoy_match(match: Object) -> dict[str, Any]:
    """One HTTPRouteMatch as a RouteMatch of Envoy. Raises ValueError on an unknown type."""
    headers = envoy_headers(match.get("headers") or ())
    if method := match.get("method"):
        headers.append({"name": ":method", "string_match": {"exact": method}})
    found = _envoy_path(match)
    if headers:
        found["headers"] = headers
    if parameters := match.get("queryParams"):
        found["query_parameters"] = [
            {"name": parameter["name"], "string_match": _string_match(parameter)}
            for parameter in _first_of_each(parameters, fold=False)
        ]
    return found


def envoy_headers(headers: Iterable[Object]) -> list[dict[str, Any]]:
    """Header conditions as Envoy's HeaderMatchers. Raises ValueError on an unknown type."""
    return [
        {"name": header["name"], "string_match": _string_match(header)}
        for header in _first_of_each(headers, fold=True)
    ]


def header_changes(filters: Iterable[Object]) -> dict[str, Any]:
    """The header fields of a Route or a weighted cluster for header modifier filters."""
    found: dict[str, Any] = {}
    for entry in filters:
        match entry["type"]:
            case "RequestHeaderModifier":
                _header_change(found, "request", entry["requestHeaderModifier"])
            case "ResponseHeaderModifier":
                _header_change(found, "response", entry["responseHeaderModifier"])
            case _:
                pass
    return found


def duration_s(text: str) -> str:
    """A Gateway API duration (GEP-2257, such as ``1h30m`` or ``500ms``) as Envoy's seconds."""
    units = {"h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
    total_ms = sum(
        int(number) * units[unit] for number, unit in re.findall(r"(\d+)(ms|h|m|s)", text)
    )
    return f"{total_ms / 1000:.3f}".rstrip("0").rstrip(".") + "s"


def _path(match: Object) -> tuple[str, str]:
    path = match.get("path") or {}
    return path.get("type", "PathPrefix"), path.get("value", "/")


def _envoy_path(match: Object) -> dict[str, Any]:
    kind, value = _path(match)
    match kind:
        case "Exact":
            return {"path": value}
        case "RegularExpression":
            return {"safe_regex": {"regex": _regex(value)}}
        case "PathPrefix":
            # /foo and /foo/ both mean the path elements below foo, and never /foobar.
            trimmed = value.rstrip("/")
            return {"path_separated_prefix": trimmed} if trimmed else {"prefix": "/"}
        case _:
            raise ValueError(f"path match type {kind} is unknown")


def _string_match(entry: Object) -> dict[str, Any]:
    match entry.get("type", "Exact"):
        case "Exact":
            return {"exact": entry["value"]}
        case "RegularExpression":
            return {"safe_regex": {"regex": _regex(entry["value"])}}
        case kind:
            raise ValueError(f"match type {kind} of {entry['name']} is unknown")


def _regex(text: str) -> str:
    """Refuse what no regular expression engine takes; Envoy's own (RE2) is stricter still."""
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"regular expression {text!r}: {error}") from error
    return text


def _first_of_each(entries: Iterable[Object], *, fold: bool) -> Iterable[Object]:
    """Only the first entry of a name counts (HTTPHeaderMatch.name, HTTPQueryParamMatch.name)."""
    seen: dict[str, Object] = {}
    for entry in entries:
        seen.setdefault(entry["name"].lower() if fold else entry["name"], entry)
    return seen.values()


def _header_change(found: dict[str, Any], side: str, change: Object) -> None:
    added = [
        {"header": {"key": header["name"], "value": header["value"]}, "append_action": action}
        for field, action in (
            ("set", "OVERWRITE_IF_EXISTS_OR_ADD"),
            ("add", "APPEND_IF_EXISTS_OR_ADD"),
        )
        for header in change.get(field) or ()
    ]
    if added:
        found.setdefault(f"{side}_headers_to_add", []).extend(added)
    if removed := change.get("remove"):
        found.setdefault(f"{side}_headers_to_remove", []).extend(removed)
