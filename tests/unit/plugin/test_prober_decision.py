"""The prober's rules: ready, stay ready, and who counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_plugin.prober.decision import (
    Answer,
    Decision,
    History,
    Pod,
    Probe,
    Rules,
    decide,
)

NOW = 1000.0
RULES = Rules(load_grace_s=60, missing_probes=3)
LISTED = Probe(answer=Answer.LISTED)
MISSING = Probe(answer=Answer.MISSING, detail="it serves base")
UNANSWERED = Probe(answer=Answer.UNANSWERED)
LETTERS = {"L": LISTED, "M": MISSING, "-": UNANSWERED}


def make_pod(probes: str, *, age_s: float = 100, name: str = "a") -> Pod:
    """A pod with these probes: L listed, M missing, - unanswered; all made at its age now."""
    history = History()
    for letter in probes:
        history = history.after(LETTERS[letter], settled=age_s >= RULES.load_grace_s)
    return Pod(name=name, ready_since=NOW - age_s, history=history)


def make_pods(*described: tuple[str, float]) -> list[Pod]:
    return [
        make_pod(probes, age_s=age_s, name=f"pod-{number}")
        for number, (probes, age_s) in enumerate(described)
    ]


def decided(
    pods: list[Pod], *, was_ready: bool = False, stable: bool = False, empty_rounds: int = 0
) -> Decision:
    return decide(
        was_ready=was_ready,
        stable=stable,
        pods=pods,
        empty_rounds=empty_rounds,
        now=NOW,
        rules=RULES,
    )


OLD, NEW = 100.0, 5.0


@pytest.mark.parametrize(
    ("pods", "ready"),
    [
        pytest.param([], False, id="no-pods"),
        pytest.param([("L", OLD), ("L", OLD)], True, id="all-list-it"),
        pytest.param([("L", OLD), ("M", OLD)], False, id="one-lacks-it"),
        pytest.param([("L", OLD), ("-", OLD)], False, id="one-did-not-answer"),
        pytest.param([("L", OLD), ("", OLD)], False, id="one-not-asked-yet"),
        pytest.param([("L", OLD), ("M", NEW)], True, id="a-new-pod-is-not-counted"),
        pytest.param([("M", OLD), ("L", NEW)], False, id="a-new-pod-does-not-count-for-it-either"),
        pytest.param([("L", NEW), ("L", NEW)], True, id="only-new-pods-and-all-list-it"),
        pytest.param([("L", NEW), ("M", NEW)], False, id="only-new-pods-and-one-lacks-it"),
        pytest.param([("MML", OLD)], True, id="loaded-at-last"),
        pytest.param([("LL-", OLD)], False, id="listed-before-but-silent-now"),
        pytest.param([("L", 60.0), ("M", 59.9)], True, id="the-grace-ends-at-exactly-60-s"),
        pytest.param([("L", 60.0), ("M", 60.0)], False, id="both-just-settled"),
    ],
)
def test_a_revision_becomes_ready_when_every_counted_pod_lists_the_name(
    pods: list[tuple[str, float]], ready: bool
) -> None:
    assert decided(make_pods(*pods)).ready is ready


@pytest.mark.parametrize(
    ("pods", "ready"),
    [
        pytest.param([("L", OLD), ("LMM", OLD)], True, id="two-misses"),
        pytest.param([("L", OLD), ("LMMM", OLD)], False, id="three-misses"),
        pytest.param([("L", OLD), ("LMMLMM", OLD)], True, id="not-in-a-row"),
        pytest.param([("L", OLD), ("L-----", OLD)], True, id="silence-proves-nothing"),
        pytest.param([("L", OLD), ("LMM-M", OLD)], False, id="silence-does-not-forgive"),
        pytest.param([("L", OLD), ("MMMMM", NEW)], True, id="a-new-pod-is-not-counted"),
        pytest.param([("MMM", OLD), ("MMM", OLD)], False, id="nobody-serves-it"),
        pytest.param([("MMM", NEW), ("MMM", NEW)], False, id="all-restarted-without-it"),
        pytest.param([("MM", NEW), ("MM", NEW)], True, id="all-restarted-a-moment-ago"),
        pytest.param([("-", NEW)], True, id="a-new-pod-that-is-silent"),
    ],
)
def test_a_ready_canary_turns_unready_only_by_repeated_definite_answers(
    pods: list[tuple[str, float]], ready: bool
) -> None:
    assert decided(make_pods(*pods), was_ready=True).ready is ready


@pytest.mark.parametrize(
    ("pods", "ready"),
    [
        pytest.param([("L", OLD), ("LMMMMM", OLD)], True, id="one-pod-lost-it"),
        pytest.param([("LMMM", OLD), ("LMM", OLD)], True, id="the-last-pod-is-losing-it"),
        pytest.param([("LMMM", OLD), ("LMMM", OLD)], False, id="nobody-serves-it"),
        pytest.param([("LMMM", OLD), ("-", NEW)], True, id="a-new-pod-may-serve-it"),
    ],
)
def test_a_ready_stable_revision_stays_ready_while_any_pod_serves_the_name(
    pods: list[tuple[str, float]], ready: bool
) -> None:
    assert decided(make_pods(*pods), was_ready=True, stable=True).ready is ready


@pytest.mark.parametrize(
    ("pods", "ready"),
    [
        pytest.param([("L", OLD), ("M", OLD)], True, id="one-serves-it"),
        pytest.param([("M", OLD), ("L", NEW)], True, id="a-new-pod-serves-it"),
        pytest.param([("M", OLD)], False, id="nobody-serves-it"),
        pytest.param([], False, id="no-pods"),
    ],
)
def test_a_restarted_prober_of_the_stable_revision_is_ready_as_soon_as_a_pod_serves_the_name(
    pods: list[tuple[str, float]], ready: bool
) -> None:
    assert decided(make_pods(*pods), stable=True).ready is ready


@pytest.mark.parametrize("stable", [False, True], ids=["canary", "stable"])
@pytest.mark.parametrize(("rounds", "ready"), [(1, True), (2, True), (3, False)])
def test_an_empty_pool_counts_as_a_round_without_the_name(
    stable: bool, rounds: int, ready: bool
) -> None:
    assert decided([], was_ready=True, stable=stable, empty_rounds=rounds).ready is ready


def test_a_refusal_names_the_pods_and_counts_them() -> None:
    found = decided(make_pods(("L", OLD), ("M", OLD), ("-", OLD), ("M", NEW)))
    assert found.lacking == ("pod-1", "pod-2")
    assert found.reason == "2 of 3 settled pods do not show the name"


def test_scaling_from_two_to_four_pods_moves_no_weight() -> None:
    pods = make_pods(("LLL", OLD), ("LLL", OLD), ("", NEW), ("", NEW))
    ready = True
    for seconds in range(0, 120, 2):
        now = NOW + seconds
        loaded = seconds >= 50
        pods = [
            Pod(
                name=pod.name,
                ready_since=pod.ready_since,
                history=pod.history.after(
                    LISTED if loaded or number < 2 else MISSING,
                    settled=pod.settled(now=now, load_grace_s=RULES.load_grace_s),
                ),
            )
            for number, pod in enumerate(pods)
        ]
        ready = decide(
            was_ready=ready, stable=False, pods=pods, empty_rounds=0, now=now, rules=RULES
        ).ready
        assert ready, f"{seconds} s after the new pods became ready"


pods_of_any_kind = st.lists(
    st.builds(
        make_pod,
        st.sampled_from(["", "-", "L", "M", "LM", "LMM", "LMMM", "MMM", "ML", "L-", "LMM-M"]),
        age_s=st.sampled_from([0.0, 30.0, 59.9, 60.0, 300.0]),
        name=st.sampled_from("abcdef"),
    ),
    max_size=5,
)


@given(pods=pods_of_any_kind, stable=st.booleans(), was_ready=st.booleans(), data=st.data())
def test_the_order_of_pods_does_not_matter(
    pods: list[Pod], stable: bool, was_ready: bool, data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(pods))
    kwargs = {"was_ready": was_ready, "stable": stable}
    assert decided(pods, **kwargs) == decided(list(shuffled), **kwargs)


@given(pods=pods_of_any_kind, was_ready=st.booleans(), empty=st.integers(0, 5))
def test_the_stable_revision_is_ready_wherever_a_canary_is(
    pods: list[Pod], was_ready: bool, empty: int
) -> None:
    canary = decided(pods, was_ready=was_ready, empty_rounds=empty)
    stable = decided(pods, was_ready=was_ready, stable=True, empty_rounds=empty)
    assert stable.ready or not canary.ready


@given(pods=pods_of_any_kind)
def test_what_makes_a_canary_ready_keeps_it_ready(pods: list[Pod]) -> None:
    assert decided(pods, was_ready=True).ready or not decided(pods).ready


@given(pods=pods_of_any_kind, stable=st.booleans())
def test_a_revision_never_becomes_ready_without_a_pod_that_lists_the_name(
    pods: list[Pod], stable: bool
) -> None:
    listed = any(pod.history.latest is Answer.LISTED for pod in pods)
    assert listed or not decided(pods, stable=stable).ready


@given(pods=pods_of_any_kind)
def test_fewer_misses_than_the_limit_never_end_ready(pods: list[Pod]) -> None:
    few = [pod for pod in pods if pod.history.missing < RULES.missing_probes]
    assert decided(few, was_ready=True).ready
