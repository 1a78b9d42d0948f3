"""Small objects for tests of the gateway, as the API server would return them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from support.gateway.snapshot import CONTROLLER_NAME, POOL_GROUP, POOL_GROUP_X, Snapshot

if TYPE_CHECKING:
    from support.gateway.snapshot import Object

NETWORK = "127.99.0.0/16"
GATEWAY_ADDRESS = "127.99.255.1"
NAMESPACE = "demo"


def snapshot(*objects: Object) -> Snapshot:
    """A snapshot of the objects together with a class and a gateway, port 8080."""
    return Snapshot.of(NETWORK, (gateway_class(), gateway(), *objects))


def gateway_class(controller: str = CONTROLLER_NAME) -> Object:
    """A GatewayClass named ``local``."""
    return _object("gateway.networking.k8s.io/v1", "GatewayClass", "local", namespace=None) | {
        "spec": {"controllerName": controller}
    }


def gateway(name: str = "gw", *listeners: Object, namespace: str = NAMESPACE) -> Object:
    """A Gateway of class ``local``; by default one listener, ``http`` on port 8080."""
    found = _object("gateway.networking.k8s.io/v1", "Gateway", name, namespace=namespace)
    default = {"name": "http", "protocol": "HTTP", "port": 8080}
    return found | {
        "spec": {"gatewayClassName": "local", "listeners": list(listeners) or [default]}
    }


def route(*rules: Object, name: str = "route", namespace: str = NAMESPACE, **spec: Any) -> Object:
    """An HTTPRoute on the gateway ``gw``."""
    found = _object("gateway.networking.k8s.io/v1", "HTTPRoute", name, namespace=namespace)
    return found | {"spec": {"parentRefs": [{"name": "gw"}], "rules": list(rules)} | spec}


def grpc_route(*rules: Object, name: str = "route", **spec: Any) -> Object:
    """A GRPCRoute on the gateway ``gw``."""
    return route(*rules, name=name, **spec) | {"kind": "GRPCRoute"}


def pool_ref(name: str, weight: int | None = None, group: str = POOL_GROUP, **more: Any) -> Object:
    """A backendRef to an InferencePool."""
    found = {"group": group, "kind": "InferencePool", "name": name} | more
    return found if weight is None else found | {"weight": weight}


def service_ref(name: str, weight: int | None = None, port: int = 80, **more: Any) -> Object:
    """A backendRef to a Service."""
    found = {"name": name, "port": port} | more
    return found if weight is None else found | {"weight": weight}


def pool(
    name: str,
    selector: dict[str, str],
    *,
    port: int = 8000,
    picker: str | None = None,
    picker_port: int = 9002,
    failure_mode: str = "FailClose",
) -> Object:
    """An InferencePool of the group inference.networking.k8s.io."""
    spec: Object = {"selector": {"matchLabels": selector}, "targetPorts": [{"number": port}]}
    if picker is not None:
        spec["endpointPickerRef"] = {
            "group": "",
            "kind": "Service",
            "name": picker,
            "port": {"number": picker_port},
            "failureMode": failure_mode,
        }
    return _object(f"{POOL_GROUP}/v1", "InferencePool", name) | {"spec": spec}


def pool_x(name: str, selector: dict[str, str], *, picker: str | None = None) -> Object:
    """An InferencePool of the group inference.networking.x-k8s.io."""
    spec: Object = {"selector": selector, "targetPortNumber": 8000}
    if picker is not None:
        spec["extensionRef"] = {"name": picker}
    return _object(f"{POOL_GROUP_X}/v1alpha2", "InferencePool", name) | {"spec": spec}


def service(
    name: str, selector: dict[str, str], *, port: int = 80, target: int | str = 8000
) -> Object:
    """A Service with one port."""
    return _object("v1", "Service", name) | {
        "spec": {"selector": selector, "ports": [{"port": port, "targetPort": target}]}
    }


def pod(
    name: str,
    labels: dict[str, str],
    ip: str,
    *,
    ready: bool = True,
    terminating: bool = False,
    ports: dict[str, int] | None = None,
) -> Object:
    """A running pod."""
    found = _object("v1", "Pod", name)
    found["metadata"]["labels"] = labels
    if terminating:
        found["metadata"]["deletionTimestamp"] = "2026-01-01T00:01:00Z"
    named = [{"name": key, "containerPort": number} for key, number in (ports or {}).items()]
    return found | {
        "spec": {"containers": [{"name": "main", "ports": named}]},
        "status": {
            "podIP": ip,
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }


def _object(api_version: str, kind: str, name: str, namespace: str | None = NAMESPACE) -> Object:
    metadata: Object = {
        "name": name,
        "generation": 3,
        "resourceVersion": "17",
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    if namespace is not None:
        metadata["namespace"] = namespace
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata}
