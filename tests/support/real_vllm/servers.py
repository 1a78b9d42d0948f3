"""vLLM servers on loopback, each behind a tap that keeps what it answered, byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import aiohttp
from aiohttp import web

from support.ports import reserved_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

START_S: Final = 1800.0
BLOCKS: Final = 65
BLOCK_SIZE: Final = 32
_SETTINGS: Final = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
}
_HOP_BY_HOP: Final = frozenset({"connection", "transfer-encoding", "content-length", "host"})


@dataclass
class Server:
    """One vLLM, and the tap before it."""

    name: str
    url: str
    process: asyncio.subprocess.Process
    tap: str = ""
    """``ip:port`` that passes everything on."""
    bodies: dict[str, bytes] = field(default_factory=dict)
    """What the server answered, by the request's x-request-id."""
    paths: list[str] = field(default_factory=list)

    async def pass_on(self, request: web.Request) -> web.StreamResponse:
        """Pass a request on, and its answer back as it comes."""
        self.paths.append(request.path)
        body = await request.read()
        kept = {k: v for k, v in request.headers.items() if k.lower() not in _HOP_BY_HOP}
        session: aiohttp.ClientSession = request.app[_SESSION]
        try:
            async with session.request(
                request.method, f"{self.url}{request.path_qs}", data=body, headers=kept
            ) as answer:
                headers = {k: v for k, v in answer.headers.items() if k.lower() not in _HOP_BY_HOP}
                response = web.StreamResponse(status=answer.status, headers=headers)
                await response.prepare(request)
                whole = bytearray()
                async for piece in answer.content.iter_any():
                    whole += piece
                    await response.write(piece)
                await response.write_eof()
        except aiohttp.ClientConnectionError:
            return web.Response(status=502, text="the server is gone")
        self.bodies[request.headers.get("x-request-id", "")] = bytes(whole)
        return response

    async def series(self, name: str) -> float:
        """The sum of a series on the server's own metrics page."""
        page = await self.page()
        return sum(
            float(line.rpartition(b" ")[2])
            for line in page.splitlines()
            if line.startswith((f"{name}{{".encode(), f"{name} ".encode()))
        )

    async def page(self) -> bytes:
        """The server's own metrics page."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/metrics") as found:
            return await found.read()


_SESSION: Final = web.AppKey("session", aiohttp.ClientSession)


@contextlib.asynccontextmanager
async def vllm(
    python: Path, model: Path, name: str, adapters: Mapping[str, Path], log: Path
) -> AsyncIterator[Server]:
    """A server that has begun to start; `ready` waits for it."""
    port = reserved_port()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(python.with_name("vllm"), "serve", model / "base", "--served-model-name", "base"),
            *("--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"),
            *("--max-model-len", "1024", "--max-num-seqs", "16", "--enforce-eager"),
            *("--num-gpu-blocks-override", str(BLOCKS), "--block-size", str(BLOCK_SIZE)),
            *("--enable-lora", "--max-lora-rank", "8", "--max-loras", "2"),
            *("--max-cpu-loras", "4", "--enable-prompt-tokens-details"),
            # Without it a stream that runs at SIGTERM is neither ended nor finished.
            *("--shutdown-timeout", "30"),
            *("--lora-modules", *(f"{each}={path}" for each, path in adapters.items())),
            env=environment | _SETTINGS,
            stdout=output,
            stderr=output,
        )
    server = Server(name=name, url=f"http://127.0.0.1:{port}", process=process)
    try:
        async with tapped(server):
            yield server
    finally:
        await stop(server)


@contextlib.asynccontextmanager
async def tapped(server: Server) -> AsyncIterator[None]:
    """The tap of a server."""
    session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app[_SESSION] = session
    app.router.add_route("*", "/{path:.*}", server.pass_on)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.tap = f"127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield
    finally:
        await runner.cleanup()
        await session.close()


async def ready(server: Server, log: Path) -> None:
    """Return when the server answers. Raises RuntimeError where it ended before."""
    async with aiohttp.ClientSession() as session, asyncio.timeout(START_S):
        while True:
            if server.process.returncode is not None:
                said = log.read_text()[-3000:]  # noqa: ASYNC240 - a few bytes
                raise RuntimeError(f"vLLM ended: {said}")
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(f"{server.url}/health") as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(0.5)


async def stop(server: Server) -> None:
    """End a server and wait until it is gone."""
    if server.process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            server.process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(server.process.wait(), 120)
        except TimeoutError:
            server.process.kill()
            await server.process.wait()
