"""The directory of a pod: its volumes, its kubeconfig, its logs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from inference_common.errors import KubeError
from support.nodeagent.commands import Place
from support.nodeagent.environment import ConfigError, service_variables
from support.nodeagent.fields import FieldError
from support.nodeagent.moments import now_utc
from support.nodeagent.volumes import (
    TokenRequest,
    files_of,
    place_of,
    remove_volumes,
    sources_of,
    token_requests,
    volume_references,
    write_volume,
)
from support.nodeagent.writes import FIRST_RETRY_S, LAST_RETRY_S

if TYPE_CHECKING:
    from pathlib import Path

    from support.nodeagent.api import PodApi, Token

PodNow = Callable[[], Mapping[str, Any]]
"""Gives the newest version of the pod."""
Report = Callable[[str], None]
"""Hears why volumes could not be written."""

_TROUBLE: Final = (ConfigError, FieldError, KubeError, OSError)
REFRESH_S: Final = 60.0
"""How often ConfigMap, Secret and downwardAPI volumes are brought up to date."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """How a pod reaches the API server: host, port, file with the CA's certificate."""

    host: str
    port: int
    ca_file: Path


def pod_directory(root: Path, pod: Mapping[str, Any]) -> Path:
    """``root/pods/<namespace>_<name>_<uid>``."""
    metadata = pod["metadata"]
    return root / "pods" / f"{metadata['namespace']}_{metadata['name']}_{metadata['uid']}"


def kubeconfig(cluster: Cluster, namespace: str, token_file: Path) -> str:
    """A kubeconfig (as JSON, which is YAML) that uses a token file and verifies the server."""
    entry = {"cluster": "local", "user": "pod", "namespace": namespace}
    server = f"https://{cluster.host}:{cluster.port}"
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "local",
                    "cluster": {"server": server, "certificate-authority": str(cluster.ca_file)},
                }
            ],
            "users": [{"name": "pod", "user": {"tokenFile": str(token_file)}}],
            "contexts": [{"name": "pod", "context": entry}],
            "current-context": "pod",
        },
        indent=1,
    )


class PodPlace:
    """Keeps a pod's volumes on disk and its tokens fresh."""

    def __init__(
        self, directory: Path, cluster: Cluster, allocatable: Mapping[str, str], api: PodApi
    ) -> None:
        """Nothing is written before ``prepare``."""
        self._directory = directory
        self._cluster = cluster
        self._allocatable = allocatable
        self._api = api
        self._tokens: dict[TokenRequest, Token] = {}

    async def settle(self, pod: PodNow, trouble: Report) -> Place:
        """Write the volumes, as soon as everything that they show is there; say where they are."""
        delay_s = FIRST_RETRY_S
        while True:
            try:
                return await self._prepare(pod())
            except _TROUBLE as error:
                if delay_s > FIRST_RETRY_S:
                    # The first attempt often meets a namespace whose CA is still on its way.
                    trouble(str(error))
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, LAST_RETRY_S)

    async def keep(self, pod: PodNow, trouble: Report) -> None:
        """Keep the volumes up to date for as long as the pod lives."""
        while True:
            await self._until_refresh(pod())
            try:
                await self.refresh(pod())
            except _TROUBLE as error:
                trouble(str(error))
                await asyncio.sleep(LAST_RETRY_S)

    async def _prepare(self, pod: Mapping[str, Any]) -> Place:
        await self.refresh(pod)
        volumes = pod["spec"].get("volumes") or []
        return Place(
            directory=self._directory,
            volumes={one["name"]: place_of(one, self._directory) for one in volumes},
            kubeconfig=self._write_kubeconfig(pod),
            services=service_variables(self._cluster.host, self._cluster.port),
            allocatable=self._allocatable,
        )

    async def refresh(self, pod: Mapping[str, Any]) -> None:
        """Bring the volumes up to date, with new tokens where 80 % of their life is over.

        Raises ConfigError or FieldError for what is missing or not supported, KubeError, OSError.
        """
        contents = await self._api.contents(pod["metadata"]["namespace"], volume_references(pod))
        for request in token_requests(pod):
            held = self._tokens.get(request)
            if held is None or held.renew_at <= now_utc():
                self._tokens[request] = await self._api.token(pod, request)
        tokens = {request: token.text for request, token in self._tokens.items()}
        self._directory.mkdir(parents=True, exist_ok=True)
        for volume in pod["spec"].get("volumes") or []:
            files = files_of(pod, volume, contents, tokens, self._allocatable)
            write_volume(volume, place_of(volume, self._directory), files)

    async def _until_refresh(self, pod: Mapping[str, Any]) -> None:
        """Wait until something may have to be written again; forever where nothing will."""
        delays = [
            max(1.0, (token.renew_at - now_utc()).total_seconds())
            for token in self._tokens.values()
        ]
        if _changes_by_itself(pod):
            delays.append(REFRESH_S)
        if not delays:
            await asyncio.Event().wait()
        await asyncio.sleep(min(delays))

    def remove(self) -> None:
        """Remove everything but the logs."""
        remove_volumes(self._directory)

    def _write_kubeconfig(self, pod: Mapping[str, Any]) -> Path | None:
        for volume in pod["spec"].get("volumes") or []:
            for kind, body in sources_of(volume):
                if kind == "serviceAccountToken" and not body.get("audience"):
                    token_file = place_of(volume, self._directory) / body["path"]
                    namespace = pod["metadata"]["namespace"]
                    path = self._directory / "kubeconfig"
                    path.write_text(kubeconfig(self._cluster, namespace, token_file))
                    return path
        return None


def _changes_by_itself(pod: Mapping[str, Any]) -> bool:
    """Whether a volume shows an object that may change; the cluster's CA never does."""
    kinds = {
        kind
        for volume in pod["spec"].get("volumes") or []
        for kind, body in sources_of(volume)
        if kind != "configMap" or body.get("name") != "kube-root-ca.crt"
    }
    # Labels and annotations are shown as they are at the moment of a refresh.
    return bool(kinds & {"configMap", "secret"}) or _shows_metadata(pod)


def _shows_metadata(pod: Mapping[str, Any]) -> bool:
    return any(
        (item.get("fieldRef") or {}).get("fieldPath", "").startswith(("metadata.l", "metadata.a"))
        for volume in pod["spec"].get("volumes") or []
        for kind, body in sources_of(volume)
        if kind == "downwardAPI"
        for item in body.get("items") or []
    )
