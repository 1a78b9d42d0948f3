"""What one pod's worker writes to the API server: status, Events, and the final deletion."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import structlog

from inference_common.errors import KubeError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from support.nodeagent.api import PodApi

    Status = Mapping[str, Any]

_log = structlog.get_logger(__name__)

FIRST_RETRY_S: Final = 0.2
LAST_RETRY_S: Final = 5.0
_EVENT_INTERVAL_S: Final = 30.0
"""The same reason of the same container is reported at most this often."""


class PodWrites:
    """Writes for one pod, with retries; ``limit`` bounds the requests of all pods together."""

    def __init__(
        self,
        api: PodApi,
        limit: asyncio.Semaphore,
        pod: Callable[[], dict[str, Any]],
        status: Callable[[Status], dict[str, Any]],
    ) -> None:
        """``pod`` gives the newest version, ``status`` computes its status from the last one."""
        self.gone = False
        """Whether the pod of this uid no longer exists."""
        self.begun = False
        """Whether there was anything to write yet; the answer to it may still be on its way."""
        self.written: Status = {}
        """The last status that was written; empty before the first."""
        self._api = api
        self._limit = limit
        self._pod = pod
        self._status = status
        self._dirty = asyncio.Event()
        self._writing = asyncio.Lock()
        self._reported: dict[tuple[str, str], float] = {}

    def touch(self) -> None:
        """The status may have changed."""
        self.begun = True
        self._dirty.set()

    async def keep_status(self, on_gone: Callable[[], None]) -> None:
        """Write each status that differs from the last; what changes meanwhile is merged."""
        delay_s = FIRST_RETRY_S
        while True:
            await self._dirty.wait()
            try:
                await self.write_status()
                delay_s = FIRST_RETRY_S
            except KubeError as error:
                if _is_gone(error):
                    self.gone = True
                    on_gone()
                    return
                if not error.retryable and not error.conflict:
                    _log.warning("status refused", error=str(error), **self._about())
                    continue
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, LAST_RETRY_S)
                self._dirty.set()

    async def write_status(self) -> None:
        """Write the status if it differs from the last one. Raises KubeError."""
        async with self._writing, self._limit:
            self._dirty.clear()
            pod = self._pod()
            live = pod.get("status") or {}
            own = self.written.get("conditions", [])
            names = {one["type"] for one in own}
            # Conditions of others, among them those of readiness gates, are taken as they are.
            others = [one for one in live.get("conditions") or [] if one["type"] not in names]
            status = self._status({"conditions": [*others, *own]})
            if status != self.written:
                await self._api.write_status(pod, status)
                self.written = status

    async def remove(self, *, final_status: bool) -> None:
        """Delete the object, which ends its grace period; retried until it is gone."""
        delay_s = FIRST_RETRY_S
        while not self.gone:
            try:
                if final_status:
                    await self._write_final_status()
                async with self._limit:
                    await self._api.delete(self._pod())
            except KubeError as error:
                if _is_gone(error):
                    return
                _log.warning("removal failed", error=str(error), retry_s=delay_s, **self._about())
            else:
                return
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, LAST_RETRY_S)

    async def _write_final_status(self) -> None:
        try:
            await self.write_status()
        except KubeError as error:
            if error.retryable or error.conflict or error.not_found:
                raise
            # A status that is refused must not keep the pod from being removed.
            _log.warning("final status refused", error=str(error), **self._about())

    def is_news(self, reason: str, container: str) -> bool:
        """Whether such an Event was not written a moment ago; asking counts as writing."""
        now = asyncio.get_running_loop().time()
        key = (reason, container)
        if now - self._reported.get(key, float("-inf")) < _EVENT_INTERVAL_S:
            return False
        self._reported[key] = now
        return True

    async def event(self, kind: str, reason: str, message: str, container: str) -> None:
        """Write an Event. It is best effort, as everywhere in Kubernetes; the log has it too."""
        _log.info("event", reason=reason, message=message, container=container, **self._about())
        try:
            async with self._limit:
                await self._api.event(self._pod(), kind, reason, message, container)
        except KubeError as error:
            _log.debug("event not written", error=str(error), **self._about())

    def _about(self) -> dict[str, str]:
        metadata = self._pod()["metadata"]
        return {"namespace": metadata["namespace"], "pod": metadata["name"]}


def _is_gone(error: KubeError) -> bool:
    """Whether the pod was removed, or replaced by one of the same name with another uid.

    Seen from API server 1.36: a patch with another uid is invalid (422, immutable field), a
    deletion is a conflict. A conflict of versions is a 409 as well, and passes.
    """
    replaced = (error.invalid and "metadata.uid" in error.message) or (
        error.conflict and "UID" in error.message
    )
    return error.not_found or replaced
