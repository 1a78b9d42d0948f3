"""Model servers on many addresses in one process: a stream of tokens, or metrics pages."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
from typing import cast

import uvloop
from aiohttp import web

from bench.picker_page import metrics_page

TOKEN_S = 0.004


def event(number: int) -> bytes:
    """One event of about the size that vLLM writes."""
    data = {
        "id": "chatcmpl-0123456789abcdef0123456789abcdef",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": "base",
        "choices": [{"index": 0, "delta": {"content": f" token{number}"}, "logprobs": None}],
    }
    return f"data: {json.dumps(data)}\n\n".encode()


USAGE = {"prompt_tokens": 50, "completion_tokens": 200, "prompt_tokens_details": None}


def whole_stream(tokens: int) -> bytes:
    """Every byte of a streamed answer."""
    return b"".join([*map(event, range(tokens)), last_event()])


def last_event() -> bytes:
    data = {"model": "base", "choices": [], "usage": USAGE}
    return f"data: {json.dumps(data)}\n\ndata: [DONE]\n\n".encode()


async def answer(request: web.Request) -> web.StreamResponse:
    """A stream of ``x-tokens`` events, or one small JSON answer."""
    await request.read()
    tokens = int(request.headers.get("x-tokens", "0"))
    if not tokens:
        return web.json_response({"model": "base", "choices": [], "usage": USAGE})
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    for number in range(tokens):
        await response.write(event(number))
        await asyncio.sleep(TOKEN_S)
    await response.write(last_event())
    await response.write_eof()
    return response


class PageServer(asyncio.Protocol):
    """Answers every request on a connection with the next page, as uvicorn writes it.

    Without a framework, so that the model servers do not take the machine from the picker.
    """

    def __init__(self, pages: list[bytes]) -> None:
        self._pages = itertools.cycle(pages)
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        for _ in range(data.count(b"\r\n\r\n")):
            self._transport.write(next(self._pages))


def page_answers(size: int | None) -> list[bytes]:
    """Answers with consecutive pages; ``size`` is where they are cut, None for nowhere."""
    answers = []
    for step in range(64):
        page = metrics_page(step)
        if size is not None:
            page = b"\n".join(page[:size].split(b"\n")[:-1]) + b"\n"
        head = (
            "HTTP/1.1 200 OK\r\ndate: Sat, 01 Nov 2025 12:00:00 GMT\r\nserver: uvicorn\r\n"
            f"content-length: {len(page)}\r\ncontent-type: text/plain; version=0.0.4\r\n\r\n"
        )
        answers.append(head.encode() + page)
    return answers


async def serve(addresses: int, port: int, answers: list[bytes]) -> None:
    """Print a line once every address listens, then serve for ever: pages where there are any."""
    hosts = [f"127.0.{1 + number // 250}.{1 + number % 250}" for number in range(addresses)]
    if answers:
        loop = asyncio.get_running_loop()
        for host in hosts:
            await loop.create_server(lambda: PageServer(answers), host, port)
    else:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/chat/completions", answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        for host in hosts:
            await web.TCPSite(runner, host, port).start()
    print("ready", flush=True)
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--addresses", type=int, default=20)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--pages", action="store_true", help="serve metrics pages")
    parser.add_argument("--page-bytes", type=int, help="cut them")
    options = parser.parse_args()
    answers = page_answers(options.page_bytes) if options.pages else []
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(options.addresses, options.port, answers))


if __name__ == "__main__":
    main()
