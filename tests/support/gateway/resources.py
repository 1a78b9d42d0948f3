"""Envoy's listeners, filters and per-route settings, as dictionaries in proto3 JSON form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pathlib import PurePath

    from support.gateway.backends import Backend

Resource = dict[str, Any]

DESTINATION: Final = "x-gateway-destination-endpoint"
"""Header and ``envoy.lb`` metadata key by which a picker names endpoints (GIE proposal 004)."""
SERVED: Final = f"{DESTINATION}-served"
"""``envoy.lb`` metadata key of the endpoint that really served, after fallback and retries."""
EXT_PROC: Final = "envoy.filters.http.ext_proc"
FAULT: Final = "envoy.filters.http.fault"
NO_PICKER_CLUSTER: Final = "no-picker"
NO_BACKEND_CLUSTER: Final = "no-backend"
BUFFER_BYTES: Final = 20 * 1024 * 1024
"""Largest request body that a picker can read; Envoy answers 413 above it."""
PICKER_TIMEOUT: Final = "30s"
TYPE: Final = "type.googleapis.com/envoy."

RETRY_POLICY: Final[Resource] = {
    # A pod that goes away leaves the endpoints at once, yet a request may already be on its way:
    # the connection is refused (connect-failure), the stream is (refused-stream), or the idle
    # connection that Envoy reuses is closed in that very moment (reset: no byte of an answer has
    # come; reset-before-request is the part of it where nothing was sent either). A completion
    # has no effect but its answer, so it is repeated on another pod. Once response headers have
    # arrived nothing is repeated: a broken stream stays visible as one.
    "retry_on": "connect-failure,refused-stream,reset-before-request,reset",
    "num_retries": 3,
    "retry_host_predicate": [
        {
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {
                "@type": f"{TYPE}extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
            },
        }
    ],
    "host_selection_retry_max_attempts": 5,
    "retry_back_off": {"base_interval": "0.005s", "max_interval": "0.1s"},
}


def listener(
    *, name: str, address: str, port: int, route_config: str, routes: PurePath, access_log: PurePath
) -> Resource:
    """A plain HTTP listener whose routes come from the file ``routes``.

    It changes with its address only, never with routes: a changed listener drains connections.
    """
    manager = {
        "@type": f"{TYPE}extensions.filters.network.http_connection_manager.v3"
        ".HttpConnectionManager",
        "stat_prefix": name.replace("/", "_"),
        "rds": {"route_config_name": route_config, "config_source": file_source(routes)},
        # No route timeout: a stream lasts as long as the model talks. What ends a dead one is
        # silence, and an hour of it exceeds any prefill.
        "stream_idle_timeout": "3600s",
        "request_timeout": "0s",
        "early_header_mutation_extensions": [
            {
                "name": "envoy.http.early_header_mutation.header_mutation",
                "typed_config": {
                    "@type": f"{TYPE}extensions.http.early_header_mutation.header_mutation.v3"
                    ".HeaderMutation",
                    # A client must not choose a pod past the picker.
                    "mutations": [{"remove": DESTINATION}],
                },
            }
        ],
        "http_filters": [_fault_filter(), _ext_proc_filter(), _router_filter()],
        "access_log": [_access_log(access_log)],
    }
    return {
        "@type": f"{TYPE}config.listener.v3.Listener",
        "name": name,
        "address": address_of(address, port),
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": manager,
                    }
                ]
            }
        ],
    }


def picker_override(backend: Backend) -> Resource:
    """``typed_per_filter_config`` of a weighted cluster: its own picker, or none.

    It stands on the weighted cluster, not on the route: Envoy takes the most specific one once
    it has drawn the cluster, which is how two pools of one rule keep a picker each.
    """
    if backend.picker is None:
        return {}
    return {
        EXT_PROC: {
            "@type": f"{TYPE}extensions.filters.http.ext_proc.v3.ExtProcPerRoute",
            "overrides": {
                "grpc_service": {
                    "envoy_grpc": {"cluster_name": backend.picker.name},
                    "timeout": PICKER_TIMEOUT,
                },
                "failure_mode_allow": backend.fail_open,
            },
        }
    }


def abort(status: int) -> Resource:
    """``typed_per_filter_config`` that answers every request with this status."""
    return {
        FAULT: {
            "@type": f"{TYPE}extensions.filters.http.fault.v3.HTTPFault",
            "abort": {
                "http_status": status,
                "percentage": {"numerator": 100, "denominator": "HUNDRED"},
            },
        }
    }


def file_source(path: PurePath) -> Resource:
    """A config source that Envoy re-reads whenever a file is renamed onto ``path``.

    Without ``watched_directory`` it reacts to this one name only; with it, every rename in the
    directory would make it read every file there again.
    """
    return {"resource_api_version": "V3", "path_config_source": {"path": str(path)}}


def _ext_proc_filter() -> Resource:
    """The picker's filter, off unless a weighted cluster names a picker.

    Body BUFFERED on the way in, headers and trailers on the way out, and the picker may ask for
    the response body per request (mode_override): the cheapest mode that still tells the exact
    end of each response (measured: 1 ms of server time per request, 31 ms in full duplex).
    """
    return {
        "name": EXT_PROC,
        "disabled": True,
        "typed_config": {
            "@type": f"{TYPE}extensions.filters.http.ext_proc.v3.ExternalProcessor",
            "grpc_service": {
                "envoy_grpc": {"cluster_name": NO_PICKER_CLUSTER},
                "timeout": PICKER_TIMEOUT,
            },
            "processing_mode": {
                "request_header_mode": "SEND",
                "request_body_mode": "BUFFERED",
                "request_trailer_mode": "SKIP",
                "response_header_mode": "SEND",
                "response_body_mode": "NONE",
                "response_trailer_mode": "SEND",
            },
            "allow_mode_override": True,
            "message_timeout": PICKER_TIMEOUT,
            # Pickers rewrite :path-independent headers, but also remove the length of a body
            # that they changed: everything except Envoy's own headers is theirs.
            "mutation_rules": {"allow_all_routing": True, "allow_envoy": False},
            "response_attributes": ["upstream.address"],
            "metadata_options": {
                "forwarding_namespaces": {"untyped": ["envoy.lb", "envoy.lb.subset_hint"]},
                "receiving_namespaces": {"untyped": ["envoy.lb"]},
            },
        },
    }


def _fault_filter() -> Resource:
    return {
        "name": FAULT,
        "disabled": True,
        "typed_config": {"@type": f"{TYPE}extensions.filters.http.fault.v3.HTTPFault"},
    }


def _router_filter() -> Resource:
    return {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": f"{TYPE}extensions.filters.http.router.v3.Router"},
    }


def address_of(address: str, port: int) -> Resource:
    """A socket address."""
    return {"socket_address": {"address": address, "port_value": port}}


def _access_log(path: PurePath) -> Resource:
    return {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": f"{TYPE}extensions.access_loggers.file.v3.FileAccessLog",
            "path": str(path),
            "log_format": {
                "json_format": {
                    "time": "%START_TIME%",
                    "method": "%REQ(:METHOD)%",
                    "path": "%REQ(:PATH)%",
                    "status": "%RESPONSE_CODE%",
                    "flags": "%RESPONSE_FLAGS%",
                    "details": "%RESPONSE_CODE_DETAILS%",
                    "duration_ms": "%DURATION%",
                    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
                    "route": "%ROUTE_NAME%",
                    "cluster": "%UPSTREAM_CLUSTER_RAW%",
                    "host": "%UPSTREAM_HOST%",
                    "request_id": "%REQ(X-REQUEST-ID)%",
                }
            },
        },
    }
