"""Whether the other side still answers: a question every few seconds, and how long it is silent.

A quiet watch looks the same whether nothing changes or nobody is there. The picker serves on from
what it knew last, and this is what lets it say so.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

import structlog

from inference_common.errors import KubeError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_log = structlog.get_logger(__name__)

INTERVAL_S: Final = 5.0


class Pulse:
    """Asks in the background."""

    def __init__(
        self,
        ask: Callable[[], Awaitable[None]],
        *,
        clock: Callable[[], float],
        interval_s: float = INTERVAL_S,
    ) -> None:
        """``ask`` raises KubeError where it gets no answer."""
        self._ask = ask
        self._clock = clock
        self._interval_s = interval_s
        self._heard_at = clock()
        self._is_silent = False
        self._task: asyncio.Task[None] | None = None

    @property
    def silent_s(self) -> float | None:
        """Seconds since the last answer, where the last question got none."""
        return self._clock() - self._heard_at if self._is_silent else None

    def start(self) -> None:
        """Begin to ask."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="pulse")

    async def stop(self) -> None:
        """End it."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def beat(self) -> None:
        """Ask once."""
        try:
            await self._ask()
        except KubeError as error:
            if not self._is_silent:
                _log.warning("the API server is away; serving what was known", error=str(error))
            self._is_silent = True
        else:
            if self._is_silent:
                _log.info("the API server is back", away_s=round(self._clock() - self._heard_at, 1))
            self._is_silent = False
            self._heard_at = self._clock()

    async def _run(self) -> None:
        while True:
            await self.beat()
            await asyncio.sleep(self._interval_s)
