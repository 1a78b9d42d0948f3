"""The watched objects at one moment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Object = dict[str, Any]
Key = tuple[str, str]
"""Namespace and name."""
RouteKey = tuple[str, str, str]
"""Kind, namespace and name: routes of two kinds may have one name."""

CONTROLLER_NAME: Final = "inference-rollouts.io/local-gateway"
"""``GatewayClass.spec.controllerName`` of the classes that this controller serves."""
POOL_GROUP: Final = "inference.networking.k8s.io"
POOL_GROUP_X: Final = "inference.networking.x-k8s.io"
GATEWAY_GROUP: Final = "gateway.networking.k8s.io"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Objects of every watched type. ``network`` is the cluster's 127.A.0.0/16."""

    network: str
    classes: Mapping[str, Object] = field(default_factory=dict)
    gateways: Mapping[Key, Object] = field(default_factory=dict)
    routes: Mapping[RouteKey, Object] = field(default_factory=dict)
    pools: Mapping[tuple[str, str, str], Object] = field(default_factory=dict)
    """By group, namespace, name."""
    services: Mapping[Key, Object] = field(default_factory=dict)
    pods: Mapping[str, tuple[Object, ...]] = field(default_factory=dict)
    """By namespace."""

    @classmethod
    def of(cls, network: str, objects: Iterable[Object]) -> Snapshot:
        """Sort objects of any watched kind into their places; other kinds are refused."""
        classes: dict[str, Object] = {}
        gateways: dict[Key, Object] = {}
        routes: dict[RouteKey, Object] = {}
        pools: dict[tuple[str, str, str], Object] = {}
        services: dict[Key, Object] = {}
        pods: dict[str, list[Object]] = {}
        for obj in objects:
            match obj["kind"]:
                case "GatewayClass":
                    classes[name_of(obj)] = obj
                case "Gateway":
                    gateways[key_of(obj)] = obj
                case "HTTPRoute" | "GRPCRoute":
                    routes[route_key(obj)] = obj
                case "InferencePool":
                    pools[group_of(obj), *key_of(obj)] = obj
                case "Service":
                    services[key_of(obj)] = obj
                case "Pod":
                    pods.setdefault(key_of(obj)[0], []).append(obj)
                case other:
                    raise ValueError(f"a gateway snapshot has no place for kind {other}")
        return cls(
            network=network,
            classes=classes,
            gateways=gateways,
            routes=routes,
            pools=pools,
            services=services,
            pods={namespace: tuple(found) for namespace, found in pods.items()},
        )


def name_of(obj: Object) -> str:
    """``metadata.name``."""
    name: str = obj["metadata"]["name"]
    return name


def key_of(obj: Object) -> Key:
    """Namespace and name."""
    return obj["metadata"].get("namespace", ""), name_of(obj)


def route_key(route: Object) -> RouteKey:
    """Kind, namespace and name of a route."""
    return str(route["kind"]), *key_of(route)


def is_grpc(route: Object) -> bool:
    """Whether the route is a GRPCRoute."""
    return bool(route["kind"] == "GRPCRoute")


def group_of(obj: Object) -> str:
    """API group of an object, "" for core."""
    api_version: str = obj["apiVersion"]
    return api_version.rpartition("/")[0]


def generation_of(obj: Object) -> int:
    """``metadata.generation``, what a condition's observedGeneration repeats."""
    return int(obj["metadata"].get("generation", 0))


def age_of(obj: Object) -> tuple[str, str, str]:
    """Sort key, oldest first, then by namespace and name: the Gateway API's tie breaker."""
    return (obj["metadata"].get("creationTimestamp") or "", *key_of(obj))
