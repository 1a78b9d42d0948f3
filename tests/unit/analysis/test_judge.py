from __future__ import annotations

import json
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_analysis.prompts.answers import Answer
from inference_analysis.prompts.judge import (
    Preference,
    Tally,
    Winner,
    messages,
    preference,
    same,
    scored,
    winner,
)
from inference_analysis.prompts.measures import Pair, drift
from inference_analysis.prompts.prompt_sets import Question

WINNERS = st.sampled_from([*Winner, None])
TEXTS = st.text(max_size=80)
MIRRORED = {
    Preference.CANARY: Preference.STABLE,
    Preference.STABLE: Preference.CANARY,
    Preference.TIE: Preference.TIE,
    Preference.INCONSISTENT: Preference.INCONSISTENT,
    Preference.NONSENSE: Preference.NONSENSE,
}
QUESTION = Question(
    id="q", messages=({"role": "user", "content": "Why?"},), parameters=MappingProxyType({})
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param('{"winner": "A"}', Winner.A, id="a"),
        pytest.param('\n{"winner": "tie"}\n', Winner.TIE, id="tie"),
        pytest.param('```json\n{"winner": "B"}\n```', Winner.B, id="fenced"),
        pytest.param('<think>A is long.</think>{"winner": "B"}', Winner.B, id="after-thoughts"),
        pytest.param('{"winner": "A", "reason": "shorter"}', Winner.A, id="with-a-reason"),
        pytest.param("A", None, id="bare-letter"),
        pytest.param("I think A is better.", None, id="prose"),
        pytest.param('{"winner": "a"}', None, id="lower-case"),
        pytest.param('{"winner": "C"}', None, id="third"),
        pytest.param('{"winner": ["A"]}', None, id="list"),
        pytest.param('[{"winner": "A"}]', None, id="array"),
        pytest.param('{"winner": "A"} {"winner": "B"}', None, id="two-objects"),
        pytest.param("[" * 100_000, None, id="too-deep"),
        pytest.param("", None, id="empty"),
    ],
)
def test_only_one_strict_form_is_a_verdict(text: str, found: Winner | None) -> None:
    assert winner(Answer(text=text)) is found


@pytest.mark.parametrize(
    ("canary_first", "stable_first", "found"),
    [
        pytest.param(Winner.A, Winner.B, Preference.CANARY, id="canary-in-both-orders"),
        pytest.param(Winner.B, Winner.A, Preference.STABLE, id="stable-in-both-orders"),
        pytest.param(Winner.TIE, Winner.TIE, Preference.TIE, id="tie"),
        pytest.param(Winner.A, Winner.A, Preference.INCONSISTENT, id="always-the-first"),
        pytest.param(Winner.B, Winner.B, Preference.INCONSISTENT, id="always-the-second"),
        pytest.param(Winner.A, Winner.TIE, Preference.INCONSISTENT, id="tie-in-one-order"),
        pytest.param(Winner.A, None, Preference.NONSENSE, id="no-verdict-in-one-order"),
    ],
)
def test_a_preference_must_hold_in_both_orders(
    canary_first: Winner | None, stable_first: Winner | None, found: Preference
) -> None:
    assert preference(canary_first, stable_first) is found


@given(one=WINNERS, two=WINNERS)
def test_swapping_the_versions_mirrors_the_preference(
    one: Winner | None, two: Winner | None
) -> None:
    # With the answers' versions exchanged, what was judged canary-first is judged stable-first.
    assert preference(two, one) is MIRRORED[preference(one, two)]


@given(one=WINNERS, two=WINNERS)
def test_a_mirrored_preference_has_the_mirrored_score(
    one: Winner | None, two: Winner | None
) -> None:
    here, there = scored(preference(one, two)), scored(preference(two, one))
    if here is None or there is None:
        assert here is there
    else:
        assert here.canary - here.stable == there.stable - there.canary


@given(verdict=WINNERS)
def test_a_judge_that_goes_by_the_place_alone_says_nothing(verdict: Winner | None) -> None:
    assert scored(preference(verdict, verdict)) in {Pair(canary=0.5, stable=0.5), None}


@given(text=TEXTS)
def test_equal_answers_are_a_tie_without_a_judge(text: str) -> None:
    assert same(Answer(text=text), Answer(text=f" <think>hm</think>{text}\n")) or "think>" in text


@given(first=TEXTS, second=TEXTS)
def test_an_answer_cannot_end_its_own_quotation(first: str, second: str) -> None:
    system, user = messages(QUESTION, Answer(text=first), Answer(text=second))
    assert system["role"] == "system"
    found = json.loads(user["content"])
    assert found == {
        "question": "Why?",
        "answer_a": Answer(text=first).final,
        "answer_b": Answer(text=second).final,
    }


def test_a_tally_counts_what_is_worth_no_verdict() -> None:
    found = Tally.of([Preference.TIE, Preference.NONSENSE, Preference.INCONSISTENT])
    assert (found.pairs, found.nonsense, found.inconsistent) == (3, 1, 1)


@given(text=TEXTS, reason=st.sampled_from(["stop", "length"]))
def test_an_answer_does_not_drift_from_itself(text: str, reason: str) -> None:
    answer = Answer(text=text, finish_reason=reason)
    assert all(pair.canary == pair.stable for pair in drift(answer, answer).values())


@given(one=TEXTS, other=TEXTS)
def test_drift_is_mirrored_when_the_versions_are(one: str, other: str) -> None:
    here = drift(Answer(text=one), Answer(text=other))
    there = drift(Answer(text=other), Answer(text=one))
    assert here.keys() == there.keys() == {"empty", "refusal", "repetition", "truncation", "length"}
    for name, pair in here.items():
        assert pair.canary == pytest.approx(there[name].stable)
        assert 0.0 <= pair.canary <= 1.0


def test_a_missing_answer_is_no_drift() -> None:
    assert drift(Answer(problem="status 500"), Answer(text="x")) == {}
