"""Decisions and their books."""

import pytest

from inference_picker.director import Director, Settings
from inference_picker.messages import (
    ChooseTarget,
    Ended,
    Finish,
    Pick,
    PickEndpoint,
    Reason,
    Refused,
)
from inference_picker.metrics import Metrics, PoolCollector
from inference_picker.pool import Endpoint, PoolSnapshot, StaticSource, make_snapshot
from inference_picker.splits import ModelSplit, Target

A = Endpoint(address="10.0.0.1:80", version="old", models=frozenset({"base", "v1"}))
B = Endpoint(address="10.0.0.2:80", version="new", models=frozenset({"base", "v2"}))
SPLIT = ModelSplit(model="chat", targets=(Target(name="v1", weight=3), Target(name="v2", weight=1)))
PICK = Pick(endpoints=(A.address,), model="chat", target="v1", version="old")


def make_director(pool: PoolSnapshot | None = None, settings: Settings | None = None) -> Director:
    source = StaticSource(make_snapshot([A, B], [SPLIT]) if pool is None else pool)
    return Director(source=source, metrics=Metrics(), settings=settings or Settings())


def picked(director: Director, model: str | None = "base", **fields: object) -> Pick:
    found = director.pick(PickEndpoint(model=model, headers={}, **fields))  # type: ignore[arg-type]
    assert not isinstance(found, Refused)
    return found[0]


def value(director: Director, name: str, **labels: str) -> float:
    return sum(
        sample.value
        for family in director.metrics.registry.collect()
        for sample in family.samples
        if sample.name == f"inference_picker_{name}" and labels.items() <= sample.labels.items()
    )


def finish(ended: Ended = Ended.COMPLETE, **fields: object) -> Finish:
    return Finish(
        **{"pick": PICK, "ended": ended, "duration_s": 2.0, "status": 200, **fields}  # type: ignore[arg-type]
    )


def test_a_pick_counts_at_once() -> None:
    director = make_director()

    picks = [picked(director) for _ in range(4)]

    assert sorted(pick.endpoints[0] for pick in picks) == [A.address] * 2 + [B.address] * 2
    assert director.flights.counts == {A.address: 2, B.address: 2}


def test_a_split_for_every_other_model_leaves_those_of_their_own_alone() -> None:
    other = ModelSplit(model=None, targets=(Target(name="v2", weight=1),))
    director = make_director(make_snapshot([A, B], [other, SPLIT]))

    assert [picked(director, model).target for model in ("base", "anything")] == ["v2", "v2"]
    targets = {picked(director, "chat").target for _ in range(20)}
    assert targets == {"v1", "v2"}


def test_a_target_without_a_name_leaves_the_models_name() -> None:
    # The CRD of InferenceModelRewrite allows an empty modelRewrite.
    other = ModelSplit(model=None, targets=(Target(name="", weight=1),))
    director = make_director(make_snapshot([A, B], [other]))

    assert picked(director, "base").target == "base"


def test_a_model_with_targets_goes_where_the_target_is_loaded() -> None:
    director = make_director()

    picks = [picked(director, "chat") for _ in range(100)]

    assert {(pick.target, pick.endpoints[0]) for pick in picks} == {
        ("v1", A.address),
        ("v2", B.address),
    }
    assert abs(sum(pick.target == "v2" for pick in picks) - 25) <= 3
    assert all(pick.rewrite_back and pick.model == "chat" for pick in picks)
    assert {pick.version for pick in picks} == {"old", "new"}


def test_a_model_without_a_split_goes_as_it_is() -> None:
    pick = picked(make_director(), "unknown")

    assert (pick.model, pick.target, pick.rewrite_back) == ("unknown", "unknown", False)


def test_the_targets_name_is_left_in_answers_on_request() -> None:
    pick = picked(make_director(settings=Settings(expose_target_model=True)), "chat")

    assert pick.target != "chat"
    assert not pick.rewrite_back


def test_a_request_without_body_goes_anywhere_and_has_no_model() -> None:
    pick = picked(make_director(), None)

    assert (pick.model, pick.target, pick.rewrite_back) == ("", "", False)


@pytest.mark.parametrize(
    ("pool", "model", "subset", "status", "reason"),
    [
        pytest.param(PoolSnapshot(), "base", None, 503, Reason.NO_ENDPOINTS, id="empty-pool"),
        pytest.param(None, "base", (), 503, Reason.NO_ENDPOINTS, id="empty-hint"),
        pytest.param(
            make_snapshot([A], [ModelSplit(model="held", targets=(Target(name="v1", weight=0),))]),
            "held",
            None,
            404,
            Reason.NO_TARGET,
            id="reserved-name",
        ),
    ],
)
def test_what_can_go_nowhere_is_refused_and_not_counted(
    pool: PoolSnapshot | None,
    model: str,
    subset: tuple[str, ...] | None,
    status: int,
    reason: Reason,
) -> None:
    director = make_director(pool)

    found = director.pick(PickEndpoint(model=model, headers={}, subset=subset))

    assert isinstance(found, Refused)
    assert (found.status, found.reason) == (status, reason)
    assert not director.flights.counts


def test_a_late_target_keeps_the_endpoint() -> None:
    director = make_director()
    pick = picked(director, None)

    found = director.retarget(ChooseTarget(model="chat", pick=pick))

    assert isinstance(found, Pick)
    assert found.endpoints == pick.endpoints
    assert found.model == "chat"
    assert found.target in {"v1", "v2"}
    assert found.rewrite_back


def test_fallbacks_follow_in_order() -> None:
    pick = picked(make_director(settings=Settings(fallbacks=5)))

    assert pick.endpoints == (A.address, B.address)


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (0.25, 25), (1.0, 100)])
def test_a_share_of_the_answers_is_watched(share: float, expected: int) -> None:
    director = make_director(settings=Settings(watch_share=share))

    watched = sum(picked(director).watch_body for _ in range(100))

    assert abs(watched - expected) <= (2 if 0 < share < 1 else 0)


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
        pytest.param(finish(Ended.UNSEEN, body_asked=True), None, id="gateway-never-sent-one"),
    ],
)
def test_only_answers_that_succeeded_enter_the_latencies(
    outcome: Finish, error: str | None
) -> None:
    director = make_director()

    director.finish(outcome)

    assert value(director, "requests_total", version="old", model_name="chat") == 1
    assert value(director, "request_duration_seconds_count") == (1 if error is None else 0)
    assert value(director, "request_errors_total") == (0 if error is None else 1)
    if error is not None:
        labels = {"class": error, "target_model_name": "v1"}
        assert value(director, "request_errors_total", **labels) == 1


def test_a_missing_body_is_a_reset_once_the_gateway_is_known_to_send_bodies() -> None:
    director = make_director()
    director.finish(finish(body_asked=True))

    director.finish(finish(Ended.UNSEEN, body_asked=True))

    assert value(director, "request_errors_total", **{"class": "reset"}) == 1


def test_the_time_to_the_first_token_is_recorded_where_it_was_seen() -> None:
    director = make_director()
    director.finish(finish(first_token_s=0.5))
    director.finish(finish())

    assert value(director, "time_to_first_token_seconds_count") == 1
    assert value(director, "time_to_first_token_seconds_sum") == 0.5


def test_the_version_that_served_gets_the_result() -> None:
    director = make_director()
    director.finish(finish(served=B.address))
    director.finish(finish(served="10.9.9.9:80"))

    assert value(director, "requests_total", version="new") == 1
    assert value(director, "requests_total", version="old") == 1


def test_names_that_clients_make_up_share_one_label() -> None:
    director = make_director()
    for number in range(5):
        pick = picked(director, f"made-up-{number}")
        director.finish(finish(pick=pick))

    assert value(director, "requests_total", model_name="other") == 5
    assert value(director, "picks_total", target_model_name="other") == 5


def test_the_gauge_of_requests_in_flight_is_the_schedulers_count() -> None:
    director = make_director()
    director.metrics.registry.register(
        PoolCollector(source=StaticSource(make_snapshot([A, B])), in_flight=director.flights.counts)
    )
    found = director.pick(PickEndpoint(model="v1", headers={}))
    assert not isinstance(found, Refused)

    assert value(director, "in_flight", version="old", endpoint=A.address) == 1
    assert value(director, "in_flight", version="new", endpoint=B.address) == 0
    assert value(director, "endpoints", version="new") == 1
    found[1].land()
    assert value(director, "in_flight") == 0


def test_an_endpoint_that_left_keeps_its_version_until_its_last_request_is_over() -> None:
    source = StaticSource(make_snapshot([A]))
    director = Director(source=source, metrics=Metrics(), settings=Settings())
    director.metrics.registry.register(
        PoolCollector(source=source, in_flight=director.flights.counts)
    )
    found = director.pick(PickEndpoint(model="v1", headers={}))
    assert not isinstance(found, Refused)
    assert value(director, "in_flight", version="old") == 1
    source.current = PoolSnapshot()

    assert value(director, "in_flight", version="old", endpoint=A.address) == 1
    found[1].land()
    gone = director.metrics.registry.get_sample_value(
        "inference_picker_in_flight", {"version": "old", "endpoint": A.address}
    )
    assert gone is None
