"""Conditions that say a process really serves."""

from __future__ import annotations

import asyncio
import ssl
import time
from typing import TYPE_CHECKING, Final

import aiohttp

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from support.cluster.pki import Issued

_POLL_S: Final = 0.1
_ANSWER_S: Final = 5.0
_OK: Final = 200


def trust(authority: Path, user: Issued | None = None) -> ssl.SSLContext:
    """TLS that trusts this authority only and shows this certificate."""
    context = ssl.create_default_context(cafile=str(authority))
    if user is not None:
        context.load_cert_chain(user.certificate, user.key)
    return context


def answers_200(url: str, tls: ssl.SSLContext | None = None) -> Callable[[], Awaitable[bool]]:
    """Return a probe: the URL answers 200."""

    async def probe() -> bool:
        limit = aiohttp.ClientTimeout(total=_ANSWER_S)
        async with (
            aiohttp.ClientSession(timeout=limit) as session,
            session.get(url, ssl=tls if tls is not None else True) as answer,
        ):
            return answer.status == _OK

    return probe


async def until(probe: Callable[[], Awaitable[bool]], timeout_s: float) -> bool:
    """Repeat a probe until it says yes; False after the timeout. Its exceptions mean "no"."""
    end = time.monotonic() + timeout_s
    while True:
        try:
            if await probe():
                return True
        except Exception:  # noqa: BLE001, S110 - whatever goes wrong, it isn't ready yet
            pass
        if time.monotonic() >= end:
            return False
        await asyncio.sleep(_POLL_S)
