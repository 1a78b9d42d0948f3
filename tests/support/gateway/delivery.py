"""A translation on its way into Envoy, in an order that loses no request."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import structlog

from support.gateway.admin import EnvoyUnreachable
from support.gateway.xds import LISTENERS_STAT, routes_stat

if TYPE_CHECKING:
    from support.gateway.admin import EnvoyAdmin
    from support.gateway.translate import Translation
    from support.gateway.xds import Versions, XdsFiles

_log = structlog.get_logger(__name__)

TAKEN_TIMEOUT_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """Files that Envoy watches, and the interface by which it says what it has taken."""

    _files: XdsFiles
    _admin: EnvoyAdmin
    _stuck: Versions = field(default_factory=dict)
    """Versions that Envoy did not take: one bad route must not delay all others each time."""

    async def apply(self, translation: Translation) -> set[str]:
        """Write the files in order; returns the route configurations that Envoy serves."""
        clusters = self._files.write_clusters(translation, time.monotonic())
        try:
            await self._taken(clusters)
        except EnvoyUnreachable as error:
            # Envoy reads all files when it starts: they may be complete before it runs.
            _log.warning("configuration written, but Envoy did not answer", error=str(error))
        routes = self._files.write_routes(translation)
        try:
            taken = await self._taken(routes)
        except EnvoyUnreachable:
            return set()
        if LISTENERS_STAT not in taken:
            return set()
        return {name for name in translation.route_configs if routes_stat(name) in taken}

    async def _taken(self, wanted: Versions) -> frozenset[str]:
        found = await self._admin.wait_taken(wanted, TAKEN_TIMEOUT_S, stuck=self._stuck)
        for name in sorted(wanted.keys() - found.taken):
            if self._stuck.get(name) != wanted[name]:
                _log.error(
                    "Envoy did not take a configuration; see logs/envoy.log for its reason",
                    subscription=name,
                    refused=name in found.refused,
                )
            self._stuck[name] = wanted[name]
        for name in found.taken:
            self._stuck.pop(name, None)
        return found.taken

    def next_deadline(self) -> float | None:
        """When there is work without any change, by ``time.monotonic``."""
        return self._files.next_deadline()
