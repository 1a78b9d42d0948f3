"""The translation against the real Envoy, with small upstreams and pickers."""

from __future__ import annotations

import asyncio
import collections
import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from scipy import stats

from support.gateway import samples
from support.gateway.rig import PICKER_PORT, UPSTREAM_PORT, Rig, picker, upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from support.gateway.snapshot import Object

SERVED = {"demo/gw/8080"}


@pytest.fixture
async def rig(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    locks = tmp_path_factory.getbasetemp().parent / "networks"
    async with Rig.at(tmp_path, locks) as found:
        yield found


def rule(*refs: Object, **more: Any) -> Object:
    return {"backendRefs": list(refs), **more}


def pods(rig: Rig, *numbers: int) -> list[Object]:
    """Pods labelled with their own number."""
    return [
        samples.pod(f"pod-{number}", {"n": str(number)}, rig.pod_ip(number)) for number in numbers
    ]


async def names(rig: Rig, count: int, concurrency: int = 8) -> collections.Counter[str]:
    """Who answered each of ``count`` requests; any status but 200 fails."""
    found: collections.Counter[str] = collections.Counter()

    async def client(quota: int) -> None:
        for _ in range(quota):
            status, answer = await rig.post()
            assert status == 200, answer
            found[answer["name"]] += 1

    await asyncio.gather(*(client(count // concurrency) for _ in range(concurrency)))
    return found


@pytest.mark.parametrize("share", [10, 50])
async def test_the_split_is_the_one_of_the_weights(rig: Rig, share: int) -> None:
    async with upstream(rig.pod_ip(1), "stable"), upstream(rig.pod_ip(2), "canary"):
        route = samples.route(
            rule(samples.pool_ref("a", 100 - share), samples.service_ref("b", share))
        )
        _, served = await rig.apply(
            route, samples.pool("a", {"n": "1"}), samples.service("b", {"n": "2"}), *pods(rig, 1, 2)
        )
        assert served == SERVED
        found = await names(rig, 800)
        # Each request is an independent draw: a two-sided exact test at one in a million.
        assert stats.binomtest(found["canary"], 800, share / 100).pvalue > 1e-6


async def test_a_weight_of_zero_gets_no_request(rig: Rig) -> None:
    async with upstream(rig.pod_ip(1), "stable"), upstream(rig.pod_ip(2), "canary"):
        route = samples.route(rule(samples.pool_ref("a", 100), samples.pool_ref("b", 0)))
        await rig.apply(
            route, samples.pool("a", {"n": "1"}), samples.pool("b", {"n": "2"}), *pods(rig, 1, 2)
        )
        assert await names(rig, 200) == {"stable": 200}


@pytest.mark.parametrize(
    ("refs", "expected"),
    [
        pytest.param([("absent", 1)], 500, id="no such backend"),
        pytest.param([("a", 0), ("b", 0)], 500, id="all weights zero"),
        pytest.param([("empty", 1)], 503, id="no ready pod"),
    ],
)
async def test_a_rule_without_a_usable_backend_answers_an_error(
    rig: Rig, refs: list[tuple[str, int]], expected: int
) -> None:
    async with upstream(rig.pod_ip(1), "pod"):
        route = samples.route(rule(*(samples.pool_ref(name, weight) for name, weight in refs)))
        pools = [samples.pool(name, {"n": "1"}) for name in ("a", "b")]
        await rig.apply(route, *pools, samples.pool("empty", {"n": "9"}), *pods(rig, 1))
        status, _ = await rig.post()
        assert status == expected


async def test_the_share_of_an_invalid_reference_answers_500(rig: Rig) -> None:
    async with upstream(rig.pod_ip(1), "pod"):
        route = samples.route(rule(samples.pool_ref("a", 50), samples.pool_ref("absent", 50)))
        await rig.apply(route, samples.pool("a", {"n": "1"}), *pods(rig, 1))
        found = collections.Counter([(await rig.post())[0] for _ in range(300)])
        assert found.keys() == {200, 500}
        assert stats.binomtest(found[500], 300, 0.5).pvalue > 1e-6


@contextlib.asynccontextmanager
async def two_pickers(rig: Rig) -> AsyncIterator[tuple[Any, Any]]:
    """Pools a (pods 1, 2; picker 11) and b (pods 3, 4; picker 12), every pod serving."""
    async with contextlib.AsyncExitStack() as stack:
        for number in (1, 2, 3, 4):
            await stack.enter_async_context(upstream(rig.pod_ip(number), f"pod-{number}"))
        first = await stack.enter_async_context(
            picker(rig.pod_ip(11), lambda: [f"{rig.pod_ip(2)}:{UPSTREAM_PORT}"])
        )
        second = await stack.enter_async_context(
            picker(rig.pod_ip(12), lambda: [f"{rig.pod_ip(3)}:{UPSTREAM_PORT}"])
        )
        yield first, second


def two_pools(rig: Rig, **options: Any) -> list[Object]:
    labelled = [
        samples.pod(f"pod-{n}", {"pool": "a" if n < 3 else "b"}, rig.pod_ip(n)) for n in range(1, 5)
    ]
    return [
        *labelled,
        *pods(rig, 11, 12),
        samples.service("picker-a", {"n": "11"}, port=PICKER_PORT, target=PICKER_PORT),
        samples.service("picker-b", {"n": "12"}, port=PICKER_PORT, target=PICKER_PORT),
        samples.pool("a", {"pool": "a"}, picker="picker-a", **options),
        samples.pool("b", {"pool": "b"}, picker="picker-b", **options),
    ]


async def test_two_pools_of_one_rule_keep_a_picker_each(rig: Rig) -> None:
    async with two_pickers(rig) as (first, second):
        route = samples.route(rule(samples.pool_ref("a", 90), samples.pool_ref("b", 10)))
        _, served = await rig.apply(route, *two_pools(rig))
        assert served == SERVED
        found = await names(rig, 400)
        assert found.keys() == {"pod-2", "pod-3"}
        assert (first.requests, second.requests) == (found["pod-2"], found["pod-3"])


async def test_a_picker_sees_the_body_the_status_the_pod_that_served_and_the_end(rig: Rig) -> None:
    async with two_pickers(rig) as (first, _):
        await rig.apply(samples.route(rule(samples.pool_ref("a"))), *two_pools(rig))
        await rig.post()
        assert first.bodies == [b'{"n": 1}']
        assert first.statuses == ["200"]
        assert first.served == [f"{rig.pod_ip(2)}:{UPSTREAM_PORT}"]
        assert first.kinds == [["request_headers", "request_body", "response_headers"]]


@pytest.mark.parametrize("by_header", [True, False], ids=["by header", "by metadata"])
async def test_the_picked_pod_answers(rig: Rig, by_header: bool) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for number in (1, 2):
            await stack.enter_async_context(upstream(rig.pod_ip(number), f"pod-{number}"))
        await stack.enter_async_context(
            picker(
                rig.pod_ip(11),
                lambda: [f"{rig.pod_ip(2)}:{UPSTREAM_PORT}"],
                by_header=by_header,
                by_metadata=not by_header,
            )
        )
        await rig.apply(samples.route(rule(samples.pool_ref("a"))), *two_pools(rig))
        assert (await names(rig, 40)).keys() == {"pod-2"}


async def test_a_picked_pod_that_refuses_costs_no_request(rig: Rig) -> None:
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(upstream(rig.pod_ip(1), "pod-1"))
        served = await stack.enter_async_context(
            picker(rig.pod_ip(11), lambda: [f"{rig.pod_ip(2)}:{UPSTREAM_PORT}"])
        )
        await rig.apply(samples.route(rule(samples.pool_ref("a"))), *two_pools(rig))
        assert await names(rig, 40) == {"pod-1": 40}
        assert set(served.served) == {f"{rig.pod_ip(1)}:{UPSTREAM_PORT}"}


@pytest.mark.parametrize(("failure_mode", "expected"), [("FailClose", 500), ("FailOpen", 200)])
async def test_without_its_picker_a_pool_fails_as_configured(
    rig: Rig, failure_mode: str, expected: int
) -> None:
    async with upstream(rig.pod_ip(1), "pod-1"), upstream(rig.pod_ip(2), "pod-2"):
        pools = two_pools(rig, failure_mode=failure_mode)
        await rig.apply(samples.route(rule(samples.pool_ref("a"))), *pools)
        status, answer = await rig.post()
        assert status == expected, answer


async def test_a_client_cannot_name_a_pod(rig: Rig) -> None:
    async with upstream(rig.pod_ip(1), "pod-1"):
        await rig.apply(
            samples.route(rule(samples.pool_ref("p"))), samples.pool("p", {"n": "1"}), *pods(rig, 1)
        )
        destination = {"x-gateway-destination-endpoint": "127.0.0.1:1"}
        _, answer = await rig.post(headers=destination)
        assert destination.keys().isdisjoint(answer["headers"])
