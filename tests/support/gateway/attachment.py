"""Which route is attached to which listener, and by which host names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from support.gateway.snapshot import CONTROLLER_NAME, GATEWAY_GROUP, Object, age_of, key_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.gateway.snapshot import Key, Snapshot

ANY_HOST = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """A route on one listener of one gateway; ``hostnames`` is never empty."""

    route: Object
    gateway: Key
    listener: str
    port: int
    hostnames: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParentOutcome:
    """What became of one parentRef of a route: attachments, or the reason for none."""

    route: Object
    parent_ref: Object
    gateway: Key
    attachments: tuple[Attachment, ...]
    reason: str
    message: str

    @property
    def accepted(self) -> bool:
        """Whether the route is on at least one listener of that parent."""
        return bool(self.attachments)


def config_name(gateway: Key, port: int) -> str:
    """Name of a port's listener and route configuration."""
    return f"{gateway[0]}/{gateway[1]}/{port}"


def served_gateways(snapshot: Snapshot) -> list[Object]:
    """Gateways of our classes, oldest first."""
    ours = {
        name
        for name, found in snapshot.classes.items()
        if found["spec"].get("controllerName") == CONTROLLER_NAME
    }
    return sorted(
        (
            gateway
            for gateway in snapshot.gateways.values()
            if gateway["spec"]["gatewayClassName"] in ours
            and "deletionTimestamp" not in gateway["metadata"]
        ),
        key=age_of,
    )


def listener_problem(listener: Object) -> tuple[str, str] | None:
    """Reason and sentence when a listener can't be served; None when it can."""
    if listener["protocol"] != "HTTP":
        return "UnsupportedProtocol", f"protocol {listener['protocol']} is not served, only HTTP"
    source = _namespaces_from(listener)
    if source not in {"Same", "All"}:
        return (
            "UnsupportedValue",
            f"allowedRoutes.namespaces.from {source} is not served, only Same and All",
        )
    return None


def outcomes(snapshot: Snapshot, gateways: list[Object]) -> Iterator[ParentOutcome]:
    """One outcome per parentRef that names one of these gateways, oldest route first."""
    by_key = {key_of(gateway): gateway for gateway in gateways}
    for route in sorted(snapshot.routes.values(), key=age_of):
        if "deletionTimestamp" in route["metadata"]:
            continue
        for ref in route["spec"].get("parentRefs") or ():
            gateway = by_key.get((ref.get("namespace") or key_of(route)[0], ref["name"]))
            if gateway is None or not _is_gateway(ref):
                continue
            yield _outcome(route, ref, gateway)


def _outcome(route: Object, ref: Object, gateway: Object) -> ParentOutcome:
    found: list[Attachment] = []
    reason, message = "NoMatchingParent", "no listener has this sectionName and port"
    for listener in gateway["spec"].get("listeners") or ():
        if ref.get("sectionName") not in {None, listener["name"]}:
            continue
        if ref.get("port") not in {None, listener["port"]}:
            continue
        if listener_problem(listener) is not None or not _allows(listener, route, gateway):
            if reason == "NoMatchingParent":
                reason = "NotAllowedByListeners"
                message = f"no listener takes {route['kind']}s of this namespace"
            continue
        shared = shared_hostnames(listener.get("hostname"), route["spec"].get("hostnames") or ())
        if not shared:
            reason = "NoMatchingListenerHostname"
            message = f"no listener serves any of {route['spec'].get('hostnames')}"
            continue
        found.append(
            Attachment(
                route=route,
                gateway=key_of(gateway),
                listener=listener["name"],
                port=listener["port"],
                hostnames=shared,
            )
        )
    return ParentOutcome(
        route=route,
        parent_ref=ref,
        gateway=key_of(gateway),
        attachments=tuple(found),
        reason="Accepted" if found else reason,
        message="Envoy serves this route" if found else message,
    )


def shared_hostnames(listener: str | None, route: tuple[str, ...] | list[str]) -> tuple[str, ...]:
    """Host names that both sides admit, the narrower one of each pair (HTTPRoute.hostnames)."""
    own = listener or ANY_HOST
    found = dict.fromkeys(
        narrower
        for other in (route or (ANY_HOST,))
        if (narrower := _narrower(own, other)) is not None
    )
    return tuple(found)


def covers(wide: str, narrow: str) -> bool:
    """Whether every host that ``narrow`` admits is admitted by ``wide``; both may be wildcards."""
    if wide in {ANY_HOST, narrow}:
        return True
    return wide.startswith("*.") and narrow.endswith(wide[1:])


def _narrower(left: str, right: str) -> str | None:
    if covers(left, right):
        return right
    return left if covers(right, left) else None


def _is_gateway(ref: Object) -> bool:
    return (ref.get("group", GATEWAY_GROUP), ref.get("kind", "Gateway")) == (
        GATEWAY_GROUP,
        "Gateway",
    )


def _namespaces_from(listener: Object) -> str:
    namespaces = (listener.get("allowedRoutes") or {}).get("namespaces") or {}
    source: str = namespaces.get("from") or "Same"
    return source


def _allows(listener: Object, route: Object, gateway: Object) -> bool:
    kinds = (listener.get("allowedRoutes") or {}).get("kinds") or ()
    if kinds and not any(
        (kind.get("group", GATEWAY_GROUP), kind["kind"]) == (GATEWAY_GROUP, route["kind"])
        for kind in kinds
    ):
        return False
    return _namespaces_from(listener) == "All" or key_of(route)[0] == key_of(gateway)[0]
