"""Answers of Prometheus become cells. The fleets are made here, sample by sample."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from inference_analysis import checking
from inference_analysis.aliases import families
from inference_analysis.capture_settings import CaptureSettings
from inference_analysis.capturing import Captured, captured
from inference_analysis.errors import InputError
from inference_analysis.increments import Grid
from inference_analysis.observations import Arm
from inference_analysis.series import series

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Entry = dict[str, Any]
Entries = list[Entry]
GRID = Grid(since_s=880.0, start_s=1000.0, seconds=60.0, width=3)
SCRAPES = np.arange(885.0, 1181.0, 15.0)
TTFT = "vllm:time_to_first_token_seconds"


def entry(name: str, pod: str, values: Mapping[float, float], **labels: str) -> Entry:
    metric = {"__name__": name, "pod": pod, "instance": f"{pod}:8000", **labels}
    return {"metric": metric, "values": [[t, str(v)] for t, v in values.items()]}


def ramp(per_s: float, scrapes: np.ndarray = SCRAPES) -> dict[float, float]:
    """A counter that grew evenly since time 0."""
    return {float(t): float(np.floor(t * per_s)) for t in scrapes}


def histogram(pod: str, name: str = TTFT, scrapes: np.ndarray = SCRAPES, **labels: str) -> Entries:
    """Four observations in a minute: one up to .1, one up to .25, and two above."""
    grown = {float(t): float(t // 15) for t in scrapes}
    shares = {"0.1": 0.25, "0.25": 0.5, "+Inf": 1.0}
    buckets = [
        entry(
            f"{name}_bucket",
            pod,
            {t: float(np.floor(v * share)) for t, v in grown.items()},
            le=le,
            **labels,
        )
        for le, share in shares.items()
    ]
    return [
        *buckets,
        entry(f"{name}_count", pod, grown, **labels),
        entry(f"{name}_sum", pod, {t: v * 0.5 for t, v in grown.items()}, **labels),
    ]


def cells(
    canary: Entries,
    stable: Entries,
    metric: str = "ttft",
    aliases: tuple[str, ...] = (),
    required: frozenset[str] = frozenset(),
    grid: Grid = GRID,
) -> Captured:
    known = families(aliases)
    answers = {(arm, family.metric): series([]) for arm in Arm for family in known}
    answers[Arm.CANARY, metric] = series(canary)
    answers[Arm.STABLE, metric] = series(stable)
    return captured(answers, known, CaptureSettings(grid=grid, warm_up_s=60.0, required=required))


def without(times: tuple[float, ...]) -> np.ndarray:
    return np.array([t for t in SCRAPES if t not in times])


def test_buckets_sums_and_counts_become_increments_of_windows() -> None:
    found = cells(histogram("c"), histogram("s"))
    assert found.windows == {"start": [1000.0, 1060.0, 1120.0], "seconds": [60.0, 60.0, 60.0]}
    canary = found.pods[0]
    assert (canary["name"], canary["arm"]) == ("c", "canary")
    assert canary["warmUp"] == [False, False, False]
    assert canary["histograms"]["ttft"] == {
        "le": [0.1, 0.25],
        "count": [4, 4, 4],
        "sum": [2.0, 2.0, 2.0],
        "buckets": [[1, 1, 2]] * 3,
    }
    assert checking.parse(json.dumps(document(found)))


def document(found: Captured) -> dict[str, Any]:
    return {
        "schema": "inference-rollouts.io/analysis-cells/v1",
        "look": {"id": "x"},
        "windows": found.windows,
        "pods": found.pods,
    }


@pytest.mark.parametrize(
    ("scrapes", "counts"),
    [
        pytest.param(without((1005.0, 1020.0, 1035.0)), [None, 4, 4], id="a-gap"),
        pytest.param(without((1050.0,)), [3, 5, 4], id="one-scrape-missed-is-no-gap"),
        pytest.param(SCRAPES[SCRAPES > 1070], [None, None, 4], id="a-pod-that-came-later"),
        pytest.param(SCRAPES[SCRAPES < 1100], [4, 3, None], id="a-pod-that-went"),
    ],
)
def test_windows_without_scrapes_have_no_data(
    scrapes: np.ndarray, counts: list[int | None]
) -> None:
    found = cells([*histogram("c", scrapes=scrapes), *histogram("d")], histogram("s"))
    assert found.pods[0]["histograms"]["ttft"]["count"] == counts
    if None in counts:
        assert any("canary pod c" in note and "without data" in note for note in found.notes)


def test_restart_costs_its_window_and_a_new_warm_up() -> None:
    """At 1065 the counters start at 0 again."""
    fallen = [
        {
            "metric": e["metric"],
            "values": [[t, str(float(v) if t < 1065 else 0.0)] for t, v in e["values"]],
        }
        for e in histogram("c")
    ]
    found = cells([*fallen, *histogram("d")], histogram("s"))
    assert found.pods[0]["histograms"]["ttft"]["count"] == [4, None, 0]
    assert found.pods[0]["warmUp"] == [False, True, True]


def test_pod_that_came_later_warms_up_and_one_that_was_there_does_not() -> None:
    late = histogram("c", scrapes=SCRAPES[SCRAPES >= 990])
    found = cells([*late, *histogram("d")], histogram("s"))
    assert [pod["warmUp"] for pod in found.pods[:2]] == [[True, False, False], [False] * 3]


def test_engines_of_one_pod_add_up_and_copies_of_a_target_do_not() -> None:
    engines = [*histogram("c", engine="0"), *histogram("c", engine="1")]
    other = histogram("s", scrapes=SCRAPES + 7.0, prometheus_replica="b")
    replicas = [*histogram("s", prometheus_replica="a"), *other]
    found = cells(engines, replicas)
    counts = {pod["name"]: pod["histograms"]["ttft"]["count"] for pod in found.pods}
    assert counts == {"c": [8, 8, 8], "s": [4, 4, 4]}
    assert "ttft: left out 1 copies of targets scraped twice" in found.notes


def test_parts_of_one_scrape_add_up_whatever_label_tells_them_apart() -> None:
    parts = [*histogram("c", tier="a"), *histogram("c", tier="b")]
    found = cells(parts, histogram("s"))
    assert found.pods[0]["histograms"]["ttft"]["count"] == [8, 8, 8]


def test_two_servers_in_one_pod_add_up() -> None:
    ranks = [*histogram("c", instance="c:8000"), *histogram("c", instance="c:8001")]
    found = cells(ranks, histogram("s"))
    assert found.pods[0]["histograms"]["ttft"]["count"] == [8, 8, 8]


@pytest.mark.parametrize(
    ("metric", "canary", "stable"),
    [
        pytest.param(
            "itl",
            "vllm:inter_token_latency_seconds",
            "vllm:time_per_output_token_seconds",
            id="renamed-in-vllm-0.11",
        ),
        pytest.param("ttft", TTFT, f"kserve_{TTFT}", id="prefix-of-rhoai"),
        pytest.param("ttft", "my_ttft", TTFT, id="name-by-alias"),
    ],
)
def test_each_arm_may_name_a_metric_its_own_way(metric: str, canary: str, stable: str) -> None:
    found = cells(
        histogram("c", canary), histogram("s", stable), metric, aliases=("ttft=my_ttft_bucket",)
    )
    assert [pod["histograms"][metric]["count"][0] for pod in found.pods] == [4, 4]
    assert f"{metric}: canary from {canary}, stable from {stable}" in found.notes


def test_server_with_both_names_counts_once() -> None:
    both = [
        *histogram("c", "vllm:inter_token_latency_seconds"),
        *histogram("c", "vllm:time_per_output_token_seconds"),
    ]
    found = cells(both, both_of("s"), "itl")
    assert found.pods[0]["histograms"]["itl"]["count"] == [4, 4, 4]


def both_of(pod: str) -> Entries:
    return histogram(pod, "vllm:inter_token_latency_seconds")


@pytest.mark.parametrize("label", ["finished_reason", "finish_reason"])
def test_requests_are_finished_ones_and_server_errors(label: str) -> None:
    """1 stop a second, and between 1065 and 1080: 6 streams that broke and 3 answers of 500."""
    name = "vllm:request_success_total"
    on_grid = {float(t): 6.0 for t in SCRAPES if t > 1065}
    # A series of a labelled counter begins where it is first raised.
    failed = entry(name, "c", on_grid, **{label: "error"})
    http = [
        entry(
            "http_requests_total",
            "c",
            {t: v / 2 for t, v in on_grid.items()},
            handler=handler,
            status=status,
        )
        for handler, status in (
            ("/v1/chat/completions", "5xx"),
            ("/v1/chat/completions", "2xx"),
            ("/health", "5xx"),
        )
    ]
    fine = entry(name, "c", ramp(1.0), **{label: "stop"})
    stable = entry(name, "s", ramp(1.0), **{label: "stop"})
    found = cells([fine, failed, *http], [stable], "requests")
    assert found.pods[0]["requests"] == [60, 60 + 6 + 3, 60]
    assert found.pods[0]["errors"] == [0, 9, 0]
    assert found.pods[1]["errors"] == [0, 0, 0]


def test_gauges_are_averaged_and_cache_counters_are_differenced() -> None:
    known = families(())
    answers = {(arm, family.metric): series([]) for arm in Arm for family in known}
    for arm, name in ((Arm.CANARY, "c"), (Arm.STABLE, "s")):
        answers[arm, "ttft"] = series(histogram(name))
        level = {float(t): float(t > 1060) * 4 for t in SCRAPES}
        answers[arm, "running"] = series([entry("vllm:num_requests_running", name, level)])
        hits = entry("vllm:gpu_prefix_cache_hits_total", name, ramp(2.0))
        answers[arm, "cacheHits"] = series([hits])
    pod = captured(answers, known, CaptureSettings(grid=GRID, warm_up_s=60.0)).pods[0]
    assert pod["running"] == [0.0, 4.0, 4.0]
    assert pod["cacheHits"] == [120, 120, 120]


def broken(change: Callable[[Entry], None]) -> Entries:
    found = histogram("c")
    for item in found:
        change(item)
    return found


def nan(item: Entry) -> None:
    if item["metric"].get("le") == "0.25":
        item["values"][3][1] = "NaN"


def negative(item: Entry) -> None:
    if item["metric"].get("le") == "0.25":
        item["values"][3][1] = "-1"


def non_monotone(item: Entry) -> None:
    if item["metric"].get("le") == "0.1":
        item["values"] = [[t, "1000000"] for t, _ in item["values"]]


def no_infinity(item: Entry) -> None:
    if item["metric"].get("le") == "+Inf":
        item["metric"]["le"] = "0.5"


def other_count(item: Entry) -> None:
    if item["metric"]["__name__"].endswith("_count"):
        item["values"] = [[t, "1"] for t, _ in item["values"]]


def fractions(item: Entry) -> None:
    item["values"] = [[t, str(float(v) * 0.3)] for t, v in item["values"]]


def without_pod(item: Entry) -> None:
    del item["metric"]["pod"]


def native(item: Entry) -> None:
    item["metric"]["__name__"] = TTFT
    del item["values"]
    item["histograms"] = [[1000.0, {"count": "4", "sum": "2"}]]


@pytest.mark.parametrize(
    ("canary", "message"),
    [
        pytest.param(broken(nan), r"_bucket.*le=.0.25.* is nan at 930", id="nan"),
        pytest.param(broken(negative), "is -1 at 930", id="negative"),
        pytest.param(broken(non_monotone), "Buckets are cumulated", id="non-monotone"),
        pytest.param(broken(no_infinity), r"has no _bucket{le=.\+Inf.}", id="no-infinity"),
        pytest.param(broken(other_count), "_count is 1, the .Inf bucket", id="other-count"),
        pytest.param(broken(fractions), "no whole numbers.*recording", id="fractions"),
        pytest.param(broken(native), "native histogram. Keep the classic", id="native"),
        pytest.param(broken(without_pod), "no label 'pod'.*--pod-label", id="no-pod-label"),
        pytest.param([], "canary has no series at all", id="empty-arm"),
        pytest.param(
            histogram("c", scrapes=SCRAPES[SCRAPES < 1000]),
            "newest sample of canary is 190 s older .*--end",
            id="stale",
        ),
        pytest.param(
            histogram("c", scrapes=np.array([1110.0, 1150.0, 1180.0])),
            "scraped every 35 s. Use at least 70 s",
            id="window-too-short",
        ),
        pytest.param(
            histogram("c", scrapes=np.array([1175.0])), "no window of 60 s with data", id="too-new"
        ),
        pytest.param(histogram("s"), "pod s is in both arms", id="pod-in-both-arms"),
    ],
)
def test_data_that_cannot_be_used_is_refused_with_the_remedy(canary: Entries, message: str) -> None:
    known = families(())
    answers = {(arm, family.metric): series([]) for arm in Arm for family in known}
    answers[Arm.STABLE, "ttft"] = series(histogram("s"))
    settings = CaptureSettings(grid=GRID, warm_up_s=60.0)
    with pytest.raises(InputError, match=message):
        captured(answers | {(Arm.CANARY, "ttft"): series(canary)}, known, settings)


def test_metric_that_one_arm_lacks_is_refused_with_the_way_to_name_it() -> None:
    known = families(())
    answers = {(arm, family.metric): series([]) for arm in Arm for family in known}
    answers[Arm.STABLE, "ttft"] = series(histogram("s"))
    for arm, pod in ((Arm.CANARY, "c"), (Arm.STABLE, "s")):
        item = entry("vllm:request_success_total", pod, ramp(1.0), finished_reason="stop")
        answers[arm, "requests"] = series([item])
    with pytest.raises(InputError, match=r"ttft: no series on canary .*--alias ttft=NAME"):
        captured(answers, known, CaptureSettings(grid=GRID, warm_up_s=60.0))


def test_pod_that_cannot_be_scraped_is_named() -> None:
    known = families(())
    answers = {(arm, family.metric): series([]) for arm in Arm for family in known}
    answers[Arm.CANARY, "ttft"] = series(histogram("c"))
    answers[Arm.STABLE, "ttft"] = series(histogram("s"))
    answers[Arm.CANARY, "up"] = series([entry("up", "c", ramp(0.0)), entry("up", "d", ramp(0.0))])
    found = captured(answers, known, CaptureSettings(grid=GRID, warm_up_s=60.0))
    assert [pod["name"] for pod in found.pods] == ["c", "s"]
    assert found.notes[-1] == (
        "canary pod d: left out, Prometheus knows it but has no data of it in the windows"
    )


def test_metric_that_the_user_named_must_be_there() -> None:
    with pytest.raises(InputError, match="tpot: no series on canary and stable"):
        cells(histogram("c"), histogram("s"), required=frozenset({"tpot"}))


def test_unequal_edges_are_left_to_the_analysis() -> None:
    """evaluate blocks such a metric and says why, so that the others still count."""
    stable = histogram("s")
    stable[1]["metric"]["le"] = "0.3"
    found = cells(histogram("c"), stable)
    assert [pod["histograms"]["ttft"]["le"] for pod in found.pods] == [[0.1, 0.25], [0.1, 0.3]]
