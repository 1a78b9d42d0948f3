"""The files that Envoy watches: written only when they change, in an order that costs nothing.

Files have no order among themselves as streams of an xDS server have. So endpoints come before
the clusters that need them, clusters before the routes that name them, and a cluster that no
route names any more stays for a while: requests that chose it are still with their picker.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from support.gateway import resources, upstreams

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from support.gateway.bootstrap import Layout
    from support.gateway.translate import Translation

LINGER_S: Final = 10.0
"""How long a cluster outlives its last route: twice a picker's time limit, and no longer.

Envoy takes an inotify instance for each file that it subscribes to, and Linux allows a user 128
of them unless told otherwise; Envoy aborts when it gets none.
"""
CLUSTERS_STAT: Final = "cluster_manager.cds"
LISTENERS_STAT: Final = "listener_manager.lds"

Versions = dict[str, str]
"""Statistics prefix of a subscription in Envoy -> version written for it."""


def routes_stat(name: str) -> str:
    """Statistics prefix of a route configuration's subscription."""
    return f"http.{name.replace('/', '_')}.rds.{name}"


def endpoints_stat(name: str) -> str:
    """Statistics prefix of a cluster's endpoint subscription."""
    return f"cluster.{name}"


@dataclass(slots=True)
class XdsFiles:
    """Writes translations below ``layout``; what lies there already is taken over."""

    layout: Layout
    _clusters: dict[str, dict[str, Any]] = field(default_factory=dict)
    _leaving: dict[str, float] = field(default_factory=dict)
    """Clusters without a route, with the time at which they go."""

    def __post_init__(self) -> None:
        """Take over the clusters of an earlier run, so that none ends in mid-request."""
        if self.layout.clusters.exists():
            found = json.loads(self.layout.clusters.read_text())["resources"]
            self._clusters = {cluster["name"]: cluster for cluster in found}

    def write_clusters(self, translation: Translation, now: float) -> Versions:
        """Write endpoints, then clusters. ``now`` in seconds of any steady clock.

        Returns the versions of the clusters, and of the endpoints of new clusters: what Envoy
        must have before a route may name them.
        """
        fresh: Versions = {}
        wanted = translation.upstreams
        for name, upstream in wanted.items():
            path = self.layout.endpoints(name)
            version = _put(path, [upstreams.endpoints(upstream)])
            if name not in self._clusters:
                fresh[endpoints_stat(name)] = version
        for name in self._clusters:
            if name in wanted:
                self._leaving.pop(name, None)
            else:
                self._leaving.setdefault(name, now + LINGER_S)
        gone = [name for name, deadline in self._leaving.items() if deadline <= now]
        kept = {name: found for name, found in self._clusters.items() if name not in gone}
        self._clusters = kept | {
            name: upstreams.cluster(upstream, self.layout.endpoints(name))
            for name, upstream in wanted.items()
        }
        version = _put(
            self.layout.clusters, [self._clusters[name] for name in sorted(self._clusters)]
        )
        for name in gone:
            del self._leaving[name]
            self.layout.endpoints(name).unlink(missing_ok=True)
        return fresh | {CLUSTERS_STAT: version}

    def write_routes(self, translation: Translation) -> Versions:
        """Write route configurations, then listeners; returns the versions of both."""
        versions = {
            routes_stat(name): _put(self.layout.routes(name), [found])
            for name, found in translation.route_configs.items()
        }
        listeners = [
            resources.listener(
                name=spec.name,
                address=spec.address,
                port=spec.port,
                route_config=spec.name,
                routes=self.layout.routes(spec.name),
                access_log=self.layout.access_log,
            )
            for spec in translation.listeners
        ]
        versions[LISTENERS_STAT] = _put(self.layout.listeners, listeners)
        self._sweep(translation.route_configs)
        return versions

    def next_deadline(self) -> float | None:
        """When the next cluster without a route may go; None when there is none."""
        return min(self._leaving.values(), default=None)

    def _sweep(self, wanted: Iterable[str]) -> None:
        """Remove the routes of listeners that are gone."""
        keep = {self.layout.routes(name) for name in wanted}
        for path in (self.layout.root / "rds").rglob("*.json"):
            if path not in keep:
                path.unlink()


def _put(path: Path, found: list[dict[str, Any]]) -> str:
    """Write a DiscoveryResponse unless it is there already; returns its version.

    The version is the content's digest. The file is complete before it gets its name: Envoy
    reads at the rename.
    """
    body = json.dumps(found, sort_keys=True)
    version = hashlib.sha256(body.encode()).hexdigest()[:16]
    text = json.dumps({"version_info": version, "resources": found}, sort_keys=True, indent=1)
    if path.exists() and path.read_text() == text:
        return version
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text)
    os.replace(temporary, path)  # noqa: PTH105 - the rename is the point
    return version
