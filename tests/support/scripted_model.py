"""An OpenAI-compatible endpoint that answers as a test says, and keeps what it was asked."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from inference_analysis.prompts.endpoints import Endpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    Respond = Callable[["Model", web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]


async def answered(model: Model, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    """A stream of two chunks, as a server writes it."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    text = f"answer to {body['messages'][-1]['content']}"
    for delta, finish in (({"content": text[:5]}, None), ({"content": text[5:]}, "stop")):
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        chunk = {"choices": [choice], "system_fingerprint": model.version}
        await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    await response.write(b"data: [DONE]\n\n")
    return response


async def broken(_: Model, request: web.Request, __: dict[str, Any]) -> web.StreamResponse:
    """The connection is dropped in the middle of the answer."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    await response.write(b'data: {"choices": [{"index": 0, "delta": {"content": "ans"}}]}\n\n')
    assert request.transport is not None
    request.transport.abort()
    return response


async def hanging(_: Model, __: web.Request, ___: dict[str, Any]) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


def status(code: int) -> Respond:
    async def respond(_: Model, __: web.Request, ___: dict[str, Any]) -> web.StreamResponse:
        return web.json_response({"error": {"message": "no"}}, status=code)

    return respond


def saying(text: str) -> Respond:
    async def respond(_: Model, __: web.Request, ___: dict[str, Any]) -> web.StreamResponse:
        choice = {"index": 0, "message": {"content": text}, "finish_reason": "stop"}
        return web.json_response({"choices": [choice]})

    return respond


@dataclass(kw_only=True)
class Model:
    """One endpoint: what it answers, and what it has seen."""

    respond: Respond = answered
    version: str = "v1"
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    most: int = 0
    """Requests at the same time."""
    now: int = 0
    url: str = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        self.headers.append(request.headers)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(0)
            return await self.respond(self, request, body)
        finally:
            self.now -= 1

    def endpoint(self, name: str) -> Endpoint:
        return Endpoint(name=name, urls=(self.url,), model="mymodel")


def sometimes(respond: Respond, *contents: str) -> Respond:
    """That response to these questions, an answer to all others."""

    async def choose(
        model: Model, request: web.Request, body: dict[str, Any]
    ) -> web.StreamResponse:
        chosen = respond if body["messages"][-1]["content"] in contents else answered
        return await chosen(model, request, body)

    return choose


@contextlib.asynccontextmanager
async def models() -> AsyncIterator[Callable[..., Awaitable[Model]]]:
    """Starts models on free loopback ports; they end with the context."""
    servers: list[TestServer] = []

    async def started(**given: Any) -> Model:
        model = Model(**given)
        app = web.Application()
        app.router.add_post("/v1/chat/completions", model.handle)
        server = TestServer(app, host="127.0.0.1")
        await server.start_server(shutdown_timeout=0.0)
        model.url = str(server.make_url("/"))
        servers.append(server)
        return model

    try:
        yield started
    finally:
        for server in servers:
            await server.close()
