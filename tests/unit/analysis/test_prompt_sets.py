from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from inference_analysis.command import app
from inference_analysis.errors import InputError
from inference_analysis.prompts import prompt_sets
from inference_analysis.prompts.answers import Answer, ToolCall
from inference_analysis.prompts.checks import checked
from support import simulated_vllm

BOOK: dict[str, Any] = json.loads(
    Path(simulated_vllm.__file__).with_name("answer_book.json").read_bytes()
)
HEADER = {"schema": "inference-rollouts.io/prompt-set/v1", "name": "mine", "version": "3"}
USER = [{"role": "user", "content": "What is 6 times 7?"}]
CHECK = {"type": "numeric", "value": 42}


def prompt(**changes: Any) -> dict[str, Any]:
    return {"id": "p1", "topic": "math", "messages": USER, "checks": [CHECK]} | changes


def written(*lines: object) -> bytes:
    return "\n".join(json.dumps(line) for line in lines).encode()


def test_a_prompt_has_the_sets_parameters_with_its_own_on_top() -> None:
    header = HEADER | {"parameters": {"temperature": 0, "max_tokens": 64}}
    content = written(header, prompt(parameters={"max_tokens": 8}, weight=2, reference="42"))
    found = prompt_sets.read(content)
    (question,) = found.questions
    assert (found.name, found.version) == ("mine", "3")
    assert question.parameters == {"temperature": 0, "max_tokens": 8}
    assert (question.text, question.weight, question.reference) == ("What is 6 times 7?", 2, "42")
    assert found.digest != prompt_sets.read(content + b"\n").digest


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        pytest.param([], "empty. The first line is", id="empty"),
        pytest.param([HEADER | {"schema": "x/v2"}, prompt()], "line 1: schema: Input", id="schema"),
        pytest.param([prompt()], "line 1: schema: Field required", id="no-header"),
        pytest.param([HEADER], "no prompts", id="no-prompts"),
        pytest.param(
            [HEADER, prompt(), prompt(id="p2"), prompt()],
            "line 4: id: 'p1' is also the one of line 2",
            id="duplicate-ids",
        ),
        pytest.param([HEADER, prompt(messages=[])], "line 2: messages: List", id="no-messages"),
        pytest.param(
            [HEADER, prompt(messages=[*USER, {"role": "assistant", "content": "42"}])],
            "line 2: messages: the last one must be the user's",
            id="already-answered",
        ),
        pytest.param(
            [HEADER, prompt(messages=[{"content": "hi"}])],
            "line 2: messages[0].role: missing",
            id="no-role",
        ),
        pytest.param(
            [HEADER, prompt(checks=[{"type": "regex", "pattern": "(a"}])],
            "line 2: checks[0].pattern: missing ) at position 2 in '(a'",
            id="bad-regex",
        ),
        pytest.param(
            [HEADER, prompt(checks=[{"type": "jsonSchema", "schema": {"pattern": "(a"}}])],
            "line 2: checks[0].schema: $.pattern: '(a' is not a 'regex'",
            id="bad-regex-in-a-schema",
        ),
        pytest.param(
            [
                HEADER,
                prompt(
                    checks=[
                        {
                            "type": "jsonSchema",
                            "schema": {"patternProperties": {}, "unevaluatedProperties": False},
                        }
                    ]
                ),
            ],
            "line 2: checks[0].schema: unevaluatedProperties beside patternProperties",
            id="patterns-that-cannot-be-bounded",
        ),
        pytest.param(
            [HEADER, prompt(checks=[{"type": "jsonSchema", "schema": {"type": "number?"}}])],
            "line 2: checks[0].schema: $.type: 'number?' is not valid",
            id="bad-schema",
        ),
        pytest.param(
            [HEADER, prompt(checks=[{"type": "jsonSchema", "schema": {"$ref": "http://x/"}}])],
            "leads out of the schema",
            id="schema-elsewhere",
        ),
        pytest.param(
            [HEADER, prompt(checks=[{"type": "similarity"}])],
            "line 2: checks[0].type: similarity needs the prompt's reference",
            id="no-reference",
        ),
        pytest.param(
            [HEADER, prompt(checks=[{"type": "toolCall", "name": "f"}])],
            "line 2: checks[0].name: 'f' is none of the prompt's tools",
            id="unknown-tool",
        ),
        pytest.param(
            [HEADER, prompt(checks=[{"type": "vibes"}])], "line 2: checks[0]: Input tag", id="check"
        ),
        pytest.param(
            [HEADER, prompt(checks=[CHECK | {"tolerence": 1}])],
            "line 2: checks[0].numeric.tolerence: Unexpected keyword argument",
            id="misspelt-key",
        ),
        pytest.param([HEADER, prompt(weight=0)], "line 2: weight: Input should be", id="weight"),
        pytest.param(
            [HEADER, prompt(parameters={"stream": False})],
            "line 2: parameters.stream: the prober sets it itself",
            id="a-parameter-of-ours",
        ),
    ],
)
def test_what_is_wrong_with_a_prompt_set_is_named_with_its_line(
    lines: list[object], problem: str
) -> None:
    with pytest.raises(InputError) as caught:
        prompt_sets.read(written(*lines))
    assert problem in str(caught.value)


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(InputError) as caught:
        prompt_sets.read(written(HEADER, prompt(weight=-1), prompt(messages=[])) + b"\nno json")
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "line 2",
        "line 3",
        "line 4",
    ]


@pytest.mark.parametrize(
    ("lines", "remark"),
    [
        pytest.param([prompt()], "1 prompts: fewer than 65", id="few"),
        pytest.param([prompt(checks=[])], "only a judge can score them: p1", id="no-checks"),
        pytest.param([prompt(), prompt(id="p2")], "1 prompts ask the same", id="twice"),
        pytest.param(
            [prompt(reference="41")], "p1: checks[0] rejects the reference: last", id="reference"
        ),
    ],
)
def test_what_is_doubtful_is_a_remark(lines: list[object], remark: str) -> None:
    assert any(remark in found for found in prompt_sets.read(written(HEADER, *lines)).remarks)


def test_the_example_has_no_faults_and_enough_prompts_for_the_default_margin() -> None:
    found = prompt_sets.load("example")
    assert found.remarks == ()
    assert len(found.questions) >= 65
    assert len({question.topic for question in found.questions}) >= 8


@pytest.mark.parametrize("question", prompt_sets.load("example").questions, ids=lambda q: q.id)
def test_the_examples_checks_take_the_right_answer_and_not_a_useless_one(
    question: prompt_sets.Question,
) -> None:
    right = BOOK[question.text]
    answer = (
        Answer(text=right, finish_reason="stop")
        if isinstance(right, str)
        else Answer(
            tool_calls=(ToolCall(name=right["tool"], arguments=json.dumps(right["arguments"])),),
            finish_reason="tool_calls",
        )
    )
    useless = Answer(text="I do not know. Perhaps, perhaps not. It depends.", finish_reason="stop")
    score = checked(answer, question.checks, question.reference)
    assert score.value == 1.0, score.reason
    assert checked(useless, question.checks, question.reference).value <= 0.5


def test_check_says_what_a_set_holds(tmp_path: Path) -> None:
    file = tmp_path / "set.jsonl"
    file.write_bytes(written(HEADER, prompt()))
    result = CliRunner().invoke(app, ["prompts", "check", str(file)])
    assert result.exit_code == 0
    assert result.stdout.startswith("mine 3: 1 prompts, sha256 ")
    assert "topics: math 1" in result.stdout
    assert "checks: numeric 1" in result.stdout
    assert f"{file}: 1 prompts: fewer than 65" in result.stderr


def test_check_names_each_fault_and_ends_with_2(tmp_path: Path) -> None:
    file = tmp_path / "set.jsonl"
    file.write_bytes(written(HEADER, prompt(), prompt()))
    result = CliRunner().invoke(app, ["prompts", "check", str(file)])
    assert result.exit_code == 2
    assert f"{file}: line 3: id: 'p1' is also the one of line 2" in result.stderr


def test_the_example_is_printed_as_it_is_shipped() -> None:
    result = CliRunner().invoke(app, ["prompts", "example"])
    assert result.exit_code == 0
    assert result.stdout_bytes == prompt_sets.example()
