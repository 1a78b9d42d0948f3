"""Whether the gateways have taken in a route as it now is.

Gateway API: every condition carries the generation that it was made for, and each parent of the
route has its own (gateway-api apis/v1/shared_types.go, RouteParentStatus).
"""

from __future__ import annotations

from typing import Any, Final

Object = dict[str, Any]
_GATEWAY_GROUP: Final = "gateway.networking.k8s.io"
_WANTED: Final = ("Accepted", "ResolvedRefs")


def unaccepted(route: Object) -> str:
    """What is missing until every parent has accepted the route's generation; empty if nothing.

    A parent with entries of several controllers counts as accepted by any of them: a controller
    that is gone leaves its old entry behind.
    """
    namespace = route["metadata"]["namespace"]
    generation = route["metadata"].get("generation", 0)
    entries = (route.get("status") or {}).get("parents") or []
    refs = (route.get("spec") or {}).get("parentRefs") or []
    if not refs:
        return "it has no parentRefs"
    missing = []
    for ref in refs:
        found = [
            _missing(entry, generation)
            for entry in entries
            if _identity(entry.get("parentRef") or {}, namespace) == _identity(ref, namespace)
        ]
        if not found:
            missing.append(f"Gateway {ref.get('name')} has not reported on it")
        elif all(found):
            missing.append(f"Gateway {ref.get('name')}: {found[0]}")
    return "; ".join(missing)


def _missing(entry: Object, generation: int) -> str:
    conditions = {item["type"]: item for item in entry.get("conditions") or []}
    for kind in _WANTED:
        condition = conditions.get(kind)
        if condition is None:
            return f"no condition {kind}"
        seen = condition.get("observedGeneration", 0)
        if seen < generation:
            return f"{kind} is of generation {seen}, the route is at {generation}"
        if condition.get("status") != "True":
            return _told(kind, condition)
    partial = conditions.get("PartiallyInvalid")
    if partial is not None and partial.get("status") == "True":
        return _told("PartiallyInvalid", partial)
    return ""


def _told(kind: str, condition: Object) -> str:
    told = condition.get("message") or condition.get("reason") or "no message"
    return f"{kind} is {condition.get('status')}: {told}"


def _identity(ref: Object, namespace: str) -> tuple[Any, ...]:
    return (
        ref.get("group", _GATEWAY_GROUP),
        ref.get("kind") or "Gateway",
        ref.get("namespace") or namespace,
        ref.get("name"),
        ref.get("sectionName"),
        ref.get("port"),
    )
