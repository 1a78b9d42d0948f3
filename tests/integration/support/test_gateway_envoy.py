"""The translation against the real Envoy, with small upstreams and pickers."""

from __future__ import annotations

import asyncio
import collections
import contextlib
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from scipy import stats

from support.gateway import samples
from support.gateway.peers import PICKER_PORT, UPSTREAM_PORT, picker, upstream
from support.gateway.rig import Rig
from support.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.gateway.snapshot import Object

pytestmark = pytest.mark.asyncio(loop_scope="module")
SERVED = {"demo/gw/8080"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with Rig.at(tmp_path_factory.mktemp("gateway")) as found:
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


async def test_shifts_of_weight_under_load_fail_no_request(rig: Rig) -> None:
    def split(share: int) -> Object:
        return samples.route(rule(samples.pool_ref("a", 100 - share), samples.pool_ref("b", share)))

    async with two_pickers(rig):
        await rig.apply(split(0), *two_pools(rig))
        async with Traffic(rig.url, model="m", concurrency=16) as traffic:
            for share in (10, 50, 100, 50, 0, 100):
                _, served = await rig.apply(split(share), *two_pools(rig))
                assert served == SERVED
                window = await traffic.until_answers(100)
                low, high = window.interval("pod-3", confidence=0.999999)
                assert low <= share / 100 <= high
    assert traffic.failures == []


async def test_a_reference_dropped_under_load_fails_no_request(rig: Rig) -> None:
    async with two_pickers(rig):
        both = samples.route(rule(samples.pool_ref("a"), samples.pool_ref("b")))
        only = samples.route(rule(samples.pool_ref("b")))
        await rig.apply(both, *two_pools(rig))
        async with Traffic(rig.url, model="m", concurrency=16) as traffic:
            for route in (only, both, only, both):
                await rig.apply(route, *two_pools(rig))
                await traffic.until_answers(60)
    assert traffic.failures == []


async def test_pods_that_shut_down_under_load_fail_no_request(rig: Rig) -> None:
    """As on a cluster: the endpoints change while the pod's server is already stopping."""
    route = samples.route(rule(samples.pool_ref("p")))
    pool = samples.pool("p", {"app": "x"})
    labelled = {n: samples.pod(f"pod-{n}", {"app": "x"}, rig.pod_ip(n)) for n in range(1, 5)}
    async with contextlib.AsyncExitStack() as stack:
        running = {n: contextlib.AsyncExitStack() for n in labelled}
        for number, own in running.items():
            await stack.enter_async_context(own)
            await own.enter_async_context(upstream(rig.pod_ip(number), f"pod-{number}"))
        await rig.apply(route, pool, *labelled.values())
        async with Traffic(rig.url, model="m", concurrency=24) as traffic:
            await traffic.until_answers(60)
            for number in (1, 2, 3):
                del labelled[number]
                await asyncio.gather(
                    running[number].aclose(), rig.apply(route, pool, *labelled.values())
                )
                await traffic.until_answers(60)
            assert traffic.window().shares() == {"pod-4": 1.0}
    assert traffic.failures == []


async def test_a_stream_survives_its_pod_leaving_and_its_cluster_going(rig: Rig) -> None:
    async with upstream(rig.pod_ip(1), "old", chunks=3) as old, upstream(rig.pod_ip(2), "new"):
        objects = [samples.pool("a", {"n": "1"}), samples.pool("b", {"n": "2"}), *pods(rig, 2)]
        await rig.apply(samples.route(rule(samples.pool_ref("a"))), *objects, *pods(rig, 1))
        async with rig.session.post(f"{rig.url}/v1/completions", json={}) as answer:
            assert await answer.content.readline() == b"old 0\n"
            # The pod leaves the endpoints, then its pool leaves the route, then its cluster goes.
            await rig.apply(samples.route(rule(samples.pool_ref("a"))), *objects)
            moved = samples.route(rule(samples.pool_ref("b")))
            await rig.apply(moved, *objects)
            rig.expire_clusters()
            await rig.apply(moved, *objects)
            assert await rig.clusters() == {"pool/inference.networking.k8s.io/demo/b"}
            assert (await rig.post())[1]["name"] == "new"
            old.gate.set()
            assert await answer.read() == b"old 1\nold 2\n"


async def test_a_refused_configuration_leaves_the_old_one_and_is_not_accepted(rig: Rig) -> None:
    async with upstream(rig.pod_ip(1), "pod"):
        objects = [samples.pool("a", {"n": "1"}), *pods(rig, 1)]
        await rig.apply(samples.route(rule(samples.pool_ref("a"))), *objects)
        # Python takes a look-ahead, Envoy's RE2 does not.
        path = {"path": {"type": "RegularExpression", "value": "/(?=v1)"}}
        bad = samples.route(rule(samples.pool_ref("a"), matches=[path]))
        _, served = await rig.apply(bad, *objects)
        assert served == set()
        assert (await rig.post())[0] == 200
        # A gateway beside it is served all the same, and what is mended is taken.
        beside = samples.gateway("other")
        healthy = samples.route(
            rule(samples.pool_ref("a")), name="x", parentRefs=[{"name": "other"}]
        )
        _, served = await rig.apply(bad, beside, healthy, *objects)
        assert served == {"demo/other/8080"}
        _, served = await rig.apply(samples.route(rule(samples.pool_ref("a"))), *objects)
        assert served == SERVED


async def test_the_access_log_names_route_cluster_and_pod(rig: Rig) -> None:
    async with upstream(rig.pod_ip(1), "pod"):
        pool = samples.pool("a", {"n": "1"})
        await rig.apply(samples.route(rule(samples.pool_ref("a"))), pool, *pods(rig, 1))
        await rig.post("/v1/of-this-test")
        entry = await rig.logged("/v1/of-this-test")
        assert entry["status"] == 200
        assert entry["route"] == "demo/route/0"
        assert entry["cluster"] == "pool/inference.networking.k8s.io/demo/a"
        assert entry["host"] == f"{rig.pod_ip(1)}:{UPSTREAM_PORT}"
