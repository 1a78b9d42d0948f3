"""Every byte of an answer as the server sent it, in each mode: chunked, compressed, and so on."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
from typing import TYPE_CHECKING, Self

import aiohttp
import pytest

from inference_picker.pool import Endpoint, make_snapshot
from support.picker_rig import MODES, running_setup

if TYPE_CHECKING:
    from pathlib import Path

TRAILERS = b"x-checksum: 0123\r\n"
STREAM = b"".join(
    b'data: {"model":"base","choices":[{"delta":{"content":" token%d"}}]}\n\n' % number
    for number in range(60)
)
LONG = json.dumps({"model": "base", "choices": ["x" * 300_000]}).encode()
"""More than an answer back to the gateway may hold at once."""


def chunked(body: bytes, size: int, trailers: bytes = b"") -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in pieces)
    return chunks + b"0\r\n" + trailers + b"\r\n"


def head(*fields: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 200 OK", *fields, b"", b""])


EVENTS = b"content-type: text/event-stream"
JSON = b"content-type: application/json"
CHUNKED = b"transfer-encoding: chunked"
GZIP = b"content-encoding: gzip"
ANSWERS = {
    "stream": (head(EVENTS, CHUNKED) + chunked(STREAM, 97), STREAM),
    "stream-byte-by-byte": (head(EVENTS, CHUNKED) + chunked(STREAM[:700], 1), STREAM[:700]),
    "stream-with-trailers": (
        head(EVENTS, CHUNKED, b"trailer: x-checksum") + chunked(STREAM, 4000, TRAILERS),
        STREAM,
    ),
    "stream-compressed": (
        head(EVENTS, CHUNKED, GZIP) + chunked(gzip.compress(STREAM, mtime=0), 50),
        gzip.compress(STREAM, mtime=0),
    ),
    "whole": (head(JSON, b"content-length: %d" % len(LONG)) + LONG, LONG),
    "whole-chunked": (head(JSON, CHUNKED) + chunked(LONG, 9000), LONG),
    "whole-compressed": (
        head(JSON, CHUNKED, GZIP) + chunked(gzip.compress(LONG, mtime=0), 33),
        gzip.compress(LONG, mtime=0),
    ),
    "until-the-connection-ends": (head(JSON, b"connection: close") + LONG[:5000], LONG[:5000]),
    "nothing": (head(JSON, b"content-length: 0"), b""),
}


class RawServer:
    """Answers every request with the same bytes, and closes."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self.address = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.address = f"{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = (await reader.readuntil(b"\r\n\r\n")).lower()
        if b"transfer-encoding: chunked" in asked:
            await reader.readuntil(b"0\r\n\r\n")
        else:
            await reader.readexactly(int(asked.partition(b"content-length:")[2].split()[0]))
        writer.write(self._answer)
        await writer.drain()
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("watch_share", [0.0, 1.0], ids=["unwatched", "watched"])
async def test_clients_get_the_servers_own_bytes(
    tmp_path: Path, mode: str, watch_share: float
) -> None:
    async with (
        running_setup(tmp_path, MODES[mode], watch_share=watch_share) as setup,
        aiohttp.ClientSession(auto_decompress=False) as client,
    ):
        for name, (answer, body) in ANSWERS.items():
            async with RawServer(answer) as server:
                setup.source.current = make_snapshot([Endpoint(address=server.address)])
                # Twice: from the second exchange on the picker knows the mode and may leave early.
                for _ in range(2):
                    assert await received(client, setup.url) == (200, body), name
        await setup.landed()
        assert setup.metric("in_flight") == 0
        assert setup.metric("picks_total") == 2 * len(ANSWERS)
        assert setup.metric("protocol_errors_total") == 0
        assert setup.metric("failures_total") == 0


async def received(client: aiohttp.ClientSession, url: str) -> tuple[int, bytes]:
    """Status and body of one request."""
    sent = b'{"model":"base","stream":true}'
    headers = {"content-type": "application/json", "accept-encoding": "gzip"}
    async with client.post(
        f"{url}/v1/chat/completions", data=io.BytesIO(sent), headers=headers
    ) as response:
        return response.status, await response.read()
