"""The HTTP port: /metrics, /healthz, /readyz."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client import generate_latest

from inference_picker.addresses import split_address
from inference_picker.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from inference_picker.director import Director
    from inference_picker.pool import Source
    from inference_picker.recording import Recorder

    Page = Callable[[web.Request], Awaitable[web.StreamResponse]]

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# How long the page is written at a stretch before picks get their turn.
_SLICE_S = 0.001


class MetricsPage:
    """Prometheus' text format, written in slices so that no pick waits for it."""

    def __init__(self, director: Director, recorder: Recorder) -> None:
        """Show the recorder's series."""
        self._director = director
        self._recorder = recorder

    async def show(self, request: web.Request) -> web.StreamResponse:
        """Answer a scrape."""
        metrics = self._recorder.metrics
        gone = self._recorder.endpoints.gone(self._director.pool, time.monotonic())
        if gone:
            metrics.forget_endpoints(gone)
        response = web.StreamResponse(headers={"Content-Type": _CONTENT_TYPE})
        response.enable_compression()
        await response.prepare(request)
        await response.write(generate_latest(metrics.registry))
        pieces: list[str] = []
        started = time.perf_counter()
        for family in metrics.families:
            for piece in family.text():
                pieces.append(piece)
                if time.perf_counter() - started > _SLICE_S:
                    await response.write("".join(pieces).encode())
                    pieces.clear()
                    await asyncio.sleep(0)
                    started = time.perf_counter()
        await response.write("".join(pieces).encode())
        await response.write_eof()
        return response


def shares_page(source: Source, pool: str) -> Page:
    """Which shares of versions are in force, for the plugin to verify them by."""

    async def show(_request: web.Request) -> web.Response:
        # As a pick would see it: what is told is what the next request meets.
        return web.json_response({"pools": {pool: source.snapshot().held.document()}})

    return show


@contextlib.asynccontextmanager
async def served_pages(
    address: str,
    show_metrics: Page,
    why_unready: Callable[[], str | None],
    extra: dict[str, Page] | None = None,
    detail: Callable[[], str] = lambda: "",
) -> AsyncIterator[int]:
    """Serve the pages until the block ends; yields the port.

    ``why_unready`` says in a few words why no requests should come, or None. ``extra`` are more
    pages by path. ``detail`` is a line about the pool, for /readyz.
    """

    async def healthz(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_request: web.Request) -> web.Response:
        why = why_unready()
        if why is None:
            return web.Response(text=f"ok {detail()}".rstrip() + "\n")
        return web.Response(text=why, status=503)

    app = web.Application()
    app.router.add_get("/metrics", show_metrics)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    for path, page in (extra or {}).items():
        app.router.add_get(path, page)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    host, port = split_address(address, flag="--metrics-address")
    site = web.TCPSite(runner, host, port)
    try:
        await site.start()
        yield int(runner.addresses[0][1])
    except OSError as error:
        raise ConfigError(f"--metrics-address {address}: can't be bound: {error}") from error
    finally:
        await runner.cleanup()
