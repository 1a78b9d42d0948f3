"""The client's model name in a streamed response."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_picker.rewriting import NameRestorer


def restored(chunks: list[bytes], *, target: str = "v1", model: str = "chat") -> bytes:
    restorer = NameRestorer(target=target, model=model)
    last = len(chunks) - 1
    return b"".join(restorer.feed(chunk, last=index == last) for index, chunk in enumerate(chunks))


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        pytest.param(b'{"model":"v1"}', b'{"model":"chat"}', id="compact"),
        pytest.param(b'{"model": "v1"}', b'{"model": "chat"}', id="spaced"),
        pytest.param(b'{"model" : "v1"}', b'{"model" : "chat"}', id="spaced-on-both-sides"),
        pytest.param(b'{"model":"v12"}', b'{"model":"v12"}', id="longer-name"),
        pytest.param(b'{"model":"V1"}', b'{"model":"V1"}', id="other-case"),
        pytest.param(
            b'{"text":"\\"model\\":\\"v1\\""}', b'{"text":"\\"model\\":\\"v1\\""}', id="in-a-text"
        ),
        pytest.param(
            b'data: {"model":"v1"}\n\ndata: {"model":"v1"}\n\n',
            b'data: {"model":"chat"}\n\ndata: {"model":"chat"}\n\n',
            id="each-event",
        ),
        pytest.param(b'"model":"v1"model":"v1"', b'"model":"chat"model":"v1"', id="overlapping"),
        pytest.param(b'{"model":', b'{"model":', id="cut-off"),
        pytest.param(b"", b"", id="empty"),
    ],
)
def test_the_target_becomes_the_name_that_was_asked_for_at_every_split(
    response: bytes, expected: bytes
) -> None:
    assert restored([response]) == expected
    for cut in range(len(response) + 1):
        assert restored([response[:cut], response[cut:]]) == expected
    assert restored([response[at : at + 1] for at in range(len(response))] or [b""]) == expected


def test_names_are_found_in_both_spellings_of_json_and_written_in_utf_8() -> None:
    answer = '{"model":"größe"}{"model":"gr\\u00f6\\u00dfe"}'.encode()

    expected = '{"model":"naïve"}{"model":"naïve"}'.encode()
    assert restored([answer], target="größe", model="naïve") == expected


def test_what_is_held_back_is_never_longer_than_a_pattern() -> None:
    restorer = NameRestorer(target="v1", model="chat")

    assert restorer.feed(b'data: {"model": "v', last=False) == b"data: {"
    assert restorer.feed(b'2"} "mod', last=False) == b'"model": "v2"} '


pieces = st.sampled_from(
    [b'"model"', b":", b" ", b'"v1"', b'"model":"v1"', b'"', b"m", b"\\", b"v1", b"{", b"\n"]
)


@given(st.lists(pieces | st.binary(max_size=3), max_size=12), st.data())
def test_any_split_gives_the_bytes_of_the_whole(parts: list[bytes], data: st.DataObject) -> None:
    response = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(response)), max_size=6)))
    chunks = [response[a:b] for a, b in zip([0, *cuts], [*cuts, len(response)], strict=True)]

    expected = re.sub(rb'("model" ?: ?)"v1"', rb'\1"chat"', response)

    assert restored(chunks) == expected
