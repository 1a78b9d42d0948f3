"""The loop: watched objects -> files for Envoy -> what Envoy has taken -> statuses."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import aiohttp
import structlog

from inference_common.errors import KubeError
from inference_common.kube import (
    GATEWAY,
    GATEWAYCLASS,
    GRPCROUTE,
    HTTPROUTE,
    INFERENCEPOOL,
    INFERENCEPOOL_X,
    POD,
    SERVICE,
    Kube,
    PatchKind,
    Resource,
)
from inference_common.watching import WatchCache
from support.gateway.admin import EnvoyAdmin
from support.gateway.bootstrap import Layout, admin_url
from support.gateway.delivery import Delivery
from support.gateway.snapshot import Snapshot, group_of, key_of
from support.gateway.statuses import merged
from support.gateway.translate import translate
from support.gateway.xds import XdsFiles

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from support.gateway.statuses import Desired

_log = structlog.get_logger(__name__)

WATCHED: Final = (
    *(GATEWAYCLASS, GATEWAY, HTTPROUTE, GRPCROUTE, INFERENCEPOOL, INFERENCEPOOL_X, SERVICE, POD),
)
FIELD_MANAGER: Final = "inference-rollouts-local-gateway"
DEBOUNCE_S: Final = 0.015
"""A Deployment's pods change in bursts: one translation then serves them all."""
RETRY_S: Final = 1.0
_DISCOVERY_S: Final = 2.0


class Controller:
    """Keeps one Envoy and the statuses in step with the API server."""

    def __init__(self, kube: Kube, network: str, delivery: Delivery) -> None:
        """``network``: 127.A.0.0/16, of which 127.A.255.N are the gateways' addresses."""
        self._kube = kube
        self._network = network
        self._delivery = delivery
        self._changed = asyncio.Event()
        self._caches = {resource: WatchCache(kube, resource) for resource in WATCHED}
        for cache in self._caches.values():
            cache.subscribe(lambda *_: self._changed.set())

    async def run(self) -> None:
        """Run until cancelled."""
        async with AsyncExitStack() as stack:
            for cache in self._caches.values():
                await stack.enter_async_context(cache)
            # Before everything is known, a translation would take away what Envoy serves.
            await asyncio.gather(*(self._first_list(cache) for cache in self._caches.values()))
            _log.info("gateway controller started", network=self._network)
            self._changed.set()
            while True:
                await self._wait_for_change()
                self._changed.clear()
                if not await self.reconcile():
                    await self._wait_for_change(RETRY_S)
                    self._changed.set()

    async def reconcile(self) -> bool:
        """Translate what is known now and bring it to Envoy and the API server, once.

        Returns False when something must be tried again although no object changes.
        """
        translation = translate(self._snapshot())
        taken = await self._delivery.apply(translation)
        ready = [found for found in translation.statuses if found.after <= taken]
        written = await asyncio.gather(*(self._write_status(found) for found in ready))
        return all(written) and len(ready) == len(translation.statuses)

    async def _write_status(self, desired: Desired) -> bool:
        """Write one status where it differs; False when it must be tried again."""
        status = merged(desired, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
        if status is None:
            return True
        resource = _resource_of(desired.obj)
        namespace, name = key_of(desired.obj)
        # The version makes it certain that the status speaks of the object that was translated.
        version = desired.obj["metadata"]["resourceVersion"]
        try:
            answer = await self._kube.patch(
                resource,
                name,
                {"metadata": {"resourceVersion": version}, "status": status},
                namespace or None,
                kind=PatchKind.MERGE,
                subresource="status",
                field_manager=FIELD_MANAGER,
            )
        except KubeError as error:
            if error.conflict or error.not_found:
                # A newer version is on its way through the watch, and with it a newer status.
                return True
            _log.warning("status not written", kind=desired.kind, name=name, error=str(error))
            return False
        self._caches[resource].put(answer)
        return True

    def _snapshot(self) -> Snapshot:
        return Snapshot.of(
            self._network, (obj for cache in self._caches.values() for obj in cache.items())
        )

    async def _wait_for_change(self, limit_s: float | None = None) -> None:
        """Wait for a change, then for the end of its burst; or until there is work by the clock."""
        deadline = self._delivery.next_deadline()
        limits = [limit_s] if limit_s is not None else []
        if deadline is not None:
            limits.append(max(0.0, deadline - time.monotonic()))
        try:
            async with asyncio.timeout(min(limits, default=None)):
                await self._changed.wait()
        except TimeoutError:
            return
        await asyncio.sleep(DEBOUNCE_S)

    async def _first_list(self, cache: WatchCache) -> None:
        """Wait for a type's first list, unless the API server does not have the type."""
        while True:
            try:
                async with asyncio.timeout(_DISCOVERY_S):
                    await cache.synced()
                    return
            except TimeoutError:
                try:
                    served = await self._kube.serves(cache.resource)
                except KubeError:
                    continue
                if not served:
                    _log.warning("resource type is not installed", type=cache.resource.plural)
                    return


async def serve(kubeconfig: str | None, network: str, state_dir: Path) -> None:
    """Run the controller of the Envoy whose bootstrap lies in ``state_dir``."""
    kube = await Kube.connect(kubeconfig)
    try:
        async with aiohttp.ClientSession() as session:
            admin = EnvoyAdmin(admin_url(state_dir), session)
            delivery = Delivery(XdsFiles(Layout(state_dir)), admin)
            await Controller(kube, network, delivery).run()
    finally:
        await kube.close()


def _resource_of(obj: dict[str, Any]) -> Resource:
    return next(
        resource
        for resource in WATCHED
        if (resource.group, resource.kind) == (group_of(obj), obj["kind"])
    )
