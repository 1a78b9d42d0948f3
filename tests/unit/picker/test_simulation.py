"""The modelled pool, its traces, and a small version of what the benchmark claims."""

import json
from pathlib import Path
from random import Random

import numpy as np
import pytest

from inference_picker.errors import ConfigError
from inference_picker.messages import Sample
from inference_picker.simulation.comparison import Limits, capacity, compare, runs_of
from inference_picker.simulation.engine import Engine, Hardware, Run
from inference_picker.simulation.policies import DEFAULT, GO_DEFAULT, POLICIES, SIMPLE, index_of
from inference_picker.simulation.presenting import plot, table
from inference_picker.simulation.replay import Canary, Setting, replay
from inference_picker.simulation.traces import TracedRequest, read_trace, traced, write_trace
from inference_picker.simulation.workloads import WORKLOADS

HARDWARE = Hardware(step_s=0.01, per_sequence_s=0.001, per_prompt_token_s=0.0001)


def request(number: int = 0, **fields: object) -> TracedRequest:
    given = {"at": 0.0, "prompt_tokens": 100, "output_tokens": 3, **fields}
    return traced(number=number, **given)  # type: ignore[arg-type]


def run_out(engine: Engine, *arrivals: tuple[float, TracedRequest]) -> list[Run]:
    """Let requests arrive and everything end."""
    waiting = [Run(request=each, arrived_at=at) for at, each in arrivals]
    runs = list(waiting)
    while waiting or engine.next_end is not None:
        end = engine.next_end
        if waiting and (end is None or waiting[0].arrived_at <= end):
            run = waiting.pop(0)
            engine.add(run, run.arrived_at)
        elif end is not None:
            engine.finish_step(end)
    return runs


def test_one_request_takes_a_prefill_and_a_step_for_each_further_token() -> None:
    (run,) = run_out(Engine(HARDWARE), (0.0, request()))

    # 10 ms + 100 tokens of 0.1 ms; then two steps of 10 ms + 1 ms.
    assert run.first_token_at == pytest.approx(0.020)
    assert run.ended_at == pytest.approx(0.020 + 2 * 0.011)


def test_a_newcomer_joins_at_the_end_of_the_step_that_runs() -> None:
    engine = Engine(HARDWARE)

    first, second = run_out(
        engine, (0.0, request(0, output_tokens=100)), (0.025, request(1, output_tokens=1))
    )

    # The first step ends at 20 ms, the second at 31 ms; the prefill's step has one decode too.
    assert second.first_token_at == pytest.approx(0.031 + 0.01 + 0.001 + 0.010)
    assert first.ended_at is not None
    assert first.ended_at > second.first_token_at  # type: ignore[operator]


def test_a_shared_prefix_is_computed_once() -> None:
    engine = Engine(HARDWARE)
    shared = {"prefix": "p", "prefix_tokens": 640, "prompt_tokens": 700, "output_tokens": 1}

    first, second = run_out(engine, (0.0, request(0, **shared)), (1.0, request(1, **shared)))

    assert (first.cached_tokens, second.cached_tokens) == (0, 640)
    assert first.first_token_at == pytest.approx(0.01 + 700 * 0.0001)
    assert second.first_token_at == pytest.approx(1.0 + 0.01 + 60 * 0.0001)


def test_a_full_cache_makes_requests_wait() -> None:
    engine = Engine(Hardware(kv_tokens=1000))
    for number in range(3):
        engine.add(
            Run(request=request(number, prompt_tokens=600, output_tokens=10), arrived_at=0), 0
        )

    assert engine.in_flight == 3
    assert engine.readings().running == 1
    assert engine.readings().waiting == 2


@pytest.mark.parametrize("policy", POLICIES)
def test_every_request_ends_once_and_nothing_stays_in_flight(policy: str) -> None:
    workload = WORKLOADS["session"]
    requests = workload.requests(seed=1, duration_s=10)

    result = replay(requests, POLICIES[policy](), Setting(pods=workload.pods, watch_share=0.3))

    assert len(result.ttft) == len(requests) == sum(result.by_pod)
    assert (result.ttft > 0).all()
    assert (result.tpot >= 0).all()


def test_the_same_seed_gives_the_same_run() -> None:
    workload = WORKLOADS["plain"]
    requests = workload.requests(seed=1, duration_s=5)
    setting = Setting(pods=workload.pods, seed=4, watch_share=0.5)

    first, second = (replay(requests, POLICIES["two-choices"](), setting) for _ in range(2))

    assert np.array_equal(first.ttft, second.ttft)
    assert requests == workload.requests(seed=1, duration_s=5)


def mean_ttft(name: str, seconds: float, *others: str, **fields: object) -> dict[str, float]:
    """Mean TTFT of the default policy and others on a workload."""
    workload = WORKLOADS[name]
    setting = Setting(pods=workload.pods, watch_share=0.05, **fields)  # type: ignore[arg-type]
    runs = runs_of(workload, seeds=1, duration_s=seconds, setting=setting)
    rows = compare(runs, (DEFAULT, *others), limits=Limits(), warmup_s=seconds / 3)
    return {row.policy: row.ttft_mean for row in rows}


@pytest.mark.parametrize("misset", [0.5, 1.0, 1.5])
def test_on_plain_traffic_the_default_halves_upstreams_and_beats_the_simple_ones(
    misset: float,
) -> None:
    # `make bench-picks` at full length; here with only 5 % of the first tokens seen.
    found = mean_ttft("plain", 30, GO_DEFAULT, "round-robin", "least-requests", misset=misset)

    assert found[DEFAULT] <= 0.5 * found[GO_DEFAULT]
    assert found[DEFAULT] <= min(found["round-robin"], found["least-requests"])


def test_with_old_metrics_the_default_stays_and_upstreams_herds() -> None:
    found = mean_ttft("stale", 15, GO_DEFAULT)

    assert found[DEFAULT] <= 0.2 * found[GO_DEFAULT]


def test_in_bursts_the_default_is_no_worse_than_the_best_simple_one() -> None:
    found = mean_ttft("burst", 20, *SIMPLE)

    assert found[DEFAULT] <= 1.05 * min(found[each] for each in SIMPLE)


def test_where_seats_are_few_a_popular_prefix_does_not_queue_at_one_pod() -> None:
    # `make bench-picks` at full length. Without seats in its cost the default makes 182 ms of it,
    # and is a quarter slower than the best simple one.
    found = mean_ttft("few-seats", 60, GO_DEFAULT, *SIMPLE)

    assert found[DEFAULT] <= min(found[each] for each in SIMPLE)
    assert found[DEFAULT] <= 0.5 * found[GO_DEFAULT]


def test_a_pod_that_answers_500_at_once_gets_next_to_nothing() -> None:
    workload = WORKLOADS["plain"]
    requests = workload.requests(seed=2, duration_s=30)

    failed = replay(
        requests, POLICIES[DEFAULT](), Setting(pods=workload.pods, broken=3, broken_from_s=5)
    ).failed

    after_a_second = [at for at in failed if at >= 6]
    assert len(after_a_second) <= 0.03 * sum(1 for each in requests if each.at >= 6)
    assert failed


@pytest.mark.parametrize("alone", [False, True])
def test_a_canary_and_its_control_get_as_many_requests(alone: bool) -> None:
    workload = WORKLOADS["plain"]
    requests = workload.requests(seed=3, duration_s=20)
    setting = Setting(
        pods=workload.pods, canary=Canary(percent=10, pods=1, alone=alone), watch_share=1.0
    )

    arms = replay(requests, POLICIES[DEFAULT](), setting).arms

    counts = {sample: len(found) for sample, found in arms.items()}
    assert counts[Sample.CANARY] == pytest.approx(len(requests) / 10, abs=6)
    assert counts[Sample.CONTROL] == pytest.approx(len(requests) / 10, abs=6)
    assert (Sample.BACKGROUND in counts) is not alone


def test_upstreams_index_believes_in_four_times_the_cache_that_there_is() -> None:
    # makeserver: CacheNumBlocks entries, of at least minBlockSizeTokens = 64 tokens each, where
    # the server's blocks have 16 (llm-d-router, approximateprefix/plugin.go).
    ours, upstreams = index_of(DEFAULT), index_of(GO_DEFAULT)
    for index in (ours, upstreams):
        index.limit(0, 2)
        index.add(0, tuple(range(20)))

    assert [len(ours), len(upstreams)] == [2, 8]


def test_where_prefixes_fill_all_caches_the_default_keeps_each_in_one() -> None:
    # `make bench-picks` at full length.
    found = mean_ttft("prefix-high", 60, GO_DEFAULT)

    assert found[DEFAULT] < found[GO_DEFAULT]


def test_capacity_is_found_by_bisection() -> None:
    found = capacity(lambda rate: 1.0 if rate <= 70 else 0.5, low=4, high=32)

    assert found == pytest.approx(70, rel=0.02)
    assert capacity(lambda _: 0.0, low=1, high=2) == 0


@pytest.mark.parametrize("name", ["trace.csv", "trace.jsonl"])
def test_a_trace_comes_back_as_it_was_written(tmp_path: Path, name: str) -> None:
    requests = [
        request(1, at=0.5),
        request(2, at=1.25, prefix="system", prefix_tokens=64, prompt_tokens=200),
    ]
    write_trace(tmp_path / name, requests)

    found = read_trace(tmp_path / name)

    assert [(each.at, each.prompt_tokens, each.prefix) for each in found] == [
        (0.5, 100, ""),
        (1.25, 200, "system"),
    ]
    assert found[1].blocks[0] == requests[1].blocks[0]


def test_burstgpts_csv_is_read(tmp_path: Path) -> None:
    # The header and the first rows of BurstGPT_1.csv (github.com/HPMLL/BurstGPT).
    path = tmp_path / "burst.csv"
    path.write_text(
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "5,ChatGPT,472,18,490,Conversation log\n"
        "45,ChatGPT,1087,0,1087,API log\n"
    )

    found = read_trace(path)

    assert [(each.at, each.prompt_tokens, each.output_tokens) for each in found] == [
        (5.0, 472, 18),
        (45.0, 1087, 1),
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param("", "no requests in it", id="empty"),
        pytest.param('{"at": 1, "prompt_tokens": 3}', "request 1: no 'output_tokens'", id="field"),
        pytest.param('{"at": "x", "prompt_tokens": 3}', "could not convert", id="number"),
        pytest.param("{", "can't be read as a trace", id="json"),
    ],
)
def test_a_trace_that_is_wrong_is_told_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(text)

    with pytest.raises(ConfigError) as caught:
        read_trace(path)
    assert told in str(caught.value)


def test_workloads_have_the_rate_and_order_that_they_say() -> None:
    for workload in WORKLOADS.values():
        requests = workload.requests(seed=3, duration_s=60)

        times = [each.at for each in requests]
        assert times == sorted(times)
        # Poisson: four standard deviations; bursts and sessions come in groups.
        grouped = 16 if workload.name in {"burst", "session"} else 1
        expected = workload.rate * 60
        assert len(requests) == pytest.approx(expected, abs=4 * np.sqrt(expected * grouped))


def test_rows_become_a_table_and_a_plot(tmp_path: Path) -> None:
    workload = WORKLOADS["plain"]
    runs = runs_of(workload, seeds=1, duration_s=3, setting=Setting(pods=workload.pods))
    rows = compare(runs, (DEFAULT,), limits=Limits(), warmup_s=0)

    lines = table(rows, {DEFAULT: 71.5}).splitlines()
    assert lines[1].startswith("load-cost")
    assert lines[1].endswith("71.5/s")

    plot(tmp_path / "p.svg", "title", rows)
    assert (
        "time to first token" in (tmp_path / "p.svg").read_text()
        or (tmp_path / "p.svg").stat().st_size > 1000
    )


def test_jobs_are_drawn_alike_by_one_seed_and_differently_by_another() -> None:
    draw = WORKLOADS["prefix"].draw

    same = [list(draw(Random(5), 50.0, 2.0)) for _ in range(2)]
    other = list(draw(Random(6), 50.0, 2.0))

    assert json.dumps([each.at for each in same[0]]) == json.dumps([each.at for each in same[1]])
    assert [each.at for each in same[0]] != [each.at for each in other]
