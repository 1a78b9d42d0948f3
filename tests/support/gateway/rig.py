"""A real Envoy behind the translation, with small upstreams and pickers: no cluster needed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import aiohttp

from support.cluster.layout import clusters_folder
from support.cluster.network import claim_network
from support.gateway import samples
from support.gateway.admin import EnvoyAdmin, EnvoyUnreachable
from support.gateway.bootstrap import Layout, admin_url, envoy_command, write_bootstrap
from support.gateway.delivery import Delivery
from support.gateway.snapshot import Snapshot
from support.gateway.translate import Translation, translate
from support.gateway.xds import XdsFiles

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from support.gateway.snapshot import Object

PORT = 8080
UPSTREAM_PORT = 8000
PICKER_PORT = 9002
_START_S = 120.0
DESTINATION = "x-gateway-destination-endpoint"


@dataclass(slots=True)
class Rig:
    """One Envoy in a network of its own: ``async with Rig.at(folder) as rig``."""

    state_dir: Path
    network: str
    session: aiohttp.ClientSession
    delivery: Delivery
    admin: EnvoyAdmin

    @classmethod
    @contextlib.asynccontextmanager
    async def at(cls, folder: Path) -> AsyncIterator[Self]:
        """Start Envoy with its files below ``folder``, in a network that no cluster has."""
        claim = claim_network(clusters_folder() / "networks")
        state_dir = folder / "state"
        write_bootstrap(state_dir, claim.network.host, 9901)
        log = (state_dir / "envoy" / "envoy.log").open("wb")
        process = subprocess.Popen(envoy_command(state_dir), stdout=log, stderr=log)  # noqa: ASYNC220
        try:
            async with aiohttp.ClientSession() as session:
                admin = EnvoyAdmin(admin_url(state_dir), session)
                delivery = Delivery(XdsFiles(Layout(state_dir)), admin)
                rig = cls(state_dir, claim.network.cidr, session, delivery, admin)
                await rig._answering()
                yield rig
        finally:
            process.terminate()
            await asyncio.to_thread(process.wait)
            log.close()
            claim.lock.close()

    def pod_ip(self, number: int) -> str:
        """Address of a pod, 1 to 254."""
        return f"{self.network.removesuffix('.0.0/16')}.1.{number}"

    @property
    def url(self) -> str:
        """URL of the gateway ``gw``."""
        return f"http://{self.network.removesuffix('.0.0/16')}.255.1:{PORT}"

    async def apply(self, *objects: Object) -> tuple[Translation, set[str]]:
        """Bring a class, a gateway and these objects to Envoy; returns what it serves."""
        everything = (samples.gateway_class(), samples.gateway(), *objects)
        translation = translate(Snapshot.of(self.network, everything))
        return translation, await self.delivery.apply(translation)

    async def post(self, path: str = "/v1/completions", **more: Any) -> tuple[int, Any]:
        """POST a small JSON body; returns the status and the answer, parsed where it is JSON."""
        async with self.session.post(f"{self.url}{path}", json={"n": 1}, **more) as answer:
            text = await answer.text()
            try:
                return answer.status, json.loads(text)
            except ValueError:
                return answer.status, text

    def expire_clusters(self) -> None:
        """Let the next ``apply`` remove the clusters that no route names."""
        files = self.delivery._files
        files._leaving = dict.fromkeys(files._leaving, 0.0)

    async def clusters(self) -> set[str]:
        """Names of the clusters that Envoy got by file and still routes to."""
        async with self.session.get(
            f"{self.admin.url}/config_dump", params={"resource": "dynamic_active_clusters"}
        ) as answer:
            found = await answer.json(content_type=None)
        return {entry["cluster"]["name"] for entry in found.get("configs", ())}

    async def logged(self, path: str) -> dict[str, Any]:
        """The access log's entry of a request to ``path``; Envoy writes it after a moment."""
        log = self.state_dir / "envoy" / "access.log"
        async with asyncio.timeout(_START_S):
            while True:
                for line in log.read_text().splitlines() if log.exists() else ():
                    entry: dict[str, Any] = json.loads(line)
                    if entry["path"] == path:
                        return entry
                await asyncio.sleep(0.1)

    async def _answering(self) -> None:
        async with asyncio.timeout(_START_S):
            while True:
                try:
                    await self.admin.subscriptions()
                except EnvoyUnreachable:
                    await asyncio.sleep(0.02)
                else:
                    return
