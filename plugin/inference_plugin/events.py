"""Kubernetes Events on Rollouts: de-duplicated, rate limited, never in the way of a call."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

import structlog

from inference_common.errors import KubeError
from inference_common.kube import EVENT, ROLLOUT, PatchKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from inference_common.kube import Kube
    from inference_plugin.rollouts import RolloutKey
    from inference_plugin.telemetry import Metrics

_log = structlog.get_logger(__name__)
_COMPONENT: Final = "inference-rollouts-plugin"
_REPEAT_S: Final = 300.0
"""A standing reason is repeated on the API server at most this often."""
_QUEUE: Final = 200
_BURST: Final = 25
_PER_S: Final = 10.0
_MESSAGE_LIMIT: Final = 1000
"""The API server refuses notes above 1 KiB (k8s.io/api/events/v1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One thing to say about a Rollout. ``reason`` is a CamelCase word."""

    rollout: RolloutKey
    uid: str
    reason: str
    message: str
    kind: Literal["Normal", "Warning"] = "Normal"


@dataclass(slots=True)
class _Told:
    message: str
    at: float
    count: int
    name: str


class Recorder:
    """Writes Events in the background.

    The same reason about the same Rollout is told once until it is cleared; a changed message
    counts as news after ``_REPEAT_S`` / 10, an unchanged one only raises the count.
    """

    def __init__(
        self, kube: Kube, metrics: Metrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Prepare; nothing runs before ``run``."""
        self._kube = kube
        self._metrics = metrics
        self._clock = clock
        self._told: dict[tuple[str, str], _Told] = {}
        self._queue: asyncio.Queue[tuple[Note, _Told]] = asyncio.Queue(_QUEUE)
        self._tokens = float(_BURST)
        self._refilled = clock()

    def change(self, note: Note) -> None:
        """Tell something that happened: every time anew."""
        self._offer(note, _Told(message=note.message, at=self._clock(), count=1, name=""))

    def standing(self, note: Note) -> bool:
        """Tell something that lasts: once, then only counted. Whether it was news."""
        key = (note.uid, note.reason)
        now = self._clock()
        told = self._told.get(key)
        if told is None or (told.message != note.message and now - told.at >= _REPEAT_S / 10):
            told = _Told(message=note.message, at=now, count=1, name="")
            self._told[key] = told
            self._offer(note, told)
            return True
        told.count += 1
        if told.message == note.message and now - told.at >= _REPEAT_S:
            told.at = now
            self._offer(note, told)
        else:
            self._metrics.events.labels("suppressed").inc()
        return False

    def clear(self, uid: str, *reasons: str) -> None:
        """What lasted is over: the next time is news. Without reasons: all of the Rollout."""
        for key in [key for key in self._told if key[0] == uid]:
            if not reasons or key[1] in reasons:
                del self._told[key]

    async def run(self) -> None:
        """Write what was told, until cancelled."""
        while True:
            note, told = await self._queue.get()
            try:
                await self._write(note, told)
            except KubeError as error:
                self._metrics.events.labels("failed").inc()
                _log.warning("event not written", rollout=str(note.rollout), error=str(error))

    def _offer(self, note: Note, told: _Told) -> None:
        now = self._clock()
        self._tokens = min(self._tokens + (now - self._refilled) * _PER_S, _BURST)
        self._refilled = now
        if self._tokens < 1:
            self._metrics.events.labels("suppressed").inc()
            return
        with contextlib.suppress(asyncio.QueueFull):
            self._queue.put_nowait((note, told))
            self._tokens -= 1
            return
        self._metrics.events.labels("suppressed").inc()

    async def _write(self, note: Note, told: _Told) -> None:
        namespace = note.rollout.namespace
        if told.name:
            body = {"count": told.count, "lastTimestamp": _timestamp()}
            try:
                await self._kube.patch(EVENT, told.name, body, namespace, kind=PatchKind.MERGE)
            except KubeError as error:
                if not error.not_found:
                    raise
            else:
                self._metrics.events.labels("repeated").inc()
                return
        created = await self._kube.create(EVENT, event_body(note, told.count), namespace)
        told.name = created["metadata"]["name"]
        self._metrics.events.labels("created").inc()


def event_body(note: Note, count: int) -> dict[str, Any]:
    """The core/v1 Event about the Rollout, which ``kubectl describe rollout`` shows."""
    now = _timestamp()
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{note.rollout.name}.{secrets.token_hex(8)}",
            "namespace": note.rollout.namespace,
        },
        "involvedObject": {
            "apiVersion": ROLLOUT.api_version,
            "kind": ROLLOUT.kind,
            "namespace": note.rollout.namespace,
            "name": note.rollout.name,
            "uid": note.uid,
        },
        "reason": note.reason,
        "message": note.message[:_MESSAGE_LIMIT],
        "type": note.kind,
        "source": {"component": _COMPONENT},
        "reportingComponent": _COMPONENT,
        "reportingInstance": _COMPONENT,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": count,
    }


def _timestamp() -> str:
    return datetime.now(tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
