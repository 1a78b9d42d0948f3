"""Desired conditions of each object, and the status to write for them.

What is desired carries no times: ``merged`` keeps a condition's lastTransitionTime as long as
its status stays, so that an unchanged state is recognised and never written again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from support.gateway.snapshot import CONTROLLER_NAME, GATEWAY_GROUP, POOL_GROUP_X, group_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from support.gateway.snapshot import Key, Object

Kind = Literal["GatewayClass", "Gateway", "HTTPRoute", "GRPCRoute", "InferencePool"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """The part of an object's status that is ours.

    ``status`` is the whole status of a GatewayClass or Gateway, and ``{"parents": […]}`` with
    our entries only for a route or pool. It may be written once Envoy has taken the route
    configurations in ``after``.
    """

    kind: Kind
    obj: Object
    status: dict[str, Any]
    after: frozenset[str] = frozenset()


def condition(kind: str, generation: int, *, ok: bool, reason: str, message: str = "") -> Object:
    """A condition without lastTransitionTime."""
    return {
        "type": kind,
        "status": "True" if ok else "False",
        "reason": reason,
        "message": message,
        "observedGeneration": generation,
    }


def merged(desired: Desired, now: str) -> dict[str, Any] | None:
    """The status to write, None when the object has it already. ``now``: RFC 3339, seconds."""
    current = desired.obj.get("status") or {}
    match desired.kind:
        case "HTTPRoute" | "GRPCRoute":
            new = _with_parents(current, "parents", desired, now, _is_ours)
        case "InferencePool" if group_of(desired.obj) == POOL_GROUP_X:
            new = _with_parents(current, "parent", desired, now, _is_our_pool_parent_x)
        case "InferencePool":
            new = _with_parents(current, "parents", desired, now, _is_ours)
        case "GatewayClass":
            new = current | _stamped(desired.status, current, now)
        case "Gateway":
            new = current | _stamped(desired.status, current, now)
            old_listeners = {found["name"]: found for found in current.get("listeners") or ()}
            new["listeners"] = [
                _stamped(found, old_listeners.get(found["name"], {}), now)
                for found in desired.status["listeners"]
            ]
    return None if new == current else new


def pool_parent(gateway: Key) -> Object:
    """The parentRef of a pool's status entry."""
    namespace, name = gateway
    return {"group": GATEWAY_GROUP, "kind": "Gateway", "namespace": namespace, "name": name}


def has_our_parent(obj: Object) -> bool:
    """Whether a route's or pool's status has an entry that this controller may have written."""
    status = obj.get("status") or {}
    if obj["kind"] in {"HTTPRoute", "GRPCRoute"}:
        return any(_is_ours(entry) for entry in status.get("parents") or ())
    if group_of(obj) == POOL_GROUP_X:
        return any(
            (entry.get("parentRef") or {}).get("kind") == "Gateway"
            for entry in status.get("parent") or ()
        )
    return any(_is_ours(entry) for entry in status.get("parents") or ())


def _with_parents(
    current: Object, field: str, desired: Desired, now: str, ours: Any
) -> dict[str, Any]:
    """Our entries replaced, everybody else's kept."""
    existing = current.get(field) or []
    foreign = [entry for entry in existing if not ours(entry)]
    mine = [entry for entry in existing if ours(entry)]
    entries = [
        _stamped(entry, _same_parent(mine, entry), now) for entry in desired.status["parents"]
    ]
    if not entries and len(foreign) == len(existing):
        return current
    return current | {field: foreign + entries}


def _same_parent(existing: Iterable[Object], entry: Object) -> Object:
    return next((found for found in existing if found["parentRef"] == entry["parentRef"]), {})


def _stamped(entry: Object, old: Object, now: str) -> Object:
    """The entry with lastTransitionTime in each condition; unchanged conditions keep theirs."""
    previous = {found["type"]: found for found in old.get("conditions") or ()}
    stamped = []
    for found in entry["conditions"]:
        before = previous.get(found["type"])
        since = now
        if before is not None and before["status"] == found["status"]:
            since = before["lastTransitionTime"]
        stamped.append(found | {"lastTransitionTime": since})
    return entry | {"conditions": stamped}


def _is_ours(entry: Object) -> bool:
    return bool(entry.get("controllerName") == CONTROLLER_NAME)


def _is_our_pool_parent_x(entry: Object) -> bool:
    """v1alpha2 entries name no controller: those of gateways, and the CRD's default entry."""
    ref = entry.get("parentRef") or {}
    return (
        ref.get("kind") in {None, "Gateway"} or (ref.get("kind"), ref.get("name")) == _DEFAULT_ENTRY
    )


_DEFAULT_ENTRY = ("Status", "default")
