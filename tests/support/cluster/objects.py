"""What is in the API server before the first user comes: CRDs, roles, namespaces, configuration."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

import yaml

from inference_common.errors import KubeError
from inference_common.kube import CONFIGMAP, CRD, GATEWAYCLASS, NAMESPACE, Kube, Resource
from inference_common.names import PLUGIN_NAME
from support.cluster.control_plane import ARGO_NAMESPACE
from support.cluster.supervisor import ClusterError
from support.repository import MANIFESTS, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from support.toolchain import Toolchain

Object = dict[str, Any]

OUR_CRDS: Final = MANIFESTS / "crds"
OUR_BASE: Final = MANIFESTS / "base"
LOCAL: Final = ROOT / "tests" / "support" / "cluster" / "manifests"

GATEWAY_CLASS: Final = "inference-rollouts-local"
GATEWAY_CONTROLLER: Final = "inference-rollouts.io/local-gateway"

_RBAC: Final = "rbac.authorization.k8s.io"
_RESOURCES: Final = {
    "ServiceAccount": Resource("", "v1", "serviceaccounts", "ServiceAccount"),
    "ConfigMap": CONFIGMAP,
    "Namespace": NAMESPACE,
    "CustomResourceDefinition": CRD,
    "GatewayClass": GATEWAYCLASS,
    "Role": Resource(_RBAC, "v1", "roles", "Role"),
    "RoleBinding": Resource(_RBAC, "v1", "rolebindings", "RoleBinding"),
    "ClusterRole": Resource(_RBAC, "v1", "clusterroles", "ClusterRole", namespaced=False),
    "ClusterRoleBinding": Resource(
        _RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False
    ),
}
# A real installation runs these as pods; here they are processes beside the cluster.
_PROCESSES: Final = {"Deployment", "Service", "Kustomization"}
_POLL_S: Final = 0.1
_PATIENCE_S: Final = 240.0


def custom_resources(tools: Toolchain) -> list[Object]:
    """The CRDs of Argo Rollouts, Gateway API and the inference extension."""
    folders = [
        OUR_CRDS,
        tools.manifests["argo-rollouts-manifests"],
        tools.manifests["gateway-api-manifests"],
    ]
    found = [item for folder in folders for item in read_folder(folder)]
    return [
        without_descriptions(item) for item in found if item["kind"] == "CustomResourceDefinition"
    ]


def installation(tools: Toolchain) -> list[Object]:
    """What a user installs of Argo Rollouts and of us, and the roles of the local processes."""
    argo = read_folder(tools.manifests["argo-rollouts-manifests"])
    ours = read_folder(OUR_BASE)
    wanted = [
        item
        for item in (*argo, *ours, *read_folder(LOCAL))
        if item["kind"] not in _PROCESSES | {"CustomResourceDefinition", "ConfigMap"}
    ]
    # kustomize sets the namespace of both installations; bare files carry none.
    for item in wanted:
        if _RESOURCES[item["kind"]].namespaced:
            item["metadata"].setdefault("namespace", ARGO_NAMESPACE)
    order = list(_RESOURCES)
    namespaces = [item for item in wanted if item["kind"] == "Namespace"]
    rest = [item for item in wanted if item["kind"] != "Namespace"]
    return [*namespaces, *sorted(rest, key=lambda item: order.index(item["kind"]))]


def argo_config(bridge: Path, socket: Path) -> Object:
    """Return the ConfigMap that makes the controller load our bridge."""
    plugin = {
        "name": PLUGIN_NAME,
        "location": f"file://{bridge}",
        "args": ["--server", f"unix:{socket}"],
    }
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "argo-rollouts-config", "namespace": ARGO_NAMESPACE},
        "data": {"trafficRouterPlugins": yaml.safe_dump([plugin], sort_keys=False)},
    }


def gateway_class() -> Object:
    """Return the class of the gateways that the local gateway controller serves."""
    return {
        "apiVersion": GATEWAYCLASS.api_version,
        "kind": GATEWAYCLASS.kind,
        "metadata": {"name": GATEWAY_CLASS},
        "spec": {"controllerName": GATEWAY_CONTROLLER},
    }


async def create_all(kube: Kube, objects: Iterable[Object]) -> None:
    """Create objects side by side; one that exists already stays as it is."""
    await asyncio.gather(*(create(kube, item) for item in objects))


async def established(kube: Kube, names: Iterable[str]) -> None:
    """Wait until these CRDs are served. Raises ClusterError when some are not in time."""
    end = time.monotonic() + _PATIENCE_S
    waiting = set(names)
    while True:
        for item in (await kube.list(CRD))["items"]:
            conditions = (item.get("status") or {}).get("conditions") or []
            if any(c["type"] == "Established" and c["status"] == "True" for c in conditions):
                waiting.discard(item["metadata"]["name"])
        if not waiting:
            return
        if time.monotonic() > end:
            raise ClusterError(f"CRDs not established: {', '.join(sorted(waiting))}")
        await asyncio.sleep(_POLL_S)


async def create(kube: Kube, item: Object) -> None:
    """Create an object, for as long as it takes the API server to be ready for it.

    It may answer 404 for a blink after it has established a CRD, and on a busy machine a CRD of
    600 kB may take it longer than one request lasts.
    """
    resource = _RESOURCES[item["kind"]]
    namespace = item["metadata"].get("namespace") if resource.namespaced else None
    end = time.monotonic() + _PATIENCE_S
    while True:
        try:
            await kube.create(resource, item, namespace)
        except KubeError as error:
            if error.conflict:  # it is there already
                return
            if not (error.not_found or error.retryable) or time.monotonic() > end:
                raise
            await asyncio.sleep(_POLL_S)
        else:
            return


def without_descriptions(value: Any) -> Any:
    """Return a schema without its prose: three quarters of a CRD that the API server carries."""
    match value:
        case dict():
            return {
                key: without_descriptions(item)
                for key, item in value.items()
                # A property may be called description; its schema is no text.
                if not (key == "description" and isinstance(item, str))
            }
        case list():
            return [without_descriptions(item) for item in value]
        case _:
            return value


def read_folder(folder: Path) -> list[Object]:
    """Read every object of the YAML files of one folder, not of its subfolders."""
    return [item for file in sorted(folder.glob("*.yaml")) for item in _read(file)]


def _read(file: Path) -> Iterator[Object]:
    # libyaml: the CRDs of Argo are 3 MB, which takes pure Python ten seconds.
    with file.open("rb") as stream:
        for item in yaml.load_all(stream, Loader=yaml.CSafeLoader):
            if item is not None:
                yield item
