"""Envoy's clusters and their endpoints, as dictionaries in proto3 JSON form."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.gateway.resources import (
    BUFFER_BYTES,
    DESTINATION,
    SERVED,
    TYPE,
    Resource,
    address_of,
    file_source,
)

if TYPE_CHECKING:
    from pathlib import PurePath

    from support.gateway.backends import Upstream


def cluster(upstream: Upstream, endpoints: PurePath) -> Resource:
    """A cluster whose endpoints come from the file ``endpoints``.

    It does not change with its endpoints: a changed cluster starts with new connections.
    """
    found: Resource = {
        "@type": f"{TYPE}config.cluster.v3.Cluster",
        "name": upstream.name,
        "type": "EDS",
        "eds_cluster_config": {"eds_config": file_source(endpoints)},
        "connect_timeout": "10s",
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
        # Envoy's default panic mode would send requests to pods known to be bad.
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        # The defaults, 1024 each, turn a queue of slow completions into 503s.
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": 100_000,
                    "max_pending_requests": 100_000,
                    "max_requests": 100_000,
                    "max_retries": 100_000,
                }
            ]
        },
        "load_balancing_policy": {"policies": [_round_robin()]},
    }
    if upstream.picked:
        found["load_balancing_policy"] = {"policies": [_override_host()]}
    protocol: Resource = (
        {"http2_protocol_options": {}} if upstream.http2 else {"http_protocol_options": {}}
    )
    if upstream.tls:
        found["transport_socket"] = _unverified_tls()
    options = f"{TYPE}extensions.upstreams.http.v3.HttpProtocolOptions"
    found["typed_extension_protocol_options"] = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": options,
            "explicit_http_config": protocol,
        }
    }
    return found


def _unverified_tls() -> Resource:
    """TLS as gateways speak it to pickers: nothing is verified (GIE, proposal 004)."""
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{TYPE}extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "common_tls_context": {"alpn_protocols": ["h2"]},
        },
    }


def endpoints(upstream: Upstream) -> Resource:
    """The endpoints of a cluster; an empty list answers 503."""
    return {
        "@type": f"{TYPE}config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": upstream.name,
        "endpoints": [
            {
                "lb_endpoints": [
                    {"endpoint": {"address": address_of(address, port)}}
                    for address, port in upstream.endpoints
                ]
            }
        ]
        if upstream.endpoints
        else [],
    }


def static_cluster(name: str) -> Resource:
    """A cluster without endpoints, for the bootstrap."""
    return {
        "name": name,
        "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": []},
        "connect_timeout": "10s",
    }


def _round_robin() -> Resource:
    return _policy("round_robin", "RoundRobin")


def _override_host() -> Resource:
    """The picker's endpoint by header or metadata, and round robin when it is not usable."""
    policy = _policy("override_host", "OverrideHost")
    policy["typed_extension_config"]["typed_config"] |= {
        "override_host_sources": [
            {"header": DESTINATION},
            {"metadata": {"key": "envoy.lb", "path": [{"key": DESTINATION}]}},
        ],
        "selected_host_key": {"key": "envoy.lb", "path": [{"key": SERVED}]},
        "fallback_policy": {"policies": [_round_robin()]},
    }
    return policy


def _policy(name: str, message: str) -> Resource:
    return {
        "typed_extension_config": {
            "name": f"envoy.load_balancing_policies.{name}",
            "typed_config": {
                "@type": f"{TYPE}extensions.load_balancing_policies.{name}.v3.{message}"
            },
        }
    }
