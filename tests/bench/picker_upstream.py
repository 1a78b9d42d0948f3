"""Model servers on twenty addresses in one process: a stream of tokens, and a metrics page."""

from __future__ import annotations

import argparse
import asyncio
import json

import uvloop
from aiohttp import web

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


async def serve(addresses: int, port: int, page: bytes) -> None:
    """Print a line once every address listens, then serve for ever."""

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(body=page, content_type="text/plain")

    async def models(_request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "base"}]})

    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post("/v1/chat/completions", answer)
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/v1/models", models)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    for number in range(addresses):
        host = f"127.0.{1 + number // 250}.{1 + number % 250}"
        await web.TCPSite(runner, host, port).start()
    print("ready", flush=True)
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--addresses", type=int, default=20)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--page", help="file with the metrics page")
    options = parser.parse_args()
    page = b""
    if options.page:
        with open(options.page, "rb") as file:  # noqa: PTH123
            page = file.read()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(options.addresses, options.port, page))


if __name__ == "__main__":
    main()
