from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_analysis.errors import InputError
from inference_analysis.prompts import patterns
from inference_analysis.prompts.answers import Answer, ToolCall, words
from inference_analysis.prompts.checks import Check, checked
from inference_analysis.prompts.manner_checks import (
    Finish,
    Length,
    NotEmpty,
    Refusal,
    Repetition,
    refusal,
    repetition,
)
from inference_analysis.prompts.structure_checks import JsonSchema, ToolUse
from inference_analysis.prompts.text_checks import (
    Exact,
    Numeric,
    Regex,
    Similarity,
    numbers,
    similarity,
)

ADULT = {
    "type": "object",
    "properties": {"age": {"type": "integer", "minimum": 18}},
    "required": ["age"],
}
WEATHER = ToolUse(name="get_weather", arguments={"city": "Paris", "days": 2})
ANSWERS = st.builds(
    Answer,
    text=st.text(max_size=200),
    tool_calls=st.lists(
        st.builds(
            ToolCall,
            name=st.sampled_from(["get_weather", "other"]),
            arguments=st.text(max_size=30)
            | st.dictionaries(st.sampled_from(["city", "days"]), st.integers()).map(json.dumps),
        ),
        max_size=2,
    ).map(tuple),
    finish_reason=st.sampled_from(["", "stop", "length"]),
)
CHECKS: list[Check] = [
    Regex(pattern="a+"),
    Exact(values=("yes",)),
    Numeric(value=42.0),
    JsonSchema(json_schema=ADULT),
    WEATHER,
    Similarity(low=0.2, high=0.8),
    Similarity(low=0.5, high=0.5, method="characters"),
    Similarity(method="contained"),
    Length(min_words=3, max_words=5),
    Finish(),
    Refusal(),
    NotEmpty(),
    Repetition(),
]


@pytest.mark.parametrize(
    ("check", "text", "value"),
    [
        pytest.param(Regex(pattern=r"\bpar[iy]s\b"), "It is PARIS.", 1.0, id="regex-found"),
        pytest.param(
            Regex(pattern="paris", ignore_case=False), "PARIS", 0.0, id="regex-case-counts"
        ),
        pytest.param(Regex(pattern="sorry", absent=True), "Sorry!", 0.0, id="regex-unwanted"),
        pytest.param(Regex(pattern="sorry", absent=True), "Paris", 1.0, id="regex-absent"),
        pytest.param(Exact(values=("Au",)), ' "au". ', 1.0, id="exact-apart-from-marks"),
        pytest.param(Exact(values=("Au",)), "Au is gold", 0.0, id="exact-is-the-whole-answer"),
        pytest.param(Exact(values=("READY",), strict=True), "Ready", 0.0, id="exact-strict"),
        pytest.param(Numeric(value=42), "17 + 25 = 42.", 1.0, id="numeric-last"),
        pytest.param(Numeric(value=42), "42 (checked in 3 steps)", 0.0, id="numeric-not-last"),
        pytest.param(Numeric(value=42, take="first"), "42 in 3 steps", 1.0, id="numeric-first"),
        pytest.param(Numeric(value=1024), "It has 1,024 bytes", 1.0, id="numeric-thousands"),
        pytest.param(Numeric(value=-3.5), "that is \u22123.5 °C", 1.0, id="numeric-typeset-minus"),
        pytest.param(Numeric(value=2021), "2020-2021", 1.0, id="numeric-a-dash-is-no-sign"),
        pytest.param(Numeric(value=100, relative=0.01), "99.5", 1.0, id="numeric-relative"),
        pytest.param(Numeric(value=100, tolerance=0.1), "99.5", 0.0, id="numeric-absolute"),
        pytest.param(Numeric(value=0.3), "0.30000000000000004", 1.0, id="numeric-rounding"),
        pytest.param(Numeric(value=1), "none at all", 0.0, id="numeric-no-number"),
        pytest.param(JsonSchema(json_schema=ADULT), '{"age": 34}', 1.0, id="json"),
        pytest.param(
            JsonSchema(json_schema=ADULT), 'Here:\n```json\n{"age": 34}\n```', 1.0, id="json-fenced"
        ),
        pytest.param(
            JsonSchema(json_schema=ADULT, bare=True), '```\n{"age": 34}\n```', 0.0, id="json-bare"
        ),
        pytest.param(JsonSchema(json_schema=ADULT), '{"age": 3}', 0.0, id="json-too-young"),
        pytest.param(JsonSchema(json_schema=ADULT), "{age: 34}", 0.0, id="json-none"),
        pytest.param(JsonSchema(json_schema=ADULT), "[" * 100_000, 0.0, id="json-too-deep"),
        pytest.param(Length(min_words=4), "one two", 0.5, id="length-half"),
        pytest.param(Length(max_words=2), "one two three four", 0.5, id="length-double"),
        pytest.param(Length(min_words=1, max_words=2), "one two", 1.0, id="length"),
        pytest.param(
            Refusal(), "I'm sorry, but I can't help with that.", 0.0, id="refusal-unwanted"
        ),
        pytest.param(
            Refusal(expected=True), "I cannot assist with that.", 1.0, id="refusal-wanted"
        ),
        pytest.param(
            Refusal(), "I am sorry that your order is late.", 1.0, id="an-apology-is-no-refusal"
        ),
        pytest.param(NotEmpty(), " \n", 0.0, id="empty"),
        pytest.param(
            Repetition(limit=0.3), "the cat sat on " * 20, 0.0742, id="goes-round-in-circles"
        ),
    ],
)
def test_a_check_scores_an_answer(check: Check, text: str, value: float) -> None:
    assert check.score(Answer(text=text), "").value == pytest.approx(value, abs=1e-4)


@pytest.mark.parametrize(
    ("calls", "value", "reason"),
    [
        pytest.param([], 0.0, "no tool called", id="none"),
        pytest.param(
            [("set_timer", "{}")], 0.0, "set_timer called, wanted get_weather", id="other"
        ),
        pytest.param([("get_weather", '{"city": "paris ", "days": 2}')], 1.0, "right", id="right"),
        pytest.param(
            [("get_weather", '{"city": "Oslo", "days": 2}')], 0.75, "city is 'Oslo'", id="half"
        ),
        pytest.param([("get_weather", "Paris")], 0.5, "no JSON", id="arguments-no-json"),
        pytest.param([("get_weather", "[1]")], 0.5, "no object", id="arguments-no-object"),
        pytest.param(
            [("get_weather", "{}"), ("get_weather", '{"city": "Paris", "days": 2}')],
            1.0,
            "right",
            id="the-best-of-several",
        ),
    ],
)
def test_a_tool_call_is_one_half_the_name_and_one_half_the_arguments(
    calls: list[tuple[str, str]], value: float, reason: str
) -> None:
    answer = Answer(tool_calls=tuple(ToolCall(name=n, arguments=a) for n, a in calls))
    score = WEATHER.score(answer, "")
    assert score.value == value
    assert reason in score.reason


def test_true_is_not_one() -> None:
    answer = Answer(tool_calls=(ToolCall(name="t", arguments='{"n": true}'),))
    assert ToolUse(name="t", arguments={"n": 1}).score(answer, "").value == 0.5
    assert ToolUse(name="t", arguments={"n": True}).score(answer, "").value == 1.0


def test_arguments_nobody_asked_for_count_only_when_told() -> None:
    call = ToolCall(name="t", arguments='{"a": 1, "b": 2}')
    answer = Answer(tool_calls=(call,))
    assert ToolUse(name="t", arguments={"a": 1}).score(answer, "").value == 1.0
    assert ToolUse(name="t", arguments={"a": 1}, only=True).score(answer, "").value == 0.75


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.type)
@settings(deadline=None)
@given(answer=ANSWERS, reference=st.text(max_size=50))
def test_every_score_lies_between_0_and_1_and_has_a_reason(
    check: Check, answer: Answer, reference: str
) -> None:
    score = check.score(answer, reference)
    assert 0.0 <= score.value <= 1.0
    assert score.reason
    assert check.score(answer, reference) == score


@settings(deadline=None)
@given(one=st.text(max_size=60), other=st.text(max_size=60))
@pytest.mark.parametrize("method", ["words", "characters", "contained"])
def test_likeness_is_symmetric_and_a_text_is_like_itself(method: str, one: str, other: str) -> None:
    kind = {"words": "words", "characters": "characters", "contained": "contained"}[method]
    assert similarity(one, one, method=kind) == 1.0  # type: ignore[arg-type]
    there = similarity(one, other, method=kind)  # type: ignore[arg-type]
    assert there == pytest.approx(similarity(other, one, method=kind))  # type: ignore[arg-type]
    assert 0.0 <= there <= 1.0


@given(value=st.floats(-1e9, 1e9).filter(lambda x: x == 0 or abs(x) > 1e-6))
def test_a_number_is_found_as_python_writes_it(value: float) -> None:
    assert numbers(f"it is {value!r}, I think") == [value]
    assert Numeric(value=value).score(Answer(text=f"{value:,.2f} or {value!r}"), "").value == 1.0


@given(text=st.text(), thoughts=st.text())
def test_a_reasoning_models_thoughts_are_no_answer(text: str, thoughts: str) -> None:
    plain = Answer(text=text).final
    if "think>" not in text + thoughts:
        assert Answer(text=f"<think>{thoughts}</think>{text}").final == plain
        assert Answer(text=f"{thoughts}</think>\n{text}").final == plain
        assert Answer(text=f"<think>{thoughts}").final == ""


@given(answer=ANSWERS, repeats=st.integers(1, 4))
def test_the_mean_of_checks_is_weighted_and_names_what_is_wrong(
    answer: Answer, repeats: int
) -> None:
    once: list[Check] = [NotEmpty(weight=float(repeats)), Regex(pattern="a")]
    listed: list[Check] = [*[NotEmpty()] * repeats, Regex(pattern="a")]
    assert checked(answer, once).value == pytest.approx(checked(answer, listed).value)
    if "a" not in answer.final.lower():
        assert "regex: no match" in checked(answer, once).reason


def test_an_answer_that_never_came_scores_nothing() -> None:
    score = checked(
        Answer(problem="status 500: oops"), [NotEmpty(), Regex(pattern="x", absent=True)]
    )
    assert (score.value, score.reason) == (0.0, "status 500: oops")


def test_a_schema_reference_opens_no_address() -> None:
    check = JsonSchema(json_schema={"$ref": "http://127.0.0.1:1/schema"})
    score = check.score(Answer(text="{}"), "")
    assert (score.value, score.reason) == (
        0.0,
        "the schema refers to nothing: Unresolvable: http://127.0.0.1:1/schema",
    )


@pytest.mark.parametrize(
    ("text", "share"),
    [
        pytest.param("", 0.0, id="empty"),
        pytest.param("one two three", 0.0, id="too-short-to-say"),
        pytest.param("a b c d e f g h", 0.0, id="no-repetition"),
        # Ten words of a period of two: seven sequences, two different ones.
        pytest.param("a b a b a b a b a b", 1 - 2 / 7, id="period-of-two"),
    ],
)
def test_repetition_is_the_share_of_four_word_sequences_seen_before(
    text: str, share: float
) -> None:
    assert repetition(text) == pytest.approx(share)


def test_a_script_without_spaces_is_counted_by_characters() -> None:
    assert len(words("今日は天気がとても良いので散歩に行きましょうと思います")) == 27
    assert words("one, two") == ["one", ",", "two"]


def test_a_refusal_late_in_the_answer_is_about_something_else() -> None:
    late = "The law says a lot about this. " * 12 + "I cannot help with taxes."
    assert refusal(late) == ""
    assert refusal("As an AI language model, I have no opinion.") != ""


ENDLESS = Answer(text="a" * 60 + "!")


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(Regex(pattern=r"^(a|aa)+$"), id="regex"),
        pytest.param(Regex(pattern=r"^(a|aa)+$", absent=True), id="regex-unwanted"),
        pytest.param(
            JsonSchema(json_schema={"type": "string", "pattern": r"^(a|aa)+$"}), id="json-schema"
        ),
        pytest.param(
            JsonSchema(
                json_schema={"patternProperties": {r"^(a|aa)+$": {}}, "additionalProperties": False}
            ),
            id="json-schema-names",
        ),
    ],
)
def test_a_pattern_that_backtracks_without_end_is_an_error_and_no_score(
    check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patterns, "LIMIT_S", 0.05)
    text = ENDLESS.text
    if isinstance(check, JsonSchema):
        names = "patternProperties" in check.json_schema
        text = json.dumps({text: 1} if names else text)
    with pytest.raises(InputError, match=r"because it backtracks\. Write it without a repeat"):
        checked(Answer(text=text), [check])


@pytest.mark.parametrize(
    ("answer", "value"),
    [('{"x-a": 1, "b": 2}', 1.0), ('{"x-a": "no", "b": 2}', 0.0), ('{"c": 2}', 0.0)],
    ids=["right", "wrong-value", "unknown-name"],
)
def test_patterns_of_names_mean_what_json_schema_says(answer: str, value: float) -> None:
    schema = {
        "properties": {"b": {}},
        "patternProperties": {"^x-": {"type": "integer"}},
        "additionalProperties": False,
    }
    assert checked(Answer(text=answer), [JsonSchema(json_schema=schema)]).value == value
