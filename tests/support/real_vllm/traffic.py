"""Requests through the gateway to real servers, and what the picker's page says of them."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Iterable

    import aiohttp

    from support.real_vllm.servers import Server


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer as the client got it. ``first_s``: seconds to the first byte of the body."""

    request: str
    status: int
    body: bytes
    first_s: float

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events of a stream, without the last word."""
        lines = [line for line in self.body.split(b"\n\n") if line.startswith(b"data: {")]
        return [json.loads(line[6:]) for line in lines]

    @property
    def usage(self) -> dict[str, Any]:
        """The server's own count of tokens."""
        found: dict[str, Any] = next(each["usage"] for each in self.events if each.get("usage"))
        return found

    @property
    def is_whole(self) -> bool:
        """Whether a stream came to its end."""
        return self.status == 200 and self.body.endswith(b"data: [DONE]\n\n")

    def sent_by(self, servers: Iterable[Server]) -> Server | None:
        """The server that sent this very body."""
        return next((each for each in servers if each.bodies.get(self.request) == self.body), None)


class Client:
    """Streams chat completions through a gateway."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        """Ask at this address."""
        self._session = session
        self._url = f"{url}/v1/chat/completions"

    async def chat(
        self, text: str, *, model: str = "base", tokens: int = 16, seed: int = 0
    ) -> Answer:
        """One streamed answer of exactly so many tokens."""
        request = uuid.uuid4().hex
        body = {
            "model": model,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": tokens,
            "min_tokens": tokens,
            "ignore_eos": True,
            "seed": seed,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        started = time.perf_counter()
        first = 0.0
        whole = bytearray()
        async with self._session.post(
            self._url, json=body, headers={"x-request-id": request}
        ) as response:
            async for piece in response.content.iter_any():
                first = first or time.perf_counter() - started
                whole += piece
            return Answer(request=request, status=response.status, body=bytes(whole), first_s=first)

    async def chats(self, texts: Iterable[str], *, at_once: int = 4, **fields: Any) -> list[Answer]:
        """Answers to all of them, a few at a time."""
        gate = asyncio.Semaphore(at_once)

        async def one(text: str) -> Answer:
            async with gate:
                return await self.chat(text, **fields)

        return list(await asyncio.gather(*(one(text) for text in texts)))


class PickerPage:
    """The picker's series."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        """``url`` of the pages."""
        self._session = session
        self._url = f"{url}/metrics"

    async def sum(self, name: str, **labels: str) -> float:
        """The sum of a series over the labels that are not given."""
        async with self._session.get(self._url) as response:
            text = await response.text()
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == f"inference_picker_{name}" and labels.items() <= sample.labels.items()
        )

    async def until(self, name: str, value: float, **labels: str) -> None:
        """Wait until a series has this sum."""
        async with asyncio.timeout(120):
            while await self.sum(name, **labels) != value:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.1)
