"""Which bridges have called this server since its start: what `plugin doctor` asks for."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

PROTOCOL: Final = 1
"""Revision of plugin/proto that this server was built with; bridge/main.go has the same one."""

_MOST: Final = 20
"""Versions that are remembered: a caller's text must not fill the memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Introduction:
    """A bridge as it introduced itself; ``ago_s`` is the time since the last time."""

    version: str
    protocol: int
    ago_s: float


class Introductions:
    """Every version of a bridge that has called."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Nobody has called yet."""
        self._clock = clock
        self._seen: dict[tuple[str, int], float] = {}

    def note(self, version: str, protocol: int) -> None:
        """A bridge has introduced itself."""
        key = (version[:_MOST], protocol)
        self._seen.pop(key, None)
        self._seen[key] = self._clock()
        while len(self._seen) > _MOST:
            del self._seen[next(iter(self._seen))]

    def seen(self) -> list[Introduction]:
        """Who has called, the last one first."""
        now = self._clock()
        return [
            Introduction(version=version, protocol=protocol, ago_s=now - at)
            for (version, protocol), at in reversed(self._seen.items())
        ]
