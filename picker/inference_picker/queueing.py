"""Requests that wait for room: by priority, then fairly between flows, then by age.

A flow is what ``x-gateway-inference-fairness-id`` names; flows of one priority take turns, so
that one client's thousand requests delay another's first by one. Bounded in number, bytes and
time; time comes in as an argument.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """Bounds of the queue."""

    requests: int = 5000
    bytes: int = 1_000_000_000
    ttl_s: float = 60.0


@dataclass(slots=True, kw_only=True, eq=False)
class Waiting(Generic[Item]):
    """One request in the queue."""

    item: Item
    priority: int
    flow: str
    size: int
    deadline: float
    is_gone: bool = False


class FlowQueue(Generic[Item]):
    """The queue of one pool."""

    def __init__(self, limits: QueueLimits) -> None:
        """Start empty."""
        self.limits = limits
        self._bands: dict[int, OrderedDict[str, deque[Waiting[Item]]]] = {}
        self._count = 0
        self._bytes = 0

    def __len__(self) -> int:
        return self._count

    def put(
        self, item: Item, *, priority: int, flow: str, size: int, at: float
    ) -> Waiting[Item] | None:
        """Queue a request; None where the queue is full."""
        if self._count >= self.limits.requests or self._bytes + size > self.limits.bytes:
            return None
        waiting = Waiting(
            item=item,
            priority=priority,
            flow=flow,
            size=size,
            deadline=at + self.limits.ttl_s,
        )
        self._bands.setdefault(priority, OrderedDict()).setdefault(flow, deque()).append(waiting)
        self._count += 1
        self._bytes += size
        return waiting

    def remove(self, waiting: Waiting[Item]) -> None:
        """The client left. Harmless when the request is out already."""
        if not waiting.is_gone:
            self._leave(waiting)

    def next(self) -> Waiting[Item] | None:
        """Take out the request whose turn it is; None where nothing waits."""
        for priority in sorted(self._bands, reverse=True):
            flows = self._bands[priority]
            while flows:
                flow, line = next(iter(flows.items()))
                while line and line[0].is_gone:
                    line.popleft()
                if not line:
                    del flows[flow]
                    continue
                waiting = line.popleft()
                # To the end of the round; it comes again after every other flow.
                flows.move_to_end(flow)
                if not line:
                    del flows[flow]
                self._leave(waiting)
                return waiting
            del self._bands[priority]
        return None

    def expired(self, *, at: float) -> Iterator[Waiting[Item]]:
        """Take out the requests that have waited too long."""
        for flows in self._bands.values():
            for line in flows.values():
                # One time-to-live for all: the oldest of a flow expire first.
                while line and (line[0].is_gone or line[0].deadline <= at):
                    waiting = line.popleft()
                    if not waiting.is_gone:
                        self._leave(waiting)
                        yield waiting

    def _leave(self, waiting: Waiting[Item]) -> None:
        waiting.is_gone = True
        self._count -= 1
        self._bytes -= waiting.size
