"""The pool as the Kubernetes API server describes it, kept up to date by watches."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Self

import structlog

from inference_common.errors import KubeError
from inference_common.names import (
    COMMANDED_ANNOTATION,
    HASH_LABEL,
    SHARES_ANNOTATION,
    VERSION_LABEL,
)
from inference_common.pods import is_member, shows_ready
from inference_common.pools import POOLS, ports_of, selector_of
from inference_common.watching import WatchCache
from inference_picker.addresses import joined
from inference_picker.errors import ConfigError
from inference_picker.holding import Held, hold
from inference_picker.pool import Endpoint, PoolSnapshot, make_snapshot, note_models
from inference_picker.pulse import Pulse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from inference_common.kube import Resource
    from inference_picker.namespaces import NamespaceWatch


_log = structlog.get_logger(__name__)


def pool_resource(group: str) -> Resource:
    """The resource type of pools of this API group. Raises ConfigError for an unknown group."""
    if group not in POOLS:
        known = " or ".join(POOLS)
        raise ConfigError(f"--pool-group {group}: no InferencePool is known there. Use {known}.")
    return POOLS[group]


def endpoints_of(
    pool: Mapping[str, Any],
    pods: Iterable[Mapping[str, Any]],
    models: Mapping[str, frozenset[str]],
) -> Iterator[Endpoint]:
    """One endpoint for each target port of each member that takes requests, by pod name.

    Pods that are being deleted and still answer are among them, marked: better than none
    (KEP-1669).
    """
    selector = selector_of(pool)
    ports = ports_of(pool)
    for pod in sorted(pods, key=lambda each: str(each["metadata"]["name"])):
        ip = (pod.get("status") or {}).get("podIP")
        if not is_member(pod, selector) or not shows_ready(pod) or not ip:
            continue
        labels = pod["metadata"].get("labels") or {}
        for port in ports:
            address = joined(ip, port)
            yield Endpoint(
                address=address,
                pod=pod["metadata"]["name"],
                version=labels.get(HASH_LABEL) or labels.get(VERSION_LABEL) or "",
                models=models.get(address),
                labels=labels,
                terminating=bool(pod["metadata"].get("deletionTimestamp")),
            )


class ClusterSource:
    """Snapshots of one pool from the API server; the last one stays when it is unreachable."""

    def __init__(
        self,
        watch: NamespaceWatch,
        *,
        name: str,
        group: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Describe the pool; ``watch`` is of its namespace, and entered by the caller."""
        self.name = name
        self.group = group
        self.namespace = watch.namespace
        self._watch = watch
        self._pools = WatchCache(
            watch.kube, pool_resource(group), self.namespace, field_selector=f"metadata.name={name}"
        )
        self._pools.subscribe(lambda _type, _obj: self._forget())
        watch.subscribe(self._forget)
        self._pulse = Pulse(self._ask, clock=clock)
        self._held = Held()
        self._listed: dict[str, frozenset[str]] = {}
        self._snapshot: PoolSnapshot | None = None

    async def __aenter__(self) -> Self:
        self._pools.start()
        self._pulse.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pulse.stop()
        await self._pools.stop()

    @property
    def is_known(self) -> bool:
        """Whether it is known if the pool exists, and what its namespace says about it."""
        return self._pools.is_synced and self._watch.is_known

    @property
    def is_ready(self) -> bool:
        """Whether the pool exists, and its pods and splits have been listed."""
        return self.is_known and self._pool() is not None

    async def synced(self) -> None:
        """Return when pools, pods and the model splits that the cluster has are listed."""
        await self._pools.synced()
        await self._watch.known()

    def staleness_s(self) -> float | None:
        """Seconds since the API server was last heard; None while it answers."""
        return self._pulse.silent_s

    def detail(self) -> str:
        """One line about the pool and the way to it, for /readyz."""
        pool = f"{self.namespace}/{self.name}"
        if self._pool() is None:
            return f"InferencePool {pool} ({self.group}) does not exist or is not known yet"
        count = len(self.snapshot().endpoints)
        silent = self._pulse.silent_s
        if silent is None:
            return f"{count} endpoints in {pool}"
        return f"{count} endpoints in {pool} as of {silent:.0f} s ago: the API server is away"

    async def _ask(self) -> None:
        try:
            await self._watch.kube.get(pool_resource(self.group), self.name, self.namespace)
        except KubeError as error:
            if not error.not_found:
                raise

    def snapshot(self) -> PoolSnapshot:
        """The pool as the API server last described it; empty while it does not exist."""
        if self._snapshot is None:
            pool = self._pool()
            if pool is None:
                return PoolSnapshot()
            self._hold(pool)
            self._snapshot = make_snapshot(
                endpoints_of(pool, self._watch.pods.items(), self._listed),
                self._watch.splits.splits(self.name, self.group),
                self._held,
                self._watch.objectives.priorities(self.name, self.group),
            )
        return self._snapshot

    def list_models(self, address: str, models: frozenset[str] | None) -> None:
        """Note which models an endpoint lists; None when that is no longer known."""
        if note_models(self._listed, address, models):
            self._forget()

    def _pool(self) -> dict[str, Any] | None:
        return self._pools.get(self.name, self.namespace)

    def _hold(self, pool: Mapping[str, Any]) -> None:
        annotations = pool["metadata"].get("annotations") or {}
        held = hold(
            self._held,
            annotations.get(SHARES_ANNOTATION),
            self._watch.rollouts.governor(self.name, self.group),
            known=self._watch.rollouts.is_known,
            mark=annotations.get(COMMANDED_ANNOTATION, ""),
        )
        if held != self._held:
            log = _log.warning if held.problem else _log.info
            log("shares of versions", pool=f"{self.namespace}/{self.name}", **held.document())
        self._held = held

    def _forget(self) -> None:
        self._snapshot = None
