"""One streaming chat request, read to its end."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from support.traffic.records import Request

if TYPE_CHECKING:
    from collections.abc import Mapping

_DONE: Final = "[DONE]"
_OK: Final = 200
_ERROR_CHARACTERS: Final = 300


@dataclass(slots=True)
class _Reading:
    """What has been read of an answer so far."""

    started: float
    status: int | None = None
    served_by: str | None = None
    first: float | None = None
    chunks: int = 0
    text: list[str] = field(default_factory=list)
    fingerprint: str | None = None
    model: str | None = None
    done: bool = False


async def ask(
    session: aiohttp.ClientSession,
    url: str,
    body: Mapping[str, Any],
    *,
    number: int,
    timeout_s: float,
    headers: Mapping[str, str] | None = None,
) -> Request:
    """Send a request once and read its stream; whatever goes wrong is in the record."""
    clock = asyncio.get_running_loop().time
    reading = _Reading(started=clock())
    error: str | None
    try:
        async with asyncio.timeout(timeout_s):
            error = await _exchange(session, url, body, headers or {}, reading)
    except TimeoutError:
        error = f"not complete within {timeout_s:g} s"
    except (aiohttp.ClientError, OSError, ValueError) as found:
        error = f"{type(found).__name__}: {found}"
    except asyncio.CancelledError:
        error = "cut off by the end of the traffic"
    return Request(
        number=number,
        start=reading.started,
        duration=clock() - reading.started,
        status=reading.status,
        error=error,
        time_to_first_token=None if reading.first is None else reading.first - reading.started,
        chunks=reading.chunks,
        text="".join(reading.text),
        fingerprint=reading.fingerprint,
        model=reading.model,
        served_by=reading.served_by,
    )


async def _exchange(
    session: aiohttp.ClientSession,
    url: str,
    body: Mapping[str, Any],
    headers: Mapping[str, str],
    reading: _Reading,
) -> str | None:
    async with session.post(url, json=body, headers=headers) as response:
        reading.status = response.status
        reading.served_by = response.headers.get("x-served-by")
        if response.status != _OK:
            return (await response.text())[:_ERROR_CHARACTERS] or "empty body"
        async for line in response.content:
            problem = _take(line.decode(errors="replace").strip(), reading)
            if problem is not None:
                return problem
    return None if reading.done else "the stream ended without [DONE]"


def _take(line: str, reading: _Reading) -> str | None:
    """Take in one line of the stream; returns what is wrong with it."""
    if not line.startswith("data:"):
        return None
    data = line.removeprefix("data:").strip()
    if data == _DONE:
        reading.done = True
        return None
    event = json.loads(data)
    if "error" in event:
        return f"error event: {event['error']}"[:_ERROR_CHARACTERS]
    reading.fingerprint = event.get("system_fingerprint") or reading.fingerprint
    reading.model = event.get("model") or reading.model
    for choice in event.get("choices") or ():
        text = (choice.get("delta") or {}).get("content") or choice.get("text")
        if text:
            if reading.first is None:
                reading.first = asyncio.get_running_loop().time()
            reading.chunks += 1
            reading.text.append(text)
    return None
