"""What is true of each object once Envoy serves a snapshot, as the Gateway API words it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.gateway.attachment import config_name, listener_problem
from support.gateway.backends import Unresolved, picker_problem, resolve
from support.gateway.snapshot import (
    CONTROLLER_NAME,
    GATEWAY_GROUP,
    POOL_GROUP,
    generation_of,
    group_of,
    is_grpc,
    key_of,
    route_key,
)
from support.gateway.statuses import Desired, condition, has_our_parent, pool_parent

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from support.gateway.attachment import Attachment, ParentOutcome
    from support.gateway.routing import Resolved
    from support.gateway.snapshot import Key, Object, RouteKey, Snapshot


def class_statuses(snapshot: Snapshot) -> Iterable[Desired]:
    """Accepted, for each class of ours."""
    for found in snapshot.classes.values():
        if found["spec"].get("controllerName") == CONTROLLER_NAME:
            accepted = condition("Accepted", generation_of(found), ok=True, reason="Accepted")
            yield Desired(kind="GatewayClass", obj=found, status={"conditions": [accepted]})


def gateway_status(
    gateway: Object, addresses: Mapping[Key, str], found: Sequence[ParentOutcome]
) -> Desired:
    """Address, Accepted and Programmed of a gateway, and what is true of its listeners."""
    key, generation = key_of(gateway), generation_of(gateway)
    address = addresses.get(key)
    listeners = gateway["spec"].get("listeners") or ()
    served = [listener for listener in listeners if listener_problem(listener) is None]
    attached = [a for outcome in found if outcome.gateway == key for a in outcome.attachments]
    if gateway["spec"].get("addresses"):
        accepted = False, "UnsupportedAddress", "leave spec.addresses empty: they are assigned here"
    elif len(served) < len(listeners):
        accepted = bool(served), "ListenersNotValid", "see the conditions of the listeners"
    else:
        accepted = True, "Accepted", ""
    programmed = address is not None and bool(served)
    status = {
        "addresses": [{"type": "IPAddress", "value": address}] if address else [],
        "conditions": [
            condition(
                "Accepted", generation, ok=accepted[0], reason=accepted[1], message=accepted[2]
            ),
            condition(
                "Programmed",
                generation,
                ok=programmed,
                reason="Programmed"
                if programmed
                else "AddressNotAssigned"
                if served
                else "Invalid",
            ),
        ],
        "listeners": [_listener_status(item, generation, attached) for item in listeners],
    }
    after = frozenset(config_name(key, item["port"]) for item in served) if address else frozenset()
    return Desired(kind="Gateway", obj=gateway, status=status, after=after)


def _listener_status(listener: Object, generation: int, attached: Sequence[Attachment]) -> Object:
    problem = listener_problem(listener)
    reason, message = problem or ("", "")
    routes = {route_key(a.route) for a in attached if a.listener == listener["name"]}
    return {
        "name": listener["name"],
        "supportedKinds": [
            {"group": GATEWAY_GROUP, "kind": kind} for kind in ("HTTPRoute", "GRPCRoute")
        ],
        "attachedRoutes": len(routes),
        "conditions": [
            condition(
                "Accepted", generation, ok=not problem, reason=reason or "Accepted", message=message
            ),
            condition(
                "Programmed",
                generation,
                ok=not problem,
                reason="Invalid" if problem else "Programmed",
            ),
            condition("ResolvedRefs", generation, ok=True, reason="ResolvedRefs"),
            condition("Conflicted", generation, ok=False, reason="NoConflicts"),
        ],
    }


def route_statuses(
    snapshot: Snapshot, found: Sequence[ParentOutcome], resolved: Mapping[RouteKey, Resolved]
) -> Iterable[Desired]:
    """Our parents of every route that has or had one: Accepted and ResolvedRefs."""
    by_route: dict[RouteKey, list[ParentOutcome]] = {}
    for outcome in found:
        by_route.setdefault(route_key(outcome.route), []).append(outcome)
    for key, route in snapshot.routes.items():
        outcomes_of_route = by_route.get(key, [])
        if not outcomes_of_route and not has_our_parent(route):
            continue
        problems = _problems(snapshot, route, resolved.get(key))
        yield Desired(
            kind="GRPCRoute" if is_grpc(route) else "HTTPRoute",
            obj=route,
            status={"parents": [_route_parent(each, problems) for each in outcomes_of_route]},
            after=frozenset(
                config_name(a.gateway, a.port)
                for each in outcomes_of_route
                for a in each.attachments
            ),
        )


def _problems(snapshot: Snapshot, route: Object, resolved: Resolved | None) -> list[Unresolved]:
    """References that don't resolve; they are told for a refused route too."""
    if resolved is not None:
        return resolved.problems
    namespace, _ = key_of(route)
    refs = [
        ref for rule in route["spec"].get("rules") or () for ref in rule.get("backendRefs") or ()
    ]
    found = [resolve(snapshot, namespace, ref) for ref in refs]
    return [problem for problem in found if isinstance(problem, Unresolved)]


def _route_parent(outcome: ParentOutcome, problems: Sequence[Unresolved]) -> Object:
    generation = generation_of(outcome.route)
    first = problems[0] if problems else None
    return {
        "parentRef": outcome.parent_ref,
        "controllerName": CONTROLLER_NAME,
        "conditions": [
            condition(
                "Accepted",
                generation,
                ok=outcome.accepted,
                reason=outcome.reason,
                message=outcome.message,
            ),
            condition(
                "ResolvedRefs",
                generation,
                ok=first is None,
                reason=first.reason if first else "ResolvedRefs",
                message="; ".join(problem.message for problem in problems),
            ),
        ],
    }


def pool_statuses(snapshot: Snapshot, found: Sequence[ParentOutcome]) -> Iterable[Desired]:
    """The gateways through which each pool is served: Accepted and ResolvedRefs."""
    users: dict[tuple[str, str, str], dict[Key, set[str]]] = {}
    for outcome in found:
        if not outcome.accepted:
            continue
        namespace, _ = key_of(outcome.route)
        for rule in outcome.route["spec"].get("rules") or ():
            for ref in rule.get("backendRefs") or ():
                same = ref.get("namespace") in {None, namespace}
                if ref.get("kind") == "InferencePool" and same:
                    where = (ref.get("group", ""), namespace, ref["name"])
                    names = users.setdefault(where, {}).setdefault(outcome.gateway, set())
                    names |= {config_name(a.gateway, a.port) for a in outcome.attachments}
    for key, pool in snapshot.pools.items():
        gateways = users.get(key, {})
        if gateways or has_our_parent(pool):
            yield Desired(
                kind="InferencePool",
                obj=pool,
                status={
                    "parents": [
                        _pool_parent(snapshot, pool, gateway) for gateway in sorted(gateways)
                    ]
                },
                after=frozenset(name for names in gateways.values() for name in names),
            )


def _pool_parent(snapshot: Snapshot, pool: Object, gateway: Key) -> Object:
    generation = generation_of(pool)
    problem = picker_problem(snapshot, pool)
    entry: Object = {
        "parentRef": pool_parent(gateway),
        "conditions": [
            condition("Accepted", generation, ok=True, reason="Accepted"),
            condition(
                "ResolvedRefs",
                generation,
                ok=problem is None,
                reason=problem.reason if problem else "ResolvedRefs",
                message=problem.message if problem else "",
            ),
        ],
    }
    if group_of(pool) == POOL_GROUP:
        entry["controllerName"] = CONTROLLER_NAME
    return entry
