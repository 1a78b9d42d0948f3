"""How long the controller may be held back before it scales pods down."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inference_plugin.shares import Hashes


class Holding:
    """The time since the first answer that held pods, for one pair of revisions."""

    def __init__(self) -> None:
        """Nothing is held."""
        self._held: tuple[Hashes, float] | None = None

    def allows(self, hashes: Hashes, limit_s: float) -> bool:
        """Whether pods may still be held for this pair; the first question starts its time."""
        now = time.monotonic()
        if self._held is None or self._held[0] != hashes:
            self._held = (hashes, now)
        return now - self._held[1] < limit_s

    def end(self) -> None:
        """Nothing has to be held any more."""
        self._held = None
