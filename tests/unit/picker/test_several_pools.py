"""Several pools in one process: their names and ports, one page of series, and readiness."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from inference_common.errors import KubeError
from inference_common.kube import Resource
from inference_picker.errors import ConfigError
from inference_picker.optional_watch import OptionalWatch
from inference_picker.pool import Endpoint, StaticSource, make_snapshot
from inference_picker.pool_names import PoolName, read_pools
from inference_picker.readiness import of_all, of_pool
from inference_picker.serving import Options, ServedPool, report_readiness, serving_pools

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

KIND = Resource("example.com", "v1", "things", "Thing")


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        pytest.param(["chat"], [("llm", "chat", 9002)], id="name-alone"),
        pytest.param(["other/chat"], [("other", "chat", 9002)], id="namespace"),
        pytest.param(["chat=9010"], [("llm", "chat", 9010)], id="port"),
        pytest.param(
            ["chat", "b/chat=9003"], [("llm", "chat", 9002), ("b", "chat", 9003)], id="two"
        ),
        pytest.param(["a=0", "b=0"], [("llm", "a", 0), ("llm", "b", 0)], id="ports-by-the-system"),
    ],
)
def test_pools_have_a_namespace_and_a_port(
    texts: list[str], expected: list[tuple[str, str, int]]
) -> None:
    found = read_pools(texts, namespace="llm", port=9002)

    assert found == tuple(
        PoolName(namespace=namespace, name=name, port=port) for namespace, name, port in expected
    )


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        pytest.param(["a", "b"], "tells pools apart by the port alone", id="one-port-for-two"),
        pytest.param(["a=9010", "b=9010"], "give each one of its own, as llm/b=9020", id="same"),
        pytest.param(["a=1", "llm/a=2"], "llm/a is named twice", id="twice"),
        pytest.param(["a="], "the port is missing", id="no-port"),
        pytest.param(["a=http"], "'http' is no port", id="no-number"),
        pytest.param(["a=70000"], "'70000' is no port", id="too-large"),
        pytest.param(["/a"], "expected NAME or NAMESPACE/NAME", id="empty-namespace"),
        pytest.param(["x/y/a"], "expected NAME or NAMESPACE/NAME", id="two-slashes"),
        pytest.param(["x/"], "expected NAME or NAMESPACE/NAME", id="no-name"),
    ],
)
def test_what_names_no_pool_is_refused_with_the_remedy(texts: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_pools(texts, namespace="llm", port=9002)


def test_a_pool_without_a_namespace_is_refused() -> None:
    with pytest.raises(ConfigError, match="--namespace, or as NS/chat"):
        read_pools(["chat"], namespace="", port=9002)


@given(st.lists(st.text(), min_size=1, max_size=3))
def test_whatever_is_given_for_a_pool_raises_nothing_else(texts: list[str]) -> None:
    try:
        found = read_pools(texts, namespace="llm", port=9002)
    except ConfigError:
        return
    assert len({(each.namespace, each.name) for each in found}) == len(texts)


@pytest.mark.parametrize(
    ("pools", "ready"),
    [
        pytest.param([(True, True)], True, id="one-ready"),
        pytest.param([(False, True)], False, id="one-missing"),
        pytest.param([(True, True), (False, True)], True, id="a-missing-one-leaves-the-others"),
        pytest.param([(True, True), (False, False)], False, id="one-not-known-yet"),
        pytest.param([(False, True), (False, True)], False, id="all-missing-or-draining"),
    ],
)
def test_the_process_is_ready_once_all_are_known_while_any_is(
    pools: list[tuple[bool, bool]], *, ready: bool
) -> None:
    found = of_all(
        [of_pool(str(n), ready=is_, known=known) for n, (is_, known) in enumerate(pools)]
    )

    assert found.ready is ready
    assert len(found.text.splitlines()) == len(pools)


class TwoPools:
    """Pools llm/a and llm/b of one process, b not ready."""

    def __init__(self) -> None:
        self.sources = {
            name: StaticSource(
                make_snapshot([Endpoint(address=f"127.0.0.1:{port}", pod=f"{name}-0")])
            )
            for name, port in (("a", 1), ("b", 2))
        }
        self.ready = {"a": True, "b": False}

    def served(self, name: str) -> ServedPool:
        return ServedPool(
            source=self.sources[name],
            options=Options(
                address="127.0.0.1:0",
                metrics_address="127.0.0.1:0",
                health_address="127.0.0.1:0",
                namespace="llm",
                pool=name,
                tls=None,
                scrape_interval_s=0,
            ),
            readiness=lambda: of_pool(name, ready=self.ready[name]),
        )


async def fetched(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as found:
        return found.status, await found.text()


async def health_of(port: int, service: str) -> str:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = HealthStub(channel)
        found = await stub.Check(health_pb2.HealthCheckRequest(service=service))
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(found.status))


async def test_one_page_has_each_series_once_with_the_pool_as_its_label() -> None:
    two = TwoPools()
    async with serving_pools([two.served("a"), two.served("b")]) as (running, _):
        a, b = running
        for each, count in ((a, 1), (b, 2)):
            for _ in range(count):
                each.metrics.picks.inc(("v1", "pod", "chat"))
        assert a.port != b.port
        assert a.metrics_port == b.metrics_port
        _, text = await fetched(f"http://127.0.0.1:{a.metrics_port}/metrics")

    # The parser takes a name only once with all its samples: it raises, or they are apart.
    families = list(text_string_to_metric_families(text))
    names = [family.name for family in families]
    assert len(names) == len(set(names))
    picks = next(each for each in families if each.name == "inference_picker_picks")
    assert {sample.labels["pool"]: sample.value for sample in picks.samples} == {
        "llm/a": 1.0,
        "llm/b": 2.0,
    }
    assert {sample.labels.get("pool") for family in families for sample in family.samples} == {
        "llm/a",
        "llm/b",
    }


async def test_each_pool_has_its_own_health_and_the_process_one_for_all() -> None:
    two = TwoPools()
    async with serving_pools([two.served("a"), two.served("b")]) as (running, health):
        a, b = running
        url = f"http://127.0.0.1:{a.metrics_port}/readyz"
        assert await fetched(url) == (200, "ok a\nnot ready, or draining: b\n")
        assert await fetched(f"{url}?pool=llm/b") == (503, "not ready, or draining: b\n")
        assert await fetched(f"{url}?pool=llm/c") == (404, "llm/c is not served here\n")
        assert await health_of(a.port, "") == "SERVING"
        assert await health_of(b.port, "") == "NOT_SERVING"
        assert a.health_port is not None
        assert await health_of(a.health_port, "") == "SERVING"
        assert await health_of(a.health_port, "llm/a") == "SERVING"
        assert await health_of(a.health_port, "llm/b") == "NOT_SERVING"

        two.ready = {"a": False, "b": False}
        assert await report_readiness(running, health) is False
        assert await health_of(a.health_port, "") == "NOT_SERVING"
        assert await health_of(a.health_port, "liveness") == "SERVING"


async def test_the_shares_of_all_pools_are_on_one_page() -> None:
    two = TwoPools()
    async with serving_pools([two.served("a"), two.served("b")]) as (running, _):
        _, text = await fetched(f"http://127.0.0.1:{running[0].metrics_port}/shares")

    assert '"llm/a"' in text
    assert '"llm/b"' in text


class RefusingKube:
    """A client whose kind exists, and may not be listed until it is allowed."""

    def __init__(self, *, status: int) -> None:
        self.status = status
        self.asked = asyncio.Event()

    async def find(self, *_: str) -> Resource:
        return KIND

    async def list(self, *_: object) -> Any:
        self.asked.set()
        raise KubeError(self.status, "No", "not for you")

    async def watch(self, *_: object, **__: object) -> AsyncIterator[Any]:
        await asyncio.Event().wait()
        yield None


@pytest.mark.parametrize(
    ("status", "unread", "known"),
    [
        pytest.param(403, "nothing is lost", True, id="may-not-be-read"),
        pytest.param(403, "", False, id="must-be-read"),
        pytest.param(500, "nothing is lost", False, id="an-error-says-nothing"),
    ],
)
async def test_a_kind_that_may_not_be_read_holds_up_only_who_needs_it(
    status: int, unread: str, *, known: bool
) -> None:
    kube = RefusingKube(status=status)
    watch = OptionalWatch(kube, KIND, "llm", unread=unread)  # type: ignore[arg-type]
    watch.start()
    await kube.asked.wait()

    assert watch.is_known is known
    assert not watch.is_served
    assert list(watch.items()) == []
    await watch.stop()
