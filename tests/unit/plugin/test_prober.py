"""Rounds of probes over a stubbed fetch, and the pages that tell of them."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from inference_plugin.prober.decision import Rules
from inference_plugin.prober.rounds import Prober, Target, View
from inference_plugin.prober.server import ProberMetrics, application

EPOCH = 1_000_000.0
TARGET = Target(
    namespace="llm",
    pool="qwen",
    name="v2",
    identity=(),
    rules=Rules(load_grace_s=60, missing_probes=2),
)


class World:
    """Pods by name with the names that each serves (None: silent), and a clock."""

    def __init__(self) -> None:
        self.now = EPOCH
        self.serves: dict[str, list[str] | None] = {}
        self.ready_at: dict[str, int] = {}
        self.ports: tuple[int, ...] = (8000,)
        self.stable = False
        self.asked: list[tuple[str, int]] = []
        self.metrics = ProberMetrics(CollectorRegistry())
        self.prober = Prober(
            TARGET, self.fetch, clock=lambda: self.now, on_probe=self.metrics.count
        )

    def add(self, name: str, *serves: str, age_s: float = 100) -> None:
        self.serves[name] = list(serves)
        self.ready_at[name] = int(self.now - age_s)

    async def fetch(self, address: str, port: int) -> tuple[int, bytes] | str:
        self.asked.append((address, port))
        names = self.serves[address]
        if names is None:
            return "timeout"
        return 200, json.dumps({"data": [{"id": name} for name in names]}).encode()

    def pod(self, name: str) -> dict[str, Any]:
        # 1970-01-12T13:46:40Z is 1,000,000 s after the epoch.
        day, rest = divmod(self.ready_at[name], 86_400)
        clock = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
        ready = {
            "type": "Ready",
            "status": "True",
            "lastTransitionTime": f"1970-01-{day + 1:02}T{clock}Z",
        }
        return {
            "metadata": {"name": name, "uid": f"uid-{name}"},
            "status": {"podIP": name, "conditions": [ready]},
        }

    async def round(self) -> bool:
        pods = [self.pod(name) for name in self.serves]
        view = View(pods=pods, ports=self.ports, stable=self.stable)
        self.now += 2
        return (await self.prober.round(view)).ready


@pytest.fixture
def world() -> World:
    return World()


async def test_ready_follows_the_loading_of_the_adapter(world: World) -> None:
    world.add("a", "base")
    world.add("b", "base", "v2")
    assert not await world.round()
    world.serves["a"] = ["base", "v2"]
    assert await world.round()


async def test_an_adapter_that_vanished_from_one_pod_ends_ready_after_the_limit(
    world: World,
) -> None:
    world.add("a", "v2")
    world.add("b", "v2")
    await world.round()
    world.serves["a"] = ["base"]
    assert [await world.round() for _ in range(3)] == [True, False, False]
    world.serves["a"] = ["v2"]
    assert await world.round()


async def test_a_restarted_container_has_its_grace_again(world: World) -> None:
    world.add("a", "v2")
    world.add("b", "v2")
    await world.round()
    world.add("a", "base", age_s=0)
    assert all([await world.round() for _ in range(29)])
    # 60 s after it became ready again it counts.
    assert [await world.round() for _ in range(4)][-1] is False


async def test_the_stable_revision_outlives_the_loss_in_one_pod(world: World) -> None:
    world.add("a", "v2")
    world.add("b", "v2")
    world.stable = True
    await world.round()
    world.serves["a"] = ["base"]
    assert all([await world.round() for _ in range(5)])
    world.serves["b"] = ["base"]
    assert [await world.round() for _ in range(2)] == [True, False]


async def test_a_pool_that_lost_all_its_pods_ends_ready_after_the_limit(world: World) -> None:
    world.add("a", "v2")
    await world.round()
    world.serves.clear()
    assert [await world.round() for _ in range(2)] == [True, False]


async def test_every_port_of_every_pod_is_asked(world: World) -> None:
    world.ports = (8000, 8001)
    world.add("a", "v2")
    assert await world.round()
    assert world.asked == [("a", 8000), ("a", 8001)]


async def test_a_pool_without_ports_is_never_ready(world: World) -> None:
    world.ports = ()
    world.add("a", "v2")
    assert not await world.round()
    assert world.prober.pods[0].history.detail == "the pool has no target port"


async def test_readyz_says_which_pods_lack_the_name_and_why(world: World) -> None:
    world.add("a", "base")
    world.add("b", "v2")
    runner = web.AppRunner(application(world.prober, world.metrics))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with aiohttp.ClientSession(base) as session:
        async with session.get("/readyz") as response:
            assert response.status == 503
            assert (await response.json())["reason"] == "the pool has not been read yet"

        await world.round()
        async with session.get("/readyz") as response:
            assert response.status == 503
            report = await response.json()
        async with session.get("/metrics") as response:
            page = await response.text()

        world.serves["a"] = ["v2"]
        await world.round()
        async with session.get("/readyz") as response:
            assert response.status == 200
        async with session.get("/healthz") as response:
            assert response.status == 200
    await runner.cleanup()

    assert report["lacking"] == ["a"]
    assert report["pool"] == "llm/qwen"
    assert report["pods"][0] == {
        "name": "a",
        "answer": "missing",
        "settled": True,
        "missing_probes": 1,
        "detail": "it serves base",
    }
    assert 'inference_rollouts_prober_pods{answer="missing"} 1.0' in page
    assert 'inference_rollouts_prober_probes_total{answer="listed"} 1.0' in page
    assert "inference_rollouts_prober_ready 0.0" in page
