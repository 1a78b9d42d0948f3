"""The cluster as the server knows it: watch caches, the few live reads, and the writes.

Planning reads the caches through ``view.View``. Every answer to a write goes into its cache at
once: the controller's next call arrives within milliseconds, before the watch has told.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final, Self

import structlog

from inference_common.errors import KubeError
from inference_common.kube import (
    GRPCROUTE,
    HTTPROUTE,
    INFERENCEMODEL,
    INFERENCEMODELREWRITE,
    INFERENCEMODELREWRITE_X,
    INFERENCEPOOL,
    INFERENCEPOOL_X,
    POD,
    REPLICASET,
    ROLLOUT,
    SERVICE,
    PatchKind,
    Resource,
)
from inference_common.names import HASH_LABEL, SHARES_ANNOTATION
from inference_common.pods import is_member
from inference_common.pools import is_v1
from inference_common.revisions import owner_uid
from inference_common.shares import digest
from inference_common.watching import WatchCache, key_of, version_of
from inference_plugin import commanded
from inference_plugin.acknowledgements import Acknowledgements
from inference_plugin.errors import StaleError
from inference_plugin.kinds import Kinds
from inference_plugin.patches import PoolAim, Write
from inference_plugin.sightings import Sightings
from inference_plugin.slim import slim_pod, slim_replica_set, slim_rollout

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence

    from inference_common.kube import Kube
    from inference_plugin.config import ModelListConfig
    from inference_plugin.pool_shares import Acknowledgement
    from inference_plugin.rollouts import RolloutKey
    from inference_plugin.telemetry import Metrics

    Listener = Callable[[Resource, str, dict[str, Any]], None]

Object = dict[str, Any]
_log = structlog.get_logger(__name__)

WATCHED: Final = (
    ROLLOUT,
    REPLICASET,
    POD,
    SERVICE,
    HTTPROUTE,
    GRPCROUTE,
    INFERENCEPOOL,
    INFERENCEPOOL_X,
    INFERENCEMODEL,
    INFERENCEMODELREWRITE,
    INFERENCEMODELREWRITE_X,
)
"""In the versions that the objects' shapes were written for. Where only another one is served,
that one is used."""
ENDPOINTSLICE: Final = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
_REDUCERS: Final = {POD: slim_pod, REPLICASET: slim_replica_set, ROLLOUT: slim_rollout}
_DISCOVER_EVERY_S: Final = 30.0
_ENDPOINTS_FRESH_S: Final = 5.0
_WATCH_LAG_S: Final = 0.3
_LIST_S: Final = 3.0
_BUSY: Final = 429
_BUSY_S: Final = 1.0
"""Kubernetes' own Retry-After, for all Rollouts together (k8s.io/apiserver pkg/server/filters)."""
_BUILT_IN: Final = frozenset({"", "apps"})


class Cluster:
    """Watches what is served, and writes. Use as an async context manager."""

    def __init__(
        self, kube: Kube, metrics: Metrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Describe the caches; nothing runs before the context is entered."""
        self.kube = kube
        self._metrics = metrics
        self._clock = clock
        self._caches = {resource: _cache(kube, resource, resource) for resource in WATCHED}
        self._kinds = Kinds(kube, clock)
        self._served: set[Resource] = set()
        self._discovered = asyncio.Event()
        self._listeners: list[Listener] = []
        self._sightings = Sightings(clock)
        self._marked: dict[tuple[Resource, str, str], frozenset[str]] = {}
        # The same by Rollout; dictionaries instead of sets, for the sake of a stable order.
        self._carried: dict[str, dict[tuple[Resource, str, str], None]] = {}
        self._endpoints: dict[tuple[str, str], tuple[int, float]] = {}
        self._acknowledgements = Acknowledgements(self._acknowledged, clock)
        self._busy_until = float("-inf")
        self._tasks: set[asyncio.Task[None]] = set()
        for resource, cache in self._caches.items():
            cache.subscribe(self._relay(resource))

    async def __aenter__(self) -> Self:
        """Start to watch what the API server serves, and to look for what it does not yet."""
        self._spawn(self._discover(), "discover")
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._acknowledgements.close()
        for cache in self._caches.values():
            await cache.stop()

    async def synced(self) -> None:
        """Return when all that is served has been read once."""
        await self._discovered.wait()
        for resource in self._served:
            await self._caches[resource].synced()

    @property
    def is_synced(self) -> bool:
        """Whether all that is served has been read once."""
        return self._discovered.is_set() and all(
            self._caches[resource].is_synced for resource in self._served
        )

    def listen(self, listener: Listener) -> None:
        """Call ``listener(resource, type, object)`` on each change, in order."""
        self._listeners.append(listener)

    # What planning reads (view.View)

    def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        """One object from its cache."""
        return self._caches[resource].get(name, namespace)

    def names(self, resource: Resource, namespace: str) -> list[str]:
        """Names of the objects of a namespace."""
        return [obj["metadata"]["name"] for obj in self._caches[resource].items(namespace)]

    def serves(self, resource: Resource) -> bool:
        """Whether the resource type was found on the API server."""
        return resource in self._served

    def kind(self, group: str, kind: str) -> Resource | None:
        """The resource type of a kind that ``learn`` has found."""
        known = self._kinds.get(group, kind)
        return known.resource if known else None

    def schema(self, resource: Resource) -> Object:
        """The OpenAPI schema of a kind that ``learn`` has found."""
        return self._kinds.schema(resource)

    def pods(self, namespace: str, selector: Mapping[str, str]) -> Iterable[Object]:
        """Pods with these labels; none for an empty selector."""
        cache = self._caches[POD]
        found = [cache.filed((namespace, *label)) for label in selector.items()]
        return [pod for pod in min(found, key=len, default=()) if is_member(pod, selector)]

    def replica_sets(
        self, namespace: str, pod_template_hash: str | None = None
    ) -> Iterable[Object]:
        """ReplicaSets of a namespace, all or those of one hash."""
        cache = self._caches[REPLICASET]
        if pod_template_hash is None:
            return cache.items(namespace)
        return cache.filed((namespace, pod_template_hash))

    def rollouts(self) -> Iterable[Object]:
        """All Rollouts."""
        return self._caches[ROLLOUT].items()

    def endpoints(self, namespace: str, service: str) -> int | None:
        """Ready endpoints of a Service without selector, asked for in the background."""
        count, at = self._endpoints.get((namespace, service), (None, float("-inf")))
        if self._clock() - at >= _ENDPOINTS_FRESH_S:
            self._endpoints[namespace, service] = (count or 0, self._clock())
            self._spawn(self._read_endpoints(namespace, service), "endpoints")
        return count

    def accepted_for_s(self, route: Object) -> float | None:
        """Seconds since this generation of the route was first seen accepted."""
        return self._sightings.accepted_for_s(route)

    def aimed_for_s(self, pool: Object) -> float:
        """Seconds since the pool's selector was last seen to change hands."""
        return self._sightings.aimed_for_s(pool)

    def acknowledged(
        self, pool: Object, pickers: Sequence[Object], port: int
    ) -> Mapping[str, Acknowledgement]:
        """What each picker pod said last; asked again in the background."""
        text = (pool["metadata"].get("annotations") or {}).get(SHARES_ANNOTATION, "")
        return self._acknowledgements.of(pool, pickers, port, digest(text))

    def carriers(self, rollout: str | None = None) -> list[tuple[Resource, str, str]]:
        """Objects with the mark of that Rollout (``namespace/name``), or of any."""
        if rollout is None:
            return list(self._marked)
        return list(self._carried.get(rollout, ()))

    def available(self, namespace: str, rollout_uid: str, pod_template_hash: str) -> int:
        """Available pods of one revision."""
        for replica_set in self.replica_sets(namespace, pod_template_hash):
            if owner_uid(replica_set) == rollout_uid:
                return int(replica_set["status"]["availableReplicas"])
        return 0

    # Live reads and writes

    async def learn(self, listed: ModelListConfig) -> None:
        """Look up a kind that a configuration names, and watch its objects.

        Costs nothing once it is known. Raises KubeError, ConfigError, and StaleError while its
        objects have not been listed yet.
        """
        found = await self._kinds.learn(listed)
        if found is not None and found not in self._caches:
            cache = WatchCache(self.kube, found)
            cache.subscribe(self._relay(found))
            cache.start()
            self._caches[found] = cache
        known = self.kind(listed.group, listed.kind)
        if known is None or known in self._served or known not in self._caches:
            return
        try:
            async with asyncio.timeout(_LIST_S):
                await self._caches[known].synced()
        except TimeoutError as error:
            raise StaleError(
                f"{known.plural}.{known.group} have not been listed yet. The next call is tried "
                "again."
            ) from error
        self._served.add(known)

    async def refresh(self, resource: Resource, namespace: str, name: str, cause: str) -> None:
        """Read one object now. One that is gone leaves its cache with its watch event."""
        self._metrics.live_reads.labels(resource.plural, cause).inc()
        try:
            found = await self.kube.get(self._caches[resource].resource, name, namespace)
        except KubeError as error:
            if not error.not_found:
                raise
            return
        self._caches[resource].put(found)

    async def rollout_known(self, key: RolloutKey, version: str) -> None:
        """Return once the Rollout is known at this resourceVersion or a later one.

        The controller's watch is now and then a few milliseconds ahead; only one that stays ahead
        costs a read.
        """
        if not version.isdigit():
            return
        cache = self._caches[ROLLOUT]
        try:
            await cache.until(
                lambda known: version_of(known.get(key.name, key.namespace) or {}) >= int(version),
                _WATCH_LAG_S,
            )
        except TimeoutError:
            await self.refresh(ROLLOUT, key.namespace, key.name, "behind")

    async def refresh_revision(self, namespace: str, pod_template_hash: str) -> None:
        """Read the ReplicaSets of one hash now."""
        self._metrics.live_reads.labels(REPLICASET.plural, "unknown_revision").inc()
        found = await self.kube.list(
            REPLICASET, namespace, label_selector=f"{HASH_LABEL}={pod_template_hash}"
        )
        for replica_set in found.get("items") or []:
            self._caches[REPLICASET].put(replica_set)

    async def write(self, write: Write, *, dry_run: bool = False) -> Object:
        """Carry out a planned write and take in its answer, which is returned. Raises KubeError.

        A dry run asks the API server, admission included, whether it would take the write, and
        answers what the object would be.
        """
        if self._clock() < self._busy_until:
            raise KubeError(_BUSY, "TooManyRequests", "nothing is sent for a second after a 429")
        try:
            return await self._send(write, dry_run=dry_run)
        except KubeError as error:
            if error.status == _BUSY:
                self._busy_until = self._clock() + _BUSY_S
            raise

    async def _send(self, write: Write, *, dry_run: bool) -> Object:
        # In the version that is served, which the cache was made for.
        served = self._caches[write.resource].resource
        if isinstance(write, PoolAim):
            answer = await self.kube.patch(
                served,
                write.name,
                {**write.body, "apiVersion": served.api_version},
                write.namespace,
                kind=PatchKind.APPLY,
                force=True,
                dry_run=dry_run,
            )
        else:
            answer = await self.kube.patch(
                served,
                write.name,
                list(write.operations),
                write.namespace,
                dry_run=dry_run,
            )
        if not dry_run:
            self._caches[write.resource].put(answer)
        return answer

    async def _discover(self) -> None:
        missing = list(WATCHED)
        while missing:
            try:
                for resource in list(missing):
                    found = await self._find(resource)
                    if found is None:
                        continue
                    missing.remove(resource)
                    if found != resource:
                        self._caches[resource] = _cache(self.kube, resource, found)
                        self._caches[resource].subscribe(self._relay(resource))
                    self._caches[resource].start()
                    self._served.add(resource)
                    _log.info("watching", resource=found.plural, api_version=found.api_version)
            except KubeError as error:
                _log.warning("discovery failed", error=str(error))
                await asyncio.sleep(1.0)
                continue
            self._discovered.set()
            if missing:
                await asyncio.sleep(_DISCOVER_EVERY_S)

    async def _find(self, resource: Resource) -> Resource | None:
        """The resource type in the version that is served, None where none is."""
        if resource.group in _BUILT_IN:
            return resource if await self.kube.serves(resource) else None
        return await self.kube.find(resource.group, resource.kind, resource.version)

    async def _read_endpoints(self, namespace: str, service: str) -> None:
        self._metrics.live_reads.labels(ENDPOINTSLICE.plural, "no_selector").inc()
        try:
            found = await self.kube.list(
                ENDPOINTSLICE, namespace, label_selector=f"kubernetes.io/service-name={service}"
            )
        except KubeError as error:
            _log.warning("endpoints not read", service=f"{namespace}/{service}", error=str(error))
            return
        ready = sum(
            (endpoint.get("conditions") or {}).get("ready", True)
            for piece in found.get("items") or []
            for endpoint in piece.get("endpoints") or []
        )
        self._endpoints[namespace, service] = (ready, self._clock())
        known = self.get(SERVICE, namespace, service)
        if known is not None:
            self._tell(SERVICE, "MODIFIED", known)

    def _acknowledged(self, pool: Object) -> None:
        self._tell(INFERENCEPOOL if is_v1(pool) else INFERENCEPOOL_X, "MODIFIED", pool)

    def _relay(self, resource: Resource) -> Callable[[str, Object], None]:
        def relay(kind: str, obj: Object) -> None:
            self._note_marks(resource, kind, obj)
            if resource in {HTTPROUTE, GRPCROUTE}:
                self._sightings.note_route(kind, obj)
            elif resource in {INFERENCEPOOL, INFERENCEPOOL_X}:
                self._sightings.note_pool(kind, obj)
            self._tell(resource, kind, obj)

        return relay

    def _tell(self, resource: Resource, kind: str, obj: Object) -> None:
        for listener in self._listeners:
            listener(resource, kind, obj)

    def _note_marks(self, resource: Resource, kind: str, obj: Object) -> None:
        names = frozenset(commanded.read_all(obj)) if kind != "DELETED" else frozenset()
        where = (resource, *key_of(obj))
        before = self._marked.pop(where, frozenset())
        if names:
            self._marked[where] = names
        for name in names - before:
            self._carried.setdefault(name, {})[where] = None
        for name in before - names:
            carried = self._carried[name]
            del carried[where]
            if not carried:
                del self._carried[name]

    def _spawn(self, work: Any, name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def refresh_rollout(self, key: RolloutKey, cause: str) -> Object | None:
        """Read a Rollout now and return it as it is known then."""
        await self.refresh(ROLLOUT, key.namespace, key.name, cause)
        return self.get(ROLLOUT, key.namespace, key.name)


def _cache(kube: Kube, resource: Resource, served: Resource) -> WatchCache:
    """A cache of the resource in the version that is served."""
    return WatchCache(kube, served, reduce=_REDUCERS.get(resource), index=_INDEXES.get(resource))


def _labels(pod: Object) -> Iterator[Hashable]:
    """A pod is found by each of its labels."""
    namespace = pod["metadata"].get("namespace", "")
    for label in (pod["metadata"].get("labels") or {}).items():
        yield (namespace, *label)


def _revision(replica_set: Object) -> Iterator[Hashable]:
    """A ReplicaSet of a Rollout is found by its hash."""
    metadata = replica_set["metadata"]
    pod_template_hash = (metadata.get("labels") or {}).get(HASH_LABEL)
    if pod_template_hash:
        yield (metadata.get("namespace", ""), pod_template_hash)


_INDEXES: Final = {POD: _labels, REPLICASET: _revision}
