"""Filters, scorers, chooser and the default profile."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_picker.flights import Flights
from inference_picker.pool import Endpoint, make_snapshot
from inference_picker.scheduling import (
    BestInTurnChooser,
    Candidate,
    FewestRequestsScorer,
    LoadedModelFilter,
    SchedulingRequest,
    default_profile,
)


def make_request(**fields: object) -> SchedulingRequest:
    return SchedulingRequest(**{"target": "v1", "headers": {}, **fields})  # type: ignore[arg-type]


def make_candidates(*counts: int) -> list[Candidate]:
    return [
        Candidate(endpoint=Endpoint(address=f"10.0.0.{n}:80"), in_flight=count)
        for n, count in enumerate(counts)
    ]


def make_endpoints(**models: set[str] | None) -> list[Endpoint]:
    return [
        Endpoint(address=address, models=None if names is None else frozenset(names))
        for address, names in models.items()
    ]


@pytest.mark.parametrize(
    ("counts", "scores"),
    [
        pytest.param((3, 3), [1.0, 1.0], id="equal-loads"),
        pytest.param((0, 4), [1.0, 0.0], id="two"),
        pytest.param((0, 1, 4), [1.0, 0.75, 0.0], id="in-proportion"),
        pytest.param((9,), [1.0], id="one"),
    ],
)
def test_fewer_requests_score_higher(counts: tuple[int, ...], scores: list[float]) -> None:
    assert FewestRequestsScorer().score(make_request(), make_candidates(*counts)) == scores


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=8))
def test_scores_lie_between_0_and_1_and_do_not_depend_on_the_order(counts: list[int]) -> None:
    scorer = FewestRequestsScorer()
    scores = scorer.score(make_request(), make_candidates(*counts))

    assert all(0 <= score <= 1 for score in scores)
    backwards = scorer.score(make_request(), make_candidates(*reversed(counts)))
    assert list(reversed(backwards)) == list(scores)


@pytest.mark.parametrize(
    ("models", "kept"),
    [
        pytest.param({"a": {"v1"}, "b": {"v2"}}, ["a"], id="loaded-on-one"),
        pytest.param({"a": {"v1"}, "b": None}, ["a"], id="unknown-gives-way-to-loaded"),
        pytest.param({"a": {"v2"}, "b": None}, ["a", "b"], id="loaded-nowhere-known"),
        pytest.param({"a": set(), "b": set()}, ["a", "b"], id="loaded-nowhere"),
    ],
)
def test_endpoints_that_list_the_target_are_kept_where_there_are_any(
    models: dict[str, set[str] | None], kept: list[str]
) -> None:
    candidates = [Candidate(endpoint=each, in_flight=0) for each in make_endpoints(**models)]

    found = LoadedModelFilter().filter(make_request(), candidates)

    assert [each.endpoint.address for each in found] == kept


def test_equals_take_turns_and_worse_ones_stay_behind() -> None:
    candidates = make_candidates(0, 0, 0, 1)
    firsts = []
    for turn in range(6):
        order = BestInTurnChooser().choose(
            make_request(turn=turn), candidates, [1.0, 1.0, 1.0, 0.5]
        )
        assert len(order) == 4
        assert order[3] is candidates[3]
        firsts.append(order[0].endpoint.address[7])

    assert "".join(firsts) == "012012"


def test_the_default_profile_spreads_requests_evenly_whatever_ends_first() -> None:
    pool = make_snapshot(Endpoint(address=f"10.0.0.{n}:80") for n in range(4))
    profile = default_profile()
    flights = Flights()
    running = []
    for turn in range(100):
        order = profile.order(make_request(turn=turn), pool, flights.counts)
        running.append(flights.take_off(order[0].address))
        counts = [flights.counts.get(each.address, 0) for each in pool.endpoints]
        assert max(counts) - min(counts) <= 1
    for flight in itertools.chain(running, running):
        flight.land()
    assert dict(flights.counts) == {}


@pytest.mark.parametrize(
    ("subset", "expected"),
    [
        pytest.param(None, {"a:1", "b:1"}, id="no-hint"),
        pytest.param(("b:1",), {"b:1"}, id="one"),
        pytest.param(("c:1",), set(), id="no-member"),
        pytest.param((), set(), id="empty-hint"),
    ],
)
def test_only_endpoints_of_the_hint_are_ordered(
    subset: tuple[str, ...] | None, expected: set[str]
) -> None:
    pool = make_snapshot([Endpoint(address="a:1"), Endpoint(address="b:1")])

    order = default_profile().order(make_request(subset=subset), pool, {})

    assert {each.address for each in order} == expected


def test_the_hint_wins_over_the_endpoint_with_the_model() -> None:
    pool = make_snapshot(make_endpoints(**{"a:1": {"v1"}, "b:1": {"v2"}}))

    order = default_profile().order(make_request(subset=("b:1",)), pool, {})

    assert [each.address for each in order] == ["b:1"]


@given(st.lists(st.integers(0, 50), min_size=1, max_size=6), st.integers(0, 1000))
def test_the_first_endpoint_never_has_more_requests_than_another(
    counts: list[int], turn: int
) -> None:
    pool = make_snapshot(Endpoint(address=f"e{n}:1") for n in range(len(counts)))
    in_flight = {f"e{n}:1": count for n, count in enumerate(counts)}

    order = default_profile().order(make_request(turn=turn), pool, in_flight)

    assert [in_flight[each.address] for each in order] == sorted(counts)
