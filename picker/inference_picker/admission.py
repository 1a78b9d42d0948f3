"""Lets requests in, makes them wait, or turns them away, by priority and by how full the pool is.

Without flow control only requests of negative priority are affected: they are turned away while
the pool is saturated. With it every request waits then, in the order of `queueing`.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from inference_picker.messages import Reason, Refused
from inference_picker.queueing import FlowQueue, QueueLimits
from inference_picker.saturation import Thresholds, saturation

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from inference_picker.board import Board

Outcome = TypeVar("Outcome")

OBJECTIVE_HEADERS: Final = (
    "x-llm-d-inference-objective",
    "x-gateway-inference-objective",
)
FAIRNESS_HEADERS: Final = (
    "x-llm-d-inference-fairness-id",
    "x-gateway-inference-fairness-id",
)
_DEFAULT_FLOW: Final = "default-flow"
_RETRY_AFTER_S: Final = 1.0
_LOOK_S: Final = 0.05
"""How often a queue is looked at; pages come no more often."""


def priority_of(headers: Mapping[str, str], objectives: Mapping[str, int]) -> int:
    """The priority of the InferenceObjective that a request names; 0 without one."""
    for name in OBJECTIVE_HEADERS:
        if (objective := headers.get(name)) is not None:
            return objectives.get(objective, 0)
    return 0


def flow_of(headers: Mapping[str, str]) -> str:
    """The flow that shares the queue fairly with the others."""
    for name in FAIRNESS_HEADERS:
        if flow := headers.get(name):
            return flow
    return _DEFAULT_FLOW


@dataclass(slots=True, kw_only=True, eq=False)
class _Pending(Generic[Outcome]):
    pick: Callable[[], Outcome | Refused]
    outcome: asyncio.Future[Outcome | Refused]


class Admission(Generic[Outcome]):
    """The gate before the scheduler. ``pick`` is called when a request may go."""

    def __init__(
        self,
        board: Board,
        *,
        thresholds: Thresholds | None = None,
        limits: QueueLimits | None = None,
        clock: Callable[[], float],
    ) -> None:
        """``limits`` None: nothing is queued."""
        self._board = board
        self._thresholds = thresholds or Thresholds()
        self._clock = clock
        self._queue: FlowQueue[_Pending[Outcome]] | None = None
        if limits is not None:
            self._queue = FlowQueue(limits)
        self._timer: asyncio.TimerHandle | None = None

    @property
    def saturation(self) -> float:
        """How full the pool is; from 1 on it takes nothing more."""
        return saturation(self._board, self._thresholds, at=self._clock())

    @property
    def queued(self) -> int:
        """Requests that wait."""
        return 0 if self._queue is None else len(self._queue)

    def admit(
        self,
        pick: Callable[[], Outcome | Refused],
        *,
        priority: int,
        flow: str,
        size: int,
    ) -> Outcome | Refused | Awaitable[Outcome | Refused]:
        """The pick, a refusal, or something to await; cancelling that leaves the queue."""
        queue = self._queue
        if queue is None:
            if priority < 0 and self.saturation >= 1:
                return _refused(
                    Reason.SATURATED, "The pool is full, and this request's priority is negative."
                )
            return pick()
        if not len(queue) and self.saturation < 1:
            return pick()
        if priority < 0:
            return _refused(
                Reason.SATURATED, "The pool is full, and this request's priority is negative."
            )
        outcome: asyncio.Future[Outcome | Refused] = asyncio.get_running_loop().create_future()
        waiting = queue.put(
            _Pending(pick=pick, outcome=outcome),
            priority=priority,
            flow=flow,
            size=size,
            at=self._clock(),
        )
        if waiting is None:
            return _refused(Reason.QUEUE_FULL, f"{len(queue)} requests wait already.")
        outcome.add_done_callback(lambda _: queue.remove(waiting))
        self._look_later()
        return outcome

    def look(self) -> None:
        """Let go who may go: at most one for each endpoint, as pages follow later."""
        queue = self._queue
        if queue is None:
            return
        for waiting in queue.expired(at=self._clock()):
            _settle(
                waiting.item.outcome,
                _refused(Reason.TTL_EXPIRED, f"No room within {queue.limits.ttl_s:g} seconds."),
            )
        for _ in range(max(1, self._board.size)):
            if not len(queue) or self.saturation >= 1:
                break
            waiting_next = queue.next()
            if waiting_next is not None and not waiting_next.item.outcome.done():
                self._go(waiting_next.item)
        if len(queue):
            self._look_later()

    def _go(self, pending: _Pending[Outcome]) -> None:
        try:
            found = pending.pick()
        except Exception as error:  # noqa: BLE001 - a scorer may be the user's own
            pending.outcome.set_exception(error)
        else:
            pending.outcome.set_result(found)

    def _look_later(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_LOOK_S, self._look_now)

    def _look_now(self) -> None:
        self._timer = None
        with contextlib.suppress(asyncio.InvalidStateError):
            self.look()


def _settle(outcome: asyncio.Future[Outcome | Refused], refused: Refused) -> None:
    if not outcome.done():
        outcome.set_result(refused)


def _refused(reason: Reason, message: str) -> Refused:
    return Refused(status=429, reason=reason, message=message, retry_after_s=_RETRY_AFTER_S)
