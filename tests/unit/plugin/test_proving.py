"""A split is proven by counted requests, contradicted by them, or given up in time."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from inference_plugin.commanded import Commanded
from inference_plugin.config import parse_config
from inference_plugin.counters import Counters, CountersError, _by_label, _Sample
from inference_plugin.errors import ConfigError
from inference_plugin.proofs import CONFIDENCE, Counted, Proof, bounds, counted, judge
from inference_plugin.proving import EXPIRED, WAITING, Prover
from inference_plugin.rollouts import Command, RolloutKey, RolloutSpec
from inference_plugin.shares import Hashes, Weighting
from support.memory_cluster import make_replica_set

if TYPE_CHECKING:
    from inference_plugin.config import RouterConfig

QUERY = "sum by (version) (increase(picks[$window]))"


@settings(deadline=None)
@given(st.integers(1, 5000), st.floats(0, 1))
def test_the_bounds_are_wilsons(total: int, part: float) -> None:
    found = round(part * total)
    interval = binomtest(found, total).proportion_ci(CONFIDENCE, method="wilson")
    assert bounds(found, total) == pytest.approx((interval.low, interval.high), abs=1e-9)


@pytest.mark.parametrize(
    ("canary", "stable", "share", "expected"),
    [
        pytest.param(10, 90, 0.1, Proof.PROVEN, id="as commanded"),
        pytest.param(60, 40, 0.5, Proof.PROVEN, id="by chance"),
        pytest.param(0, 99, 0.1, Proof.TOO_FEW, id="too few"),
        pytest.param(0, 1000, 0.1, Proof.CONTRADICTED, id="nothing arrives"),
        pytest.param(500, 500, 0.1, Proof.CONTRADICTED, id="weights are ignored"),
        pytest.param(100, 0, 1.0, Proof.PROVEN, id="everything"),
        pytest.param(100, 100, 1.0, Proof.CONTRADICTED, id="stable still gets some"),
    ],
)
def test_counted_requests_are_judged_by_their_bounds(
    canary: float, stable: float, share: float, expected: Proof
) -> None:
    assert judge(Counted(canary=canary, stable=stable), share, 100)[0] is expected


def test_only_the_two_versions_are_counted() -> None:
    values = {"h1": 90.0, "v2": 6.0, "h2": 4.0, "h9": 1000.0}
    assert counted(values, {"h2", "v2"}, {"h1"}) == Counted(canary=10.0, stable=90.0)


def config(**proof: Any) -> RouterConfig:
    raw = {"httpRoute": "chat", "dataPlaneProof": {"query": QUERY} | proof}
    return parse_config(json.dumps(raw).encode())


def test_a_query_must_count_over_the_window() -> None:
    with pytest.raises(ConfigError, match="must count over"):
        config(query="picks_total")


class Told:
    """Counters, teller and cluster of one prover."""

    def __init__(self, values: dict[str, float] | Exception) -> None:
        self.values_now = values
        self.queries: list[str] = []
        self.said: list[str] = []
        self.now = 1000.0
        tools = SimpleNamespace(cluster=self, counters=self)
        self.prover = Prover(cast("Any", tools), cast("Any", self), lambda: self.now)

    async def values(self, query: str, label: str) -> dict[str, float]:
        assert label == "version"
        self.queries.append(query)
        if isinstance(self.values_now, Exception):
            raise self.values_now
        return self.values_now

    def replica_sets(self, *_: str) -> list[Any]:
        return [make_replica_set("chat", "h2", destination="v2")]

    def standing(self, uid: str, reason: str, message: str) -> bool:
        del uid
        self.said.append(f"{reason}: {message}")
        return True

    def over(self, uid: str, *reasons: str) -> None:
        del uid, reasons
        self.said.clear()

    async def holds(self, desired: int = 10, **proof: Any) -> bool:
        spec = RolloutSpec(key=RolloutKey(namespace="llm", name="chat"), uid="uid-chat", config=b"")
        command = Command(
            spec=spec,
            hashes=Hashes(stable="h1", canary="h2"),
            weighting=Weighting(desired=desired),
        )
        entry = Commanded(
            rollout="llm/chat",
            uid="uid-chat",
            stable="h1",
            canary="h2",
            desired=desired,
            maximum=100,
            placed=(),
            since=1000.0,
        )
        return await self.prover.holds(command, config(**proof), [entry])


async def test_a_proven_split_is_not_asked_for_again() -> None:
    told = Told({"h1": 900.0, "v2": 60.0, "h2": 40.0})
    assert not await told.holds()  # the settle time of two seconds is not over
    assert told.queries == []
    told.now = 1012.0
    assert await told.holds()
    assert await told.holds()
    assert told.queries == [QUERY.replace("$window", "10s")]
    # Another weight is another split.
    assert not await told.holds(50)
    assert "50.0% was commanded" in told.said[0]


async def test_a_split_that_is_not_served_is_given_up_after_the_timeout() -> None:
    told = Told({"h1": 1000.0})
    told.now = 1020.0
    assert not await told.holds(timeoutSeconds=60)
    assert told.said[0].startswith(f"{WAITING}: The canary got 0 of 1000 requests")
    told.now = 1063.0
    assert await told.holds(timeoutSeconds=60)
    assert told.said[-1].startswith(f"{EXPIRED}: No proof of the split within 60 s")
    asked = len(told.queries)
    assert await told.holds(timeoutSeconds=60)
    assert len(told.queries) == asked


async def test_a_prometheus_that_does_not_answer_is_waited_for_and_named() -> None:
    told = Told(CountersError("Prometheus at http://p was not reached: refused"))
    told.now = 1020.0
    assert not await told.holds()
    assert told.said == [f"{WAITING}: Prometheus at http://p was not reached: refused."]


async def test_nothing_is_asked_about_a_canary_without_a_share() -> None:
    told = Told({})
    told.now = 2000.0
    assert await told.holds(0)
    assert told.queries == []


def test_samples_are_added_up_by_their_label_and_nan_is_nothing() -> None:
    samples = [
        _Sample(metric={"version": "a", "pod": "1"}, value=(0.0, "1.5")),
        _Sample(metric={"version": "a", "pod": "2"}, value=(0.0, "2")),
        _Sample(metric={"version": "b"}, value=(0.0, "NaN")),
    ]
    assert _by_label(samples, "version") == {"a": 3.5, "b": 0.0}
    with pytest.raises(CountersError, match=r"no label 'pod' .they have version"):
        _by_label(samples, "pod")


@pytest.mark.parametrize("url", ["prometheus:9090", "file:///etc/passwd", "http://"])
def test_only_an_http_url_is_a_prometheus(url: str) -> None:
    with pytest.raises(ValueError, match="is no http"):
        Counters(url)
