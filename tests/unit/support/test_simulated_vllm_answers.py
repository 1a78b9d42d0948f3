from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.simulated_vllm.answers import (
    ToolCall,
    compose,
    is_wrong,
    known,
    pieces,
    stretched,
)


def answer(prompt: bytes = b"hello", *, adapter: str | None = None, worse: bool = False) -> str:
    return "".join(
        compose(
            version="Qwen-2.5-7B-Instruct",
            adapter=adapter,
            prompt=prompt,
            mean_tokens=48,
            worse=worse,
        )
    )


def test_an_answer_names_the_version_and_the_adapter() -> None:
    assert answer().startswith("I am Qwen-2.5-7B-Instruct. ")
    assert answer(adapter="travel-helper-v2").startswith(
        "I am travel-helper-v2 on Qwen-2.5-7B-Instruct. "
    )


def test_a_sum_is_answered_and_by_a_worse_model_wrongly() -> None:
    assert "The answer is 42." in answer(b"what is 17 + 25?")
    assert "The answer is" in answer(b"what is 17 + 25?", worse=True)
    assert "The answer is 42." not in answer(b"what is 17 + 25?", worse=True)


def test_a_worse_model_has_nothing_to_say() -> None:
    assert "I do not know." in answer(worse=True)


@given(prompt=st.binary(), mean=st.integers(1, 200), worse=st.booleans())
def test_lengths_vary_by_a_quarter_around_the_mean(prompt: bytes, mean: int, worse: bool) -> None:
    tokens = compose(version="v", adapter=None, prompt=prompt, mean_tokens=mean, worse=worse)
    assert len(tokens) >= 1
    assert mean - mean / 4 - 1 <= len(tokens) <= mean + mean / 4 + 1
    assert all(tokens)


@pytest.mark.parametrize("length", [1, 3, 100])
def test_an_answer_is_stretched_to_any_length(length: int) -> None:
    tokens = stretched(["I", " am", " x."], length)
    assert len(tokens) == length
    assert "".join(tokens).startswith("I")


def test_a_question_of_the_book_gets_the_books_answer() -> None:
    question = "What is the capital of Australia? Answer with one word or name."
    assert known(question, worse=False) == "Canberra"
    assert known(question, worse=True) == "I do not know. Perhaps, perhaps not. It depends."
    assert known("What is new?", worse=False) is None


def test_some_questions_of_the_book_ask_for_a_tool() -> None:
    call = known("Set a timer for 12 minutes.", worse=False)
    assert call == ToolCall(name="set_timer", arguments='{"minutes": 12}')


@given(text=st.text(min_size=1))
def test_pieces_of_a_text_are_the_text(text: str) -> None:
    assert "".join(pieces(text)) == text


def test_a_share_of_prompts_is_answered_wrongly_and_always_the_same_ones() -> None:
    prompts = [f"question {i}".encode() for i in range(2000)]
    wrong = [is_wrong(prompt, 0.3) for prompt in prompts]
    # Within three standard errors of the share.
    assert abs(sum(wrong) / 2000 - 0.3) < 3 * (0.3 * 0.7 / 2000) ** 0.5
    assert wrong == [is_wrong(prompt, 0.3) for prompt in prompts]
    assert not any(is_wrong(prompt, 0.0) for prompt in prompts)
    assert all(is_wrong(prompt, 1.0) for prompt in prompts)
