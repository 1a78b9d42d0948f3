from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_analysis.prompts.answers import ToolCall
from inference_analysis.prompts.streams import AnswerError, Assembly


def chunk(finish: str | None = None, **delta: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + json.dumps({"choices": [choice], "system_fingerprint": "v1"}).encode()


@given(pieces=st.lists(st.text(max_size=10), max_size=10))
def test_a_stream_gives_what_the_whole_answer_would(pieces: list[str]) -> None:
    streamed, whole = Assembly(), Assembly()
    for piece in pieces:
        streamed.event(chunk(content=piece))
    streamed.event(chunk("stop"))
    streamed.event(b'data: {"choices": [], "usage": {"completion_tokens": 7}}')
    streamed.event(b"data: [DONE]")
    message = {"content": "".join(pieces)}
    whole.whole(
        json.dumps(
            {
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"completion_tokens": 7},
                "system_fingerprint": "v1",
            }
        ).encode()
    )
    assert streamed.answer() == whole.answer()
    assert (streamed.ended, streamed.version) == (whole.ended, whole.version) == (True, "v1")


def test_a_tool_call_comes_in_pieces_by_its_index() -> None:
    found = Assembly()
    pieces = [
        {"index": 1, "function": {"name": "b", "arguments": ""}},
        {"index": 0, "function": {"name": "a", "arguments": '{"x"'}},
        {"index": 0, "function": {"arguments": ": 1}"}},
    ]
    for piece in pieces:
        found.event(chunk(tool_calls=[piece]))
    assert found.started
    assert found.answer().tool_calls == (
        ToolCall(name="a", arguments='{"x": 1}'),
        ToolCall(name="b", arguments=""),
    )


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b": keep-alive", id="comment"),
        pytest.param(b"event: ping", id="event"),
    ],
)
def test_other_lines_of_a_stream_mean_nothing(line: bytes) -> None:
    found = Assembly()
    found.event(line)
    assert found == Assembly()


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        pytest.param(b"data: {", "no JSON", id="cut"),
        pytest.param(b"data: []", "no object", id="list"),
        pytest.param(
            b'data: {"error": {"message": "out of memory"}}', "out of memory", id="error-inside"
        ),
    ],
)
def test_data_that_is_no_chunk_is_an_error(line: bytes, problem: str) -> None:
    with pytest.raises(AnswerError, match=problem):
        Assembly().event(line)


def test_a_body_without_choices_is_an_error() -> None:
    with pytest.raises(AnswerError, match="no choices"):
        Assembly().whole(b'{"choices": []}')
