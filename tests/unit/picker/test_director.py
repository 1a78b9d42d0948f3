"""Decisions and their books."""

import pytest

from inference_common.names import PROBE_HEADER
from inference_picker.director import Director, Settings
from inference_picker.messages import (
    ChooseTarget,
    Pick,
    PickEndpoint,
    Reason,
    Refused,
    Sample,
)
from inference_picker.metrics import Metrics
from inference_picker.pool import Endpoint, PoolSnapshot, StaticSource, make_snapshot
from inference_picker.splits import ModelSplit, Target

A = Endpoint(address="10.0.0.1:80", version="old", models=frozenset({"base", "v1"}))
B = Endpoint(address="10.0.0.2:80", version="new", models=frozenset({"base", "v2"}))
SPLIT = ModelSplit(model="chat", targets=(Target(name="v1", weight=3), Target(name="v2", weight=1)))


def make_director(pool: PoolSnapshot | None = None, settings: Settings | None = None) -> Director:
    source = StaticSource(make_snapshot([A, B], [SPLIT]) if pool is None else pool)
    return Director(source=source, metrics=Metrics(), settings=settings or Settings())


def picked(director: Director, model: str | None = "base", **fields: object) -> Pick:
    found = director.pick(PickEndpoint(model=model, headers={}, **fields))  # type: ignore[arg-type]
    assert isinstance(found, tuple)
    return found[0]


def test_a_pick_counts_at_once() -> None:
    director = make_director()

    picks = [picked(director) for _ in range(4)]

    assert sorted(pick.endpoints[0] for pick in picks) == [A.address] * 2 + [B.address] * 2
    assert director.flights.counts == {A.address: 2, B.address: 2}


def test_the_analysis_own_prompts_belong_to_no_comparison() -> None:
    split = ModelSplit(model="chat", targets=SPLIT.targets, stable="v1")
    director = make_director(make_snapshot([A, B], [split]))
    samples = set()
    for headers in ({}, {PROBE_HEADER: "quality"}):
        for _ in range(8):
            found = director.pick(PickEndpoint(model="chat", headers=headers))
            assert isinstance(found, tuple)
            samples.add((bool(headers), found[0].target, found[0].sample))
    assert samples == {
        (False, "v1", Sample.BACKGROUND),
        (False, "v2", Sample.CANARY),
        (True, "v1", Sample.BACKGROUND),
        (True, "v2", Sample.BACKGROUND),
    }


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
