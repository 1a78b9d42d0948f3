"""One probe: GET /v1/models of one pod, and what its answer says about a name."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from inference_plugin.prober.decision import Answer, Probe
from inference_plugin.prober.identity import mismatch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from inference_plugin.prober.identity import Condition

    Fetch = Callable[[str, int], Awaitable[tuple[int, bytes] | str]]
    """Status and body of GET /v1/models at (address, port), or why there was no answer."""

_BODY_LIMIT: Final = 2**20
_OK: Final = 200
_SERVER_ERROR: Final = 500
_NAMES_SHOWN: Final = 8


def read_models(
    status: int,
    body: bytes,
    *,
    name: str,
    identity: tuple[Condition, ...],
    pod: Mapping[str, Any],
) -> Probe:
    """What an answer of /v1/models says (OpenAI's list; vLLM adds ``root`` and ``parent``).

    A 5xx is no answer: the server may be overloaded or starting. Any other answer without the
    name is definite.
    """
    if status >= _SERVER_ERROR:
        return Probe(answer=Answer.UNANSWERED, detail=f"/v1/models answered {status}")
    if status != _OK:
        return Probe(answer=Answer.MISSING, detail=f"/v1/models answered {status}")
    try:
        found = json.loads(body)
        cards = {card["id"]: card for card in found["data"]}
    except (ValueError, KeyError, TypeError) as error:
        detail = f"/v1/models is not a list of models: {type(error).__name__} {error}"
        return Probe(answer=Answer.MISSING, detail=detail)
    if name not in cards:
        shown = ", ".join(sorted(map(str, cards))[:_NAMES_SHOWN]) or "nothing"
        return Probe(answer=Answer.MISSING, detail=f"it serves {shown}")
    problem = mismatch(identity, pod=pod, root=cards[name].get("root"))
    if problem is not None:
        return Probe(answer=Answer.MISSING, detail=problem)
    return Probe(answer=Answer.LISTED)


def combined(probes: list[Probe]) -> Probe:
    """One result for a pod with several model servers: the first that is not ``listed``.

    A definite answer weighs more than a missing one.
    """
    for answer in (Answer.MISSING, Answer.UNANSWERED):
        for probe in probes:
            if probe.answer is answer:
                return probe
    return Probe(answer=Answer.LISTED)


def fetcher(session: aiohttp.ClientSession, *, timeout_s: float) -> Fetch:
    """GET /v1/models over this session, with a limit on each request."""
    limit = aiohttp.ClientTimeout(total=timeout_s)

    async def fetch(address: str, port: int) -> tuple[int, bytes] | str:
        host = f"[{address}]" if ":" in address else address
        url = f"http://{host}:{port}/v1/models"
        try:
            async with session.get(url, timeout=limit, allow_redirects=False) as response:
                return response.status, await _limited(response.content)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return f"port {port}: {type(error).__name__} {error}".strip()

    return fetch


async def _limited(content: aiohttp.StreamReader) -> bytes:
    """The body, cut after the limit (a cut list is no JSON, and read as such)."""
    body = b""
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > _BODY_LIMIT:
            break
    return body
