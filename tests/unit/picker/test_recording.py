"""Each request in the series: labels, classes, and what stays out of the latencies."""

import pytest

from inference_picker.labels import EndpointLabels
from inference_picker.messages import Ended, Finish, Phase, Pick, Reason, Sample, TokenTimes, Usage
from inference_picker.metrics import Metrics, PoolCollector
from inference_picker.pool import Endpoint, PoolSnapshot, StaticSource, make_snapshot
from inference_picker.recording import Recorder

A = Endpoint(address="10.0.0.1:80", pod="pod-a", version="old", models=frozenset({"base", "v1"}))
B = Endpoint(address="10.0.0.2:80", pod="pod-b", version="new", models=frozenset({"chat", "v2"}))
POOL = make_snapshot([A, B])
PICK = Pick(endpoints=(A.address,), model="chat", target="v1", version="old")


def value(metrics: Metrics, name: str, /, **labels: str) -> float:
    return sum(
        sample.value
        for family in metrics.collect()
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def ours(metrics: Metrics, name: str, /, **labels: str) -> float:
    return value(metrics, f"inference_picker_{name}", **labels)


def finish(ended: Ended = Ended.COMPLETE, **fields: object) -> Finish:
    return Finish(
        **{"pick": PICK, "ended": ended, "duration_s": 2.0, "status": 200, **fields}  # type: ignore[arg-type]
    )


def recorded(*finishes: Finish, pool: PoolSnapshot = POOL) -> Metrics:
    metrics = Metrics()
    recorder = Recorder(metrics)
    for each in finishes:
        recorder.finished(each, pool)
    return metrics


@pytest.mark.parametrize(
    ("outcome", "error"),
    [
        pytest.param(finish(), None, id="complete"),
        pytest.param(finish(status=500), "5xx", id="server-error"),
        pytest.param(finish(status=404), "4xx", id="client-error"),
        pytest.param(finish(Ended.UNSEEN, status=503), "5xx", id="server-error-unwatched"),
        pytest.param(finish(Ended.RESET), "reset", id="broke-off"),
        pytest.param(finish(Ended.NO_RESPONSE, status=None), "no-response", id="no-response"),
        pytest.param(finish(Ended.UNSEEN), None, id="end-unwatched"),
        pytest.param(finish(tokens=TokenTimes(malformed=True)), "malformed", id="garbage"),
    ],
)
def test_only_answers_that_succeeded_enter_the_latencies(
    outcome: Finish, error: str | None
) -> None:
    metrics = recorded(outcome)

    assert ours(metrics, "requests_total", version="old", model_name="chat") == 1
    assert ours(metrics, "request_duration_seconds_count") == (1 if error is None else 0)
    assert ours(metrics, "request_errors_total") == (0 if error is None else 1)
    if error is not None:
        labels = {"class": error, "target_model_name": "v1"}
        assert ours(metrics, "request_errors_total", **labels) == 1


def test_every_label_tells_what_the_pick_says() -> None:
    pick = Pick(
        endpoints=(B.address,),
        model="chat",
        target="v2",
        version="new",
        sample=Sample.CANARY,
        phase=Phase.WARMUP,
        bucket="17",
    )

    metrics = recorded(finish(pick=pick, tokens=TokenTimes()))

    (sample,) = [
        sample
        for family in metrics.requests.collect()
        for sample in family.samples
        if sample.name == "inference_picker_requests_total"
    ]
    assert sample.labels == {
        "version": "new",
        "endpoint": "pod-b",
        "model_name": "chat",
        "target_model_name": "v2",
        "sample": "canary",
        "accounting": "tokens",
        "phase": "warmup",
        "bucket": "17",
    }


def test_the_times_of_a_watched_answer_are_recorded() -> None:
    tokens = TokenTimes(
        gaps_s=((0.02, 1), (0.03, 2)),
        per_token_s=0.027,
        usage=Usage(prompt=100, output=4, cached=64),
    )

    metrics = recorded(finish(first_token_s=0.5, tokens=tokens), finish())

    assert ours(metrics, "time_to_first_token_seconds_sum", accounting="tokens") == 0.5
    assert ours(metrics, "inter_token_latency_seconds_count") == 3
    assert ours(metrics, "inter_token_latency_seconds_sum") == pytest.approx(0.08)
    assert ours(metrics, "time_per_output_token_seconds_sum") == 0.027
    assert ours(metrics, "prompt_tokens_sum") == 100
    assert ours(metrics, "output_tokens_sum") == 4
    assert ours(metrics, "cached_tokens_sum") == 64
    for name in ("time_to_first_token_seconds", "prompt_tokens", "inter_token_latency_seconds"):
        assert ours(metrics, f"{name}_count", accounting="end") == 0
    assert ours(metrics, "requests_total", accounting="end") == 1


def test_a_request_that_was_not_followed_is_counted_apart() -> None:
    metrics = recorded(finish(Ended.UNFOLLOWED, status=None))

    assert ours(metrics, "unfollowed_requests_total", version="old") == 1
    assert ours(metrics, "requests_total") == 0
    assert ours(metrics, "request_errors_total") == 0


def test_the_endpoint_that_served_gets_the_result() -> None:
    metrics = recorded(finish(served=B.address), finish(served="10.9.9.9:80"))

    assert ours(metrics, "requests_total", version="new", endpoint="pod-b") == 1
    assert ours(metrics, "requests_total", version="old", endpoint="pod-a") == 1


def test_names_that_clients_make_up_share_one_label() -> None:
    metrics = Metrics()
    recorder = Recorder(metrics)
    for number in range(5):
        name = f"made-up-{number}"
        pick = Pick(endpoints=(A.address,), model=name, target=name, version="old")
        recorder.picked(pick, POOL)
        recorder.finished(finish(pick=pick), POOL)

    assert ours(metrics, "requests_total", model_name="other") == 5
    assert ours(metrics, "picks_total", target_model_name="other") == 5


def test_refusals_are_counted_by_reason() -> None:
    metrics = Metrics()
    Recorder(metrics).refused(Reason.NO_ENDPOINTS)

    assert ours(metrics, "refusals_total", reason="rejected-no-endpoints") == 1


@pytest.mark.parametrize("prefix", ["llm_d_epp", "inference_objective"])
def test_the_peers_dashboards_find_their_names(prefix: str) -> None:
    # Names and labels: llm-d router, docs/metrics.md; the older prefix is its deprecated twin.
    metrics = recorded(
        finish(tokens=TokenTimes(usage=Usage(prompt=7, output=3))), finish(status=500)
    )
    models = {"model_name": "chat", "target_model_name": "v1"}
    tokens = f"{prefix}_request" if prefix == "llm_d_epp" else prefix

    assert value(metrics, f"{prefix}_request_total", **models) == 2
    assert value(metrics, f"{prefix}_request_error_total", error_code="5xx", **models) == 1
    assert value(metrics, f"{prefix}_request_duration_seconds_sum", **models) == 2
    assert value(metrics, f"{tokens}_input_tokens_sum", **models) == 7
    assert value(metrics, f"{tokens}_output_tokens_sum", **models) == 3


def with_collector(pool: PoolSnapshot, in_flight: dict[str, int]) -> tuple[Metrics, StaticSource]:
    metrics, source = Metrics(), StaticSource(pool)
    metrics.registry.register(
        PoolCollector(source=source, in_flight=in_flight, labels=EndpointLabels(), name="pool")
    )
    return metrics, source


def test_the_gauge_of_requests_in_flight_is_the_schedulers_count() -> None:
    in_flight = {A.address: 1}
    metrics, _ = with_collector(POOL, in_flight)

    assert ours(metrics, "in_flight", version="old", endpoint="pod-a") == 1
    assert ours(metrics, "in_flight", version="new", endpoint="pod-b") == 0
    assert ours(metrics, "endpoints", version="new") == 1
    assert value(metrics, "inference_pool_ready_pods", name="pool") == 2
    in_flight.clear()
    assert ours(metrics, "in_flight") == 0


def test_an_endpoint_that_left_keeps_its_version_until_its_last_request_is_over() -> None:
    in_flight = {A.address: 1}
    metrics, source = with_collector(make_snapshot([A]), in_flight)
    assert ours(metrics, "in_flight", version="old") == 1
    source.current = PoolSnapshot()

    assert ours(metrics, "in_flight", version="old", endpoint="pod-a") == 1
    in_flight.clear()
    gone = {"version": "old", "endpoint": "pod-a"}
    assert metrics.registry.get_sample_value("inference_picker_in_flight", gone) is None


def test_series_of_endpoints_that_left_long_ago_are_dropped() -> None:
    metrics = recorded(finish(), finish(served=B.address))

    metrics.forget_endpoints(frozenset({"pod-a"}))

    assert ours(metrics, "requests_total", endpoint="pod-a") == 0
    assert ours(metrics, "requests_total", endpoint="pod-b") == 1
