"""Takes endpoints that fail out of the choice for a while, and lets new ones in gently.

A server that answers 500 at once looks like the least loaded of all: without this it draws most
of the traffic. Rules as in Envoy's outlier detection: consecutive failures or a failure rate,
growing times, at most a part of the pool; here never the last endpoint, and nothing is ejected
for what most of the pool does.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_FIRST_HEALTH: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class EjectionRules:
    """When an endpoint is ejected, and for how long."""

    consecutive: int = 3
    """Failures in a row."""
    window: int = 20
    """Outcomes that the failure rate is taken over."""
    rate: float = 0.5
    """Failures among them, from 0 to 1; needs half a window at least."""
    base_s: float = 10.0
    """Length of the first ejection; each further one takes twice as long."""
    max_s: float = 300.0
    max_part: float = 0.5
    """Part of the pool that may be out at a time; one endpoint of two or more always may."""
    slow_start_s: float = 10.0
    """Time in which an endpoint grows from a tenth of its part to all of it."""


@dataclass(slots=True, kw_only=True)
class _Record:
    outcomes: deque[bool]
    in_a_row: int = 0
    times: int = 0
    until: float = 0.0
    """End of the ejection, or the time at which slow start begins."""
    health: float = 1.0
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ejected:
    """An endpoint that was just ejected."""

    address: str
    seconds: float
    reason: str


class Ejector:
    """Outcomes in, health out. Times are seconds of one monotonic clock."""

    def __init__(self, rules: EjectionRules | None = None) -> None:
        """Start with every endpoint healthy."""
        self.rules = rules or EjectionRules()
        self._records: dict[str, _Record] = {}
        self._mending: dict[str, _Record] = {}
        self._members: frozenset[str] = frozenset()

    def health(self, address: str) -> float:
        """As of the last `update`."""
        record = self._records.get(address)
        return 1.0 if record is None else record.health

    def is_suspect(self, address: str) -> bool:
        """Whether it failed last, or is on its way back or in: what it answers wants a look."""
        record = self._records.get(address)
        return record is not None and (record.in_a_row > 0 or record.health < 1.0)

    @property
    def ejected(self) -> Mapping[str, str]:
        """Why each endpoint that is out is out."""
        return {address: each.reason for address, each in self._mending.items() if not each.health}

    def members(self, addresses: Iterable[str], entered: Iterable[str], *, at: float) -> None:
        """The endpoints of the pool now, and those among them that begin with a slow start."""
        self._members = frozenset(addresses)
        for gone in self._records.keys() - self._members:
            del self._records[gone]
            self._mending.pop(gone, None)
        for address in entered:
            if self.rules.slow_start_s > 0:
                record = self._record(address)
                record.until = at
                record.health = _FIRST_HEALTH
                self._mending[address] = record

    def succeeded(self, address: str) -> None:
        """The endpoint answered well."""
        record = self._records.get(address)
        if record is not None:
            record.in_a_row = 0
            record.outcomes.append(True)

    def failed(self, address: str, *, at: float, reason: str) -> Ejected | None:
        """The endpoint failed; the ejection that this leads to, if it does."""
        if address not in self._members:
            return None
        record = self._record(address)
        if not record.health:
            return None
        record.in_a_row += 1
        record.outcomes.append(False)
        if not self._is_outlier(record) or not self._may_eject(address):
            return None
        seconds = min(self.rules.max_s, self.rules.base_s * 2**record.times)
        record.times += 1
        record.until = at + seconds
        record.health = 0.0
        record.reason = reason
        record.in_a_row = 0
        record.outcomes.clear()
        self._mending[address] = record
        return Ejected(address=address, seconds=seconds, reason=reason)

    def update(self, *, at: float) -> dict[str, float]:
        """The healths that have changed."""
        changed = {}
        for address, record in list(self._mending.items()):
            health = self._health_at(record, at)
            if health != record.health:
                record.health = changed[address] = health
            if health >= 1.0:
                del self._mending[address]
        return changed

    def _health_at(self, record: _Record, at: float) -> float:
        if at < record.until:
            # Before its time is up an ejected one is out; a new one has its time behind it.
            return record.health
        span = self.rules.slow_start_s
        if span <= 0:
            return 1.0
        passed = (at - record.until) / span
        return min(1.0, _FIRST_HEALTH + (1 - _FIRST_HEALTH) * passed)

    def _record(self, address: str) -> _Record:
        record = self._records.get(address)
        if record is None:
            record = _Record(outcomes=deque(maxlen=self.rules.window))
            self._records[address] = record
        return record

    def _is_outlier(self, record: _Record) -> bool:
        if record.times and record.health < 1.0:
            # On its way back: the first failure is enough.
            return True
        if record.in_a_row >= self.rules.consecutive:
            return True
        failures = record.outcomes.count(False)
        enough = 2 * len(record.outcomes) >= self.rules.window
        return enough and failures >= self.rules.rate * len(record.outcomes)

    def _may_eject(self, address: str) -> bool:
        total = len(self._members)
        out = sum(1 for each in self._mending.values() if not each.health)
        if total < 2 or out + 1 > max(1.0, self.rules.max_part * total):  # noqa: PLR2004
            return False
        # Where most of the others fail as well, the cause lies elsewhere.
        others = [each for key, each in self._records.items() if key != address and each.health]
        failing = sum(1 for each in others if each.in_a_row)
        return 2 * failing < max(1, total - out - 1) or not failing


def rules_from(parameters: Mapping[str, float]) -> EjectionRules:
    """Rules of a configuration's parameters. Raises ValueError for one that is not known."""
    known = {_camel(name): name for name in EjectionRules.__slots__}
    unknown = parameters.keys() - known.keys()
    if unknown:
        raise ValueError(f"unknown {', '.join(sorted(unknown))}; known are {', '.join(known)}")
    return EjectionRules(**{known[key]: value for key, value in parameters.items()})  # type: ignore[arg-type]


def _camel(name: str) -> str:
    first, *rest = name.removesuffix("_s").split("_")
    seconds = "Seconds" if name.endswith("_s") else ""
    return first + "".join(map(str.capitalize, rest)) + seconds
