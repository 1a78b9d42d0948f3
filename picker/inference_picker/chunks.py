"""Pieces that every build of Envoy takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

# Some builds of Envoy refuse larger messages (inference extension #854, #2056).
CHUNK_LIMIT: Final = 62_000


def chunked(data: bytes) -> Iterator[tuple[bytes, bool]]:
    """Pieces of at most `CHUNK_LIMIT` bytes, each with whether it is the last; at least one."""
    if len(data) <= CHUNK_LIMIT:
        yield data, True
        return
    for start in range(0, len(data), CHUNK_LIMIT):
        yield data[start : start + CHUNK_LIMIT], start + CHUNK_LIMIT >= len(data)
