"""Destinations of traffic: backendRefs of a route, matched on all that identifies them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from inference_common.kube import INFERENCEPOOL, INFERENCEPOOL_X, SERVICE
from inference_plugin.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection

    from inference_common.kube import Resource

Object = dict[str, Any]
_RESOURCES: Final = {
    (resource.group, resource.kind): resource
    for resource in (SERVICE, INFERENCEPOOL, INFERENCEPOOL_X)
}


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Backend:
    """One backend object: what a backendRef points to, its port left aside."""

    group: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"

    @property
    def resource(self) -> Resource:
        """The resource type, for reading the object."""
        return _RESOURCES[self.group, self.kind]


def backend_of_item(item: str) -> Backend | None:
    """The backend that ``kind.group/namespace/name`` stands for; None for a name of a target."""
    if item.count("/") != 2:  # noqa: PLR2004 - three parts
        return None
    head, namespace, name = item.split("/")
    kind, _, group = head.partition(".")
    if (group, kind) not in _RESOURCES:
        return None
    return Backend(group=group, kind=kind, namespace=namespace, name=name)


def backend_of(ref: Object, namespace: str) -> Backend:
    """The backend that a backendRef in a route of that namespace points to (API defaults)."""
    return Backend(
        group=ref.get("group") or "",
        kind=ref.get("kind") or "Service",
        namespace=ref.get("namespace") or namespace,
        name=ref["name"],
    )


def new_ref(
    backend: Backend, namespace: str, sibling: Object | None, ports: Collection[int] = ()
) -> Object:
    """A backendRef to add to a route of that namespace, without a weight.

    A Service needs a port (gateway-api apis/v1/object_reference_types.go): the one of
    ``sibling``, a managed backendRef of the same rule, unless ``ports`` of the Service are known
    and it is none of them.
    """
    ref: Object = {"group": backend.group, "kind": backend.kind, "name": backend.name}
    if backend.namespace != namespace:
        ref["namespace"] = backend.namespace
    port = (sibling or {}).get("port")
    if ports and port not in ports:
        if len(ports) > 1:
            raise ConfigError(
                f"{backend} can't be added to the route: it has the ports "
                f"{', '.join(map(str, ports))}, and no other managed backendRef of the rule names "
                "one of them. Declare one port in the template's containers."
            )
        [port] = ports
    if port is not None:
        ref["port"] = port
    elif backend.kind == "Service":
        raise ConfigError(
            f"{backend} can't be added to the route: a Service needs a port, and no other managed "
            f"backendRef of the rule has one. Add a backendRef to {backend.name} with its port."
        )
    return ref
