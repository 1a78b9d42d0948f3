"""The HTTP port: /metrics, /healthz, /readyz."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client import generate_latest
from prometheus_client.registry import Collector

from inference_picker.addresses import split_address
from inference_picker.errors import ConfigError
from inference_picker.series import pool_front

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterator,
        Awaitable,
        Callable,
        Iterator,
        Mapping,
        Sequence,
    )

    from prometheus_client.metrics_core import Metric

    from inference_picker.director import Director
    from inference_picker.pool import Source
    from inference_picker.readiness import Readiness
    from inference_picker.recording import Recorder

    Page = Callable[[web.Request], Awaitable[web.StreamResponse]]

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# How long the page is written at a stretch before picks get their turn.
_SLICE_S = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSeries:
    """The series of one pool."""

    pool: str
    """``NS/NAME``; empty where there is none."""
    director: Director
    recorder: Recorder


class MetricsPage:
    """Prometheus' text format, written in slices so that no pick waits for it.

    Of several pools, or of one that has a name, every sample has it as its label ``pool``.
    """

    def __init__(self, pools: Sequence[PoolSeries]) -> None:
        """Show the series of these pools."""
        self._pools = pools

    async def show(self, request: web.Request) -> web.StreamResponse:
        """Answer a scrape."""
        for each in self._pools:
            gone = each.recorder.endpoints.gone(each.director.pool, time.monotonic())
            if gone:
                each.recorder.metrics.forget_endpoints(gone)
        response = web.StreamResponse(headers={"Content-Type": _CONTENT_TYPE})
        response.enable_compression()
        await response.prepare(request)
        await response.write(generate_latest(_Collected(self._pools)))
        pieces: list[str] = []
        started = time.perf_counter()
        for piece in self._text():
            pieces.append(piece)
            if time.perf_counter() - started > _SLICE_S:
                await response.write("".join(pieces).encode())
                pieces.clear()
                await asyncio.sleep(0)
                started = time.perf_counter()
        await response.write("".join(pieces).encode())
        await response.write_eof()
        return response

    def _text(self) -> Iterator[str]:
        fronts = [pool_front(each.pool) for each in self._pools]
        families = [each.recorder.metrics.families for each in self._pools]
        # The same families in the same order: a name may be on the page only once.
        for same in zip(*families, strict=True):
            yield same[0].head()
            for front, family in zip(fronts, same, strict=True):
                yield from family.lines(front)


class _Collected(Collector):
    """What collectors gather, each name once, with the pools' labels."""

    def __init__(self, pools: Sequence[PoolSeries]) -> None:
        self._pools = pools

    def collect(self) -> Iterator[Metric]:
        merged: dict[str, Metric] = {}
        for each in self._pools:
            label = {"pool": each.pool} if each.pool else {}
            for family in each.recorder.metrics.registry.collect():
                samples = [
                    sample._replace(labels={**label, **sample.labels}) for sample in family.samples
                ]
                family.samples = []
                merged.setdefault(family.name, family).samples += samples
        yield from merged.values()


def shares_page(sources: Mapping[str, Source]) -> Page:
    """Which shares of versions are in force in each pool, for the plugin to verify them by."""

    async def show(_request: web.Request) -> web.Response:
        # As a pick would see it: what is told is what the next request meets.
        held = {pool: source.snapshot().held.document() for pool, source in sources.items()}
        return web.json_response({"pools": held})

    return show


@contextlib.asynccontextmanager
async def served_pages(
    address: str,
    show_metrics: Page,
    readiness: Callable[[str], Readiness | None],
    extra: Mapping[str, Page] = MappingProxyType({}),
) -> AsyncIterator[int]:
    """Serve the pages until the block ends; yields the port.

    ``readiness`` tells it of a pool, of the whole process under the empty name, and None of a
    pool that is not served here. ``extra`` are more pages by path.
    """

    async def healthz(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(request: web.Request) -> web.Response:
        pool = request.query.get("pool", "")
        found = readiness(pool)
        if found is None:
            return web.Response(text=f"{pool} is not served here\n", status=404)
        return web.Response(text=f"{found.text}\n", status=200 if found.ready else 503)

    app = web.Application()
    app.router.add_get("/metrics", show_metrics)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    for path, page in extra.items():
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
