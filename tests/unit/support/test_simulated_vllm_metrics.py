"""The metrics page against the real server's: names, labels and bucket bounds.

The real server's list is beside this file. Where the page that it was reduced from is at hand
(shared/data next to the repository), the list itself is checked against it.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.simulated_vllm.engine import Engine, Sequence, Timing
from support.simulated_vllm.metrics import Metrics

HERE = Path(__file__).parent
PAGE = HERE.parents[2].parent / "shared" / "data" / "vllm-0.32-cpu-metrics.txt"

Series = dict[tuple[str, frozenset[str]], set[str]]


def series_of(page: str) -> Series:
    """(name, label names) to the `le` values seen."""
    found: Series = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name.endswith("_created"):
                continue
            bounds = found.setdefault((sample.name, frozenset(sample.labels) - {"le"}), set())
            if "le" in sample.labels:
                bounds.add(sample.labels["le"])
    return found


def expected_series() -> Series:
    found: Series = {}
    for line in (HERE / "vllm-0.32-series.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        head, _, bounds = line.partition("} ")
        name, _, labels = head.rstrip("}").partition("{")
        found[name, frozenset(filter(None, labels.split(",")))] = set(bounds.split())
    return found


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(model_name="mymodel", block_size=16, gpu_blocks=64, max_loras=2)


def value(page: str, name: str, **labels: str) -> float:
    found = [
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    assert len(found) == 1, (name, labels, found)
    return found[0]


def exposition(metrics: Metrics, engine: Engine) -> str:
    return metrics.exposition(engine, lora_enabled=True).decode()


def test_names_labels_and_buckets_are_those_of_the_real_server(metrics: Metrics) -> None:
    metrics.record_http(
        handler="/v1/models", method="GET", status=200, seconds=0.1, received=0, sent=9
    )
    found = series_of(exposition(metrics, Engine(Timing())))
    expected = expected_series()
    assert len(expected) > 90
    assert found == expected

    if PAGE.exists():
        assert series_of(PAGE.read_text()) == expected
    else:
        print(f"the list was not compared with the scraped page: {PAGE} is not there")


def test_every_vllm_series_of_an_adapters_request_is_under_the_first_served_name(
    metrics: Metrics,
) -> None:
    engine, _ = run_one(metrics, adapter="travel-helper-v2")
    names = {
        sample.labels["model_name"]
        for family in text_string_to_metric_families(exposition(metrics, engine))
        for sample in family.samples
        if sample.name.startswith("vllm:") and "model_name" in sample.labels
    }
    assert names == {"mymodel"}


def run_one(metrics: Metrics, adapter: str | None = None) -> tuple[Engine, Sequence]:
    """A request of 80 + 3 tokens that arrives at 0 s and is scheduled at 0.5 s."""
    engine = Engine(Timing())
    sequence = Sequence(prompt_tokens=80, output_tokens=3, arrived=0.0, adapter=adapter)
    engine.add(sequence)
    now = 0.5
    while (plan := engine.plan(now)) is not None:
        now += plan.duration_s
        metrics.record_step(engine.complete(plan, now), engine.totals)
    metrics.record_finished(sequence, reason="stop", max_tokens=16, now=now)
    return engine, sequence


# By hand: prefill 0.020 + 80/8000 = 0.030 s, two decode steps of 0.0204 s.
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vllm:time_to_first_token_seconds_sum", 0.530),
        ("vllm:inter_token_latency_seconds_sum", 0.0408),
        ("vllm:inter_token_latency_seconds_count", 2),
        ("vllm:request_time_per_output_token_seconds_sum", 0.0204),
        ("vllm:request_queue_time_seconds_sum", 0.5),
        ("vllm:request_prefill_time_seconds_sum", 0.030),
        ("vllm:request_decode_time_seconds_sum", 0.0408),
        ("vllm:request_inference_time_seconds_sum", 0.0708),
        ("vllm:e2e_request_latency_seconds_sum", 0.5708),
        ("vllm:prompt_tokens_total", 80),
        ("vllm:generation_tokens_total", 3),
        ("vllm:request_prompt_tokens_sum", 80),
        ("vllm:request_generation_tokens_sum", 3),
        ("vllm:iteration_tokens_total_sum", 83),
        ("vllm:prefix_cache_queries_total", 80),
        ("vllm:num_requests_running", 0),
        ("vllm:kv_cache_usage_perc", 0),
    ],
)
def test_a_request_is_counted_in_all_its_phases(
    metrics: Metrics, name: str, expected: float
) -> None:
    engine, _ = run_one(metrics)
    assert value(exposition(metrics, engine), name) == pytest.approx(expected)


def test_gauges_show_running_waiting_and_deferred_requests(metrics: Metrics) -> None:
    engine = Engine(Timing(max_num_seqs=2, max_loras=1))
    for adapter in ("v1", "v2", "v1", "v1"):
        engine.add(Sequence(prompt_tokens=8, output_tokens=9, arrived=0.0, adapter=adapter))
    engine.plan(0.0)
    page = exposition(metrics, engine)

    assert value(page, "vllm:num_requests_running") == 2
    assert value(page, "vllm:num_requests_waiting") == 2
    by_reason = "vllm:num_requests_waiting_by_reason"
    assert value(page, by_reason, reason="deferred") == 1
    assert value(page, by_reason, reason="capacity") == 1


def test_each_combination_of_adapters_leaves_its_own_series(metrics: Metrics) -> None:
    for names in ([], ["v1"], ["v2", "v1"]):
        metrics.touch_adapters(names)
    found = {
        (sample.labels["running_lora_adapters"], sample.labels["waiting_lora_adapters"])
        for family in text_string_to_metric_families(
            metrics.exposition(Engine(Timing()), lora_enabled=False).decode()
        )
        for sample in family.samples
        if sample.name == "vllm:lora_requests_info"
    }
    assert found == {("", ""), ("v1", "v1"), ("v2,v1", "v2,v1")}
