"""What each picker of a pool says it enforces, asked for in the background.

A picker tells on its metrics port (``inference_common.shares.ACKNOWLEDGEMENT_PATH``) the digest of
the shares that it holds. Planning reads what is known; whoever waits is told when that changes.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import structlog

from inference_common.shares import ACKNOWLEDGEMENT_PATH
from inference_plugin.pool_shares import Acknowledgement

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Object = dict[str, Any]
Key = tuple[str, str]
_log = structlog.get_logger(__name__)

_LIMIT_S: Final = 1.0
_AGAIN_S: Final = 0.3
"""While something is missing: a share is in force on a picker within milliseconds."""
_FRESH_S: Final = 5.0
_OK: Final = 200


class Acknowledgements:
    """The answers of the pickers by pool. Close it at the end."""

    def __init__(
        self, tell: Callable[[Object], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``tell(pool)`` is called when the answers about a pool have changed."""
        self._tell = tell
        self._clock = clock
        self._known: dict[Key, dict[str, Acknowledgement]] = {}
        self._asked: dict[Key, float] = {}
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._session: aiohttp.ClientSession | None = None

    def of(
        self, pool: Object, pickers: Sequence[Object], port: int, wanted: str
    ) -> Mapping[str, Acknowledgement]:
        """What is known, by the picker pod's name; asks again unless all said ``wanted`` lately."""
        key = (pool["metadata"]["namespace"], pool["metadata"]["name"])
        known = self._known.get(key, {})
        names = {pod["metadata"]["name"] for pod in pickers}
        complete = names <= known.keys() and all(
            (known[name].digest, known[name].state) == (wanted, "applied") for name in names
        )
        age_s = self._clock() - self._asked.get(key, float("-inf"))
        if age_s >= (_FRESH_S if complete else _AGAIN_S) and key not in self._tasks:
            self._asked[key] = self._clock()
            task = asyncio.get_running_loop().create_task(
                self._ask(key, pool, list(pickers), port), name=f"shares of {key[0]}/{key[1]}"
            )
            self._tasks[key] = task
            task.add_done_callback(lambda _: self._tasks.pop(key, None))
        return known

    def forget(self, namespace: str, name: str) -> None:
        """The pool is gone, or its shares are nobody's any more."""
        self._known.pop((namespace, name), None)
        self._asked.pop((namespace, name), None)

    async def close(self) -> None:
        """End what is being asked."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def _ask(self, key: Key, pool: Object, pickers: list[Object], port: int) -> None:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_LIMIT_S))
        answers = await asyncio.gather(
            *(self._ask_one(self._session, pod, port, f"{key[0]}/{key[1]}") for pod in pickers)
        )
        found = {
            pod["metadata"]["name"]: answer for pod, answer in zip(pickers, answers, strict=True)
        }
        if found != self._known.get(key):
            self._known[key] = found
            _log.debug("acknowledged", pool=f"{key[0]}/{key[1]}", pickers=found)
            self._tell(pool)

    async def _ask_one(
        self, session: aiohttp.ClientSession, pod: Object, port: int, pool: str
    ) -> Acknowledgement:
        address = (pod.get("status") or {}).get("podIP")
        if not address:
            return Acknowledgement(problem="its pod has no address")
        host = f"[{address}]" if ":" in address else address
        url = f"http://{host}:{port}{ACKNOWLEDGEMENT_PATH}"
        try:
            async with session.get(url, allow_redirects=False) as answer:
                if answer.status != _OK:
                    return Acknowledgement(
                        problem=f"{url} answered {answer.status}; does this picker know shares?"
                    )
                text = await answer.read()
            return _read(text, pool)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return Acknowledgement(problem=f"{url} did not answer ({type(error).__name__})")


def _read(text: bytes, pool: str) -> Acknowledgement:
    try:
        entry = json.loads(text)["pools"].get(pool) or {}
        return Acknowledgement(
            digest=str(entry.get("digest", "")), state=str(entry.get("state", ""))
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Acknowledgement(problem=f"its answer was not understood: {text[:80]!r}")
