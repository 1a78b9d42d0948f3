from __future__ import annotations

import json
from typing import Any

import pytest

from support.simulated_vllm.api import ApiError, Generation, Writer, parse_generation
from support.simulated_vllm.models import Models

HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture
def models() -> Models:
    return Models(
        served=("mymodel", "alias"),
        version="Qwen",
        max_model_len=100,
        created=1,
        adapters={"travel-helper-v1": "/lora/v1"},
    )


def parse(models: Models, *, chat: bool = True, **request: Any) -> Generation:
    return parse_generation(json.dumps(request).encode(), chat=chat, models=models)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        pytest.param(b"{", 400, "the body is not JSON", id="not-json"),
        pytest.param(b"\xff", 400, "the body is not JSON", id="not-utf-8"),
        pytest.param(b"[]", 400, "the body is a JSON list, expected an object", id="a-list"),
        pytest.param(b'{"model": 1}', 400, "model: found 1", id="model-no-string"),
        pytest.param(
            b'{"model": "x", "messages": []}', 404, "The model `x` does not exist.", id="unknown"
        ),
        pytest.param(b'{"model": "mymodel"}', 400, "messages: a list", id="no-messages"),
        pytest.param(b'{"messages": [1]}', 400, r"messages\[0\]: expected an object", id="no-role"),
        pytest.param(
            b'{"messages": [{"role": "user", "content": 1}]}',
            400,
            r"messages\[0\].content: expected text",
            id="content",
        ),
        pytest.param(
            b'{"messages": [{"role": "user"}], "max_tokens": 0}',
            400,
            "at least 1, got 0",
            id="zero",
        ),
        pytest.param(
            b'{"messages": [{"role": "user"}], "max_tokens": 99}',
            400,
            "is too large: 99. This model's maximum context length is 100",
            id="too-many-tokens",
        ),
        pytest.param(
            b'{"messages": [{"role": "user"}], "n": 2}', 400, "one answer per request", id="n"
        ),
        pytest.param(
            b'{"messages": [{"role": "user"}], "stream_options": 1}',
            400,
            "stream_options: expected an object",
            id="stream-options",
        ),
    ],
)
def test_a_bad_chat_request_is_refused(
    models: Models, body: bytes, status: int, message: str
) -> None:
    with pytest.raises(ApiError, match=message) as refusal:
        parse_generation(body, chat=True, models=models)
    assert refusal.value.status == status
    assert refusal.value.body()["error"]["code"] == status


def test_a_prompt_longer_than_the_model_is_refused(models: Models) -> None:
    with pytest.raises(ApiError, match="maximum context length is 100 tokens"):
        parse(models, chat=False, prompt="x" * 400)


@pytest.mark.parametrize(
    ("name", "adapter"),
    [
        pytest.param("mymodel", None, id="base"),
        pytest.param("alias", None, id="second-served-name"),
        pytest.param("travel-helper-v1", "travel-helper-v1", id="adapter"),
    ],
)
def test_a_name_leads_to_base_or_adapter(models: Models, name: str, adapter: str | None) -> None:
    generation = parse(models, model=name, messages=HELLO)
    assert (generation.model, generation.adapter) == (name, adapter)


@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [
        pytest.param("x" * 17, 5, id="text"),
        pytest.param(["x" * 16], 4, id="list-of-one-text"),
        pytest.param([1, 2, 3], 3, id="token-ids"),
        pytest.param([[1, 2]], 2, id="list-of-token-ids"),
    ],
)
def test_prompt_tokens_are_counted(models: Models, prompt: Any, tokens: int) -> None:
    assert parse(models, chat=False, prompt=prompt).prompt_tokens == tokens


@pytest.mark.parametrize("prompt", [None, [], ["a", "b"], [1, "b"], [-1], 3], ids=repr)
def test_a_prompt_of_another_form_is_refused(models: Models, prompt: Any) -> None:
    with pytest.raises(ApiError, match="prompt: "):
        parse(models, chat=False, prompt=prompt)


def test_completions_end_after_16_tokens_and_chat_at_the_models_length(models: Models) -> None:
    assert parse(models, chat=False, prompt="x").max_tokens == 16
    chat = parse(models, messages=HELLO)
    assert chat.max_tokens == 100 - chat.prompt_tokens


def test_content_parts_are_joined(models: Models) -> None:
    parts = [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]
    whole = parse(models, messages=HELLO)
    split = parse(models, messages=[{"role": "user", "content": parts}])
    assert split.prompt == whole.prompt


@pytest.mark.parametrize("chat", [True, False], ids=["chat", "completions"])
def test_chunks_join_to_the_text_of_the_whole(models: Models, chat: bool) -> None:
    request: dict[str, Any] = {"messages": HELLO} if chat else {"prompt": "hello"}
    generation = parse(models, chat=chat, stream_options={"include_usage": True}, **request)
    writer = Writer(generation=generation, identifier="id", created=1, fingerprint="Qwen")
    tokens = ['a "quoted"', " word", " é"]
    before, after = writer.template()
    stream = writer.first()
    stream += b"".join(before + json.dumps(token).encode() + after for token in tokens[:-1])
    stream += writer.last(tokens[-1], reason="stop", completion_tokens=3)

    events = stream.decode().removesuffix("\n\n").split("\n\n")
    assert events.pop() == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    assert {chunk["system_fingerprint"] for chunk in chunks} == {"Qwen"}
    counted = chunks.pop()
    assert counted["choices"] == []
    assert counted["usage"]["completion_tokens"] == 3
    choices = [chunk["choices"][0] for chunk in chunks]
    assert [c["finish_reason"] for c in choices] == [None] * (len(choices) - 1) + ["stop"]

    whole = writer.whole(tokens, reason="stop")["choices"][0]
    if chat:
        assert choices[0]["delta"]["role"] == "assistant"
        text = "".join(c["delta"]["content"] for c in choices)
        assert text == whole["message"]["content"]
    else:
        assert "".join(c["text"] for c in choices) == whole["text"]


def test_the_listing_has_served_names_and_adapters_with_their_parent(models: Models) -> None:
    cards = {
        card["id"]: (card["root"], card["parent"], card["max_model_len"])
        for card in models.listing()["data"]
    }
    # Parent of an adapter: the first served name, as vLLM 0.32 answered.
    assert cards == {
        "mymodel": ("Qwen", None, 100),
        "alias": ("Qwen", None, 100),
        "travel-helper-v1": ("/lora/v1", "mymodel", None),
    }
