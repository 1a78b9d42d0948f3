"""A local copy of the objects of one resource type, kept up to date by a watch."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import structlog

from inference_common.errors import KubeError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Iterable, Iterator

    from inference_common.kube import Kube, Resource

    Subscriber = Callable[[str, dict[str, Any]], None]

T = TypeVar("T")
_log = structlog.get_logger(__name__)

_FIRST_DELAY_S: Final = 0.2
_LAST_DELAY_S: Final = 10.0


def version_of(obj: dict[str, Any]) -> int:
    """``metadata.resourceVersion`` as a number.

    Versions of one resource type are comparable integers since Kubernetes 1.35 (KEP-5504);
    the API servers before it used the same etcd revisions. Zero where there is none.
    """
    text = obj.get("metadata", {}).get("resourceVersion", "0")
    return int(text) if text.isdigit() else 0


def key_of(obj: dict[str, Any]) -> tuple[str, str]:
    """(namespace, name); the namespace of cluster-scoped objects is empty."""
    metadata = obj["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


class WatchCache:
    """The objects of one resource type, from a list and a watch that repair themselves.

    Callers must not change the dictionaries they get. A write's response is put in by ``put``,
    so that the writer reads it back before the watch reports it: older versions of an object
    never replace newer ones.
    """

    def __init__(
        self,
        kube: Kube,
        resource: Resource,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        reduce: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        index: Callable[[dict[str, Any]], Iterable[Hashable]] | None = None,
    ) -> None:
        """Describe what is watched; nothing runs before ``start``.

        ``reduce`` gives the part of an object that is kept; it must keep the metadata's name,
        namespace and resourceVersion. ``index`` gives the keys under which ``filed`` finds it.
        """
        self.resource = resource
        self._kube = kube
        self._namespace = namespace
        self._label_selector = label_selector
        self._field_selector = field_selector
        self._reduce = reduce
        self._index = index
        # By namespace, so that who looks through one does not look through all.
        self._objects: dict[str, dict[str, dict[str, Any]]] = {}
        self._filed: dict[Hashable, dict[tuple[str, str], dict[str, Any]]] = {}
        self._deleted: dict[tuple[str, str], int] = {}
        self._subscribers: list[Subscriber] = []
        self._changed: set[asyncio.Event] = set()
        self._synced = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def start(self) -> None:
        """Begin to list and watch in the background."""
        if self._task is None:
            name = f"watch {self.resource.plural}"
            self._task = asyncio.get_running_loop().create_task(self._run(), name=name)

    async def stop(self) -> None:
        """End the watch; what is cached stays readable."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    @property
    def is_synced(self) -> bool:
        """Whether the first list has been taken in."""
        return self._synced.is_set()

    async def synced(self) -> None:
        """Return when the first list has been taken in."""
        await self._synced.wait()

    def get(self, name: str, namespace: str = "") -> dict[str, Any] | None:
        """The object, or None."""
        return self._objects.get(namespace, {}).get(name)

    def items(self, namespace: str | None = None) -> Iterator[dict[str, Any]]:
        """All objects, or those of one namespace, as of now."""
        if namespace is not None:
            yield from list(self._objects.get(namespace, {}).values())
            return
        for objects in list(self._objects.values()):
            yield from list(objects.values())

    def filed(self, key: Hashable) -> Collection[dict[str, Any]]:
        """The objects that the index files under this key, as of now; not to be kept."""
        return self._filed.get(key, {}).values()

    def __len__(self) -> int:
        return sum(map(len, self._objects.values()))

    def subscribe(self, callback: Subscriber) -> None:
        """Call ``callback(type, object)`` on each ADDED, MODIFIED and DELETED, in order."""
        self._subscribers.append(callback)

    def put(self, obj: dict[str, Any]) -> None:
        """Take in the answer to a write, unless a newer version is known already."""
        obj.setdefault("apiVersion", self.resource.api_version)
        obj.setdefault("kind", self.resource.kind)
        if self._reduce is not None:
            obj = self._reduce(obj)
        key = key_of(obj)
        known = self._known(key)
        version = version_of(obj)
        if known is None:
            if version <= self._deleted.get(key, -1):
                return
            self._deleted.pop(key, None)
            self._store(key, obj)
            self._notify("ADDED", obj)
        elif version > version_of(known):
            self._store(key, obj)
            self._notify("MODIFIED", obj)

    def drop(self, obj: dict[str, Any]) -> None:
        """Take in a deletion, unless the object is already known in a newer version."""
        key = key_of(obj)
        known = self._known(key)
        if known is None or version_of(known) > version_of(obj):
            return
        self._remove(key)
        # Remembered so that a late answer to an older write does not bring the object back.
        self._deleted[key] = version_of(obj)
        self._notify("DELETED", obj)

    async def until(self, predicate: Callable[[WatchCache], T | None], timeout_s: float) -> T:
        """The first true result of the predicate, tried now and after each change.

        Raises TimeoutError when there was none in time.
        """
        known = predicate(self)
        if known:
            return known
        event = asyncio.Event()
        self._changed.add(event)
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    event.clear()
                    found = predicate(self)
                    if found:
                        return found
                    await event.wait()
        finally:
            self._changed.discard(event)

    def _known(self, key: tuple[str, str]) -> dict[str, Any] | None:
        return self._objects.get(key[0], {}).get(key[1])

    def _store(self, key: tuple[str, str], obj: dict[str, Any]) -> None:
        known = self._known(key)
        self._objects.setdefault(key[0], {})[key[1]] = obj
        if self._index is None:
            return
        wanted = set(self._index(obj))
        if known is not None:
            self._unfile(key, set(self._index(known)) - wanted)
        for each in wanted:
            self._filed.setdefault(each, {})[key] = obj

    def _remove(self, key: tuple[str, str]) -> None:
        space = self._objects[key[0]]
        known = space.pop(key[1])
        if not space:
            del self._objects[key[0]]
        if self._index is not None:
            self._unfile(key, set(self._index(known)))

    def _unfile(self, key: tuple[str, str], keys: Iterable[Hashable]) -> None:
        for each in keys:
            filed = self._filed[each]
            del filed[key]
            if not filed:
                del self._filed[each]

    def _notify(self, kind: str, obj: dict[str, Any]) -> None:
        for event in self._changed:
            event.set()
        for subscriber in self._subscribers:
            try:
                subscriber(kind, obj)
            except Exception:  # noqa: BLE001 - whatever a listener raises
                # One broken listener must not stop the watch for the others.
                _log.exception("a subscriber of a watch failed", resource=self.resource.plural)

    async def _run(self) -> None:
        delay_s = _FIRST_DELAY_S
        version: str | None = None
        while True:
            try:
                if version is None:
                    version = await self._relist()
                async for kind, obj in self._kube.watch(
                    self.resource,
                    self._namespace,
                    resource_version=version,
                    label_selector=self._label_selector,
                    field_selector=self._field_selector,
                ):
                    version = obj["metadata"]["resourceVersion"]
                    delay_s = _FIRST_DELAY_S
                    if kind == "DELETED":
                        self.drop(obj)
                    elif kind != "BOOKMARK":
                        self.put(obj)
            except KubeError as error:
                if error.expired:
                    version = None
                elif not error.retryable:
                    # For example 403 while RBAC is being set up, 404 while a CRD is missing.
                    version = None
                _log.warning(
                    "watch interrupted",
                    resource=self.resource.plural,
                    error=str(error),
                    retry_s=delay_s,
                )
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, _LAST_DELAY_S)

    async def _relist(self) -> str:
        found = await self._kube.list(
            self.resource, self._namespace, self._label_selector, self._field_selector
        )
        version: str = found["metadata"]["resourceVersion"]
        items = found.get("items") or []
        present = {key_of(obj) for obj in items}
        for known in self.items():
            # A later put may be newer than this list: only what the list could know is dropped.
            key = key_of(known)
            if key not in present and version_of(known) <= int(version):
                self._remove(key)
                self._deleted[key] = int(version)
                self._notify("DELETED", known)
        for obj in items:
            self.put(obj)
        self._synced.set()
        return version
