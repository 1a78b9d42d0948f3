"""How many requests a model server takes at once, learned from its metrics pages.

No server tells it (vLLM's ``--max-num-seqs``, SGLang's ``--max-running-requests``), and where it is
small it is what requests wait for: not for the prefill, and not for room in the cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from inference_picker.readings import Readings

_EVIDENCE: Final = 5
"""Pages that must speak for the seats more than against them."""
_ROOM: Final = 0.9
"""KV usage from which on requests may wait for the cache instead."""


class Seats:
    """The seats of one endpoint.

    Pages on which requests wait while as many run as ever did, and the cache has room, speak for
    seats; pages on which they wait while fewer run speak against: where prompts hold requests
    back the number that runs moves. Of all pages between two departures one counts, as nothing
    moves while a long prompt is computed.
    """

    __slots__ = ("_evidence", "_most", "_turned", "known")

    def __init__(self) -> None:
        """Start without knowledge."""
        self.known = 0.0
        """Seats, 0 while unknown."""
        self._most = 0.0
        self._evidence = 0
        self._turned = False

    def departed(self) -> None:
        """A request is over."""
        self._turned = True

    def read(self, page: Readings) -> None:
        """Take in a metrics page."""
        if page.running > self._most:
            self._most = page.running
            self._evidence = 0
            self.known = 0.0
        elif page.waiting and self._turned:
            self._turned = False
            is_full = page.running == self._most and page.kv_usage < _ROOM
            evidence = self._evidence + (1 if is_full else -1)
            self._evidence = min(max(evidence, 0), 2 * _EVIDENCE)
            if evidence >= _EVIDENCE:
                self.known = self._most
            elif evidence <= 0:
                self.known = 0.0
