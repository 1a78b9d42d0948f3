"""The network's edge: one OpenAI-compatible endpoint, asked over HTTP."""

from __future__ import annotations

import asyncio
import ssl
import time
import uuid
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from inference_analysis.errors import EndpointError
from inference_analysis.prompts.answers import Answer
from inference_analysis.prompts.streams import AnswerError, Assembly
from inference_common.names import PROBE_HEADER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

TAG: Final = "inference-rollouts-quality"
"""Marks the prober's requests: ``user`` of the body, prefix of ``x-request-id``, and the headers
below, so that gateways and pickers can leave them out of what they measure."""
FAIRNESS_HEADER: Final = "x-gateway-inference-fairness-id"
"""GIE's label on an endpoint picker's series."""
_REFUSALS: Final = {
    401: "give a token (--token-file)",
    403: "check the token's rights",
    404: "check the address and the model's name",
    405: "check the address",
    429: "lower --rate and --concurrency",
}
"""Statuses that say nothing of the answers, with the remedy."""
_FIRST_WAIT_S: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where one version (or a judge) answers."""

    name: str
    """For messages: canary, stable or judge."""
    urls: tuple[str, ...]
    """One, or the version's pods in turn."""
    model: str
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    token: str = field(default="", repr=False)

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses of chat completions; the ``/v1`` may be there or not."""
        bases = (url.rstrip("/") for url in self.urls)
        return tuple(
            f"{base if base.endswith('/v1') else base + '/v1'}/chat/completions" for base in bases
        )

    def address(self, turn: int = 0) -> str:
        """The address for that turn."""
        return self.addresses[turn % len(self.urls)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer and how it came."""

    answer: Answer
    attempts: int = 1
    first_token_s: float | None = None
    seconds: float = 0.0
    version: str = ""
    """``system_fingerprint`` of the server, if it gives one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How patient a client is."""

    timeout_s: float = 60.0
    """For one whole answer."""
    retries: int = 2
    """After a connection error; never after an answer, whatever its status."""


def sessions(*, concurrency: int, ca_file: Path | None = None) -> aiohttp.ClientSession:
    """The HTTP client for all endpoints of a run."""
    context = ssl.create_default_context(cafile=ca_file) if ca_file else True
    connector = aiohttp.TCPConnector(limit=2 * concurrency, ssl=context)
    # Every timeout is set for each request.
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout())


async def ask(
    session: aiohttp.ClientSession,
    endpoint: Endpoint,
    limits: Limits,
    *,
    messages: Sequence[Mapping[str, Any]],
    parameters: Mapping[str, Any],
    tools: Sequence[Mapping[str, Any]] = (),
    stream: bool = True,
    turn: int = 0,
    clock: Callable[[], float] = time.monotonic,
) -> Reply:
    """Ask once, again after connection errors. ``turn`` chooses among several addresses.

    An error status or a timeout is an answer with a ``problem``: that is how the version serves.

    Raises EndpointError when it can't be reached, or refuses in a way that has nothing to do with
    the prompt.
    """
    body: dict[str, Any] = {
        **parameters,
        "model": endpoint.model,
        "messages": list(messages),
        "stream": stream,
        "user": TAG,
    }
    if stream:
        body["stream_options"] = {"include_usage": True}
    if tools:
        body["tools"] = list(tools)
    problem = ""
    reached = False
    address = ""
    for attempt in range(1, limits.retries + 2):
        if attempt > 1:
            await asyncio.sleep(_FIRST_WAIT_S * 2 ** (attempt - 2))
        started = clock()
        # Another pod where there are several.
        address = endpoint.address(turn + attempt - 1)
        try:
            async with asyncio.timeout(limits.timeout_s):
                return await _exchange(
                    session,
                    endpoint,
                    body,
                    address=address,
                    attempt=attempt,
                    started=started,
                    clock=clock,
                )
        except TimeoutError:
            text = f"no whole answer within {limits.timeout_s:g} s"
            return Reply(answer=Answer(problem=text), attempts=attempt, seconds=clock() - started)
        except aiohttp.ClientConnectorError as error:
            problem = str(error)
        except (aiohttp.ClientError, ConnectionError) as error:
            # The connection was there and broke, perhaps in the middle of the answer.
            problem, reached = str(error) or type(error).__name__, True
    tries = "1 attempt" if not limits.retries else f"{limits.retries + 1} attempts"
    if reached:
        return Reply(
            answer=Answer(problem=f"connection lost in {tries}: {problem}"),
            attempts=limits.retries + 1,
        )
    raise EndpointError(
        f"{endpoint.name}: {address} was not reached in {tries}: {problem}. Is it up, and "
        "is the address right?"
    )


async def _exchange(
    session: aiohttp.ClientSession,
    endpoint: Endpoint,
    body: Mapping[str, Any],
    *,
    address: str,
    attempt: int,
    started: float,
    clock: Callable[[], float],
) -> Reply:
    assembly = Assembly()
    first: float | None = None
    async with session.post(address, json=body, headers=_headers(endpoint)) as response:
        if response.status in _REFUSALS:
            text = (await response.text(errors="replace"))[:300]
            raise EndpointError(
                f"{endpoint.name}: {address} answers {response.status} to model "
                f"{endpoint.model!r}: {text}. Remedy: {_REFUSALS[response.status]}"
            )
        if response.status != 200:  # noqa: PLR2004 - OK
            text = (await response.text(errors="replace"))[:200]
            return Reply(
                answer=Answer(problem=f"status {response.status}: {text}"),
                attempts=attempt,
                seconds=clock() - started,
            )
        try:
            if response.content_type == "text/event-stream":
                async for line in response.content:
                    assembly.event(line)
                    if first is None and assembly.started:
                        first = clock() - started
            else:
                assembly.whole(await response.read())
        except AnswerError as error:
            return Reply(
                answer=Answer(problem=str(error)), attempts=attempt, seconds=clock() - started
            )
    if not assembly.ended and not assembly.finish_reason:
        raise aiohttp.ClientPayloadError("the stream ended in the middle of an answer")
    return Reply(
        answer=assembly.answer(),
        attempts=attempt,
        first_token_s=first,
        seconds=clock() - started,
        version=assembly.version,
    )


def _headers(endpoint: Endpoint) -> dict[str, str]:
    own = {
        PROBE_HEADER: "quality",
        FAIRNESS_HEADER: TAG,
        "x-request-id": f"{TAG}-{uuid.uuid4().hex}",
    }
    if endpoint.token:
        own["Authorization"] = f"Bearer {endpoint.token}"
    return own | dict(endpoint.headers)
