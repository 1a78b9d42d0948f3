"""The picker's command as a process, and a pick by gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from inference_picker._pb import ext_proc_pb2 as pb
from support.ports import reserved_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@dataclass(kw_only=True)
class Served:
    process: asyncio.subprocess.Process
    address: str
    pages: str

    async def status(self, path: str) -> int:
        """HTTP status of a page; 0 while nothing listens."""
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"{self.pages}/{path}") as response,
            ):
                return response.status
        except aiohttp.ClientConnectionError:
            return 0

    async def until_status(self, path: str, expected: int) -> None:
        async with asyncio.timeout(120):
            while await self.status(path) != expected:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def served(*args: str) -> AsyncIterator[Served]:
    port, pages = reserved_port(), reserved_port()
    process = await asyncio.create_subprocess_exec(
        *(Path(sys.executable).with_name("inference-rollouts"), "picker", "serve"),
        *("--address", f"127.0.0.1:{port}", "--metrics-address", f"127.0.0.1:{pages}"),
        *("--health-address", "none", "--drain-delay-s", "0.1", *args),
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Served(
            process=process, address=f"127.0.0.1:{port}", pages=f"http://127.0.0.1:{pages}"
        )
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


def request_headers() -> bytes:
    head = pb.HttpHeaders(end_of_stream=True)
    message: bytes = pb.ProcessingRequest(request_headers=head).SerializeToString()
    return message


async def picked(method: Any) -> str:
    """The destination of a request, once there is a ready endpoint."""
    async with asyncio.timeout(120):
        while True:
            call = method()
            await call.write(request_headers())
            answer = pb.ProcessingResponse.FromString(await call.read())
            call.cancel()
            if answer.HasField("request_headers"):
                mutation = answer.request_headers.response.header_mutation
                return str(mutation.set_headers[0].header.raw_value.decode())
            await asyncio.sleep(0.05)
