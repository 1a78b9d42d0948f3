"""A small asynchronous client of the Kubernetes API that speaks plain dictionaries.

Authentication, TLS and connection handling are those of the official client's asyncio half;
this module adds one method per verb, one error type, and a time limit on every call. Objects
stay dictionaries so that fields unknown to us survive a round trip.
"""

from __future__ import annotations

import asyncio
import enum
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from inference_common.errors import KubeError, KubeUnconfigured, KubeUnreachable
from inference_common.names import FIELD_MANAGER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from kubernetes.aio.client.api_client import ApiClient

Object = dict[str, Any]
DEFAULT_TIMEOUT_S: Final = 15.0
WATCH_TIMEOUT_S: Final = 290
"""How long the API server keeps one watch open; the client reconnects after it."""
_ERROR_STATUS: Final = 400


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource type: group ("" for core), version, plural name, kind."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """``apiVersion`` of its objects."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(
        self, namespace: str | None = None, name: str | None = None, subresource: str | None = None
    ) -> str:
        """URL path of the collection, of one object, or of one of its subresources."""
        parts = ["apis", self.group, self.version] if self.group else ["api", self.version]
        if self.namespaced and namespace is not None:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part is not None]
        return "/" + "/".join(quote(part, safe=":") for part in parts)


NAMESPACE: Final = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
NODE: Final = Resource("", "v1", "nodes", "Node", namespaced=False)
POD: Final = Resource("", "v1", "pods", "Pod")
SERVICE: Final = Resource("", "v1", "services", "Service")
SECRET: Final = Resource("", "v1", "secrets", "Secret")
CONFIGMAP: Final = Resource("", "v1", "configmaps", "ConfigMap")
EVENT: Final = Resource("", "v1", "events", "Event")
LEASE: Final = Resource("coordination.k8s.io", "v1", "leases", "Lease")
DEPLOYMENT: Final = Resource("apps", "v1", "deployments", "Deployment")
REPLICASET: Final = Resource("apps", "v1", "replicasets", "ReplicaSet")
JOB: Final = Resource("batch", "v1", "jobs", "Job")
CRD: Final = Resource(
    "apiextensions.k8s.io",
    "v1",
    "customresourcedefinitions",
    "CustomResourceDefinition",
    namespaced=False,
)
ROLLOUT: Final = Resource("argoproj.io", "v1alpha1", "rollouts", "Rollout")
HTTPROUTE: Final = Resource("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute")
GATEWAY: Final = Resource("gateway.networking.k8s.io", "v1", "gateways", "Gateway")
GATEWAYCLASS: Final = Resource(
    "gateway.networking.k8s.io", "v1", "gatewayclasses", "GatewayClass", namespaced=False
)
INFERENCEPOOL: Final = Resource(
    "inference.networking.k8s.io", "v1", "inferencepools", "InferencePool"
)
INFERENCEPOOL_X: Final = Resource(
    "inference.networking.x-k8s.io", "v1alpha2", "inferencepools", "InferencePool"
)
INFERENCEMODEL: Final = Resource(
    "inference.networking.x-k8s.io", "v1alpha2", "inferencemodels", "InferenceModel"
)
# Its home since it left the Gateway API Inference Extension, and where it was before.
INFERENCEMODELREWRITE: Final = Resource(
    "llm-d.ai", "v1alpha2", "inferencemodelrewrites", "InferenceModelRewrite"
)
INFERENCEMODELREWRITE_X: Final = Resource(
    "inference.networking.x-k8s.io", "v1alpha2", "inferencemodelrewrites", "InferenceModelRewrite"
)
GRPCROUTE: Final = Resource("gateway.networking.k8s.io", "v1", "grpcroutes", "GRPCRoute")


class PatchKind(enum.StrEnum):
    """How a patch is written: its content type."""

    JSON = "application/json-patch+json"
    MERGE = "application/merge-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"
    APPLY = "application/apply-patch+yaml"


class Kube:
    """A connection to one API server. Use ``await Kube.connect()`` and ``await kube.close()``."""

    def __init__(self, api: ApiClient) -> None:
        """Wrap a configured client of the official library."""
        self._api = api
        self._host: str = api.configuration.host

    @classmethod
    async def connect(cls, kubeconfig: str | None = None) -> Self:
        """Connect by the kubeconfig, else by $KUBECONFIG or ~/.kube/config, else in-cluster.

        Raises KubeUnconfigured where none of them says how.
        """
        # The official client takes a third of a second to import: only services pay it.
        from kubernetes.aio import config  # noqa: PLC0415
        from kubernetes.aio.client.api_client import ApiClient  # noqa: PLC0415
        from kubernetes.aio.client.configuration import Configuration  # noqa: PLC0415
        from yaml import YAMLError  # noqa: PLC0415

        configuration = Configuration()
        # Callers decide what is repeated, never the client.
        configuration.retries = None
        configuration.connection_pool_maxsize = 100
        try:
            if kubeconfig is None and not _has_kubeconfig():
                config.load_incluster_config(client_configuration=configuration)
            else:
                await config.load_kube_config(
                    config_file=kubeconfig, client_configuration=configuration
                )
        # TypeError: the client's reader takes any YAML for a mapping.
        except (config.ConfigException, OSError, TypeError, YAMLError) as error:
            raise KubeUnconfigured(error, kubeconfig) from error
        # aiohttp looks the proxy up in a thread, for each request anew: the hop is left out where
        # the environment has none.
        configuration.client_session_kwargs = {"trust_env": has_proxy(configuration.host)}
        return cls(ApiClient(configuration))

    @property
    def host(self) -> str:
        """URL of the API server."""
        return self._host

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Object:
        """One object. Raises KubeError (404 when it does not exist)."""
        return await self._call("GET", resource.path(namespace, name))

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> Object:
        """The List object: ``items`` and ``metadata.resourceVersion``.

        The items of a list lack apiVersion and kind; they are filled in here.
        """
        query = _selectors(label_selector, field_selector)
        found = await self._call("GET", resource.path(namespace), query)
        for item in found.get("items") or []:
            item.setdefault("apiVersion", resource.api_version)
            item.setdefault("kind", resource.kind)
        return found

    async def create(
        self,
        resource: Resource,
        body: Mapping[str, Any],
        namespace: str | None = None,
        name: str | None = None,
        subresource: str | None = None,
        *,
        dry_run: bool = False,
    ) -> Object:
        """Create an object, or post to a subresource (``pods/binding``)."""
        query = {"fieldManager": FIELD_MANAGER} | ({"dryRun": "All"} if dry_run else {})
        path = resource.path(namespace, name, subresource)
        return await self._call("POST", path, query, body)

    async def replace(
        self,
        resource: Resource,
        name: str,
        body: Mapping[str, Any],
        namespace: str | None = None,
        subresource: str | None = None,
    ) -> Object:
        """Replace an object; with its resourceVersion in the body a stale write answers 409."""
        path = resource.path(namespace, name, subresource)
        return await self._call("PUT", path, {"fieldManager": FIELD_MANAGER}, body)

    async def patch(
        self,
        resource: Resource,
        name: str,
        body: Sequence[Any] | Mapping[str, Any],
        namespace: str | None = None,
        *,
        kind: PatchKind = PatchKind.JSON,
        subresource: str | None = None,
        field_manager: str = FIELD_MANAGER,
        dry_run: bool = False,
        force: bool = False,
    ) -> Object:
        """Patch an object and return it as it now is. ``force`` belongs to server-side apply."""
        query = {"fieldManager": field_manager}
        if dry_run:
            query["dryRun"] = "All"
        if force:
            query["force"] = "true"
        path = resource.path(namespace, name, subresource)
        return await self._call("PATCH", path, query, body, content_type=kind.value)

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        grace_period_s: int | None = None,
        uid: str | None = None,
        propagation: str | None = None,
    ) -> Object:
        """Delete an object, with the uid as a precondition where one is given."""
        body: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if grace_period_s is not None:
            body["gracePeriodSeconds"] = grace_period_s
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        if propagation is not None:
            body["propagationPolicy"] = propagation
        return await self._call("DELETE", resource.path(namespace, name), None, body)

    async def raw(self, path: str) -> Object:
        """GET of any path that answers JSON, for example ``/apis/GROUP/VERSION`` (discovery)."""
        return await self._call("GET", path)

    async def serves(self, resource: Resource) -> bool:
        """Whether the API server has this resource type (its CRD is installed) right now."""
        group = f"/apis/{resource.group}" if resource.group else "/api"
        try:
            found = await self._call("GET", f"{group}/{resource.version}")
        except KubeError as error:
            if error.not_found:
                return False
            raise
        return any(entry["name"] == resource.plural for entry in found.get("resources", []))

    async def find(self, group: str, kind: str, version: str = "") -> Resource | None:
        """The resource type of that kind as it is served now, None where it is not.

        In ``version`` if that is served, else in the group's preferred version.
        """
        try:
            found = await self._call("GET", f"/apis/{quote(group)}")
        except KubeError as error:
            if error.not_found:
                return None
            raise
        preferred = found.get("preferredVersion", {}).get("version", "")
        served = [item["version"] for item in found.get("versions", [])]
        for candidate in dict.fromkeys([version, preferred, *served]):
            if candidate not in served:
                continue
            listed = await self._call("GET", f"/apis/{quote(group)}/{quote(candidate)}")
            for entry in listed.get("resources", []):
                if entry["kind"] == kind and "/" not in entry["name"]:
                    return Resource(group, candidate, entry["name"], kind, entry["namespaced"])
        return None

    async def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        resource_version: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        timeout_s: int = WATCH_TIMEOUT_S,
    ) -> AsyncIterator[tuple[str, Object]]:
        """Yield (type, object) until the API server ends the watch.

        Types are ADDED, MODIFIED, DELETED and BOOKMARK. Raises KubeError, with ``expired`` set
        when the version is too old and a new list is needed.
        """
        query = _selectors(label_selector, field_selector) | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(timeout_s),
        }
        if resource_version is not None:
            query["resourceVersion"] = resource_version
        path = resource.path(namespace)
        request = f"WATCH {path}"
        # A connection that died silently would never end: the server's limit plus a margin does.
        limit = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=timeout_s + 15)
        try:
            response = await self._send("GET", path, query, None, None, limit)
            try:
                if response.status >= _ERROR_STATUS:
                    raise _error(response.status, await response.read(), request)
                async for line in response.content:
                    if not line.strip():
                        continue
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        status = event["object"]
                        raise KubeError(
                            int(status.get("code", 500)),
                            str(status.get("reason", "")),
                            str(status.get("message", "")),
                            request,
                        )
                    yield event["type"], event["object"]
            finally:
                _leave(response)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise KubeUnreachable(_text(error), request) from error

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Any,
        content_type: str | None,
        timeout: Any,
    ) -> aiohttp.ClientResponse:
        headers = {"Accept": "application/json"}
        if content_type is not None:
            headers["Content-Type"] = content_type
        token = await self._api.configuration.get_api_key_with_prefix("BearerToken")
        if token:
            headers["Authorization"] = token
        url = f"{self._host}{path}" + (f"?{urlencode(query)}" if query else "")
        response = await self._api.rest_client.request(
            method, url, headers=headers, body=body, _request_timeout=timeout
        )
        # The official client wraps aiohttp's response; the wrapper can't stream.
        inner: aiohttp.ClientResponse = getattr(response, "response", response)
        return inner

    async def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str | None = None,
    ) -> Object:
        request = f"{method} {path}"
        try:
            response = await self._send(method, path, query, body, content_type, DEFAULT_TIMEOUT_S)
            async with asyncio.timeout(DEFAULT_TIMEOUT_S):
                payload = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise KubeUnreachable(_text(error), request) from error
        if response.status >= _ERROR_STATUS:
            raise _error(response.status, payload, request)
        answer: Object = json.loads(payload)
        return answer


def _leave(response: aiohttp.ClientResponse) -> None:
    """Close a response that need not have ended, with its connection.

    A connection that is closed by TLS's rules waits for the peer's farewell, and on a busy machine
    it does so still when the event loop is closed: uvloop fails then, and the process with it.
    """
    connection = response.connection
    if connection is not None and connection.transport is not None:
        connection.transport.abort()
    response.close()


def has_proxy(url: str) -> bool:
    """Whether the environment names a proxy for this URL (HTTPS_PROXY and its like, NO_PROXY)."""
    parts = urlsplit(url)
    return parts.scheme in getproxies() and not proxy_bypass(parts.hostname or "")


def _has_kubeconfig() -> bool:
    import os  # noqa: PLC0415
    from pathlib import Path  # noqa: PLC0415

    return bool(os.environ.get("KUBECONFIG")) or Path("~/.kube/config").expanduser().exists()


def _selectors(label_selector: str | None, field_selector: str | None) -> dict[str, str]:
    pairs = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {key: value for key, value in pairs.items() if value is not None}


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _error(status: int, payload: bytes, request: str) -> KubeError:
    """Read the Status object of a refusal; anything else stays what it is, cut short."""
    try:
        found = json.loads(payload)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        return KubeError(status, "", payload.decode("utf-8", "replace"), request)
    return KubeError(status, str(found.get("reason", "")), str(found.get("message", "")), request)
