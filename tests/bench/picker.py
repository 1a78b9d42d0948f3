"""What a request costs the picker: server CPU by body size, streaming through Envoy, scraping.

CPU is the picker process's own user and system time, divided by the requests: the load generator
and the model servers run in other processes. Each figure is the median of several rounds. Beside a
request's cost stands that of a server that only parses and answers, measured in turns with it:
both grow on a busy machine, their ratio hardly does. Aims and the peer's figures: docs/picker.md.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc
import psutil

from bench.figures import Figure, percentile, show
from bench.picker_growth import requests_unlike
from bench.picker_page import metrics_page
from bench.picker_parts import Part, part
from bench.picker_upstream import whole_stream
from inference_picker import wire
from inference_picker._pb import ext_proc_pb2 as pb
from inference_picker.chunks import chunked
from inference_picker.messages import BodyMode
from support.picker_rig import FULL_DUPLEX, RECOMMENDED, envoy_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

UPSTREAM_PORT = 8000
SIZES = {"200 B": (200, 0.75), "8 KB": (8_000, 0.8), "220 KB": (220_000, 2.0)}
TOKENS = 200
ROUNDS = 5


def prompt_body(size: int) -> bytes:
    """A chat request of about this many bytes."""
    words = " ".join(f"word{number}" for number in range(size // 7))
    message = {"role": "user", "content": words[: max(0, size - 110)]}
    return json.dumps({"model": "base", "messages": [message], "max_tokens": 100}).encode()


def call_messages(body: bytes, request: BodyMode, response: BodyMode) -> list[bytes]:
    """What Envoy sends for one request, without the response."""
    head = pb.HttpHeaders()
    for name, value in {
        ":method": "POST",
        ":path": "/v1/chat/completions",
        ":authority": "gateway.example.com",
        "content-type": "application/json",
        "user-agent": "OpenAI/Python 1.99.9",
        "authorization": "Bearer 0123456789abcdef",
        "x-request-id": "5b2c7a52-0c4e-4f7e-9c38-6f1b6a1c6d4f",
        "content-length": str(len(body)),
    }.items():
        head.headers.headers.add(key=name, raw_value=value.encode())
    config = pb.ProtocolConfiguration(
        request_body_mode=int(request),  # type: ignore[arg-type]
        response_body_mode=int(response),  # type: ignore[arg-type]
    )
    sent = [pb.ProcessingRequest(request_headers=head, protocol_config=config)]
    pieces = [(body, True)] if request is BodyMode.BUFFERED else list(chunked(body))
    sent += [
        pb.ProcessingRequest(request_body=pb.HttpBody(body=piece, end_of_stream=last))
        for piece, last in pieces
    ]
    return [each.SerializeToString() for each in sent]


def answer_messages() -> list[bytes]:
    """What Envoy sends for a short answer of which just the end is followed."""
    head = pb.HttpHeaders()
    head.headers.headers.add(key=":status", raw_value=b"200")
    head.headers.headers.add(key="content-type", raw_value=b"application/json")
    return [pb.ProcessingRequest(response_headers=head).SerializeToString()]


@dataclass
class Cost:
    """CPU of the picker and times of picks."""

    cpu_ms: float
    picks_s: list[float]


async def direct_cost(
    server: Part, port: int, body: bytes, modes: tuple[BodyMode, BodyMode], count: int
) -> Cost:
    """Picks by gRPC, eight at a time, each with its response phase where the mode has one."""
    request = call_messages(body, *modes)
    response = [] if modes[1] is BodyMode.FULL_DUPLEX_STREAMED else answer_messages()
    echoes = 1 + sum(1 for _ in chunked(body)) if modes[0] is not BodyMode.BUFFERED else 2
    picks: list[float] = []
    options = [("grpc.max_receive_message_length", -1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        method: Any = channel.stream_stream(f"/{wire.SERVICE}/{wire.METHOD}")

        async def one() -> None:
            call = method()
            started = time.perf_counter()
            for message in request:
                await call.write(message)
            for _ in range(echoes):
                await call.read()
            picks.append(time.perf_counter() - started)
            for message in response:
                await call.write(message)
                await call.read()
            await call.done_writing()
            while await call.read() is not grpc.aio.EOF:
                pass

        await many(one, 200)
        picks.clear()
        before = server.cpu_s()
        await many(one, count)
        return Cost(1000 * (server.cpu_s() - before) / count, picks)


async def many(one: Callable[[], Awaitable[None]], count: int, workers: int = 8) -> None:
    left = iter(range(count))

    async def work() -> None:
        for _ in left:
            await one()

    await asyncio.gather(*(work() for _ in range(workers)))


async def body_sizes() -> AsyncIterator[Figure]:
    async with part("picker_echo.py") as echo, part("picker_server.py", "--pods", "20") as server:
        for label, modes in {
            "BUFFERED": (BodyMode.BUFFERED, BodyMode.NONE),
            "FULL_DUPLEX": (BodyMode.FULL_DUPLEX_STREAMED, BodyMode.FULL_DUPLEX_STREAMED),
        }.items():
            for size, (count_bytes, aim) in SIZES.items():
                body = prompt_body(count_bytes)
                costs: list[float] = []
                least: list[float] = []
                for _ in range(ROUNDS):
                    for process, into in ((echo, least), (server, costs)):
                        port = json.loads(process.line)[0]
                        into.append((await direct_cost(process, port, body, modes, 500)).cpu_ms)
                cost = statistics.median(costs)
                ratio = statistics.median(
                    mine / its for mine, its in zip(costs, least, strict=True)
                )
                yield Figure(
                    what=f"pick and response phase, {size}, {label}",
                    value=f"{cost:.2f} ms CPU",
                    aim=f"≤ {aim} ms",
                    met=cost <= aim,
                    note=f"{ratio:.2f} times a server that only parses and answers "
                    f"({statistics.median(least):.2f} ms); {min(costs):.2f} to {max(costs):.2f}",
                )


async def latency() -> AsyncIterator[Figure]:
    """Picks at 300 a second, whenever the clock says so, not when the last one is done."""
    rounds = [await picks_at(300, 2_000) for _ in range(3)]
    p50, p99 = (
        statistics.median(1000 * percentile(picks, share) for picks in rounds)
        for share in (0.5, 0.99)
    )
    yield Figure(
        what="pick at 300 requests/s, one core",
        value=f"p50 {p50:.2f}, p99 {p99:.2f} ms",
        aim="p99 < 5 ms",
        met=p99 < 5,
        note="as its client sees it, on the same two cores",
    )


async def picks_at(rate: float, count: int) -> list[float]:
    """Seconds from a request to its endpoint, without those of the first second."""
    body = prompt_body(2_000)
    modes = (BodyMode.FULL_DUPLEX_STREAMED, BodyMode.FULL_DUPLEX_STREAMED)
    request = call_messages(body, *modes)
    picks: list[float] = []
    async with part("picker_server.py", "--pods", "20") as server:
        port = json.loads(server.line)[0]
        # One core for the picker, the other for everybody else.
        psutil.Process(server.process.pid).cpu_affinity([0])
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            method: Any = channel.stream_stream(f"/{wire.SERVICE}/{wire.METHOD}")

            async def one() -> None:
                call = method()
                for message in request:
                    await call.write(message)
                started = time.perf_counter()
                await call.read()
                picks.append(time.perf_counter() - started)
                await call.done_writing()
                while await call.read() is not grpc.aio.EOF:
                    pass

            loop = asyncio.get_running_loop()
            begin = loop.time()
            tasks = []
            for number in range(count):
                await asyncio.sleep(begin + number / rate - loop.time())
                tasks.append(loop.create_task(one()))
            await asyncio.gather(*tasks)
    return picks[round(rate) :]


async def scraping() -> AsyncIterator[Figure]:
    """Pages as vLLM's, and for comparison of the peer's size, every 50 ms, as the peer does."""
    for pods, aim, size in ((20, 60.0, None), (100, 150.0, None), (20, None, 20_000)):
        async with (
            part(
                *("picker_upstream.py", "--addresses", str(pods), "--port", str(UPSTREAM_PORT)),
                *("--pages", *([] if size is None else ["--page-bytes", str(size)])),
            ),
            part(
                *("picker_server.py", "--pods", str(pods), "--scrape-interval-s", "0.05"),
                *("--upstream-port", str(UPSTREAM_PORT)),
            ) as server,
            aiohttp.ClientSession() as session,
        ):
            url = f"http://127.0.0.1:{json.loads(server.line)[1]}/metrics"
            await asyncio.sleep(2)
            found = [await scraping_cost(server, session, url) for _ in range(3)]
        cpu_ms, rate = (statistics.median(each[place] for each in found) for place in (0, 1))
        yield Figure(
            what=f"scraping {pods} pods every 50 ms",
            value=f"{cpu_ms:.0f} ms CPU/s",
            aim="" if aim is None else f"≤ {aim:g} ms CPU/s",
            met=aim is None or cpu_ms <= aim,
            note=f"{rate:.0f} pages/s of {(size or len(metrics_page(0))) / 1000:.0f} KB, "
            f"{1000 * cpu_ms / max(rate, 1):.0f} µs each",
        )


async def scraping_cost(
    server: Part, session: aiohttp.ClientSession, url: str
) -> tuple[float, float]:
    """CPU in ms each second, and pages each second."""
    pages, before, began = await pages_read(session, url), server.cpu_s(), time.monotonic()
    await asyncio.sleep(4)
    took_s = time.monotonic() - began
    cpu_ms = 1000 * (server.cpu_s() - before) / took_s
    return cpu_ms, (await pages_read(session, url) - pages) / took_s


async def pages_read(session: aiohttp.ClientSession, url: str) -> float:
    async with session.get(url) as response:
        for line in (await response.text()).splitlines():
            if line.startswith("inference_picker_pages_read_total "):
                return float(line.split()[1])
    return 0.0


async def memory() -> AsyncIterator[Figure]:
    """Size with 1,000 pods after 20,000 requests, no two alike, as they fill what is bounded."""
    async with (
        part("picker_server.py", "--pods", "1000", "--watch-share", "0.05") as server,
        aiohttp.ClientSession() as session,
    ):
        port, pages = json.loads(server.line)
        before = server.cpu_s()
        await requests_unlike(port, range(20_000))
        cpu_ms = 1000 * (server.cpu_s() - before) / 20_000
        async with session.get(f"http://127.0.0.1:{pages}/metrics") as response:
            text = await response.read()
        size = server.rss_mib()
    yield Figure(
        what="memory with 1,000 pods",
        value=f"{size:.0f} MiB",
        aim="< 250 MiB",
        met=size < 250,
        note=f"metrics page of {len(text) / 1e6:.1f} MB, {cpu_ms:.2f} ms CPU for a request",
    )


async def streaming(
    directory: Path, mode: Mapping[str, Any], watch_share: float, count: int
) -> tuple[float, int]:
    """CPU in ms for each request of 200 tokens through Envoy; how many answers were not whole."""
    expected = whole_stream(TOKENS)
    async with (
        part("picker_upstream.py", "--addresses", "20", "--port", str(UPSTREAM_PORT)),
        part("picker_server.py", "--watch-share", str(watch_share)) as server,
        envoy_server(directory, json.loads(server.line)[0], mode, tls=False) as url,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        broken = 0

        async def one() -> None:
            nonlocal broken
            async with session.post(
                f"{url}/v1/chat/completions",
                data=prompt_body(200),
                headers={"x-tokens": str(TOKENS)},
            ) as response:
                broken += await response.read() != expected

        await many(one, 20)
        costs = []
        for _ in range(3):
            before = server.cpu_s()
            await many(one, count, workers=48)
            costs.append(1000 * (server.cpu_s() - before) / count)
        return statistics.median(costs), broken


async def streaming_costs() -> AsyncIterator[Figure]:
    for label, mode in {"recommended": RECOMMENDED, "FULL_DUPLEX": FULL_DUPLEX}.items():
        for watched, aim in ((0.0, 1.2), (1.0, 20.0)):
            with tempfile.TemporaryDirectory() as directory:
                cpu_ms, broken = await streaming(Path(directory), mode, watched, 160)
            yield Figure(
                what=f"200 tokens, {label}, {'sampled' if watched else 'not sampled'}",
                value=f"{cpu_ms:.2f} ms CPU",
                aim=f"≤ {aim} ms, every byte",
                met=cpu_ms <= aim and not broken,
                note=f"{broken} answers not whole",
            )


async def main() -> None:
    figures = []
    for found in (body_sizes(), streaming_costs(), scraping(), latency(), memory()):
        async for figure in found:
            print(figure.what, figure.value, figure.note, flush=True)
            figures.append(figure)
    sys.exit(0 if show("Picker: cost of a request", figures) else 1)


if __name__ == "__main__":
    asyncio.run(main())
