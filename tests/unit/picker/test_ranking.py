"""Filters, scorers, pickers and the default profile."""

import itertools
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_picker import filters, pickers, scorers
from inference_picker.pool import Endpoint
from inference_picker.profiles import default_profile
from inference_picker.ranking import Pods, SchedulingRequest

NONE: frozenset[str] = frozenset()


def make_pods(count: int, endpoints: list[Endpoint] | None = None, **columns: Any) -> Pods:
    """Idle, healthy pods of unknown size; columns by name."""
    found = endpoints or [Endpoint(address=f"10.0.0.{n}:80", pod=f"pod-{n}") for n in range(count)]
    values: dict[str, Any] = {
        name: np.zeros(count)
        for name in (
            *("in_flight", "pending_tokens", "held_tokens", "cached_blocks", "cached_tokens"),
            *("waiting", "running", "kv_usage", "max_adapters"),
        )
    }
    values["health"] = np.ones(count)
    values["kv_tokens"] = np.full(count, np.inf)
    values["seats"] = np.full(count, np.inf)
    values["adapters_running"] = objects([NONE] * count)
    values["adapters_waiting"] = objects([NONE] * count)
    for name, column in columns.items():
        values[name] = (
            objects([frozenset(each) for each in column])
            if name.startswith("adapters")
            else np.array(column, dtype=float)
        )
    return Pods(endpoints=objects(found), **values)


def objects(values: list[Any]) -> Any:
    array = np.empty(len(values), dtype=np.object_)
    array[:] = values
    return array


def make_request(**fields: Any) -> SchedulingRequest:
    return SchedulingRequest(**{"target": "v1", "random": Random(1), **fields})


SCORES: list[Any] = [
    # llm-d-router's formulas, each worked out by hand.
    pytest.param(
        scorers.FewestRequestsScorer(), {"in_flight": [0, 1, 4]}, [1, 0.75, 0], id="requests"
    ),
    pytest.param(scorers.QueueScorer(), {"waiting": [2, 4, 6]}, [1, 0.5, 0], id="queue"),
    pytest.param(scorers.QueueScorer(), {"waiting": [5, 5]}, [1, 1], id="equal-queues"),
    pytest.param(scorers.RunningRequestsScorer(), {"running": [9, 0]}, [0, 1], id="running"),
    pytest.param(scorers.KvCacheScorer(), {"kv_usage": [0.25, 1.0]}, [0.75, 0], id="kv"),
    pytest.param(
        scorers.PrefixCacheScorer(), {"cached_blocks": [0, 1, 4]}, [0, 0.25, 1], id="prefix"
    ),
    pytest.param(
        scorers.LoraAffinityScorer(),
        {
            "adapters_running": [{"v1"}, {"x"}, {"x", "y"}, {"x", "y"}],
            "adapters_waiting": [(), (), {"v1"}, ()],
            "max_adapters": [2, 2, 2, 2],
        },
        [1, 0.8, 0.6, 0],
        id="lora",
    ),
    pytest.param(
        scorers.ActiveRequestScorer(), {"in_flight": [0, 1, 4]}, [1, 0.75, 0], id="active"
    ),
    pytest.param(
        scorers.ActiveRequestScorer(idleThreshold=1, maxBusyScore=0.5),
        {"in_flight": [1, 2, 4]},
        [1, 0.25, 0],
        id="active-with-threshold",
    ),
    pytest.param(
        scorers.LoadAwareScorer(), {"waiting": [0, 64, 200]}, [0.5, 0.25, 0], id="load-aware"
    ),
    pytest.param(
        scorers.TokenLoadScorer(queueThresholdTokens=100),
        {"pending_tokens": [0, 50, 200]},
        [1, 0.5, 0],
        id="tokens",
    ),
    # (pending + uncached + floor) x (batch + 1): 164 x 1 against 64 x 3.
    pytest.param(
        scorers.LoadCostScorer(),
        {"pending_tokens": [100, 0], "in_flight": [0, 2]},
        [1, 164 / 192],
        id="load-cost",
    ),
    # Ten tokens more than 95 of the hundred that fit: 74 against 64.
    pytest.param(
        scorers.LoadCostScorer(),
        {"held_tokens": [105, 5], "kv_tokens": [100, 100]},
        [64 / 74, 1],
        id="load-cost-of-a-full-cache",
    ),
    # An answer is as long as 400 tokens take, and of four seats one is free in a fourth of that.
    # With four of four seats taken it waits for one turn, with five in flight for two:
    # (64 + 100) x 5 and (64 + 200) x 6 against 64 x 7 where nobody waits.
    pytest.param(
        scorers.LoadCostScorer(),
        {"in_flight": [4, 5, 6], "seats": [4, 4, 8]},
        [448 / 820, 448 / 1584, 1],
        id="load-cost-of-taken-seats",
    ),
]


@pytest.mark.parametrize(("scorer", "columns", "expected"), SCORES)
def test_scorers_follow_their_formulas(
    scorer: Any, columns: dict[str, Any], expected: list[float]
) -> None:
    request = make_request(blocks=(1, 2, 3, 4), answer_tokens=400)

    assert scorer.score(request, make_pods(len(expected), **columns)) == pytest.approx(expected)


def test_a_cached_prompt_is_worth_a_longer_batch() -> None:
    # (1000 + 64) x 3 and 2 x 1000 more at the mean batch, x 7.5, make 18192 on the idle pod;
    # (0 + 64) x 12 = 768 where the prompt is cached.
    pods = make_pods(2, in_flight=[2, 11], cached_tokens=[0, 1000])

    score = scorers.LoadCostScorer().score(make_request(prompt_tokens=1000), pods)

    assert list(score) == pytest.approx([768 / 18192, 1])


def test_where_every_pod_has_a_queue_a_prompt_goes_to_its_cache() -> None:
    # With room anywhere the shorter queue wins; with a queue of four requests at the least busy
    # pod, 4000 tokens would be computed twice at everybody's cost.
    request = make_request(prompt_tokens=4000, usual_tokens=500)
    scorer = scorers.LoadCostScorer()

    quiet = make_pods(2, in_flight=[1, 20], pending_tokens=[0, 6000], cached_tokens=[0, 4000])
    busy = make_pods(2, in_flight=[1, 20], pending_tokens=[2000, 8000], cached_tokens=[0, 4000])

    assert scorer.score(request, quiet).argmax() == 0
    assert scorer.score(request, busy).argmax() == 1


STATES = st.fixed_dictionaries(
    {
        "in_flight": st.integers(0, 50),
        "pending_tokens": st.integers(0, 20_000),
        "cached_blocks": st.integers(0, 4),
        "waiting": st.integers(0, 20),
        "running": st.integers(0, 200),
        "kv_usage": st.floats(0, 1),
        "max_adapters": st.integers(0, 4),
    }
)
ALL_SCORERS = [type(each.values[0])() for each in SCORES]


@given(st.lists(STATES, min_size=1, max_size=6), st.randoms())
def test_scores_lie_between_0_and_1_and_do_not_depend_on_the_order(
    states: list[dict[str, float]], random: Random
) -> None:
    order = list(range(len(states)))
    random.shuffle(order)
    request = make_request(prompt_tokens=300, blocks=(1, 2, 3, 4), headers={"x-session-id": "u"})
    columns: Any = {name: [each[name] for each in states] for name in states[0]}
    pods = make_pods(len(states), **columns)
    for scorer in (*ALL_SCORERS, scorers.SessionAffinityScorer()):
        scores = np.asarray(scorer.score(request, pods))

        assert ((scores >= 0) & (scores <= 1)).all()
        shuffled = scorer.score(request, pods.take(np.array(order)))
        assert list(shuffled) == pytest.approx(list(scores[order]))


def test_a_session_stays_when_other_pods_come_and_go() -> None:
    scorer = scorers.SessionAffinityScorer()
    endpoints = [Endpoint(address=f"10.0.0.{n}:80") for n in range(8)]

    def place(user: int, among: list[Endpoint]) -> str:
        request = make_request(headers={"x-session-id": f"user-{user}"})
        scores = scorer.score(request, make_pods(len(among), among))
        return among[int(np.argmax(scores))].address

    before = [place(user, endpoints) for user in range(200)]
    after = [place(user, endpoints[:-1]) for user in range(200)]

    gone = endpoints[-1].address
    assert all(then == now for then, now in zip(before, after, strict=True) if then != gone)
    assert len(set(before)) == 8


def test_a_session_token_names_its_pod() -> None:
    request = make_request(headers={"x-session-token": "bnMvcG9kLTE="})  # base64 of ns/pod-1

    assert list(scorers.SessionAffinityScorer().score(request, make_pods(3))) == [0, 1, 0]


@pytest.mark.parametrize(
    ("health", "terminating", "kept"),
    [
        pytest.param([1, 1], [False, True], [True, False], id="terminating-while-others-stay"),
        pytest.param([0, 1], [False, True], [False, True], id="terminating-rather-than-ejected"),
        pytest.param([1, 1], [True, True], [True, True], id="all-terminating"),
        pytest.param([0, 0], [False, False], [True, True], id="all-ejected"),
        pytest.param([0, 0.1], [False, False], [False, True], id="slow-start-is-in"),
    ],
)
def test_ejected_and_terminating_endpoints_are_the_last_resort(
    health: list[float], terminating: list[bool], kept: list[bool]
) -> None:
    # Terminating but serving endpoints as a fallback: KEP-1669.
    endpoints = [
        Endpoint(address=f"10.0.0.{n}:80", terminating=each) for n, each in enumerate(terminating)
    ]
    pods = make_pods(len(health), endpoints, health=health)

    assert list(filters.HealthFilter().filter(make_request(), pods)) == kept


def with_models(*models: set[str] | None) -> Pods:
    return make_pods(
        len(models),
        [
            Endpoint(address=f"{n}:1", models=None if each is None else frozenset(each))
            for n, each in enumerate(models)
        ],
    )


@pytest.mark.parametrize(
    ("models", "kept"),
    [
        pytest.param([{"v1"}, {"v2"}], [True, False], id="loaded-on-one"),
        pytest.param([{"v2"}, {"v3"}], [True, True], id="loaded-nowhere"),
        pytest.param([None, {"v1"}], [False, True], id="unknown-is-not-loaded"),
        pytest.param([None, None], [True, True], id="nothing-known"),
    ],
)
def test_endpoints_with_the_model_loaded_are_kept_if_there_are_any(
    models: list[set[str] | None], kept: list[bool]
) -> None:
    found = filters.LoadedModelFilter().filter(make_request(), with_models(*models))

    assert list(found) == kept


@pytest.mark.parametrize(
    ("selector", "kept"),
    [
        pytest.param({"matchLabels": {"gpu": "h100"}}, [True, False], id="labels"),
        pytest.param(
            {"matchExpressions": [{"key": "gpu", "operator": "In", "values": ["a100"]}]},
            [False, True],
            id="in",
        ),
        pytest.param(
            {"matchExpressions": [{"key": "gpu", "operator": "NotIn", "values": ["a100"]}]},
            [True, False],
            id="not-in",
        ),
        pytest.param(
            {"matchExpressions": [{"key": "spot", "operator": "Exists"}]}, [False, True], id="is"
        ),
        pytest.param(
            {"matchExpressions": [{"key": "spot", "operator": "DoesNotExist"}]},
            [True, False],
            id="is-not",
        ),
    ],
)
def test_label_selectors_mean_what_they_mean_in_kubernetes(
    selector: dict[str, Any], kept: list[bool]
) -> None:
    endpoints = [
        Endpoint(address="a:1", labels={"gpu": "h100"}),
        Endpoint(address="b:1", labels={"gpu": "a100", "spot": "true"}),
    ]

    found = filters.LabelSelectorFilter(**selector).filter(make_request(), make_pods(2, endpoints))

    assert list(found) == kept


def test_a_headroom_filter_keeps_pods_with_room_if_there_are_any() -> None:
    pods = make_pods(2, held_tokens=[900, 100], kv_tokens=[1000, 1000])

    keep = filters.HeadroomFilter()
    assert list(keep.filter(make_request(prompt_tokens=100), pods)) == [False, True]
    assert list(keep.filter(make_request(prompt_tokens=2000), pods)) == [True, True]


@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 5)), min_size=1, max_size=8),
    st.integers(0, 99),
)
def test_the_best_come_first_and_equals_take_turns(
    states: list[tuple[float, int]], turn: int
) -> None:
    scores = np.array([each[0] for each in states])
    pods = make_pods(len(states), in_flight=[each[1] for each in states])
    request = make_request(turn=turn, wanted=len(states))

    order = pickers.MaxScorePicker().pick(request, pods, scores)

    assert sorted(order) == list(range(len(states)))
    assert scores[order[0]] == pytest.approx(scores.max())
    ranked = [scores[index] for index in order[1:]]
    assert all(a >= b for a, b in itertools.pairwise(ranked))


def test_of_equal_scores_the_less_loaded_pods_take_turns() -> None:
    pods = make_pods(3, in_flight=[0, 1, 0])
    picker = pickers.MaxScorePicker()

    firsts = [picker.pick(make_request(turn=turn), pods, np.ones(3))[0] for turn in range(4)]

    assert firsts == [0, 2, 0, 2]


ALL_PICKERS = [
    pickers.MaxScorePicker(),
    pickers.MaxScorePicker(ties="random"),
    pickers.RandomPicker(),
    pickers.WeightedRandomPicker(),
    pickers.TwoChoicesPicker(),
    pickers.RoundRobinPicker(),
]


@pytest.mark.parametrize("picker", ALL_PICKERS, ids=lambda each: type(each).__name__)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.integers(1, 4), st.integers(0, 9))
def test_pickers_name_different_endpoints_and_repeat_with_the_same_randomness(
    picker: Any, scores: list[float], wanted: int, seed: int
) -> None:
    pods = make_pods(len(scores))

    def picked() -> list[int]:
        request = make_request(wanted=wanted, random=Random(seed), turn=seed)
        return list(picker.pick(request, pods, np.array(scores)))

    order = picked()
    assert order == picked()
    assert 1 <= len(order) == len(set(order)) <= wanted
    assert all(0 <= each < len(scores) for each in order)


def test_a_weighted_random_pick_follows_the_scores() -> None:
    random = Random(3)
    pods = make_pods(3)
    picker = pickers.WeightedRandomPicker()

    firsts = [
        picker.pick(make_request(random=random), pods, np.array([0.0, 1.0, 3.0]))[0]
        for _ in range(4000)
    ]

    assert firsts.count(0) == 0
    # 1 of 4: a standard deviation is 27.
    assert firsts.count(1) == pytest.approx(1000, abs=110)


@pytest.mark.parametrize(
    ("subset", "addresses"),
    [
        pytest.param(None, ["a:1", "b:1", "c:1"], id="no-hint"),
        pytest.param(("b:1", "c"), ["b:1", "c:1"], id="hint-with-and-without-port"),
        pytest.param(("d:1",), [], id="hint-without-a-match"),
        pytest.param((), [], id="empty-hint"),
    ],
)
def test_the_subset_hint_is_never_widened(
    subset: tuple[str, ...] | None, addresses: list[str]
) -> None:
    pods = make_pods(3, [Endpoint(address=each) for each in ("a:1", "b:1", "c:1")])

    ranking = default_profile().rank(make_request(subset=subset, wanted=3), pods)

    assert sorted(each.address for each in ranking.endpoints) == addresses


def test_a_decision_tells_who_was_taken_out_by_what_and_how_the_rest_scored() -> None:
    pods = make_pods(3, in_flight=[3, 1, 0], health=[1, 1, 0])

    ranking = default_profile().rank(make_request(prompt_tokens=36), pods, explain=True)

    assert ranking.decision is not None
    told = ranking.decision.as_dict()
    assert told["removed"] == {"health-filter": ("10.0.0.2:80",)}
    assert told["chosen"] == ("10.0.0.1:80",)
    # (36 + 64) x 2 + 2 x 36 x 3 = 416 against (36 + 64) x 4 + 2 x 36 x 3 = 616.
    assert [(each["address"], each["score"]) for each in told["considered"]] == [
        ("10.0.0.1:80", 1.0),
        ("10.0.0.0:80", 0.675325),
    ]
