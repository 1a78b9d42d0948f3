"""The target's name, written back to the client's name in a response, chunk by chunk."""

from __future__ import annotations

import json
import re
from typing import Final

from inference_picker.bodies import encoded

# The spellings that JSON writers produce between key and value.
_SEPARATORS: Final = (b":", b": ", b" :", b" : ")
_KEY: Final = b'"model"'


class NameRestorer:
    """Replaces ``"model": "<target>"`` by ``"model": "<model>"`` in a stream of chunks.

    A name may be cut by a chunk border, so the end of a chunk that could be the beginning of a
    match is held back until the next one; never more than one pattern's length. Inside JSON
    strings the quotes are escaped, so text that merely talks about the target is left alone.
    """

    def __init__(self, *, target: str, model: str) -> None:
        """Prepare the patterns for one response."""
        spellings = {encoded(target), json.dumps(target).encode()}
        self._patterns = tuple(
            _KEY + separator + value for separator in _SEPARATORS for value in spellings
        )
        values = b"|".join(re.escape(value) for value in spellings)
        self._match = re.compile(rb'("model" ?: ?)(?:' + values + b")")
        self._replacement = encoded(model)
        self._longest = max(map(len, self._patterns))
        self._held = b""

    def feed(self, chunk: bytes, *, last: bool) -> bytes:
        """The bytes that can be passed on now; with ``last`` nothing is held back."""
        data = self._held + chunk
        passed = 0
        for found in self._match.finditer(data):
            passed = found.end()
        cut = len(data) if last else self._cut(data, passed)
        self._held = data[cut:]
        # Every match ends at or before the cut, as the search for a held tail starts behind them.
        return self._match.sub(self._put, data[:cut]) if passed else data[:cut]

    def _put(self, found: re.Match[bytes]) -> bytes:
        return found.group(1) + self._replacement

    def _cut(self, data: bytes, passed: int) -> int:
        """Where the longest tail starts that a later chunk could complete to a match."""
        start = data.find(b'"', max(passed, len(data) - self._longest + 1))
        while start >= 0:
            tail = data[start:]
            if any(pattern.startswith(tail) for pattern in self._patterns):
                return start
            start = data.find(b'"', start + 1)
        return len(data)
