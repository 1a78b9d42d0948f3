"""What the body of an answer tells about its tokens, read while it passes.

An answer is watched byte by byte only as far as it must be: events are counted by their ends,
and ``usage`` is looked for in the last kilobytes, where servers write it.
"""

from __future__ import annotations

import json
from typing import Any, Final

from inference_picker.messages import TokenTimes, Usage

_TAIL_BYTES: Final = 4096
_USAGE: Final = b'"usage"'
_DONE: Final = b"[DONE]"
_NO_CHOICES: Final = (b'"choices":[]', b'"choices": []')
_MAX_JSON_BYTES: Final = 1024 * 1024
_DECODER: Final = json.JSONDecoder()


class TokenWatch:
    """Follows one answer. ``at`` is a monotonic clock's reading in seconds."""

    __slots__ = (
        "_border",
        "_chunks",
        "_events",
        "_first_at",
        "_gaps",
        "_last_at",
        "_size",
        "_streamed",
        "_tail",
    )

    def __init__(self, *, streamed: bool) -> None:
        """``streamed``: the answer is a stream of events, else one JSON object."""
        self._streamed = streamed
        self._border = b""
        self._tail = b""
        self._chunks: list[bytes] = []
        self._size = 0
        self._events = 0
        self._first_at: float | None = None
        self._last_at = 0.0
        self._gaps: list[tuple[float, int]] = []

    @property
    def first_at(self) -> float | None:
        """When the first byte of a stream came."""
        return self._first_at if self._streamed else None

    def feed(self, chunk: bytes, at: float) -> None:
        """Take a chunk in."""
        if not chunk:
            return
        if not self._streamed:
            self._size += len(chunk)
            if self._size <= _MAX_JSON_BYTES:
                self._chunks.append(chunk)
            self._tail = (self._tail + chunk)[-_TAIL_BYTES:]
            return
        if self._first_at is None:
            self._first_at = self._last_at = at
        events = self._ended_events(chunk)
        self._tail = (self._tail + chunk)[-_TAIL_BYTES:]
        # Neither the end mark nor the event that holds just the usage is a token.
        if _DONE in chunk:
            events -= 1
        if any(mark in chunk for mark in _NO_CHOICES):
            events -= 1
        if events <= 0:
            return
        if self._events:
            self._gaps.append(((at - self._last_at) / events, events))
        elif events > 1:
            self._gaps.append((0.0, events - 1))
        self._events += events
        self._last_at = at

    def times(self, *, complete: bool) -> TokenTimes:
        """What was seen; ``complete``: the answer came to its end."""
        usage = usage_in(self._tail)
        if not self._streamed:
            malformed = complete and self._size <= _MAX_JSON_BYTES and not self._is_json()
            return TokenTimes(usage=usage, malformed=malformed)
        tokens = usage.output if usage is not None and usage.output else self._events
        per_token = None
        if self._first_at is not None and tokens > 1:
            per_token = (self._last_at - self._first_at) / (tokens - 1)
        return TokenTimes(
            gaps_s=tuple(self._gaps),
            per_token_s=per_token,
            usage=usage,
            malformed=complete and not self._events,
        )

    def _ended_events(self, chunk: bytes) -> int:
        """How many events end in the chunk: blank lines, which may be cut by its border."""
        data = self._border + chunk
        ended = data.count(b"\n\n") + data.count(b"\n\r\n")
        # A blank line that was counted must not be counted with the next chunk again.
        self._border = b"" if data.endswith((b"\n\n", b"\n\r\n")) else data[-2:]
        if self._border.endswith(b"\n\n"):
            self._border = b""
        return ended

    def _is_json(self) -> bool:
        try:
            found = json.loads(b"".join(self._chunks))
        except (ValueError, RecursionError):
            return False
        return isinstance(found, dict | list)


def usage_in(tail: bytes) -> Usage | None:
    """The last ``usage`` object that is whole in these bytes.

    Counts are those of OpenAI's API (prompt_tokens, completion_tokens,
    prompt_tokens_details.cached_tokens) and of its Responses API and Anthropic's (input_tokens,
    output_tokens). Inside JSON strings quotes are escaped, so that text which merely talks
    about usage is not found.
    """
    end = len(tail)
    while (start := tail.rfind(_USAGE, 0, end)) >= 0:
        end = start
        colon = tail.find(b":", start + len(_USAGE))
        if colon < 0:
            continue
        text = tail[colon + 1 :].decode("utf-8", "replace").lstrip()
        try:
            found, _ = _DECODER.raw_decode(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            return _usage(found)
    return None


def _usage(found: dict[str, Any]) -> Usage:
    details = found.get("prompt_tokens_details") or found.get("input_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return Usage(
        prompt=_count(found.get("prompt_tokens", found.get("input_tokens"))),
        output=_count(found.get("completion_tokens", found.get("output_tokens"))),
        cached=_count(cached),
    )


def _count(value: object) -> int:
    plain = isinstance(value, int) and not isinstance(value, bool) and value > 0
    return min(int(value), 1 << 40) if plain else 0  # type: ignore[call-overload]
