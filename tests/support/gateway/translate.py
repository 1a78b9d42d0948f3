"""A snapshot of objects -> what Envoy gets, and the statuses that will then be true. Pure."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from support.gateway.attachment import (
    config_name,
    listener_problem,
    outcomes,
    served_gateways,
)
from support.gateway.conditions import (
    class_statuses,
    gateway_status,
    pool_statuses,
    route_statuses,
)
from support.gateway.routing import resolve_route, route_configuration, unsupported
from support.gateway.snapshot import key_of, route_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from support.gateway.attachment import Attachment, ParentOutcome
    from support.gateway.backends import Upstream
    from support.gateway.snapshot import Key, Object, Snapshot
    from support.gateway.statuses import Desired


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerSpec:
    """One address and port that Envoy listens on; ``name`` is its route configuration's too."""

    name: str
    address: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Translation:
    """Everything that follows from a snapshot."""

    listeners: tuple[ListenerSpec, ...]
    route_configs: Mapping[str, dict[str, Any]]
    upstreams: Mapping[str, Upstream]
    statuses: tuple[Desired, ...]


def translate(snapshot: Snapshot) -> Translation:
    """Translate a snapshot. Equal snapshots give equal translations."""
    gateways = served_gateways(snapshot)
    addresses = allocate(snapshot.network, gateways)
    found = [_checked(outcome) for outcome in outcomes(snapshot, gateways)]
    resolved = {
        route_key(outcome.route): resolve_route(snapshot, outcome.route)
        for outcome in found
        if outcome.accepted
    }
    by_port: dict[tuple[Key, int], list[Attachment]] = {}
    specs: dict[tuple[Key, int], ListenerSpec] = {}
    for gateway in gateways:
        key = key_of(gateway)
        for listener in gateway["spec"].get("listeners") or ():
            if key in addresses and listener_problem(listener) is None:
                where = key, listener["port"]
                name = config_name(*where)
                specs[where] = ListenerSpec(
                    name=name, address=addresses[key], port=listener["port"]
                )
                by_port.setdefault(where, [])
    for outcome in found:
        for attachment in outcome.attachments:
            if (where := (attachment.gateway, attachment.port)) in by_port:
                by_port[where].append(attachment)
    return Translation(
        listeners=tuple(specs.values()),
        route_configs={
            config_name(*where): route_configuration(config_name(*where), attached, resolved)
            for where, attached in by_port.items()
        },
        upstreams={
            name: upstream
            for backends in resolved.values()
            for name, upstream in backends.upstreams.items()
        },
        statuses=(
            *class_statuses(snapshot),
            *(gateway_status(gateway, addresses, found) for gateway in gateways),
            *route_statuses(snapshot, found, resolved),
            *pool_statuses(snapshot, found),
        ),
    )


def allocate(network: str, gateways: Iterable[Object]) -> dict[Key, str]:
    """An address 127.A.255.N for each gateway: the one in its status, else the lowest free.

    Gateways that ask for addresses of their own get none, nor do those beyond 254.
    """
    base = int(ipaddress.ip_network(network).network_address) + (255 << 8)
    block = {str(ipaddress.ip_address(base + n)) for n in range(1, 255)}
    wanting = [gateway for gateway in gateways if not gateway["spec"].get("addresses")]
    found: dict[Key, str] = {}
    for gateway in wanting:
        known = (gateway.get("status") or {}).get("addresses") or ()
        address = next((entry["value"] for entry in known if entry["value"] in block), None)
        if address is not None and address not in found.values():
            found[key_of(gateway)] = address
    free = iter(sorted(block - set(found.values()), key=ipaddress.ip_address))
    for gateway in wanting:
        if key_of(gateway) not in found and (address := next(free, None)) is not None:
            found[key_of(gateway)] = address
    return found


def _checked(outcome: ParentOutcome) -> ParentOutcome:
    """An accepted route that asks for what is not served becomes a refused one."""
    problem = unsupported(outcome.route) if outcome.accepted else None
    if problem is None:
        return outcome
    return type(outcome)(
        route=outcome.route,
        parent_ref=outcome.parent_ref,
        gateway=outcome.gateway,
        attachments=(),
        reason="UnsupportedValue",
        message=problem,
    )
