"""Requests that wait for room: by priority, then fairly between flows, then by age.

A flow is what ``x-gateway-inference-fairness-id`` names; flows of one priority take turns, so
that one client's thousand requests delay another's first by one, unless the priority's band says
otherwise. Bounded in number, bytes and time, each priority for itself, so that a flood of one
never takes another's room; time comes in as an argument.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """How requests of one priority wait; the bounds are llm-d-router's."""

    requests: int = 5000
    bytes: int = 1_000_000_000
    in_turn: bool = True
    """Whether its flows take turns; else the oldest request is the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """Bounds of the queue. Over all priorities there is none unless it is given."""

    requests: int | None = None
    bytes: int | None = None
    ttl_s: float = 60.0
    bands: Mapping[int, Band] = field(default_factory=lambda: MappingProxyType({}))
    """By priority."""
    usual: Band = field(default_factory=Band)
    """Of the other priorities, each by itself."""

    def band(self, priority: int) -> Band:
        """The band of a priority."""
        return self.bands.get(priority, self.usual)


@dataclass(slots=True, eq=False)
class _Sum:
    """Requests that wait, and their bytes."""

    requests: int = 0
    bytes: int = 0

    def fits(self, size: int, requests: int | None, bytes_: int | None) -> bool:
        return (requests is None or self.requests < requests) and (
            bytes_ is None or self.bytes + size <= bytes_
        )

    def add(self, requests: int, bytes_: int) -> None:
        self.requests += requests
        self.bytes += bytes_


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
        self._all = _Sum()
        self._sums: dict[int, _Sum] = {}

    def __len__(self) -> int:
        return self._all.requests

    def put(
        self, item: Item, *, priority: int, flow: str, size: int, at: float
    ) -> Waiting[Item] | None:
        """Queue a request; None where the queue, or its priority's part of it, is full."""
        limits, band = self.limits, self.limits.band(priority)
        mine = self._sums.setdefault(priority, _Sum())
        if not self._all.fits(size, limits.requests, limits.bytes) or not mine.fits(
            size, band.requests, band.bytes
        ):
            return None
        waiting = Waiting(
            item=item,
            priority=priority,
            flow=flow,
            size=size,
            deadline=at + limits.ttl_s,
        )
        # Flows that take no turns are one.
        line = flow if band.in_turn else ""
        self._bands.setdefault(priority, OrderedDict()).setdefault(line, deque()).append(waiting)
        self._all.add(1, size)
        mine.add(1, size)
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
        self._all.add(-1, -waiting.size)
        mine = self._sums[waiting.priority]
        mine.add(-1, -waiting.size)
        if not mine.requests:
            del self._sums[waiting.priority]
