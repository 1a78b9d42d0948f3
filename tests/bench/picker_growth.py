"""What 200,000 requests leave behind in the picker: its size, and its series.

No two prompts are alike, users and model names neither, one answer in twenty is watched, and one
request in ten goes wrong: whatever is kept for each of these would show.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc

from bench.figures import Figure, show
from bench.picker_parts import Part, part
from inference_picker import wire
from inference_picker._pb import ext_proc_pb2 as pb
from inference_picker.messages import BodyMode

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

STREAMS = 16
MARKS = (20_000, 60_000, 100_000, 150_000, 200_000)
SETTLED = 60_000
"""By then the prefix index, which is bounded, is full, and every endpoint has its series."""
MOST_GROWTH_MIB = 5.0

EVENT = b'data: {"model":"base","choices":[{"index":0,"delta":{"content":" a"}}]}\n\n'
LAST = (
    b'data: {"model":"base","choices":[],"usage":{"prompt_tokens":500,"completion_tokens":3}}\n\n'
)


@dataclass(frozen=True)
class Mark:
    """What was seen after so many requests."""

    requests: int
    rss_mib: float
    series: int


def request(number: int) -> list[bytes]:
    """Headers and body of a request like no other."""
    text = " ".join(f"{number * 7919 % 1_000_003}-{place}" for place in range(250))
    body = json.dumps({"model": model(number), "prompt": text}).encode()
    if number % 50 == 1:
        body = body[:-1]
    head = pb.HttpHeaders()
    for name, value in {
        ":method": "POST",
        ":path": "/v1/completions",
        "content-length": str(len(body)),
        "x-request-id": f"request-{number}",
        "x-session-id": f"session-{number // 3}",
    }.items():
        head.headers.headers.add(key=name, raw_value=value.encode())
    config = pb.ProtocolConfiguration(
        request_body_mode=int(BodyMode.BUFFERED),  # type: ignore[arg-type]
        response_body_mode=int(BodyMode.NONE),  # type: ignore[arg-type]
    )
    return [
        pb.ProcessingRequest(request_headers=head, protocol_config=config).SerializeToString(),
        pb.ProcessingRequest(
            request_body=pb.HttpBody(body=body, end_of_stream=True)
        ).SerializeToString(),
    ]


def model(number: int) -> str:
    return "base" if number % 10 else f"nobody-knows-{number}"


def response(status: bytes) -> bytes:
    head = pb.HttpHeaders()
    head.headers.headers.add(key=":status", raw_value=status)
    head.headers.headers.add(key="content-type", raw_value=b"text/event-stream")
    message: bytes = pb.ProcessingRequest(response_headers=head).SerializeToString()
    return message


def chunk(body: bytes, *, last: bool) -> bytes:
    message: bytes = pb.ProcessingRequest(
        response_body=pb.HttpBody(body=body, end_of_stream=last)
    ).SerializeToString()
    return message


RESPONSES = {status: response(str(status).encode()) for status in (200, 404, 500)}
CHUNKS = (chunk(EVENT, last=False), chunk(EVENT, last=False), chunk(LAST, last=True))


async def exchange(method: Any, number: int) -> None:
    """One request with its answer, as a gateway in the recommended mode sends it."""
    call = method()
    headers, body = request(number)
    await call.write(headers)
    await call.read()
    await call.write(body)
    answer = pb.ProcessingResponse.FromString(await call.read())
    if answer.HasField("request_body") and number % 100 != 2:
        await call.write(RESPONSES[{3: 404, 4: 500}.get(number % 100, 200)])
        answer = pb.ProcessingResponse.FromString(await call.read())
        if answer.HasField("mode_override"):
            for piece in CHUNKS:
                await call.write(piece)
                await call.read()
    await call.done_writing()
    while await call.read() is not grpc.aio.EOF:
        pass


async def requests_unlike(port: int, numbers: Iterable[int]) -> None:
    """Requests of these numbers, several at a time."""
    left = iter(numbers)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        method: Any = channel.stream_stream(f"/{wire.SERVICE}/{wire.METHOD}")

        async def work() -> None:
            for number in left:
                await exchange(method, number)

        await asyncio.gather(*(work() for _ in range(STREAMS)))


async def measured(marks: Sequence[int]) -> tuple[list[Mark], float]:
    """What was seen at each mark, and requests in a second."""
    seen: list[Mark] = []
    began = time.monotonic()
    async with (
        part("picker_server.py", "--pods", "100", "--watch-share", "0.05") as server,
        aiohttp.ClientSession() as session,
    ):
        port, pages = json.loads(server.line)
        for start, mark in itertools.pairwise((0, *marks)):
            await requests_unlike(port, range(start, mark))
            seen.append(await look(mark, server, session, pages))
            print(seen[-1], flush=True)
    return seen, marks[-1] / (time.monotonic() - began)


async def look(mark: int, server: Part, session: aiohttp.ClientSession, pages: int) -> Mark:
    async with session.get(f"http://127.0.0.1:{pages}/metrics") as answer:
        text = await answer.text()
    flights = [line for line in text.splitlines() if line.startswith("inference_picker_in_flight")]
    if any(float(line.split()[-1]) for line in flights):
        raise SystemExit(f"After {mark} requests some are in flight still.")
    return Mark(mark, server.rss_mib(), text.count("\n"))


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=MARKS[-1])
    options = parser.parse_args()
    marks = [*(each for each in MARKS if each < options.requests), options.requests]
    seen, rate = await measured(marks)
    first = next((each for each in seen if each.requests >= SETTLED), seen[0])
    last = seen[-1]
    growth = last.rss_mib - first.rss_mib
    slope = 1024 * growth / max(1, (last.requests - first.requests) / 1000)
    figures = [
        Figure(
            what=f"size after {each.requests:,} requests",
            value=f"{each.rss_mib:.1f} MiB",
            note=f"{each.series:,} lines of metrics",
        )
        for each in seen
    ]
    figures.append(
        Figure(
            what=f"growth from {first.requests:,} to {last.requests:,} requests",
            value=f"{growth:.1f} MiB",
            aim=f"< {MOST_GROWTH_MIB:g} MiB",
            met=growth < MOST_GROWTH_MIB,
            note=f"{slope:.1f} KiB for 1,000 requests, {rate:.0f} requests/s",
        )
    )
    sys.exit(0 if show("Picker: what requests leave behind", figures) else 1)


if __name__ == "__main__":
    asyncio.run(main())
