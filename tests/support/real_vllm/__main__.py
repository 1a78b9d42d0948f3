"""`make vllm`: the picker and Envoy before two real vLLM servers, checked and measured."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Final

import aiohttp

from bench.figures import Figure, show
from inference_picker.engines import PageReader
from support.picker_rig import RECOMMENDED, envoy_server
from support.real_vllm.installing import cache_folder, ensure_model, ensure_vllm
from support.real_vllm.servers import BLOCK_SIZE, BLOCKS, Server, ready, stop, vllm
from support.real_vllm.traffic import Client, PickerPage
from support.served_picker import Served, served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Sequence

REQUESTS: Final = 60
TOKENS: Final = 16
GROUPS: Final = 9
PER_GROUP: Final = 5


@dataclass
class Rig:
    """Everything that a check touches."""

    client: Client
    page: PickerPage
    servers: Sequence[Server]
    picker: Served


@contextlib.asynccontextmanager
async def rig(servers: Sequence[Server]) -> AsyncIterator[Rig]:
    """A picker of its own and an Envoy before the servers; ``chat`` is split in halves."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        endpoints = [
            {"address": each.tap, "name": each.name, "version": each.name} for each in servers
        ]
        half = [{"name": "v1", "weight": 50}, {"name": "v2", "weight": 50}]
        file = folder / "endpoints.yaml"
        models = [{"model": "chat", "targets": half}]
        # JSON is YAML.
        file.write_text(json.dumps({"endpoints": endpoints, "models": models}))
        flags = ["--endpoints", str(file), "--insecure", "--watch-share", "1"]
        flags += ["--log-level", "error", "--models-interval-s", "0.5"]
        async with (
            served(*flags) as picker,
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=300)) as session,
        ):
            await picker.until_status("readyz", 200)
            page = PickerPage(session, picker.pages)
            async with envoy_server(
                folder, int(picker.address.rpartition(":")[2]), RECOMMENDED, tls=False
            ) as url:
                for each in servers:
                    # Both pages of each have been read once.
                    async with asyncio.timeout(120):
                        while not {"/v1/models", "/metrics"} <= set(each.paths):  # noqa: ASYNC110 - a tap
                            await asyncio.sleep(0.1)
                yield Rig(client=Client(session, url), page=page, servers=servers, picker=picker)


def texts(prefix: str, count: int) -> list[str]:
    return [
        f"{prefix} {number}: tell me about trains, boats and mountains" for number in range(count)
    ]


async def totals(servers: Sequence[Server], name: str) -> float:
    return sum([await each.series(name) for each in servers])


async def bytes_and_tokens(found: Rig) -> list[Figure]:
    """Every byte as the server sent it; times and tokens as client and server count them."""
    await found.client.chats(texts("warm", 8))
    await found.page.until("requests_total", 8)
    names = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total")
    before = [await totals(found.servers, name) for name in names]
    first_before = await found.page.sum("time_to_first_token_seconds_sum")
    started = time.perf_counter()
    answers = await found.client.chats(texts("plain", REQUESTS))
    took_s = time.perf_counter() - started
    await found.page.until("requests_total", 8 + REQUESTS)
    after = [await totals(found.servers, name) for name in names]
    same = sum(each.is_whole and each.sent_by(found.servers) is not None for each in answers)
    first_s = (await found.page.sum("time_to_first_token_seconds_sum") - first_before) / REQUESTS
    prompt = sum(each.usage["prompt_tokens"] for each in answers)
    output = sum(each.usage["completion_tokens"] for each in answers)
    # The eight before have as long an answer each, and prompts of their own.
    counted = [await found.page.sum(f"{name}_tokens_sum") for name in ("prompt", "output")]
    client_s = fmean(each.first_s for each in answers)
    spread = await found.page.sum("requests_total", endpoint=found.servers[0].name)
    return [
        Figure(
            what="answers whose every byte is the server's",
            value=f"{same} of {REQUESTS}",
            aim="all",
            note=f"{REQUESTS / took_s:.1f} requests/s, 4 at once, {TOKENS} tokens each",
            met=same == REQUESTS,
        ),
        Figure(
            what="time to first token, picker / client",
            value=f"{1000 * first_s:.1f} / {1000 * client_s:.1f} ms",
            aim="no later than the client",
            met=0 < first_s <= client_s,
        ),
        Figure(
            what="output tokens: picker, client, vLLM",
            value=f"{counted[1]:.0f}, {output + 8 * TOKENS}, "
            f"{after[1] - before[1] + 8 * TOKENS:.0f}",
            aim="equal",
            met=counted[1] == output + 8 * TOKENS == after[1] - before[1] + 8 * TOKENS,
        ),
        Figure(
            what="prompt tokens: client, vLLM",
            value=f"{prompt}, {after[0] - before[0]:.0f}",
            aim="equal",
            note=f"picker, with the 8 before: {counted[0]:.0f}",
            met=prompt == after[0] - before[0] and counted[0] > prompt,
        ),
        Figure(
            what="requests at the first server",
            value=f"{spread:.0f} of {REQUESTS + 8}",
            aim="both serve",
            met=0 < spread < REQUESTS + 8,
        ),
    ]


async def adapters(found: Rig) -> list[Figure]:
    """An adapter that one server has, a split that is written back, a model that nobody has."""
    first, second = found.servers
    only = await found.client.chats(texts("adapter", 10), model="v2")
    by_first = sum(each.is_whole and each.sent_by([first]) is not None for each in only)
    split = await found.client.chats(texts("split", 20), model="chat")
    named = sum(
        each.is_whole and {event["model"] for event in each.events} == {"chat"} for each in split
    )
    drawn = [await found.page.sum("picks_total", target_model_name=name) for name in ("v1", "v2")]
    wrong = await found.client.chat("x", model="nobody")
    passed = wrong.sent_by(found.servers) is not None
    running = asyncio.create_task(found.client.chat("busy", model="v2", tokens=600))
    seen = await until_adapter(first)
    await running
    return [
        Figure(
            what="requests for the adapter of one server, at that server",
            value=f"{by_first} of 10",
            aim="all",
            note=f"the other has {len(second.bodies)} answers to other requests",
            met=by_first == 10,
        ),
        Figure(
            what="split 50/50 over 20 requests, name written back",
            value=f"{drawn[0]:.0f} / {drawn[1] - 10:.0f}, {named} of 20",
            aim="within 1 of 10 / 10, all",
            met=abs(drawn[0] - 10) <= 1 and sum(drawn) == 30 and named == 20,
        ),
        Figure(
            what="unknown model",
            value=f"{wrong.status}, body {'unchanged' if passed else 'changed'}",
            aim="404 of the server",
            met=wrong.status == 404 and passed,
        ),
        Figure(
            what="the server's page: adapter at work, KV cache",
            value=seen,
            aim=f"v2 of 2, {BLOCKS} x {BLOCK_SIZE}",
            met=seen == f"v2 of 2, {BLOCKS} x {BLOCK_SIZE}",
        ),
    ]


async def until_adapter(server: Server) -> str:
    """What the picker's own reader finds on the page once an adapter is at work."""
    reader = PageReader()
    async with asyncio.timeout(120):
        while True:
            readings = reader.read(await server.page())
            if readings is not None and readings.running and readings.adapters_running:
                names = ", ".join(sorted(readings.adapters_running))
                return (
                    f"{names} of {readings.max_adapters}, "
                    f"{readings.kv_blocks} x {readings.block_size}"
                )
            await asyncio.sleep(0.01)


async def prefixes(found: Rig) -> list[Figure]:
    """Prompts that begin alike: the same server each time, and what its cache knows of them."""
    names = ("vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total")
    before = [await totals(found.servers, name) for name in names]
    prompts = [
        f"{group} begins: {f'group {group} talks of trains and museums. ' * 14}Part {part}"
        for part in range(PER_GROUP)
        for group in range(GROUPS)
    ]
    answers = await found.client.chats(prompts, at_once=2, tokens=4)
    homes: dict[int, set[str]] = {}
    for number, answer in enumerate(answers):
        server = answer.sent_by(found.servers)
        homes.setdefault(number % GROUPS, set()).add("nobody" if server is None else server.name)
    hits, queries = [
        await totals(found.servers, name) - old for name, old in zip(names, before, strict=True)
    ]
    kept = sum(len(each) == 1 for each in homes.values())
    return [
        Figure(
            what="prefixes that stayed with the server of their first prompt",
            value=f"{kept} of {GROUPS}",
            aim="all",
            note=f"{hits / queries:.0%} of {PER_GROUP} prompts' tokens were in vLLM's caches",
            met=kept == GROUPS and hits > 0,
        )
    ]


async def until_running(servers: Sequence[Server], count: int) -> None:
    """Wait until so many requests are in the servers' batches."""
    async with asyncio.timeout(120):
        while await totals(servers, "vllm:num_requests_running") < count:  # noqa: ASYNC110 - a page
            await asyncio.sleep(0.01)


async def ends(found: Rig) -> list[Figure]:
    """A server that goes under way, then the picker."""
    first, second = found.servers
    running = [asyncio.create_task(found.client.chat("long", tokens=200)) for _ in range(4)]
    # Begun, and not only picked: what comes after the signal the server refuses.
    await until_running(found.servers, len(running))
    leaving = asyncio.create_task(stop(second))
    whole = sum(each.is_whole for each in await asyncio.gather(*running))
    await leaving
    rest = await found.client.chats(texts("rest", 40), at_once=2, model="v1")
    failed = sum(not each.is_whole for each in rest)
    last = asyncio.create_task(found.client.chat("last", tokens=200))
    await until_running([first], 1)
    found.picker.process.send_signal(signal.SIGTERM)
    drained = (await last).is_whole
    status = await asyncio.wait_for(found.picker.process.wait(), 120)
    return [
        Figure(
            what="streams that were running when a server got SIGTERM",
            value=f"{whole} of {len(running)} whole",
            aim="all",
            met=whole == len(running),
        ),
        Figure(
            what="of the 40 requests after it was gone, failed",
            value=str(failed),
            aim="at most 4",
            note="3 failures eject; two are sent at once",
            met=failed <= 4,
        ),
        Figure(
            what="the picker at SIGTERM with a stream",
            value=f"stream {'whole' if drained else 'broken'}, exit status {status}",
            aim="whole, 0",
            met=drained and status == 0,
        ),
    ]


async def checked(servers: Sequence[Server]) -> list[Figure]:
    """Check part by part; a part that fails leaves the others."""
    figures: list[Figure] = []
    for part in (bytes_and_tokens, adapters, prefixes, ends):
        async with rig(servers) as found:
            figures += await told(part.__name__, part(found))
    return figures


async def told(name: str, part: Awaitable[list[Figure]]) -> list[Figure]:
    """The figures of a part, or that there are none and why."""
    try:
        return await part
    except (aiohttp.ClientError, TimeoutError, RuntimeError, StopIteration) as error:
        return [Figure(what=name, value=repr(error), aim="an answer", met=False)]


async def measured() -> list[Figure]:
    """Start everything, and check it."""
    folder = cache_folder()
    python = ensure_vllm(folder)
    model = ensure_model(folder, python)
    logs = {name: folder / f"{name}.log" for name in ("first", "second")}
    both = {"v1": model / "v1", "v2": model / "v2"}
    async with (
        vllm(python, model, "first", both, logs["first"]) as first,
        vllm(python, model, "second", {"v1": model / "v1"}, logs["second"]) as second,
    ):
        started = time.perf_counter()
        print("starting two servers, a minute or some", flush=True)
        await asyncio.gather(ready(first, logs["first"]), ready(second, logs["second"]))
        took = Figure(
            what="two servers ready after", value=f"{time.perf_counter() - started:.0f} s"
        )
        return [took, *await checked((first, second))]


if __name__ == "__main__":
    sys.exit(0 if show("The picker before real vLLM on CPU", asyncio.run(measured())) else 1)
