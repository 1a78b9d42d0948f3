"""Objects of a kind that a cluster may lack, or keep from being read: watched once it is there."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

import structlog

from inference_common.errors import KubeError
from inference_common.watching import WatchCache

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from inference_common.kube import Kube, Resource

Object = dict[str, Any]
_log = structlog.get_logger(__name__)

_FORBIDDEN: Final = 403
_FIRST_RETRY_S: Final = 1.0
_RETRY_S: Final = 15.0


class OptionalWatch:
    """The objects of one kind in one namespace, in whatever version the cluster serves.

    It is *known* once they have been listed, or the kind is not served; where ``unread`` says what
    is lost without them, also when they may not be read. It goes on asking in any case.
    """

    def __init__(
        self,
        kube: Kube,
        kind: Resource,
        namespace: str,
        *,
        unread: str = "",
        reduce: Callable[[Object], Object] | None = None,
    ) -> None:
        """Nothing runs before ``start``. ``reduce`` gives the part of an object that is kept."""
        self.kind = kind
        self._kube = kube
        self._namespace = namespace
        self._unread = unread
        self._reduce = reduce
        self._subscribers: list[Callable[[], None]] = []
        self._cache: WatchCache | None = None
        self._asked = asyncio.Event()
        self._told = ""
        self._task: asyncio.Task[None] | None = None

    def subscribe(self, changed: Callable[[], None]) -> None:
        """Call ``changed`` whenever an object may differ."""
        self._subscribers.append(changed)

    def start(self) -> None:
        """Begin to look for the kind, and to watch it once it is there."""
        name = f"watch {self.kind.plural}.{self.kind.group}"
        self._task = asyncio.get_running_loop().create_task(self._watch(), name=name)

    async def stop(self) -> None:
        """End the watch."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._cache is not None:
            await self._cache.stop()

    @property
    def is_known(self) -> bool:
        """Whether what there is to know is known; see the class."""
        return self._asked.is_set()

    async def known(self) -> None:
        """Return when that is so."""
        await self._asked.wait()

    @property
    def is_served(self) -> bool:
        """Whether the cluster has the kind, and its objects are listed."""
        return self._cache is not None

    def items(self) -> Iterator[Object]:
        """The objects as far as is known."""
        if self._cache is not None:
            yield from self._cache.items()

    async def _watch(self) -> None:
        while (served := await self._readable()) is None:  # noqa: ASYNC110 - asks another process
            await asyncio.sleep(_RETRY_S if self._asked.is_set() else _FIRST_RETRY_S)
        cache = WatchCache(self._kube, served, self._namespace, reduce=self._reduce)
        cache.subscribe(lambda _type, _obj: self._changed())
        cache.start()
        try:
            await cache.synced()
        except asyncio.CancelledError:
            await cache.stop()
            raise
        # Only now: half a list is no list.
        self._cache = cache
        self._changed()
        self._asked.set()

    async def _readable(self) -> Resource | None:
        """The kind as it is served, where its objects can be listed."""
        kind = self.kind
        try:
            served = await self._kube.find(kind.group, kind.kind, kind.version)
            if served is None:
                self._asked.set()
                return None
            # Asked for once by itself: a watch that may not read would retry for ever.
            await self._kube.list(served, self._namespace)
        except KubeError as error:
            forbidden = error.status == _FORBIDDEN
            if forbidden and self._unread:
                self._asked.set()
            self._tell(error, self._unread if forbidden else "")
            return None
        return served

    def _tell(self, error: KubeError, unread: str) -> None:
        """Log a reason once: it is met again every few seconds."""
        if self._told == str(error):
            return
        self._told = str(error)
        kind = f"{self.kind.plural}.{self.kind.group}"
        remedy = f"{unread}. Allow get, list and watch of {kind}" if unread else "asking again"
        _log.warning(
            "a kind can't be read",
            kind=kind,
            namespace=self._namespace,
            error=str(error),
            effect=remedy,
        )

    def _changed(self) -> None:
        for changed in self._subscribers:
            changed()
