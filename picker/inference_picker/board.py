"""The state of every endpoint: this picker's own books, and what the metrics pages correct.

Columns of numbers, one row per endpoint, so that a thousand endpoints are ranked by a handful of
array operations. A request is counted in the same step as it is picked, so two picks never see
the same idle pod; a page that is fifty milliseconds old only adds what other pickers sent:
requests in flight = own + max(0, the page's - own when the page was read).
"""

from __future__ import annotations

from collections import Counter
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import numpy as np

from inference_picker.prompts import BLOCK_BYTES
from inference_picker.ranking import Pods
from inference_picker.seats import Seats

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from inference_picker.estimates import Estimates
    from inference_picker.pool import PoolSnapshot
    from inference_picker.prefixes import PrefixIndex
    from inference_picker.ranking import Floats
    from inference_picker.readings import Readings

_FIRST_ROWS: Final = 16
_COLUMNS: Final = 16
_PAGE_COLUMNS: Final = 5
STALE_S: Final = 5.0
"""A page older than this says nothing any more: half a minute of others' traffic is unknown in
any case, and an endpoint must not be avoided for ever because its metrics are gone."""
_NONE: Final[frozenset[str]] = frozenset()


class _Row:
    """What is kept for an endpoint beside its columns."""

    __slots__ = ("address", "flying", "leaving", "row", "seats")

    def __init__(self, address: str, row: int) -> None:
        self.address = address
        self.row = row
        self.flying = 0
        self.leaving = False
        self.seats = Seats()


class Flight:
    """One request in flight.

    `first_byte` and `land` may come any number of times; each counts once.
    """

    __slots__ = ("_begun", "_board", "_held", "_mark", "_place", "_taken_at", "_tokens", "_work")

    def __init__(
        self,
        board: Board,
        place: _Row,
        *,
        tokens: float,
        held: float,
        mark: float,
        work: float,
        at: float,
    ) -> None:
        """`Board.take_off` makes flights."""
        self._board: Board | None = board
        self._place = place
        self._tokens = tokens
        self._held = held
        self._mark = mark
        self._work = work
        self._taken_at = at
        self._begun = False

    @property
    def address(self) -> str:
        """Where it went."""
        return self._place.address

    def first_byte(self, at: float | None = None) -> None:
        """The first token is there, so the prompt has been computed.

        ``at`` is when, to learn by. Not to be called for a response head that comes before its
        first token, as the head of a streamed answer does.
        """
        if self._begun or self._board is None:
            return
        self._begun = True
        self._board.computed(
            self._place.row, self._mark, work=self._work, since=self._taken_at, at=at
        )

    def land(self) -> None:
        """The answer is over, or will never come."""
        board, self._board = self._board, None
        if board is not None:
            board.landed(
                self._place,
                held=self._held,
                mark=self._mark,
                unseen_tokens=0.0 if self._begun else self._tokens,
            )


class Board:
    """Rows by address. Times are seconds of one monotonic clock."""

    def __init__(self, index: PrefixIndex, estimates: Estimates) -> None:
        """Start without endpoints."""
        self._counts: Counter[str] = Counter()
        self.counts: Mapping[str, int] = MappingProxyType(self._counts)
        """Requests in flight by address, of this picker."""
        self._index = index
        self._estimates = estimates
        self._snapshot: PoolSnapshot | None = None
        self._places: dict[str, _Row] = {}
        self._unused: list[int] = []
        self._endpoints = np.empty(0, dtype=np.object_)
        self._order = np.empty(0, dtype=np.intp)
        self._table = np.zeros((_COLUMNS, 0))
        self._adapters_running = self._adapters_waiting = np.empty(0, dtype=np.object_)
        self._allocate(_FIRST_ROWS)

    def _allocate(self, rows: int) -> None:
        """The columns, with room for so many rows; what they hold stays.

        All numbers are one table, so that `pods` takes the endpoints' out of it in one step.
        """
        old = self._table
        self._table = np.zeros((_COLUMNS, rows))
        self._table[:, : old.shape[1]] = old
        (
            # What metrics pages say: `_PAGE_COLUMNS` of them.
            self._others,
            self._others_waiting,
            self._waiting,
            self._running,
            self._kv_usage,
            # Prompt tokens sent so far, and up to which of them prompts are known to be computed:
            # a server computes prompts in the order in which they came.
            self._sent,
            self._done,
            self._computed_until,
            self._held,
            self._kv_tokens,
            self._health,
            self._max_adapters,
            self._own,
            self._read_at,
            self._unprefilled,
            self._seats,
        ) = self._table
        for name in ("_adapters_running", "_adapters_waiting"):
            values = np.full(rows, _NONE, dtype=np.object_)
            values[: old.shape[1]] = getattr(self, name)
            setattr(self, name, values)
        self._unused += range(rows - 1, old.shape[1] - 1, -1)

    def sync(self, snapshot: PoolSnapshot) -> frozenset[str] | None:
        """Take in the endpoints there are now.

        Returns the addresses that are new to a pool that was there already; None where the
        snapshot is the same as before.
        """
        if snapshot is self._snapshot:
            return None
        is_first = self._snapshot is None or not self._snapshot.endpoints
        before = frozenset(self._places)
        self._snapshot = snapshot
        present = {each.address for each in snapshot.endpoints}
        for address in [each for each in self._places if each not in present]:
            self._leave(self._places[address])
        for address in present:
            place = self._places.get(address)
            if place is None:
                self._enter(address)
            else:
                place.leaving = False
        self._endpoints = np.empty(len(snapshot.endpoints), dtype=np.object_)
        self._endpoints[:] = snapshot.endpoints
        self._order = np.fromiter(
            (self._places[each.address].row for each in snapshot.endpoints),
            dtype=np.intp,
            count=len(snapshot.endpoints),
        )
        return frozenset() if is_first else frozenset(present - before)

    def pods(self, blocks: Sequence[int], *, at: float) -> Pods:
        """The endpoints of the snapshot that was synced last, in its order."""
        order = self._order
        estimates = self._estimates
        table = self._table.take(order, axis=1)
        # An old page says nothing: as if all in it were 0.
        table[:_PAGE_COLUMNS] *= self._read_at[order] > at - STALE_S
        others, others_waiting, waiting, running, kv_usage, *rest = table
        sent, done, computed_until, held, kv_tokens, health, max_adapters, own, *_, seats = rest
        # Prompts whose first token nobody sees are believed to be through after their time.
        due = (computed_until - at) * estimates.prefill_rate
        pending = np.maximum(np.minimum(sent - done, due), 0.0)
        matched = (
            self._index.matched(blocks, len(self._own))[order] if blocks else np.zeros(len(order))
        )
        return Pods(
            endpoints=self._endpoints,
            in_flight=own + others,
            pending_tokens=pending + others_waiting * estimates.prompt_tokens,
            # The page's usage counts what others hold; blocks of finished requests are not in it.
            held_tokens=np.maximum(held, kv_usage * kv_tokens),
            kv_tokens=np.where(kv_tokens > 0, kv_tokens, np.inf),
            seats=np.where(seats > 0, seats, np.inf),
            cached_blocks=matched,
            cached_tokens=matched * (BLOCK_BYTES / estimates.bytes_per_token),
            health=health,
            waiting=waiting,
            running=running,
            kv_usage=kv_usage,
            adapters_running=self._adapters_running[order],
            adapters_waiting=self._adapters_waiting[order],
            max_adapters=max_adapters,
        )

    def take_off(
        self,
        address: str,
        *,
        at: float = 0.0,
        uncached_tokens: float = 0.0,
        held_tokens: float = 0.0,
        blocks: Sequence[int] = (),
    ) -> Flight:
        """Count one more request for the address until the flight lands."""
        place = self._places.get(address) or self._enter(address, leaving=True)
        row = place.row
        place.flying += 1
        self._own[row] += 1
        self._held[row] += held_tokens
        self._counts[address] += 1
        if uncached_tokens:
            self._sent[row] += uncached_tokens
            self._unprefilled[row] += 1
            rate = self._estimates.prefill_rate
            self._computed_until[row] = max(at, self._computed_until[row]) + uncached_tokens / rate
        self._index.add(row, blocks)
        return Flight(
            self,
            place,
            tokens=uncached_tokens,
            held=held_tokens,
            mark=float(self._sent[row]),
            # As `pods` counts it: what is believed to be through is no work any more.
            work=float(
                min(
                    self._sent[row] - self._done[row],
                    (self._computed_until[row] - at) * self._estimates.prefill_rate,
                )
            ),
            at=at,
        )

    def computed(
        self, row: int, mark: float, *, work: float, since: float, at: float | None
    ) -> None:
        """The prompts up to the mark have been computed."""
        self._done[row] = max(self._done[row], mark)
        self._unprefilled[row] = max(0.0, self._unprefilled[row] - 1)
        if at is None:
            return
        self._estimates.saw_first_token(work_tokens=work, seconds=at - since)
        left = self._sent[row] - self._done[row]
        self._computed_until[row] = at + left / self._estimates.prefill_rate

    def landed(self, place: _Row, *, held: float, mark: float, unseen_tokens: float) -> None:
        """A flight is over."""
        row = place.row
        place.flying -= 1
        self._own[row] -= 1
        place.seats.departed()
        if unseen_tokens:
            self._unprefilled[row] = max(0.0, self._unprefilled[row] - 1)
            if mark > self._done[row]:
                self._done[row] = min(self._sent[row], self._done[row] + unseen_tokens)
        # What is left of sums of floats must not add up over days.
        self._held[row] = max(0.0, self._held[row] - held) if place.flying else 0.0
        if not place.flying:
            self._sent[row] = self._done[row] = self._unprefilled[row] = 0.0
            self._computed_until[row] = 0.0
        self._counts[place.address] -= 1
        if not self._counts[place.address]:
            del self._counts[place.address]
        if place.leaving and not place.flying:
            self._free(place)

    def note_readings(self, address: str, readings: Readings | None, *, at: float) -> None:
        """Take in a metrics page at the time it was read; None when there was none."""
        place = self._places.get(address)
        if place is None:
            return
        row = place.row
        if readings is None:
            self._read_at[row] = -np.inf
            return
        self._read_at[row] = at
        place.seats.read(readings)
        self._seats[row] = place.seats.known
        self._running[row] = readings.running
        self._waiting[row] = readings.waiting
        self._kv_usage[row] = readings.kv_usage
        self._others[row] = max(0.0, readings.running + readings.waiting - self._own[row])
        self._others_waiting[row] = min(
            self._others[row], max(0.0, readings.waiting - self._unprefilled[row])
        )
        self._adapters_running[row] = readings.adapters_running
        self._adapters_waiting[row] = readings.adapters_waiting
        self._max_adapters[row] = readings.max_adapters or 0
        tokens = readings.kv_tokens
        if tokens:
            self._kv_tokens[row] = tokens
            # How many tokens a block has is learned, so its size in blocks changes.
            self._index.limit(row, int(tokens * self._estimates.bytes_per_token) // BLOCK_BYTES)

    def set_health(self, address: str, health: float) -> None:
        """1 takes its full part; 0 is ejected; between is slow start."""
        place = self._places.get(address)
        if place is not None:
            self._health[place.row] = health
            if not health:
                # Whatever made it fail, its cache is not to be counted upon, nor what it took.
                self._index.drop(place.row)
                place.seats = Seats()
                self._seats[place.row] = 0.0

    def kv_share(self, address: str, *, at: float) -> float:
        """Share of an endpoint's KV cache that is in use; 0 where its size is unknown."""
        place = self._places.get(address)
        if place is None or not self._kv_tokens[place.row]:
            return 0.0
        row = place.row
        seen = self._kv_usage[row] if self._read_at[row] > at - STALE_S else 0.0
        return float(max(seen, self._held[row] / self._kv_tokens[row]))

    @property
    def size(self) -> int:
        """Endpoints of the pool."""
        return len(self._order)

    def in_flight_of(self) -> Floats:
        """Own requests in flight at each endpoint of the pool."""
        own: Floats = self._own[self._order]
        return own

    def readings_of(self, *, at: float) -> tuple[Floats, Floats]:
        """Queue lengths and KV usages of the endpoints whose pages are fresh."""
        rows = self._order[self._read_at[self._order] > at - STALE_S]
        return self._waiting[rows], self._kv_usage[rows]

    def read_pods(self, *, at: float) -> Pods:
        """The endpoints whose pages are fresh."""
        return self.pods((), at=at).take(self._read_at[self._order] > at - STALE_S)

    def _enter(self, address: str, *, leaving: bool = False) -> _Row:
        if not self._unused:
            self._allocate(2 * len(self._own))
        row = self._unused.pop()
        place = self._places[address] = _Row(address, row)
        place.leaving = leaving
        for column in (
            *(self._own, self._others, self._others_waiting, self._held, self._sent, self._done),
            *(self._waiting, self._running, self._kv_usage, self._max_adapters),
            *(self._unprefilled, self._computed_until, self._seats),
        ):
            column[row] = 0.0
        self._kv_tokens[row] = 0.0
        self._health[row] = 1.0
        self._read_at[row] = -np.inf
        self._adapters_running[row] = self._adapters_waiting[row] = _NONE
        return place

    def _leave(self, place: _Row) -> None:
        """It is no candidate any more; its row stays until its last request is over."""
        place.leaving = True
        self._index.drop(place.row)
        if not place.flying:
            self._free(place)

    def _free(self, place: _Row) -> None:
        if self._places.get(place.address) is place:
            del self._places[place.address]
        self._index.drop(place.row)
        self._unused.append(place.row)
