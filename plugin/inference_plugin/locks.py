"""One writer per object at a time, and a bound on calls that wait."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from inference_common.kube import Resource

    Where = tuple[Resource, str, str]


class ObjectLocks:
    """A lock per object, taken in one order, so that two holders never wait for each other."""

    def __init__(self) -> None:
        """No object is locked; locks live as long as somebody holds or wants them."""
        self._locks: WeakValueDictionary[tuple[str, str, str, str], asyncio.Lock] = (
            WeakValueDictionary()
        )

    @contextlib.asynccontextmanager
    async def hold(self, objects: Iterable[Where]) -> AsyncIterator[None]:
        """Hold all of these objects (resource, namespace, name)."""
        keys = sorted({(item.group, item.plural, space, name) for item, space, name in objects})
        async with contextlib.AsyncExitStack() as stack:
            for key in keys:
                lock = self._locks.get(key)
                if lock is None:
                    lock = self._locks[key] = asyncio.Lock()
                await stack.enter_async_context(lock)
            yield


class WaitSlots:
    """How many calls may wait at once: the controller has ten workers, most must stay free."""

    def __init__(self, limit: int) -> None:
        """All slots are free."""
        self._free = limit

    def take(self) -> bool:
        """Take a slot if one is free."""
        if self._free == 0:
            return False
        self._free -= 1
        return True

    def give_back(self) -> None:
        """Free a slot that was taken."""
        self._free += 1
