"""The plugin's own seam to the cluster, kept in memory: for its logic, not for the API server.

It takes the plugin's patches (``test``, ``replace``, ``add`` of RFC 6902, and the one apply it
makes) and counts generations, so that whole stories can be told without a cluster. What the real
API server, gateway and controller do with them is the end-to-end tests' business.
"""

from __future__ import annotations

import copy
import itertools
from typing import TYPE_CHECKING, Any

from inference_common.errors import KubeError
from inference_common.kube import (
    HTTPROUTE,
    INFERENCEMODEL,
    INFERENCEPOOL,
    INFERENCEPOOL_X,
    REPLICASET,
    ROLLOUT,
    Resource,
)
from inference_common.names import FIELD_MANAGER, HASH_LABEL, PLUGIN_NAME
from inference_common.pools import hash_of, selector_of
from inference_plugin import commanded
from inference_plugin.patches import PoolAim

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from inference_plugin.patches import Write
    from inference_plugin.pool_shares import Acknowledgement
    from inference_plugin.rollouts import RolloutKey

Object = dict[str, Any]
NAMESPACE = "llm"


class MemoryCluster:
    """Objects in memory, a clock that tests move, and a gateway that they speak for."""

    def __init__(self) -> None:
        self.objects: dict[tuple[Resource, str, str], Object] = {}
        self.clock = 1000.0
        self.writes: list[Write] = []
        self.reads: list[str] = []
        self.unserved: set[Resource] = set()
        self.acknowledgements: dict[str, Acknowledgement] = {}
        self.schemas: dict[Resource, Object] = {}
        self.before_write: Callable[[Write], None] | None = None
        self.prune: Callable[[Object], object] | None = None
        """Drops from a written object what the API server's schema does not have."""
        self._versions = itertools.count(1)
        self._accepted: dict[tuple[str, str, str], tuple[int, float]] = {}
        self._aimed: dict[tuple[str, str], float] = {}
        self._listeners: list[Callable[[Resource, str, Object], None]] = []

    # What tests do to it

    def put(self, resource: Resource, obj: Object) -> Object:
        """Store an object as the API server would: uid, resourceVersion, generation."""
        obj = copy.deepcopy(obj)
        metadata = obj["metadata"]
        metadata.setdefault("namespace", NAMESPACE)
        obj.setdefault("apiVersion", resource.api_version)
        obj.setdefault("kind", resource.kind)
        key = (resource, metadata["namespace"], metadata["name"])
        old = self.objects.get(key)
        metadata.setdefault("uid", f"uid-{metadata['name']}")
        metadata["resourceVersion"] = str(next(self._versions))
        same = old is not None and old.get("spec") == obj.get("spec")
        before = old["metadata"]["generation"] if old else 0
        metadata["generation"] = before if same else before + 1
        self.objects[key] = obj
        for listener in self._listeners:
            listener(resource, "MODIFIED" if old else "ADDED", obj)
        return obj

    def remove(self, resource: Resource, name: str) -> None:
        obj = self.objects.pop((resource, NAMESPACE, name))
        for listener in self._listeners:
            listener(resource, "DELETED", obj)

    def change(self, resource: Resource, name: str, change: Callable[[Object], None]) -> Object:
        """Somebody's edit of an object."""
        obj = copy.deepcopy(self.objects[resource, NAMESPACE, name])
        change(obj)
        return self.put(resource, obj)

    def accept(self, name: str, resource: Resource = HTTPROUTE) -> None:
        """The gateway takes in a route as it is."""
        generation = self.objects[resource, NAMESPACE, name]["metadata"]["generation"]

        def report(route: Object) -> None:
            conditions = [
                {"type": kind, "status": "True", "observedGeneration": generation}
                for kind in ("Accepted", "ResolvedRefs")
            ]
            route["status"] = {"parents": [{"parentRef": {"name": "gw"}, "conditions": conditions}]}

        self.change(resource, name, report)
        key = (resource.kind, NAMESPACE, name)
        if self._accepted.get(key, (-1, 0.0))[0] != generation:
            self._accepted[key] = (generation, self.clock)

    def pass_time(self, seconds: float) -> None:
        self.clock += seconds

    # view.View

    def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        return self.objects.get((resource, namespace, name))

    def names(self, resource: Resource, namespace: str) -> list[str]:
        return [
            name for kind, space, name in self.objects if (kind, space) == (resource, namespace)
        ]

    def serves(self, resource: Resource) -> bool:
        return resource not in self.unserved

    def kind(self, group: str, kind: str) -> Resource | None:
        return next(
            (each for each in self.schemas if (each.group, each.kind) == (group, kind)), None
        )

    def schema(self, resource: Resource) -> Object:
        return self.schemas.get(resource, {})

    def pods(self, namespace: str, selector: Mapping[str, str]) -> Iterator[Object]:
        for (resource, space, _), obj in self.objects.items():
            labels = obj["metadata"].get("labels") or {}
            if resource.kind == "Pod" and space == namespace and selector.items() <= labels.items():
                yield obj

    def replica_sets(
        self, namespace: str, pod_template_hash: str | None = None
    ) -> Iterator[Object]:
        for (resource, space, _), obj in self.objects.items():
            if resource != REPLICASET or space != namespace:
                continue
            if pod_template_hash in {None, obj["metadata"]["labels"].get(HASH_LABEL)}:
                yield obj

    def endpoints(self, namespace: str, service: str) -> int | None:
        del namespace, service
        return None

    def accepted_for_s(self, route: Object) -> float | None:
        metadata = route["metadata"]
        key = (route["kind"], metadata["namespace"], metadata["name"])
        generation, since = self._accepted.get(key, (-1, 0.0))
        return self.clock - since if generation == metadata["generation"] else None

    def aimed_for_s(self, pool: Object) -> float:
        since = self._aimed.get((pool["metadata"]["namespace"], pool["metadata"]["name"]))
        return float("inf") if since is None else self.clock - since

    def acknowledged(
        self, pool: Object, pickers: Sequence[Object], port: int
    ) -> Mapping[str, Acknowledgement]:
        del pool, pickers, port
        return self.acknowledgements

    # What a keeper uses besides

    def listen(self, listener: Callable[[Resource, str, Object], None]) -> None:
        self._listeners.append(listener)

    @property
    def is_synced(self) -> bool:
        return True

    def available(self, namespace: str, rollout_uid: str, pod_template_hash: str) -> int:
        del namespace, rollout_uid
        return sum(1 for _ in self.pods(NAMESPACE, {HASH_LABEL: pod_template_hash}))

    async def learn(self, listed: object) -> None:
        del listed

    async def refresh(self, resource: Resource, namespace: str, name: str, cause: str) -> None:
        del namespace
        self.reads.append(f"{resource.plural}/{name} {cause}")

    async def refresh_revision(self, namespace: str, pod_template_hash: str) -> None:
        del namespace
        self.reads.append(f"replicasets {pod_template_hash}")

    async def refresh_rollout(self, key: RolloutKey, cause: str) -> Object | None:
        self.reads.append(f"rollouts/{key.name} {cause}")
        return self.get(ROLLOUT, key.namespace, key.name)

    def carriers(self, rollout: str | None = None) -> list[tuple[Resource, str, str]]:
        return [
            where
            for where, obj in self.objects.items()
            if (names := commanded.read_all(obj)) and (rollout is None or rollout in names)
        ]

    async def rollout_known(self, key: RolloutKey, version: str) -> None:
        del key, version

    async def write(self, write: Write, *, dry_run: bool = False) -> Object:
        if self.before_write is not None and not dry_run:
            self.before_write(write)
        obj = copy.deepcopy(self.objects[write.resource, write.namespace, write.name])
        if isinstance(write, PoolAim):
            metadata = write.body["metadata"]
            if metadata["resourceVersion"] != obj["metadata"]["resourceVersion"]:
                raise KubeError(409, "Conflict", "the object has been modified")
            spec = obj["spec"]["selector"]
            labels = spec["matchLabels"] if write.resource == INFERENCEPOOL else spec
            obj["metadata"].pop("managedFields", None)
            labels.pop(HASH_LABEL, None)
            if write.pod_template_hash:
                labels[HASH_LABEL] = write.pod_template_hash
                owned: Object = {"f:spec": {"f:selector": {f"f:{HASH_LABEL}": {}}}}
                fields = [{"manager": FIELD_MANAGER, "operation": "Apply", "fieldsV1": owned}]
                obj["metadata"]["managedFields"] = fields
            if not dry_run:
                self._aimed[write.namespace, write.name] = self.clock
        else:
            obj = apply_patch(obj, write.operations)
        if self.prune is not None:
            self.prune(obj)
        if dry_run:
            return obj
        self.writes.append(write)
        return self.put(write.resource, obj)


def apply_patch(obj: Object, operations: Any) -> Object:
    """The object after a JSON Patch (no move, no copy). Raises KubeError 409 and 422."""
    obj = copy.deepcopy(obj)
    for operation in operations:
        parts = [
            part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]
        ]
        parent: Any = obj
        for part in parts[:-1]:
            parent = parent[int(part)] if isinstance(parent, list) else parent[part]
        key: Any = int(parts[-1]) if isinstance(parent, list) else parts[-1]
        if operation["path"] == "/metadata/resourceVersion":
            if parent[key] != operation["value"]:
                raise KubeError(409, "Conflict", "the object has been modified")
            continue
        if operation["op"] == "test":
            if parent[key] != operation["value"]:
                raise KubeError(422, "Invalid", "the server rejected our request: test failed")
            continue
        if operation["op"] == "remove":
            del parent[key]
            continue
        parent[key] = copy.deepcopy(operation["value"])
    return obj


# What a cluster holds, in the smallest form that the plugin reads


def make_pod(name: str, labels: Mapping[str, str], *, ready: bool = True) -> Object:
    return {
        "metadata": {"name": name, "labels": dict(labels)},
        "status": {"conditions": [{"type": "Ready", "status": "True" if ready else "False"}]},
    }


def make_pool(
    name: str,
    labels: Mapping[str, str],
    *,
    picker: str | None = None,
    resource: Resource = INFERENCEPOOL,
) -> Object:
    if resource == INFERENCEPOOL:
        spec: Object = {"selector": {"matchLabels": dict(labels)}}
        ref = {"name": picker, "port": {"number": 9002}}
        spec |= {"endpointPickerRef": ref} if picker else {}
    else:
        spec = {"selector": dict(labels)} | ({"extensionRef": {"name": picker}} if picker else {})
    return {"apiVersion": resource.api_version, "metadata": {"name": name}, "spec": spec}


def pool_ref(name: str, weight: int | None = None, group: str = INFERENCEPOOL.group) -> Object:
    ref: Object = {"group": group, "kind": "InferencePool", "name": name}
    return ref if weight is None else ref | {"weight": weight}


def service_ref(name: str, weight: int | None = None, port: int = 80) -> Object:
    ref: Object = {"group": "", "kind": "Service", "name": name, "port": port}
    return ref if weight is None else ref | {"weight": weight}


def make_route(name: str, *rules: Object | list[Object]) -> Object:
    return {
        "apiVersion": HTTPROUTE.api_version,
        "metadata": {"name": name},
        "spec": {
            "parentRefs": [{"name": "gw"}],
            "rules": [{"backendRefs": rule} if isinstance(rule, list) else rule for rule in rules],
        },
    }


def make_model(name: str, *targets: Object, pool: str = "lora-pool") -> Object:
    spec: Object = {"modelName": "assistant", "poolRef": {"name": pool}}
    if targets:
        spec["targetModels"] = list(targets)
    return {"metadata": {"name": name}, "spec": spec}


def make_replica_set(
    rollout: str, pod_template_hash: str, *, destination: str | None = None, identity: str = ""
) -> Object:
    annotations = {}
    if destination is not None:
        annotations["inference-rollouts.io/destination"] = destination
    if identity:
        annotations["inference-rollouts.io/identity"] = identity
    return {
        "metadata": {
            "name": f"{rollout}-{pod_template_hash}",
            "labels": {HASH_LABEL: pod_template_hash},
            "ownerReferences": [{"uid": f"uid-{rollout}", "controller": True}],
        },
        "spec": {"replicas": 1, "template": {"metadata": {"annotations": annotations}}},
        "status": {"readyReplicas": 1, "availableReplicas": 1},
    }


def make_rollout(
    name: str, config: Object | None, *, stable: str = "", canary: str = "", **status: Any
) -> Object:
    routing = {} if config is None else {"trafficRouting": {"plugins": {PLUGIN_NAME: config}}}
    found = {"stableRS": stable, "currentPodHash": canary or stable} | status
    return {
        "metadata": {"name": name},
        "spec": {"replicas": 2, "strategy": {"canary": routing}},
        "status": {key: value for key, value in found.items() if value != ""},
    }


def weights_of(
    cluster: MemoryCluster, route: str, rule: int = 0, resource: Resource = HTTPROUTE
) -> dict[str, int]:
    """Weight by backend name; an absent weight is 1."""
    found = cluster.objects[resource, NAMESPACE, route]["spec"]["rules"][rule]["backendRefs"]
    return {ref["name"]: ref.get("weight", 1) for ref in found}


def targets_of(cluster: MemoryCluster, model: str) -> dict[str, int]:
    """Weight by target name; an absent weight is 1."""
    found = cluster.objects[INFERENCEMODEL, NAMESPACE, model]["spec"].get("targetModels") or []
    return {item["name"]: item.get("weight", 1) for item in found}


def aims_of(cluster: MemoryCluster) -> dict[str, str | None]:
    """The hash that each pool is aimed at."""
    return {
        name: hash_of(obj)
        for (resource, _, name), obj in cluster.objects.items()
        if resource in {INFERENCEPOOL, INFERENCEPOOL_X} and selector_of(obj)
    }
