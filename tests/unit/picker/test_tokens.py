"""What a watched answer tells about its tokens, however it is cut into chunks."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_picker.messages import TokenTimes, Usage
from inference_picker.tokens import TokenWatch, usage_in

# The form of vLLM's chat stream with stream_options.include_usage.
TOKENS = [b'data: {"choices":[{"delta":{"content":"%d"}}]}\n\n' % number for number in range(4)]
USAGE = (
    b'data: {"choices":[],"usage":{"prompt_tokens":9,"total_tokens":13,"completion_tokens":4,'
    b'"prompt_tokens_details":{"cached_tokens":8}}}\n\n'
)
DONE = b"data: [DONE]\n\n"
STREAM = b"".join([*TOKENS, USAGE, DONE])


def watched(*chunks: bytes, streamed: bool = True, complete: bool = True) -> TokenTimes:
    """Chunks that come 10 ms apart, the first at 1 s."""
    watch = TokenWatch(streamed=streamed)
    for number, chunk in enumerate(chunks):
        watch.feed(chunk, 1.0 + number / 100)
    return watch.times(complete=complete)


def rounded(times: TokenTimes) -> list[tuple[float, int]]:
    return [(round(gap_s, 9), number) for gap_s, number in times.gaps_s]


def count(times: TokenTimes) -> int:
    return sum(number for _, number in times.gaps_s)


def test_gaps_lie_between_tokens_and_neither_usage_nor_end_mark_is_one() -> None:
    times = watched(*TOKENS, USAGE, DONE)

    assert rounded(times) == [(0.01, 1)] * 3
    assert times.per_token_s == pytest.approx(0.01)
    assert times.usage == Usage(prompt=9, output=4, cached=8)
    assert not times.malformed


def test_tokens_that_come_together_share_the_time() -> None:
    times = watched(TOKENS[0], b"".join(TOKENS[1:3]), TOKENS[3] + USAGE + DONE)

    assert rounded(times) == [(0.005, 2), (0.01, 1)]


@given(st.lists(st.integers(1, len(STREAM) - 1), max_size=12))
def test_however_the_stream_is_cut_the_tokens_are_the_same(cuts: list[int]) -> None:
    edges = [0, *sorted(set(cuts)), len(STREAM)]
    chunks = [STREAM[a:b] for a, b in itertools.pairwise(edges)]

    times = watched(*chunks)

    assert times.usage == Usage(prompt=9, output=4, cached=8)
    # A mark that is cut in two is not recognised: its event is then taken for a token.
    assert 3 <= count(times) <= 5


def test_every_single_cut_keeps_usage_and_count() -> None:
    for cut in range(1, len(STREAM)):
        times = watched(STREAM[:cut], STREAM[cut:])
        assert times.usage == Usage(prompt=9, output=4, cached=8)
        assert count(times) in {3, 4}


def test_lines_may_end_as_http_does() -> None:
    stream = STREAM.replace(b"\n", b"\r\n")
    for cut in range(1, len(stream)):
        assert count(watched(stream[:cut], stream[cut:])) in {3, 4}


def test_the_usage_of_an_answer_in_one_piece_is_read() -> None:
    body = json.dumps({"choices": [], "usage": {"prompt_tokens": 2, "completion_tokens": 1}})

    times = watched(body.encode(), streamed=False)

    assert times.usage == Usage(prompt=2, output=1)
    assert times.per_token_s is None
    assert times.gaps_s == ()


@pytest.mark.parametrize(
    ("body", "streamed", "malformed"),
    [
        pytest.param(b"<html>", False, True, id="html-as-json"),
        pytest.param(b"", False, True, id="nothing-as-json"),
        pytest.param(b"{}", False, False, id="json"),
        pytest.param(b"garbage", True, True, id="no-event"),
        pytest.param(DONE, True, True, id="no-token"),
    ],
)
def test_what_is_no_answer_is_told(body: bytes, streamed: bool, malformed: bool) -> None:
    assert watched(body, streamed=streamed).malformed is malformed
    assert not watched(body, streamed=streamed, complete=False).malformed


@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        pytest.param(b'{"usage": null}', None, id="null"),
        pytest.param(b'{"usage": {"prompt_tokens": 1', None, id="cut"),
        pytest.param(b'{"text": "\\"usage\\": {\\"prompt_tokens\\": 7}"}', None, id="in-a-text"),
        pytest.param(
            b'"usage":{"input_tokens":3,"output_tokens":5,"input_tokens_details":'
            b'{"cached_tokens":2}}',
            Usage(prompt=3, output=5, cached=2),
            id="responses-api",
        ),
        pytest.param(b'"usage":{"prompt_tokens":"many"}', Usage(), id="no-number"),
        pytest.param(b'"usage":{"prompt_tokens":-4,"completion_tokens":true}', Usage(), id="odd"),
    ],
)
def test_usage_is_found_where_it_is(tail: bytes, expected: Usage | None) -> None:
    assert usage_in(tail) == expected


@given(st.lists(st.binary(max_size=60), max_size=8), st.booleans())
def test_no_bytes_raise(chunks: list[bytes], streamed: bool) -> None:
    watched(*chunks, streamed=streamed)


@given(st.binary(max_size=200))
def test_no_usage_raises(tail: bytes) -> None:
    usage_in(b'{"usage":' + tail)
