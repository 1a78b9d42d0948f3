"""What llm-d-router's names say about a pool's state."""

from __future__ import annotations

import pytest

from inference_picker.director import Director, Settings
from inference_picker.labels import EndpointLabels
from inference_picker.messages import PickEndpoint
from inference_picker.metrics import Metrics
from inference_picker.peer_series import PeerCollector
from inference_picker.pool import Endpoint, StaticSource, make_snapshot
from inference_picker.readings import Readings

ENDPOINTS = [
    Endpoint(address="10.0.0.1:8000", pod="gpu-a"),
    Endpoint(address="10.0.0.2:8000", pod="gpu-b"),
    Endpoint(address="10.0.0.2:8001", pod="gpu-b"),
]


def series() -> tuple[Director, Metrics, PeerCollector]:
    source = StaticSource(make_snapshot(ENDPOINTS))
    metrics = Metrics()
    director = Director(source=source, metrics=metrics, settings=Settings(), clock=lambda: 100.0)
    # The scheduler knows the endpoints from the first request on.
    director.pick(PickEndpoint(model=None, headers={}))
    collector = PeerCollector(
        director, labels=EndpointLabels(), picks=metrics.picks, name="chat", namespace="llm"
    )
    return director, metrics, collector


def samples(collector: PeerCollector, name: str) -> dict[tuple[str, ...], float]:
    return {
        tuple(sample.labels.values()): sample.value
        for family in collector.collect()
        for sample in family.samples
        if sample.name == name
    }


@pytest.mark.parametrize("prefix", ["llm_d_epp", "inference_pool"])
def test_means_are_over_the_endpoints_whose_page_was_read(prefix: str) -> None:
    director, _, collector = series()
    assert samples(collector, f"{prefix}_average_queue_size") == {}

    director.note_readings("10.0.0.1:8000", Readings(running=4, waiting=6, kv_usage=0.5))
    director.note_readings("10.0.0.2:8000", Readings(running=2, waiting=0, kv_usage=0.25))

    assert samples(collector, f"{prefix}_average_queue_size") == {("chat",): 3.0}
    assert samples(collector, f"{prefix}_average_running_requests") == {("chat",): 3.0}
    assert samples(collector, f"{prefix}_average_kv_cache_utilization") == {("chat",): 0.375}


@pytest.mark.parametrize(
    "name", ["llm_d_epp_per_endpoint_queue_size", "inference_pool_per_pod_queue_size"]
)
def test_queues_are_told_by_endpoint(name: str) -> None:
    director, _, collector = series()
    for address, waiting in (("10.0.0.1:8000", 6), ("10.0.0.2:8000", 1), ("10.0.0.2:8001", 2)):
        director.note_readings(address, Readings(waiting=waiting))

    assert samples(collector, name) == {
        ("chat", "gpu-a"): 6.0,
        ("chat", "gpu-b:8000"): 1.0,
        ("chat", "gpu-b:8001"): 2.0,
    }


@pytest.mark.parametrize("prefix", ["llm_d_epp", "inference_extension"])
def test_attempts_are_the_picks_of_all_versions(prefix: str) -> None:
    _, metrics, collector = series()
    metrics.picks.inc(("old", "gpu-a", "m"), 3)
    metrics.picks.inc(("new", "gpu-a", "m"), 2)
    metrics.picks.inc(("new", "gpu-b:8001", "m"))

    assert samples(collector, f"{prefix}_scheduler_attempts_total") == {
        ("success", "m", "gpu-a", "llm", ""): 5.0,
        ("success", "m", "gpu-b", "llm", "8001"): 1.0,
    }


@pytest.mark.parametrize("prefix", ["llm_d_epp", "inference_extension"])
def test_saturation_is_the_schedulers(prefix: str) -> None:
    director, _, collector = series()
    for each in ENDPOINTS:
        director.note_readings(each.address, Readings(waiting=5))

    # 1 where the mean queue is at its threshold, which is 5.
    assert samples(collector, f"{prefix}_flow_control_pool_saturation") == {("chat",): 1.0}
    assert samples(collector, f"{prefix}_flow_control_queue_size") == {("chat",): 0.0}
