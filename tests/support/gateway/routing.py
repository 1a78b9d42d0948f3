"""Attached routes -> one route configuration per gateway port."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from support.gateway import calls, matches
from support.gateway.attachment import ANY_HOST, covers
from support.gateway.backends import Backend, Unresolved, resolve
from support.gateway.matches import FILTERS, HEADER_FILTERS, duration_s, header_changes
from support.gateway.resources import NO_BACKEND_CLUSTER, RETRY_POLICY, abort, picker_override
from support.gateway.snapshot import age_of, is_grpc, key_of, route_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from support.gateway.attachment import Attachment
    from support.gateway.backends import Upstream
    from support.gateway.snapshot import Object, RouteKey, Snapshot

INVALID_STATUS = 500
"""What a share of an invalid backendRef answers (Gateway API, HTTPRouteRule.backendRefs)."""


@dataclass(slots=True)
class Resolved:
    """The backends of one route: upstreams in use, and references that did not resolve."""

    upstreams: dict[str, Upstream] = field(default_factory=dict)
    problems: list[Unresolved] = field(default_factory=list)
    rules: list[dict[str, Any]] = field(default_factory=list)
    """Per rule the fields of an Envoy Route, without match and name."""


def resolve_route(snapshot: Snapshot, route: Object) -> Resolved:
    """Resolve every reference of a route and render its rules.

    A backend of weight 0 is an upstream too: its endpoints are known and its picker connected
    before the first request is sent there.
    """
    found = Resolved()
    namespace, _ = key_of(route)
    for rule in route["spec"].get("rules") or ():
        weighted = []
        for ref in rule.get("backendRefs") or ():
            backend = _resolve(snapshot, namespace, ref, grpc=is_grpc(route))
            _note(found, backend)
            weighted.append((ref, backend))
        action = _action(weighted)
        mirrors = [
            policy
            for entry in rule.get("filters") or ()
            if entry["type"] == "RequestMirror"
            for policy in _mirror(
                snapshot, namespace, entry["requestMirror"], found, grpc=is_grpc(route)
            )
        ]
        if "route" in action:
            if mirrors:
                action["route"]["request_mirror_policies"] = mirrors
            timeouts = rule.get("timeouts") or {}
            action["route"]["timeout"] = duration_s(timeouts.get("request") or "0s")
            if attempt := timeouts.get("backendRequest"):
                action["route"]["retry_policy"] = {
                    **RETRY_POLICY,
                    "per_try_timeout": duration_s(attempt),
                }
        found.rules.append(action | header_changes(rule.get("filters") or ()))
    return found


def unsupported(route: Object) -> str | None:
    """What in a route this controller does not do, as a sentence; None when it does it all."""
    for index, rule in enumerate(route["spec"].get("rules") or ()):
        for entry in rule.get("filters") or ():
            if entry["type"] not in FILTERS:
                return f"rule {index}: filter {entry['type']} is not supported"
        for ref in rule.get("backendRefs") or ():
            for entry in ref.get("filters") or ():
                if entry["type"] not in HEADER_FILTERS:
                    return f"rule {index}: filter {entry['type']} on a backendRef is not supported"
        try:
            _matched(route, rule)
        except ValueError as error:
            return f"rule {index}: {error}"
    return None


def route_configuration(
    name: str, attached: Sequence[Attachment], resolved: Mapping[RouteKey, Resolved]
) -> dict[str, Any]:
    """The route configuration of one port.

    A virtual host per host name also carries the routes of wider host names behind its own: a
    request that no narrow route matches is still offered to the wide ones.
    """
    domains = sorted({host for found in attached for host in found.hostnames})
    return {
        "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        "name": name,
        "virtual_hosts": [
            {"name": domain, "domains": [domain], "routes": _routes(domain, attached, resolved)}
            for domain in domains
        ],
        # Envoy compares a request's Host with domains; the port a client sends is not part of it.
        "ignore_port_in_host_matching": True,
    }


def weight_of(ref: Object) -> int:
    """A backendRef's weight: absent is 1."""
    weight = ref.get("weight")
    return 1 if weight is None else int(weight)


def _routes(
    domain: str, attached: Iterable[Attachment], resolved: Mapping[RouteKey, Resolved]
) -> list[dict[str, Any]]:
    entries = []
    for found in attached:
        host = max(
            (host for host in found.hostnames if covers(host, domain)), key=_width, default=None
        )
        if host is None:
            continue
        namespace, name = key_of(found.route)
        rules = found.route["spec"].get("rules") or ()
        for index, rule in enumerate(rules):
            for precedence, match in _matched(found.route, rule):
                order = (_negative(_width(host)), precedence, age_of(found.route), index)
                rendered = {
                    "name": f"{namespace}/{name}/{rule.get('name') or index}",
                    "match": match,
                    **resolved[route_key(found.route)].rules[index],
                }
                entries.append((order, rendered))
    return [rendered for _, rendered in sorted(entries, key=lambda entry: entry[0])]


def _matched(route: Object, rule: Object) -> list[tuple[matches.Precedence, dict[str, Any]]]:
    """The rule's matches as Envoy's, each with its precedence. Raises ValueError."""
    if is_grpc(route):
        return [(calls.precedence(one), calls.envoy_match(one)) for one in calls.calls_of(rule)]
    found = matches.matches_of(rule)
    return [(matches.precedence(one), matches.envoy_match(one)) for one in found]


def _resolve(
    snapshot: Snapshot, namespace: str, ref: Object, *, grpc: bool
) -> Backend | Unresolved:
    """A backend; calls have a cluster of their own, which speaks HTTP/2."""
    found = resolve(snapshot, namespace, ref)
    if isinstance(found, Unresolved) or not grpc:
        return found
    upstream = replace(found.upstream, name=f"grpc/{found.upstream.name}", http2=True)
    return replace(found, upstream=upstream)


def _width(host: str) -> tuple[bool, bool, int]:
    """Larger is more specific: no wildcard before wildcard, longer before shorter."""
    return (host != ANY_HOST, not host.startswith("*"), len(host))


def _negative(width: tuple[bool, bool, int]) -> tuple[bool, bool, int]:
    return (not width[0], not width[1], -width[2])


def _action(weighted: Sequence[tuple[Object, Backend | Unresolved]]) -> dict[str, Any]:
    """Weighted clusters, or a plain status when no reference can take a request."""
    shares = [(ref, backend) for ref, backend in weighted if weight_of(ref) > 0]
    if all(isinstance(backend, Unresolved) for _, backend in shares):
        return {"direct_response": {"status": INVALID_STATUS}}
    return {
        "route": {
            "weighted_clusters": {
                "clusters": [_weighted_cluster(ref, backend) for ref, backend in shares]
            },
            "retry_policy": RETRY_POLICY,
        }
    }


def _weighted_cluster(ref: Object, backend: Backend | Unresolved) -> dict[str, Any]:
    found: dict[str, Any] = {"weight": weight_of(ref)}
    if isinstance(backend, Unresolved):
        found |= {
            "name": NO_BACKEND_CLUSTER,
            "typed_per_filter_config": abort(INVALID_STATUS),
        }
    else:
        found["name"] = backend.upstream.name
        if override := picker_override(backend):
            found["typed_per_filter_config"] = override
    return found | header_changes(ref.get("filters") or ())


def _mirror(
    snapshot: Snapshot, namespace: str, mirror: Object, found: Resolved, *, grpc: bool
) -> list[dict[str, Any]]:
    """A mirror policy. A mirrored pool is balanced round robin: no picker sees the copies."""
    backend = _resolve(snapshot, namespace, mirror["backendRef"], grpc=grpc)
    _note(found, backend)
    if isinstance(backend, Unresolved):
        return []
    policy: dict[str, Any] = {"cluster": backend.upstream.name}
    fraction = mirror.get("fraction")
    if fraction is None and mirror.get("percent") is not None:
        fraction = {"numerator": mirror["percent"]}
    if fraction is not None:
        # Envoy knows three denominators; a millionth is finer than any share of the API's.
        millionths = fraction["numerator"] * 1_000_000 // fraction.get("denominator", 100)
        policy["runtime_fraction"] = {
            "default_value": {"numerator": millionths, "denominator": "MILLION"}
        }
    return [policy]


def _note(found: Resolved, backend: Backend | Unresolved) -> None:
    if isinstance(backend, Unresolved):
        found.problems.append(backend)
        return
    found.upstreams[backend.upstream.name] = backend.upstream
    if backend.picker is not None:
        found.upstreams[backend.picker.name] = backend.picker
