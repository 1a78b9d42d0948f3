"""One process that serves two pools of one namespace, behind the gateway, on a real API server."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any, TypeVar

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from inference_common.kube import INFERENCEPOOL, POD
from support import manifests as m

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from support.scenario import Scenario

T = TypeVar("T")
Object = dict[str, Any]
PORTS = {"red": 9002, "blue": 9012}
HEADER = "x-team"


def two_pools() -> list[Object]:
    """Pools of the same model, one picker for both, and a route that a header decides on."""
    deployment, service = m.picker("picker", "red")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    pools = [f"--pool=$(NAMESPACE)/{name}={port}" for name, port in PORTS.items()]
    address = ["--address", "$(POD_IP):9002", "--metrics-address", "$(POD_IP):9090"]
    container["args"] = [*pools, *address, "--watch-share", "1"]
    service["spec"]["ports"] = [{"name": name, "port": port} for name, port in PORTS.items()]
    objects = [m.gateway(), *m.picker_rights(), deployment, service]
    for name, port in PORTS.items():
        pool = m.pool(name, {"app": name})
        pool["spec"]["endpointPickerRef"]["port"] = {"number": port}
        servers = m.deployment(name, m.simulated_vllm(name), labels={"app": name})
        objects += [pool, servers]
    route = m.route("chat")
    route["spec"]["rules"] = [
        {
            "matches": [
                {
                    "path": {"type": "PathPrefix", "value": "/v1"},
                    "headers": [{"name": HEADER, "value": name}],
                }
            ],
            "backendRefs": [m.pool_ref(name)],
        }
        for name in PORTS
    ]
    return [*objects, route]


class Client:
    def __init__(self, session: aiohttp.ClientSession, url: str, pages: str) -> None:
        self._session = session
        self._url = url
        self._pages = pages

    async def served_by(self, team: str) -> tuple[int, str]:
        """Status, and the version of the server that answered."""
        body = {"model": "mymodel", "messages": [{"role": "user", "content": "x"}], "max_tokens": 2}
        async with self._session.post(
            f"{self._url}/v1/chat/completions", json=body, headers={HEADER: team}
        ) as response:
            await response.read()
            return response.status, response.headers.get("x-served-by", "").rpartition("/")[2]

    async def page(self, path: str) -> tuple[int, str]:
        async with self._session.get(f"{self._pages}/{path}") as response:
            return response.status, await response.text()

    async def status(self, path: str) -> int:
        return (await self.page(path))[0]

    async def requests(self) -> Counter[str]:
        """Followed requests by pool."""
        _, text = await self.page("metrics")
        found: Counter[str] = Counter()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == "inference_picker_requests_total":
                    found[sample.labels["pool"]] += int(sample.value)
        return found


async def until(look: Callable[[], Awaitable[T]], expected: T) -> None:
    async with asyncio.timeout(60):
        while await look() != expected:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)


async def pages_of(scenario: Scenario) -> str:
    """Where the picker's pages are."""
    [pod] = (await scenario.kube.list(POD, scenario.namespace, "app=picker"))["items"]
    return f"http://{pod['status']['podIP']}:{m.PICKER_METRICS_PORT}"


async def test_two_pools_with_one_model_name_are_told_apart_by_the_port(
    scenario: Scenario,
) -> None:
    await scenario.apply(*two_pools())
    for name in ("picker", *PORTS):
        await scenario.until_available(name)
    await scenario.until_accepted("chat")
    url, pages = await scenario.address(), await pages_of(scenario)
    pool = {name: f"{scenario.namespace}/{name}" for name in PORTS}
    async with aiohttp.ClientSession() as session:
        client = Client(session, url, pages)
        asked = {"red": 3, "blue": 2}
        for team, count in asked.items():
            for _ in range(count):
                assert await client.served_by(team) == (200, team)

        # The answer may reach the client before the gateway tells the picker of its end.
        expected = Counter({pool[team]: count for team, count in asked.items()})
        await until(client.requests, expected)
        status, text = await client.page("readyz")
        assert (status, text.count("1 endpoints in")) == (200, 2)

        # A pool that goes leaves the other alone, and the pod ready.
        await scenario.kube.delete(INFERENCEPOOL, "red", scenario.namespace)
        await until(lambda: client.status(f"readyz?pool={pool['red']}"), 503)
        status, text = await client.page("readyz")
        assert status == 200
        assert "not ready, or draining: InferencePool" in text
        assert await client.served_by("blue") == (200, "blue")
