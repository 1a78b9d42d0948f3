"""How many requests each endpoint has in flight, by this picker's own count."""

from __future__ import annotations

from collections import Counter
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Flight:
    """One request in flight. `land` may be called any number of times; it counts once."""

    __slots__ = ("_address", "_counts")

    def __init__(self, counts: Counter[str], address: str) -> None:
        """Count the request for this address."""
        self._counts: Counter[str] | None = counts
        self._address = address
        counts[address] += 1

    def first_byte(self, at: float) -> None:
        """Note that the answer has begun: the prompt is computed. Only the first call counts."""

    def land(self) -> None:
        """Release the count."""
        counts, self._counts = self._counts, None
        if counts is None:
            return
        counts[self._address] -= 1
        if not counts[self._address]:
            del counts[self._address]


class Flights:
    """The counts of all endpoints. Taking off happens in the same step as the pick."""

    def __init__(self) -> None:
        """Start with nothing in flight."""
        self._counts: Counter[str] = Counter()
        self.counts: Mapping[str, int] = MappingProxyType(self._counts)

    def take_off(self, address: str) -> Flight:
        """Count one more request for the address until the flight lands."""
        return Flight(self._counts, address)
