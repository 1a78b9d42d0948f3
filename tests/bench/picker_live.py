"""Picks on running servers: TTFT as clients see it, through Envoy, policy against policy.

Eight simulated vLLM processes with few places and a real prefill time, so that a queue forms where
the picks are bad. Every policy runs in the picker's own process and meets the same arrivals, one
policy after another, in an order that changes with the seed. Upstream's default formula runs on
this picker's own plugins, with the staleness that upstream has: metrics pages read every 50 ms.

Machines differ and others use them: the machine's CPU is told for each run. Above 70 % the servers'
own times lengthen, whatever the policy.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import numpy as np
import psutil
import uvloop

from bench.figures import Figure, interval, percentile, show
from inference_common.logs import configure_logging
from inference_picker.config import PickerConfig
from inference_picker.director import Settings
from inference_picker.pool import Endpoint, StaticSource, make_snapshot
from inference_picker.serving import Options, serving, settle_memory
from inference_picker.simulation.policies import DEFAULT, GO_DEFAULT, POLICIES, SIMPLE
from support.picker_rig import RECOMMENDED, envoy_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

TESTS: Final = Path(__file__).parents[1]
PORT: Final = 18000
SERVERS: Final = 8
PLACES: Final = 4
SPEED: Final = 1.0
"""Of a server, and of the arrivals. Slower ones would flatter upstream's default: fewer requests
would come between two of its pages, which are 50 ms apart whatever the servers' speed."""
PAIR_SPEED: Final = 0.5
"""Of the servers for watched and other answers, which are compared to two parts in a hundred: half
of the simulated GPU's, so that this machine's noise is small beside it."""
TOKEN_BYTES: Final = 4
PREFIXES: Final = 64
PREFIX_TOKENS: Final = 768
"""Together half as much again as one server's cache holds."""
CACHE_BLOCKS: Final = 2048
UPSTREAM_SCRAPE_S: Final = 0.05
BUSY: Final = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One request as it is to be sent."""

    at: float
    body: dict[str, Any]


@dataclass(slots=True, kw_only=True)
class Got:
    """What a client saw of one request; times in seconds since it was due."""

    status: int
    ttft: float = 0.0
    gaps: list[float] = field(default_factory=list)


def text(random: Random, tokens: int) -> str:
    """So many tokens as the simulated server counts them, unlike any other text."""
    return random.randbytes(tokens * TOKEN_BYTES // 2).hex()


def body(prompt: str, tokens: int) -> dict[str, Any]:
    return {
        "model": "mymodel",
        "prompt": prompt,
        "stream": True,
        "max_tokens": tokens,
        "ignore_eos": True,
        "stream_options": {"include_usage": True},
    }


def lengths(random: Random, median: float, spread: float, most: int) -> int:
    return max(4, min(most, round(random.lognormvariate(np.log(median), spread))))


def plain(random: Random) -> dict[str, Any]:
    return body(text(random, lengths(random, 150, 0.8, 1500)), lengths(random, 20, 0.6, 100))


def prefixed(random: Random, prefixes: Sequence[str]) -> dict[str, Any]:
    rank = random.choices(range(PREFIXES), [1 / (n + 1) for n in range(PREFIXES)])[0]
    own = text(random, lengths(random, 60, 0.6, 400))
    return body(prefixes[rank] + own, lengths(random, 20, 0.6, 100))


RATES: Final = {"plain": 38.0, "prefix": 34.0}
"""Requests per second at full speed."""


def arrivals(workload: str, seed: int, run: str, options: argparse.Namespace) -> list[Sent]:
    """The same requests for every ``run`` of a seed, but for bytes that no other run has cached."""
    random, salt = Random(seed), Random(f"{seed}/{run}")
    fresh = [text(salt, PREFIX_TOKENS) for _ in range(PREFIXES)]
    found, at = [], 0.0
    rate = RATES[workload] * options.speed
    while (at := at + random.expovariate(rate)) < options.seconds:
        found.append(
            Sent(at=at, body=plain(random) if workload == "plain" else prefixed(random, fresh))
        )
    if workload == "plain":
        for each in found:
            each.body["prompt"] = text(salt, 4) + each.body["prompt"][4 * TOKEN_BYTES :]
    return found


async def ask(session: aiohttp.ClientSession, url: str, sent: Sent, name: str = "") -> Got:
    """Send a request now; what a client sees of it."""
    due = time.perf_counter()
    try:
        async with session.post(
            f"{url}/v1/completions", json=sent.body, headers={"x-request-id": name}
        ) as response:
            got = Got(status=response.status)
            last = 0.0
            async for line in response.content:
                if not line.startswith(b"data: {") or b'"choices":[]' in line:
                    continue
                now = time.perf_counter() - due
                if not got.ttft:
                    got.ttft = now
                else:
                    got.gaps.append(now - last)
                last = now
            return got
    except aiohttp.ClientError:
        return Got(status=0)


async def replay(url: str, sent: Iterable[Sent]) -> list[Got]:
    """Send each request at its time, whatever became of the others."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        loop = asyncio.get_running_loop()
        began = loop.time()
        tasks = []
        for each in sent:
            await asyncio.sleep(max(0.0, began + each.at - loop.time()))
            tasks.append(asyncio.create_task(ask(session, url, each)))
        return list(await asyncio.gather(*tasks))


@contextlib.asynccontextmanager
async def process(*args: str, ready: bool = False) -> AsyncIterator[str]:
    """A process of the bench; with ``ready`` from its first line of output on, which it yields."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, *args),
        stdout=asyncio.subprocess.PIPE,
        stderr=None if ready else asyncio.subprocess.DEVNULL,
    )
    try:
        assert child.stdout is not None
        yield (await child.stdout.readline()).decode() if ready else ""
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
        await child.wait()


def address(number: int) -> str:
    return f"127.0.3.{1 + number}:{PORT}"


@contextlib.asynccontextmanager
async def servers(interval: int, speed: float) -> AsyncIterator[None]:
    """All model servers, once each one answers."""
    async with contextlib.AsyncExitStack() as stack:
        for number in range(SERVERS):
            host, port = address(number).split(":")
            await stack.enter_async_context(
                process(
                    *("-m", "support.simulated_vllm", "--host", host, "--port", port),
                    *("--served-model-name", "mymodel", "--max-num-seqs", str(PLACES)),
                    *("--speed", str(speed), "--gpu-blocks", str(CACHE_BLOCKS)),
                    *("--stream-interval", str(interval), "--drain-seconds", "0"),
                )
            )
        session = await stack.enter_async_context(aiohttp.ClientSession())
        for number in range(SERVERS):
            async with asyncio.timeout(60):
                while True:
                    with contextlib.suppress(aiohttp.ClientError):
                        async with session.get(f"http://{address(number)}/health") as response:
                            if response.status == 200:
                                break
                    await asyncio.sleep(0.1)
        yield


@contextlib.asynccontextmanager
async def pool(policy: str, *, watch_share: float = 0.05, log: str = "") -> AsyncIterator[str]:
    """A picker of this policy behind Envoy; the URL."""
    args = [str(Path(__file__)), "--serve", policy, "--watch-share", str(watch_share)]
    if log:
        args += ["--pick-log", log]
    async with process(*args, ready=True) as line:
        with tempfile.TemporaryDirectory() as directory:
            async with envoy_server(Path(directory), int(line), RECOMMENDED, tls=False) as url:
                yield url


@dataclass(slots=True, kw_only=True)
class Run:
    """One policy on one workload and seed."""

    mean: float
    p99: float
    failed: int
    cpu: float


async def run(policy: str, workload: str, seed: int, options: argparse.Namespace) -> Run:
    """TTFT of all requests but those of the first fifth, in which the pool fills."""
    sent = arrivals(workload, seed, policy, options)
    async with pool(policy) as url:
        psutil.cpu_percent()
        found = await replay(url, sent)
        cpu = psutil.cpu_percent() / 100
    late = [got for each, got in zip(sent, found, strict=True) if each.at > options.seconds / 5]
    times = [got.ttft for got in late if got.status == 200 and got.ttft]
    return Run(
        mean=statistics.fmean(times),
        p99=percentile(times, 0.99),
        failed=len(late) - len(times),
        cpu=cpu,
    )


async def compare(workload: str, options: argparse.Namespace) -> list[Figure]:
    """Every policy on the same arrivals, seed by seed."""
    runs: dict[str, list[Run]] = {name: [] for name in POLICIES}
    for seed in range(options.seeds):
        names = list(POLICIES)
        Random(seed).shuffle(names)
        for name in names:
            runs[name].append(await run(name, workload, seed, options))
    ours, upstream = runs[DEFAULT], runs[GO_DEFAULT]
    simple = {name: statistics.fmean(r.mean for r in runs[name]) for name in SIMPLE}
    best = min(simple, key=lambda name: simple[name])
    figures = [
        Figure(
            what=f"{workload}: {name}",
            value=f"TTFT mean {1000 * statistics.fmean(r.mean for r in found):.0f} ms, "
            f"p99 {1000 * statistics.fmean(r.p99 for r in found):.0f} ms",
            note=f"{_busy(found)}, {sum(r.failed for r in found)} failed",
            met=not sum(r.failed for r in found),
        )
        for name, found in runs.items()
    ]
    both = _busy([*ours, *upstream])
    ratio = interval([np.log(a.mean / b.mean) for a, b in zip(ours, upstream, strict=True)])
    to_best = statistics.fmean(r.mean for r in ours) / simple[best]
    figures += [
        Figure(
            what=f"{workload}: ours against {GO_DEFAULT}",
            value=told(ratio),
            aim="mean TTFT ≤ 0.5 times",
            note=both,
            met=bool(np.exp(ratio[0]) <= 0.5),
        ),
        Figure(
            what=f"{workload}: ours against the best simple one ({best})",
            value=f"{to_best:.2f}",
            aim="≤ 1.05",
            note=_busy([*ours, *runs[best]]),
            met=to_best <= 1.05,
        ),
    ]
    return figures


def _busy(found: Sequence[Run]) -> str:
    cpu = max(r.cpu for r in found)
    return f"machine {cpu:.0%} busy" + (": too busy to tell" if cpu > BUSY else "")


def told(found: tuple[float, float]) -> str:
    mean, half = found
    low, high = np.exp(mean - half), np.exp(mean + half)
    return f"{np.exp(mean):.3f} ({low:.3f} to {high:.3f})"


PAIR_LANES: Final = 4


async def watched(requests: int) -> list[Figure]:
    """One version, every second answer watched: whether its clients can tell.

    A few requests at a time that are all alike, on servers with nothing else to do.
    """
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "picks.jsonl"
        random = Random(1)
        got: dict[str, Got] = {}
        async with (
            pool(DEFAULT, watch_share=0.5, log=str(log)) as url,
            aiohttp.ClientSession() as session,
        ):
            numbers = iter(range(requests))

            async def lane() -> None:
                for number in numbers:
                    sent = Sent(at=0.0, body=body(text(random, 100), 24))
                    got[str(number)] = await ask(session, url, sent, str(number))

            psutil.cpu_percent()
            await asyncio.gather(*(lane() for _ in range(PAIR_LANES)))
            cpu = psutil.cpu_percent() / 100
        lines = [json.loads(line) for line in log.read_text().splitlines()]
    times = {line["request"]: line["ttft_s"] is not None for line in lines}
    arms: dict[bool, list[Got]] = {True: [], False: []}
    for number in sorted(times.keys() & got.keys(), key=int):
        if got[number].status == 200 and got[number].gaps:
            arms[times[number]].append(got[number])
    figures = []
    for what, value in (
        ("TTFT", lambda each: each.ttft),
        ("ITL", lambda each: statistics.fmean(each.gaps)),
    ):
        pairs = zip(arms[True], arms[False], strict=False)
        values = np.array([(value(a), value(b)) for a, b in pairs])
        logs = np.log(values[:, 0] / values[:, 1]).tolist()
        found = interval(logs)
        more_ms = 1000 * float(np.mean(values[:, 0] - values[:, 1]))
        note = f"{more_ms:+.2f} of {1000 * values[:, 1].mean():.0f} ms, {len(logs)} pairs, "
        note += f"machine {cpu:.0%} busy"
        figures.append(
            Figure(
                what=f"{what} of watched answers against others",
                value=told(found),
                aim="differ by < 2 %",
                note=note + (": too busy to tell" if cpu > BUSY else ""),
                met=abs(np.exp(found[0]) - 1) < 0.02,
            )
        )
    return figures


async def serve(options: argparse.Namespace) -> None:
    """The picker of one policy over the bench's servers: prints its port, then serves."""
    endpoints = [
        Endpoint(address=address(number), pod=f"model-{number}", version="v")
        for number in range(SERVERS)
    ]
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    served = Options(
        address="127.0.0.1:0",
        metrics_address="127.0.0.1:0",
        settings=Settings(config=PickerConfig(profile=POLICIES[options.serve]())),
        watch_share=options.watch_share,
        tls=None,
        scrape_interval_s=UPSTREAM_SCRAPE_S if options.serve == GO_DEFAULT else 0.2,
        pick_log=Path(options.pick_log) if options.pick_log else None,
    )
    async with serving(StaticSource(make_snapshot(endpoints)), served) as running:
        settle_memory()
        print(running.port, flush=True)
        await stopping.wait()


async def measure(options: argparse.Namespace) -> bool:
    figures = []
    if options.requests:
        async with servers(interval=1, speed=PAIR_SPEED):
            figures += await watched(options.requests)
    async with servers(interval=8, speed=options.speed):
        for workload in options.workload or RATES:
            figures += await compare(workload, options)
    return show("Picks on running servers, through Envoy", figures)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=40.0, help="of each run")
    parser.add_argument("--speed", type=float, default=SPEED, help="of servers and arrivals")
    parser.add_argument("--workload", action="append", choices=tuple(RATES))
    parser.add_argument("--requests", type=int, default=1200, help="watched or not, all alike")
    parser.add_argument("--serve", choices=tuple(POLICIES), help=argparse.SUPPRESS)
    parser.add_argument("--watch-share", type=float, default=0.05, help=argparse.SUPPRESS)
    parser.add_argument("--pick-log", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    # As Ctrl-C does: the servers end with the bench.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if options.serve:
            configure_logging("picker", json=True, level="error")
            runner.run(serve(options))
            return 0
        return 0 if runner.run(measure(options)) else 1


if __name__ == "__main__":
    sys.exit(main())
