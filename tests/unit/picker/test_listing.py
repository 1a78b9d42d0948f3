"""Answers of /v1/models."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_picker.listing import listed_models


def test_the_ids_of_the_list_are_the_models() -> None:
    # The shape that vLLM 0.32 answers with one LoRA adapter.
    answer = (
        b'{"object":"list","data":[{"id":"base","object":"model","parent":null},'
        b'{"id":"travel-helper-v1","object":"model","parent":"base"}]}'
    )

    assert listed_models(answer) == {"base", "travel-helper-v1"}


@pytest.mark.parametrize(
    "answer",
    [b"", b"{}", b"[]", b'{"data":{}}', b"<html>"],
    ids=["empty", "no-data", "a-list", "data-no-list", "html"],
)
def test_anything_else_is_no_list_of_models(answer: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        listed_models(answer)


def test_entries_without_an_id_are_left_out() -> None:
    assert listed_models(b'{"data":[{"id":1},{"name":"x"},"y",{"id":"z"}]}') == {"z"}


@given(st.binary(max_size=60))
def test_arbitrary_bytes_raise_nothing_but_value_error(answer: bytes) -> None:
    try:
        listed_models(answer)
    except ValueError:
        return
