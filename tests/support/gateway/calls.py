"""Matches of a GRPCRoute rule in Envoy's words, and the order of matches."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from support.gateway.matches import envoy_headers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from support.gateway.matches import Precedence
    from support.gateway.snapshot import Object


def calls_of(rule: Object) -> Sequence[Object]:
    """The rule's matches, or the one that matches every call (GRPCRouteRule.matches)."""
    return rule.get("matches") or ({},)


def precedence(match: Object) -> Precedence:
    """Sort key, most specific first: characters of the service, of the method, header matches."""
    method = match.get("method") or {}
    lengths = [-len(method.get(part) or "") for part in ("service", "method")]
    return 0, lengths[0], lengths[1], -len(match.get("headers") or ()), 0


def envoy_match(match: Object) -> dict[str, Any]:
    """One GRPCRouteMatch as a RouteMatch of Envoy. Raises ValueError on an unknown type."""
    found: dict[str, Any] = {"grpc": {}} | _path(match.get("method") or {})
    if headers := envoy_headers(match.get("headers") or ()):
        found["headers"] = headers
    return found


def _path(method: Object) -> dict[str, Any]:
    """A call's path is ``/service/method``."""
    kind = method.get("type", "Exact")
    service, name = method.get("service") or "", method.get("method") or ""
    if kind not in {"Exact", "RegularExpression"}:
        raise ValueError(f"method match type {kind} is unknown")
    if not service and not name:
        return {"prefix": "/"}
    if kind == "Exact" and service:
        return {"path": f"/{service}/{name}"} if name else {"prefix": f"/{service}/"}
    parts = [re.escape(part) if kind == "Exact" else part for part in (service, name)]
    return {"safe_regex": {"regex": f"/{parts[0] or '[^/]+'}/{parts[1] or '[^/]+'}"}}
