"""Backends of routes: what a backendRef resolves to, and which pods are ready behind it.

Endpoints come from pods, never from EndpointSlices: the API server refuses loopback addresses
there, and every pod of the local cluster has one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from inference_common.pods import is_member, takes_requests
from inference_common.pools import picker_ref, ports_of, selector_of
from support.gateway.snapshot import POOL_GROUP, POOL_GROUP_X, Object, group_of, key_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.gateway.snapshot import Snapshot

Endpoint = tuple[str, int]
DEFAULT_PICKER_PORT: Final = 9002
"""``extensionRef.portNumber`` when absent (InferencePool v1alpha2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """A cluster of endpoints that Envoy balances over."""

    name: str
    endpoints: tuple[Endpoint, ...]
    http2: bool = False
    picked: bool = False
    """Whether a picker's header or metadata names the endpoint."""
    tls: bool = False
    """Whether the endpoints are spoken to by TLS, unverified."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """A resolved reference: where requests go, and which picker chooses the pod."""

    upstream: Upstream
    picker: Upstream | None = None
    fail_open: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Unresolved:
    """A reference that can't be used: reason of the ResolvedRefs condition, and a sentence."""

    reason: str
    message: str


def resolve(snapshot: Snapshot, namespace: str, ref: Object) -> Backend | Unresolved:
    """Resolve one backendRef (or mirror reference) of a route in ``namespace``."""
    group, kind, name = ref.get("group", ""), ref.get("kind", "Service"), ref["name"]
    target = ref.get("namespace") or namespace
    if target != namespace:
        return Unresolved(
            reason="RefNotPermitted",
            message=f"{kind} {target}/{name} is in another namespace; ReferenceGrants are not "
            f"read here, move the route or the backend",
        )
    if kind == "Service" and group == "":
        return _service_backend(snapshot, target, ref)
    if kind == "InferencePool" and group in {POOL_GROUP, POOL_GROUP_X}:
        pool = snapshot.pools.get((group, target, name))
        if pool is None:
            return Unresolved(
                reason="BackendNotFound", message=f"InferencePool {group} {target}/{name} not found"
            )
        return pool_backend(snapshot, pool)
    return Unresolved(
        reason="InvalidKind",
        message=f"kind {kind} of group {group!r} is no backend; Service and InferencePool are",
    )


def pool_backend(snapshot: Snapshot, pool: Object) -> Backend:
    """The upstream of an InferencePool, with its picker when the picker's Service resolves.

    A pool without a picker reference is balanced round robin. A pool whose picker can't be
    resolved keeps a picker without endpoints: FailClose must fail then, not fall back.
    """
    namespace, name = key_of(pool)
    spec, group = pool["spec"], group_of(pool)
    endpoints = [
        (pod["status"]["podIP"], port)
        for pod in ready_pods(snapshot, namespace, selector_of(pool))
        for port in ports_of(pool)
    ]
    ref = picker_ref(pool)
    picker = None
    if ref is not None:
        found = _picker(snapshot, pool)
        picker = (
            Upstream(name=f"picker/{group}/{namespace}/{name}/unresolved", endpoints=(), http2=True)
            if isinstance(found, Unresolved)
            else found
        )
    return Backend(
        upstream=Upstream(
            name=f"pool/{group}/{namespace}/{name}",
            endpoints=tuple(sorted(endpoints)),
            http2=spec.get("appProtocol") == "kubernetes.io/h2c",
            picked=picker is not None,
        ),
        picker=picker,
        fail_open=ref is not None and ref.get("failureMode") == "FailOpen",
    )


def picker_problem(snapshot: Snapshot, pool: Object) -> Unresolved | None:
    """Why the picker reference of a pool does not resolve, None when it does or is absent."""
    if picker_ref(pool) is None:
        return None
    found = _picker(snapshot, pool)
    return found if isinstance(found, Unresolved) else None


def ready_pods(snapshot: Snapshot, namespace: str, selector: Object) -> Iterator[Object]:
    """Pods that match every label and take new requests. An empty selector matches none."""
    for pod in snapshot.pods.get(namespace, ()):
        if is_member(pod, selector) and takes_requests(pod):
            yield pod


def _service_backend(snapshot: Snapshot, namespace: str, ref: Object) -> Backend | Unresolved:
    found = _service_upstream(snapshot, namespace, ref["name"], ref.get("port"), "service")
    return found if isinstance(found, Unresolved) else Backend(upstream=found)


def _service_upstream(
    snapshot: Snapshot, namespace: str, name: str, number: int | None, prefix: str
) -> Upstream | Unresolved:
    service = snapshot.services.get((namespace, name))
    if service is None:
        return Unresolved(reason="BackendNotFound", message=f"Service {namespace}/{name} not found")
    spec = service["spec"]
    port = next((port for port in spec.get("ports") or () if port["port"] == number), None)
    if port is None:
        offered = [port["port"] for port in spec.get("ports") or ()]
        return Unresolved(
            reason="BackendNotFound",
            message=f"Service {namespace}/{name} has no port {number}, only {offered}",
        )
    target = port.get("targetPort") or port["port"]
    endpoints = [
        (pod["status"]["podIP"], resolved)
        for pod in ready_pods(snapshot, namespace, spec.get("selector") or {})
        if (resolved := _target_port(pod, target)) is not None
    ]
    return Upstream(
        name=f"{prefix}/{namespace}/{name}/{number}",
        endpoints=tuple(sorted(endpoints)),
        http2=prefix == "picker" or port.get("appProtocol") == "kubernetes.io/h2c",
        tls=prefix == "picker",
    )


def _target_port(pod: Object, target: int | str) -> int | None:
    """A target port by number, or by the name that this pod's containers give it."""
    if isinstance(target, int):
        return target
    for container in pod["spec"].get("containers") or ():
        for port in container.get("ports") or ():
            if port.get("name") == target:
                return int(port["containerPort"])
    return None


def _picker(snapshot: Snapshot, pool: Object) -> Upstream | Unresolved:
    ref = picker_ref(pool) or {}
    namespace, _ = key_of(pool)
    kind, group = ref.get("kind", "Service"), ref.get("group", "")
    if (group, kind) != ("", "Service"):
        return Unresolved(
            reason="InvalidExtensionRef",
            message=f"the picker reference names kind {kind} of group {group!r}, not a Service",
        )
    number = ref.get("portNumber") or (ref.get("port") or {}).get("number") or DEFAULT_PICKER_PORT
    found = _service_upstream(snapshot, namespace, ref["name"], number, "picker")
    if isinstance(found, Unresolved):
        return Unresolved(reason="InvalidExtensionRef", message=found.message)
    return found
