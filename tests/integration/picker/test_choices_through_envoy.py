"""What the picker decides, through a real Envoy: ejection, hints, fallbacks, the queue."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf import struct_pb2

from inference_picker.config import PickerConfig
from inference_picker.director import Settings
from inference_picker.ejection import EjectionRules
from inference_picker.pool import Endpoint, PoolSnapshot, make_snapshot
from inference_picker.queueing import QueueLimits
from inference_picker.saturation import Thresholds
from support.picker_rig import FULL_DUPLEX, MODES, RECOMMENDED, WAIT_S, Setup, running_setup
from support.ports import reserved_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

SUBSET_HEADER = "x-test-subset"


async def many(setup: Setup, count: int, *, lanes: int = 8) -> list[int]:
    """Statuses of this many requests, a few at a time."""
    left = iter(range(count))

    async def lane() -> list[int]:
        return [(await setup.chat(model="base", stream=False))[0] for _ in left]

    return [
        status for lane in await asyncio.gather(*(lane() for _ in range(lanes))) for status in lane
    ]


@contextlib.asynccontextmanager
async def eight(
    directory: Path, mode: dict[str, Any], rules: EjectionRules | None = None
) -> AsyncIterator[Setup]:
    settings = Settings(config=PickerConfig(rules=rules or EjectionRules()))
    async with running_setup(directory, mode, settings, servers=8) as setup:
        yield setup


@pytest.mark.parametrize("mode", MODES)
async def test_a_pod_of_eight_that_answers_500_at_once_gets_next_to_nothing(
    tmp_path: Path, mode: str
) -> None:
    # Longer than the test takes on any machine.
    rules = EjectionRules(base_s=3600.0, max_s=3600.0)
    async with eight(tmp_path, MODES[mode], rules) as setup:
        broken = setup.upstreams[3]
        broken.status = 500

        statuses = await many(setup, 600)
        await setup.landed()

        # Three in a row eject it, and what is under way at that moment comes on top: 3 %, where
        # an eighth would be 75.
        assert len(broken.bodies) <= 18
        assert statuses.count(500) == len(broken.bodies)
        assert set(statuses) == {200, 500}
        assert setup.metric("request_errors_total", version="hash3") == len(broken.bodies)
        assert setup.metric("ejected_endpoints", version="hash3") == 1
        assert setup.metric("in_flight") == 0


async def test_where_few_answers_are_seen_the_first_failure_makes_the_picker_look_closer(
    tmp_path: Path,
) -> None:
    """Full duplex: of twenty answers nineteen are not followed."""
    async with running_setup(tmp_path, FULL_DUPLEX, servers=8, watch_share=0.05) as setup:
        broken = setup.upstreams[3]
        broken.status = 500
        async with asyncio.timeout(WAIT_S):
            while not setup.metric("request_errors_total"):
                await setup.chat(model="base", stream=False)
        before = len(broken.bodies)
        async with asyncio.timeout(WAIT_S):
            while not setup.metric("ejected_endpoints"):
                await setup.chat(model="base", stream=False)

        # The second and the third failure, where a twentieth of its answers would be forty. What
        # is told of the last one may come after the next is sent.
        assert len(broken.bodies) - before <= 5
        await setup.landed()


async def test_a_pod_that_was_ejected_and_is_well_again_is_tried_and_taken_back(
    tmp_path: Path,
) -> None:
    rules = EjectionRules(base_s=0.05, max_s=5.0, slow_start_s=0.05)
    async with eight(tmp_path, RECOMMENDED, rules) as setup:
        broken = setup.upstreams[3]
        broken.status = 500
        async with asyncio.timeout(WAIT_S):
            while not setup.picker.director.scheduler.ejector.ejected:
                await many(setup, 8)
        broken.status = 200
        before = len(broken.bodies)

        async with asyncio.timeout(WAIT_S):
            while len(broken.bodies) < before + 8:
                await many(setup, 8)
        statuses = await many(setup, 80)

        assert set(statuses) == {200}
        assert setup.metric("ejected_endpoints") == 0
        await setup.landed()


async def test_a_whole_pool_that_fails_is_served_on_and_its_own_answers_are_passed_on(
    tmp_path: Path,
) -> None:
    async with eight(tmp_path, RECOMMENDED) as setup:
        for upstream in setup.upstreams:
            upstream.status = 500

        assert set(await many(setup, 200)) == {500}
        await setup.landed()
        # At most half of the pool may be out; nobody is refused for it.
        assert setup.metric("ejected_endpoints") <= 4
        assert setup.metric("refusals_total") == 0


def hinting(kind: str, **rule: str) -> dict[str, Any]:
    """A filter that copies a header into the metadata where gateways give the subset hint."""
    return {
        "name": "hint",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.header_to_metadata"
            ".v3.Config",
            "request_rules": [
                {
                    "header": SUBSET_HEADER,
                    "on_header_present": {
                        "metadata_namespace": "envoy.lb.subset_hint",
                        "key": "x-gateway-destination-endpoint-subset",
                        "type": kind,
                        **rule,
                    },
                    "remove": True,
                }
            ],
        },
    }


AS_STRING = hinting("STRING")
AS_LIST = hinting("PROTOBUF_VALUE", encode="BASE64")


def listed(*addresses: str) -> str:
    value = struct_pb2.Value()
    value.list_value.extend(addresses)
    return base64.b64encode(value.SerializeToString()).decode()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("as_list", [False, True], ids=["string", "list"])
async def test_the_gateways_subset_is_kept_to_and_fails_closed(
    tmp_path: Path, mode: str, as_list: bool
) -> None:
    hint = AS_LIST if as_list else AS_STRING
    async with running_setup(tmp_path, MODES[mode], servers=3, filters=[hint]) as setup:
        one, two, three = (each.address for each in setup.upstreams)

        async def status(*allowed: str) -> int:
            value = listed(*allowed) if as_list else ",".join(allowed)
            return (await setup.chat(model="base", headers={SUBSET_HEADER: value}))[0]

        assert [await status(two) for _ in range(6)] == [200] * 6
        assert [len(each.bodies) for each in setup.upstreams] == [0, 6, 0]
        assert [await status(three, one) for _ in range(6)] == [200] * 6
        assert len(setup.upstreams[1].bodies) == 6
        assert await status("127.0.0.1") == 200
        refused = [await status("127.9.9.9:80"), await status("not an address")]
        assert refused == [503, 503]
        await setup.landed()
        assert setup.metric("refusals_total", reason="rejected-no-endpoints") == 2
        assert sum(len(each.bodies) for each in setup.upstreams) == 13


@pytest.mark.parametrize("mode", MODES)
async def test_the_second_endpoint_serves_where_the_first_refuses_and_is_booked(
    tmp_path: Path, mode: str
) -> None:
    """Envoy takes the next of the list at its retry, and says which endpoint served."""
    async with contextlib.AsyncExitStack() as stack:
        # The port of nobody: another process that takes it would be an answer of another model.
        refusing = f"127.0.0.1:{reserved_port()}"
        alive = f"127.0.0.1:{reserved_port()}"
        setup = await stack.enter_async_context(
            running_setup(
                tmp_path,
                MODES[mode],
                Settings(fallbacks=1),
                servers=1,
                ports=[int(alive.rpartition(":")[2])],
                members=[refusing, alive],
                retries=2,
            )
        )
        setup.source.current = make_snapshot(
            [Endpoint(address=refusing, version="gone"), Endpoint(address=alive, version="alive")]
        )

        assert set(await many(setup, 40)) == {200}
        await setup.landed()

        assert len(setup.upstreams[0].bodies) == 40
        assert setup.metric("picks_total", version="gone") > 0
        assert setup.metric("requests_total", version="alive") == 40
        assert setup.metric("requests_total", version="gone") == 0
        assert setup.metric("request_errors_total") == 0
        assert setup.metric("in_flight") == 0


def queueing(**limits: Any) -> Settings:
    """One request at a time on each server, the others wait."""
    config = PickerConfig(thresholds=Thresholds(in_flight=1), queue=QueueLimits(**limits))
    return Settings(config=config)


@pytest.mark.parametrize("mode", MODES)
async def test_a_client_that_leaves_the_queue_gives_its_place_up(tmp_path: Path, mode: str) -> None:
    async with running_setup(tmp_path, MODES[mode], queueing(), servers=1) as setup:
        (upstream,) = setup.upstreams
        upstream.hold = asyncio.Event()
        first = asyncio.create_task(setup.chat(model="base"))
        await setup.until(lambda: upstream.running == 1)
        leaving, staying = (asyncio.create_task(setup.chat(model="base")) for _ in range(2))
        await setup.until(lambda: setup.metric("queued_requests") == 2)

        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        await setup.until(lambda: setup.metric("queued_requests") == 1)
        upstream.hold.set()

        assert [(await first)[0], (await staying)[0]] == [200, 200]
        await setup.landed()
        # The one that left never reached the server.
        assert len(upstream.bodies) == 2
        assert setup.metric("picks_total") == 2
        assert (setup.metric("queued_requests"), setup.metric("in_flight")) == (0, 0)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        pytest.param({"requests": 1}, "rejected-queue-full", id="full"),
        pytest.param({"ttl_s": 0.2}, "rejected-ttl-expired", id="expired"),
    ],
)
async def test_what_can_not_wait_is_answered_429_with_a_time_to_come_back(
    tmp_path: Path, limits: dict[str, Any], reason: str
) -> None:
    async with running_setup(tmp_path, RECOMMENDED, queueing(**limits), servers=1) as setup:
        (upstream,) = setup.upstreams
        upstream.hold = asyncio.Event()
        first = asyncio.create_task(setup.chat(model="base"))
        await setup.until(lambda: upstream.running == 1)
        body = {"model": "base", "stream": True}
        url = f"{setup.url}/v1/chat/completions"

        async def ask() -> tuple[int, str, str]:
            async with setup.client.post(url, json=body) as response:
                why = response.headers.get("x-gateway-request-dropped-reason", "")
                return response.status, why, response.headers.get("retry-after", "")

        asked = [asyncio.create_task(ask()) for _ in range(2)]
        await setup.until(lambda: setup.metric("refusals_total", reason=reason) >= 1)
        upstream.hold.set()
        answers = await asyncio.gather(*asked)

        assert (429, reason, "1") in answers
        assert {status for status, *_ in answers} <= {200, 429}
        assert (await first)[0] == 200
        await setup.landed()


async def test_negative_priority_is_shed_where_the_pool_is_full(
    tmp_path: Path,
) -> None:
    settings = Settings(config=PickerConfig(thresholds=Thresholds(in_flight=1)))
    async with running_setup(tmp_path, RECOMMENDED, settings, servers=1) as setup:
        (upstream,) = setup.upstreams
        pool: PoolSnapshot = setup.source.current
        setup.source.current = make_snapshot(pool.endpoints, objectives={"batch": -1})
        upstream.hold = asyncio.Event()
        first = asyncio.create_task(setup.chat(model="base"))
        await setup.until(lambda: upstream.running == 1)

        shed, _ = await setup.chat(model="base", headers={"x-gateway-inference-objective": "batch"})
        second = asyncio.create_task(setup.chat(model="base"))
        await setup.until(lambda: upstream.running == 2)
        upstream.hold.set()

        assert shed == 429
        assert [(await first)[0], (await second)[0]] == [200, 200]
        assert setup.metric("refusals_total", reason="rejected-saturated") == 1
        await setup.landed()
