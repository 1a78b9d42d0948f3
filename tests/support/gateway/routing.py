"""Attached routes -> one route configuration per gateway port."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from support.gateway.attachment import ANY_HOST, covers
from support.gateway.backends import Backend, Unresolved, resolve
from support.gateway.matches import (
    duration_s,
    envoy_match,
    header_changes,
    matches_of,
    precedence,
)
from support.gateway.resources import NO_BACKEND_CLUSTER, RETRY_POLICY, abort, picker_override
from support.gateway.snapshot import age_of, key_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from support.gateway.attachment import Attachment
    from support.gateway.backends import Upstream
    from support.gateway.snapshot import Object, Snapshot

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
            backend = resolve(snapshot, namespace, ref)
            _note(found, backend)
            weighted.append((ref, backend))
        action = _action(weighted)
        mirrors = [
            policy
            for entry in rule.get("filters") or ()
            if entry["type"] == "RequestMirror"
            for policy in _mirror(snapshot, namespace, entry["requestMirror"], found)
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


def route_configuration(
    name: str, attached: Sequence[Attachment], resolved: dict[tuple[str, str], Resolved]
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
    domain: str, attached: Iterable[Attachment], resolved: dict[tuple[str, str], Resolved]
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
            for match in matches_of(rule):
                order = (_negative(_width(host)), precedence(match), age_of(found.route), index)
                rendered = {
                    "name": f"{namespace}/{name}/{rule.get('name') or index}",
                    "match": envoy_match(match),
                    **resolved[namespace, name].rules[index],
                }
                entries.append((order, rendered))
    return [rendered for _, rendered in sorted(entries, key=lambda entry: entry[0])]


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
    snapshot: Snapshot, namespace: str, mirror: Object, found: Resolved
) -> list[dict[str, Any]]:
    """A mirror policy. A mirrored pool is balanced round robin: no picker sees the copies."""
    backend = resolve(snapshot, namespace, mirror["backendRef"])
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
