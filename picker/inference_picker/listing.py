"""Asks each endpoint for the models and adapters it serves, every few seconds."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import TYPE_CHECKING, Final, Protocol

import aiohttp
import structlog

if TYPE_CHECKING:
    from inference_picker.pool import PoolSnapshot

_log = structlog.get_logger(__name__)

_TIMEOUT: Final = aiohttp.ClientTimeout(total=2.0)
_MAX_ANSWER_BYTES: Final = 1024 * 1024
# One lost answer says nothing; after this many the list is no longer believed.
_FAILURES_TO_FORGET: Final = 3


class ListingSource(Protocol):
    """A source that takes in what endpoints list."""

    def snapshot(self) -> PoolSnapshot:
        """The pool as it is now."""
        ...

    def list_models(self, address: str, models: frozenset[str] | None) -> None:
        """Note which models an endpoint lists; None when that is no longer known."""
        ...


def listed_models(answer: bytes) -> frozenset[str]:
    """The ids in an answer of ``/v1/models`` (OpenAI's list format).

    Raises ValueError when it is something else.
    """
    found = json.loads(answer)
    entries = found.get("data") if isinstance(found, dict) else None
    if not isinstance(entries, list):
        raise ValueError("no list under 'data'")  # noqa: TRY004 - about bytes, not a type
    return frozenset(
        entry["id"]
        for entry in entries
        if isinstance(entry, dict) and isinstance(entry.get("id"), str)
    )


class ModelLister:
    """Keeps a source's lists of models fresh, over one kept-alive connection per endpoint."""

    def __init__(self, source: ListingSource, *, interval_s: float) -> None:
        """Poll every ``interval_s`` seconds once `run` runs."""
        self._source = source
        self._interval_s = interval_s
        self._failures: Counter[str] = Counter()
        self._asked: set[str] = set()

    async def run(self) -> None:
        """Poll until cancelled."""
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
            while True:
                await self.poll(session)
                await asyncio.sleep(self._interval_s)

    async def poll(self, session: aiohttp.ClientSession) -> None:
        """Ask every endpoint of the pool once, all at the same time."""
        addresses = {each.address for each in self._source.snapshot().endpoints}
        for gone in self._asked - addresses:
            self._source.list_models(gone, None)
            self._failures.pop(gone, None)
        self._asked = addresses
        await asyncio.gather(*(self._ask(session, address) for address in addresses))

    async def _ask(self, session: aiohttp.ClientSession, address: str) -> None:
        try:
            async with session.get(f"http://{address}/v1/models") as response:
                response.raise_for_status()
                answer = await response.content.read(_MAX_ANSWER_BYTES)
                while chunk := await response.content.read(_MAX_ANSWER_BYTES - len(answer)):
                    answer += chunk
            models = listed_models(answer)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, RecursionError) as error:
            self._failures[address] += 1
            if self._failures[address] == _FAILURES_TO_FORGET:
                _log.warning(
                    "an endpoint does not list its models", endpoint=address, error=repr(error)
                )
                self._source.list_models(address, None)
            return
        self._failures.pop(address, None)
        self._source.list_models(address, models)
