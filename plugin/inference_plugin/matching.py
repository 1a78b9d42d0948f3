"""Matches of a managed route put together with those of the rule that it stands in front of.

A rule that is made for a managed route takes requests from a rule of the user, so that its
matches are the intersection of both. What the Gateway API has no words for is refused: an
approximation would send requests to the canary that nobody meant, or miss some that were meant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from inference_common.kube import GRPCROUTE
from inference_plugin.errors import ConfigError
from inference_plugin.managed_routes import Comparison

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inference_plugin.managed_routes import RequestMatch, Text

Object = dict[str, Any]
_METHODS: Final = (
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "CONNECT",
    "OPTIONS",
    "TRACE",
    "PATCH",
)
"""HTTPMethod (gateway-api v1.6 apis/v1/httproute_types.go)."""
_EVERYTHING: Final = {"type": "PathPrefix", "value": "/"}
"""The path of a match without one; the API server writes it."""


def combined(
    kind: str, own: Sequence[Object], wished: Sequence[RequestMatch], where: str
) -> list[Object]:
    """The matches of both a rule's ``own`` and a managed route; empty where none can be.

    ``kind`` is that of the route, ``where`` begins the messages. Raises ConfigError for what a
    route of that kind can't say.
    """
    merge = _grpc_match if kind == GRPCROUTE.kind else _http_match
    found = []
    for mine in own or [{}]:
        for theirs in wished:
            both = merge(mine, theirs, where)
            if both is not None and both not in found:
                found.append(both)
    return found


def _http_match(own: Object, wished: RequestMatch, where: str) -> Object | None:
    path = _path(own.get("path") or _EVERYTHING, wished.path, where)
    method = _method(own.get("method"), wished.method, where)
    if path is None or method == "":
        return None
    both = {**own, "path": path}
    if method is not None:
        both["method"] = method
    headers = _headers(own.get("headers") or [], wished, where)
    return both | ({"headers": headers} if headers else {})


def _grpc_match(own: Object, wished: RequestMatch, where: str) -> Object | None:
    if wished.method is not None and wished.method.value != "POST":
        # Every gRPC call is a POST.
        return None
    both = dict(own)
    if wished.path is not None:
        method = _grpc_method(own.get("method") or {}, wished.path, where)
        if method is None:
            return None
        if method:
            both["method"] = method
    headers = _headers(own.get("headers") or [], wished, where)
    return both | ({"headers": headers} if headers else {})


def _headers(own: Sequence[Object], wished: RequestMatch, where: str) -> list[Object]:
    """The rule's header conditions and the wished ones; the API takes one per header."""
    found = list(own)
    known = {entry["name"].lower(): entry for entry in own}
    for name, text in wished.headers:
        entry = {"type": _header_type(text, name, where), "name": name, "value": text.value}
        before = known.get(name.lower())
        if before is None:
            known[name.lower()] = entry
            found.append(entry)
        elif (before.get("type", "Exact"), before["value"]) != (entry["type"], entry["value"]):
            raise ConfigError(
                f"{where}: header {name} is already compared with {before['value']!r}, and a route "
                "takes one condition per header. Match another header."
            )
    return found


def _header_type(text: Text, name: str, where: str) -> str:
    if text.comparison is Comparison.PREFIX:
        raise ConfigError(
            f"{where}: header {name} is compared by prefix, which the Gateway API can't. Give "
            "exact, or a regex if the gateway has them."
        )
    return "Exact" if text.comparison is Comparison.EXACT else "RegularExpression"


def _method(own: str | None, wished: Text | None, where: str) -> str | None:
    """The HTTP method of both; None for any, empty where they exclude each other."""
    if wished is None:
        return own
    if wished.comparison is not Comparison.EXACT or wished.value not in _METHODS:
        raise ConfigError(
            f"{where}: the method is compared by {wished.comparison} {wished.value!r}; the Gateway "
            f"API takes exact and one of {', '.join(_METHODS)}."
        )
    return wished.value if own in {None, wished.value} else ""


def _path(own: Object, wished: Text | None, where: str) -> Object | None:
    """The narrower of two paths; None where they exclude each other."""
    kind, value = own.get("type", "PathPrefix"), str(own.get("value", "/"))
    if wished is None:
        return {"type": kind, "value": value}
    if kind == "RegularExpression" or wished.comparison is Comparison.REGEX:
        if kind == "PathPrefix" and value == "/":
            return {"type": "RegularExpression", "value": wished.value}
        raise ConfigError(
            f"{where}: path {wished.comparison} {wished.value!r} can't be put together with the "
            f"rule's own path ({kind} {value}). Leave the path out, or give exact or prefix where "
            "the rule's is no regular expression."
        )
    if wished.comparison is Comparison.EXACT:
        fits = wished.value == value if kind == "Exact" else _is_below(wished.value, value)
        return {"type": "Exact", "value": wished.value} if fits else None
    if _is_below(value, wished.value):
        return {"type": kind, "value": value}
    if kind == "PathPrefix" and _is_below(wished.value, value):
        return {"type": "PathPrefix", "value": wished.value}
    return None


def _is_below(path: str, prefix: str) -> bool:
    """Whether a path starts with all elements of another one (PathMatchPathPrefix)."""
    stem = prefix.rstrip("/")
    return path == stem or path.startswith(stem + "/")


def _grpc_method(own: Object, path: Text, where: str) -> Object | None:
    """Service and method of ``/service/method`` and of the rule; {} for all of them."""
    parts = path.value.split("/")
    exact = path.comparison is Comparison.EXACT and len(parts) == 3 and all(parts[1:])  # noqa: PLR2004
    below = path.comparison is Comparison.PREFIX and parts[-1] == "" and len(parts) <= 3  # noqa: PLR2004
    if parts[0] or not (exact or below):
        raise ConfigError(
            f"{where}: path {path.comparison} {path.value!r} names no gRPC method. Give exact "
            "/service/method or prefix /service/ for a GRPCRoute."
        )
    if not any(parts):
        return own
    if own.get("type", "Exact") != "Exact":
        raise ConfigError(
            f"{where}: path {path.value!r} can't be put together with the rule's own regular "
            "expression. Leave the path out."
        )
    wished = {"service": parts[1]} | ({"method": parts[2]} if exact else {})
    if any(own.get(key) not in {None, "", value} for key, value in wished.items()):
        return None
    return {"type": "Exact", **own, **wished}
