"""Plugin servers that are killed, doubled, slowed down and refused, on the real cluster."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import aiohttp
import psutil
import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from inference_common.kube import HTTPROUTE, LEASE
from support.api_proxy import ApiProxy, Asked, plugin_behind, until_ready
from support.cluster.layout import Layout
from support.deployments import hash_addressed, lora_release, release_only
from support.history import History
from support.scenario import TIMEOUT_S, weights

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.scenario import Scenario

pytestmark = pytest.mark.alone
TEN: dict[str, int | None] = {"chat-a": 90, "chat-b": 10}
FIFTY: dict[str, int | None] = {"chat-a": 50, "chat-b": 50}
ROUTES = ("chat", "chat-too")


async def to_ten(scenario: Scenario, *routes: str) -> None:
    await hash_addressed(scenario, routes=routes or ("chat",))
    await scenario.revise("chat", "2")
    await scenario.until_paused("chat", 10)
    for route in routes or ("chat",):
        await scenario.until_weights(route, TEN)


async def edit(scenario: Scenario) -> None:
    operations = [
        {"op": "replace", "path": f"/spec/rules/0/backendRefs/{at}/weight", "value": weight}
        for at, weight in enumerate((20, 80))
    ]
    await scenario.kube.patch(HTTPROUTE, "chat", operations, scenario.namespace)


@contextlib.asynccontextmanager
async def frozen(scenario: Scenario, name: str) -> AsyncIterator[None]:
    pid = scenario.cluster.signal(name, signal.SIGSTOP)
    try:
        yield
    finally:
        psutil.Process(pid).send_signal(signal.SIGCONT)


@dataclass(frozen=True, slots=True)
class Server:
    """A plugin server of the test's own, with a name in the Lease."""

    name: str
    process: asyncio.subprocess.Process
    log: Path

    @classmethod
    async def start(cls, scenario: Scenario, folder: Path, name: str, lease: str) -> Self:
        layout = Layout(scenario.cluster.state_dir)
        log = folder / f"{name}.log"
        with log.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                str(Path(sys.executable).with_name("inference-rollouts")),
                *("plugin", "serve", "--socket", str(folder / f"{name}.sock"), "--log-json"),
                *("--kubeconfig", str(layout.kubeconfig("plugin"))),
                *("--lease", lease, "--lease-identity", name),
                stdout=file,
                stderr=file,
            )
        return cls(name, process, log)

    async def has(self, text: str) -> bool:
        return text in await asyncio.to_thread(self.log.read_text)

    async def until_has(self, text: str) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            while not await self.has(text):  # noqa: ASYNC110 - a log can't be watched
                await asyncio.sleep(0.1)

    async def stop(self, number: int = signal.SIGTERM) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        await self.process.wait()


async def until_one_has(text: str, *servers: Server) -> Server:
    """The first of the servers that has logged the text."""
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            for server in servers:
                if await server.has(text):
                    return server
            await asyncio.sleep(0.1)


async def test_the_holder_of_the_lease_repairs_and_another_takes_over(
    scenario: Scenario, tmp_path: Path
) -> None:
    await to_ten(scenario)
    namespace, name = "argo-rollouts", f"servers-{secrets.token_hex(4)}"
    servers = []
    async with frozen(scenario, "plugin"):
        try:
            for each in ("one", "two"):
                lease = f"{namespace}/{name}"
                servers.append(await Server.start(scenario, tmp_path, each, lease))
            await until_one_has('"event": "leads"', *servers)
            await edit(scenario)
            await scenario.until_weights("chat", TEN)
            leader = await until_one_has("drift repaired", *servers)
            [other] = [server for server in servers if server is not leader]
            assert not await other.has("drift repaired")
            # It dies without a word: the Lease has to expire.
            await leader.stop(signal.SIGKILL)
            await edit(scenario)
            await scenario.until_weights("chat", TEN)
            await other.until_has("drift repaired")
            held = await scenario.kube.get(LEASE, name, namespace)
            assert held["spec"]["holderIdentity"] == other.name
            assert held["spec"]["leaseTransitions"] >= 1
            # It ends in good order: nobody has to wait.
            await other.stop()
            released = await scenario.kube.get(LEASE, name, namespace)
            assert released["spec"]["holderIdentity"] == ""
        finally:
            for server in servers:
                await server.stop(signal.SIGKILL)


async def test_server_killed_between_two_writes_is_finished_by_its_successor(
    scenario: Scenario,
) -> None:
    """Even if the controller never calls again: what was commanded stands on the objects."""
    await to_ten(scenario, *ROUTES)
    killed: list[int] = []

    async def kill_at_the_second(asked: Asked) -> web.Response | None:
        if asked.writes and asked.path.endswith(f"{scenario.namespace}/httproutes/chat-too"):
            proxy.hook = None
            scenario.cluster.signal("argo-rollouts", signal.SIGSTOP)
            killed.append(scenario.cluster.signal("plugin"))
            return web.Response(status=503)
        return None

    async with ApiProxy(scenario.cluster, "plugin") as proxy:
        async with plugin_behind(scenario.cluster, proxy), History(scenario) as history:
            controller = scenario.cluster.pid("argo-rollouts")
            proxy.hook = kill_at_the_second
            try:
                await scenario.argo("promote", "chat")
                await scenario.until_weights("chat", FIFTY)
                async with asyncio.timeout(TIMEOUT_S):
                    while not killed:  # noqa: ASYNC110 - set by the proxy
                        await asyncio.sleep(0.05)
                assert weights(await scenario.get(HTTPROUTE, "chat-too")) == TEN
                await until_ready(scenario.cluster, killed[0])
                await scenario.until_weights("chat-too", FIFTY)
            finally:
                psutil.Process(controller).send_signal(signal.SIGCONT)
            await scenario.until_paused("chat", 50)
        for route in ROUTES:
            assert history.weights(route) == [TEN, FIFTY]


async def test_api_server_that_has_too_much_to_do_is_asked_less_and_less(
    scenario: Scenario,
) -> None:
    await to_ten(scenario)
    refused: list[Asked] = []

    async def too_many(asked: Asked) -> web.Response | None:
        if asked.method == "PATCH" and asked.path.endswith(f"{scenario.namespace}/httproutes/chat"):
            refused.append(asked)
            status = {"kind": "Status", "code": 429, "reason": "TooManyRequests", "message": "busy"}
            return web.json_response(status, status=429, headers={"Retry-After": "1"})
        return None

    async with (
        ApiProxy(scenario.cluster, "plugin") as proxy,
        plugin_behind(scenario.cluster, proxy),
    ):
        proxy.hook = too_many
        await scenario.argo("abort", "chat")
        async with asyncio.timeout(TIMEOUT_S):
            while len(refused) < 6:  # noqa: ASYNC110 - set by the proxy
                await asyncio.sleep(0.1)
        # One a second at most, whoever asks for it: keeper and controller together. A proxy that is
        # busy may have noticed the first of them late.
        assert refused[5].at - refused[0].at >= 3.5
        proxy.hook = None
        await scenario.until_weights("chat", {"chat-a": 100, "chat-b": 0})


async def calls_within(scenario: Scenario, seconds: float) -> tuple[float, float]:
    """How many calls the server has answered in time since its start, and all of them."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(scenario.cluster.plugin_metrics) as response,
    ):
        page = await response.text()
    name = "inference_rollouts_plugin_call_duration_seconds"
    found = [0.0, 0.0]
    for family in text_string_to_metric_families(page):
        for sample in family.samples if family.name == name else ():
            if sample.name.endswith("_bucket") and float(sample.labels["le"]) == seconds:
                found[0] += sample.value
            elif sample.name.endswith("_count"):
                found[1] += sample.value
    return found[0], found[1]


async def test_api_server_that_takes_two_seconds_a_call_slows_a_canary_and_stops_nothing(
    scenario: Scenario,
) -> None:
    await hash_addressed(scenario)
    await release_only(scenario, "v1")
    async with (
        ApiProxy(scenario.cluster, "plugin") as proxy,
        plugin_behind(scenario.cluster, proxy),
    ):
        logged = len(scenario.cluster.log("argo-rollouts"))
        proxy.delay_s = 2.0
        await scenario.revise("chat", "2")
        await scenario.revise("travel-helper", lora_release("v2", noop=True))
        # Two at once: the one does not wait for the other.
        async with asyncio.TaskGroup() as group:
            for name in ("chat", "travel-helper"):
                group.create_task(scenario.until_paused(name, 10, timeout_s=180))
        await scenario.argo("promote", "chat")
        await scenario.until_paused("chat", 50, timeout_s=180)
        await scenario.argo("promote", "chat")
        await scenario.until_healthy("chat", timeout_s=180)
        await scenario.until_weights("chat", {"chat-a": 0, "chat-b": 100})
        told = scenario.cluster.log("argo-rollouts")[logged:]
        # The bridge's own words for a call that came to its deadline.
        assert "did not answer" not in told
        # No worker of the controller was held for longer than the bridge's deadline.
        within, calls = await calls_within(scenario, 8)
        assert within == calls > 0
