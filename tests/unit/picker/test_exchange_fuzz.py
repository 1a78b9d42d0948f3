"""The exchange against everything: cuts at every byte, arbitrary bytes, arbitrary orders."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_picker import wire
from inference_picker._pb import ext_proc_pb2 as pb
from inference_picker.director import Director, Settings
from inference_picker.errors import PeerProtocolError
from inference_picker.exchange import Exchange
from inference_picker.gateway import Gateways
from inference_picker.messages import (
    AnswerRequestBody,
    AnswerRequestHeaders,
    BodyMode,
    Command,
    Event,
    Pick,
    Picked,
    PickEndpoint,
    Reject,
    RequestBody,
    RequestHeaders,
    StreamClosed,
    StreamRequestBody,
)
from inference_picker.metrics import Metrics
from inference_picker.pool import Endpoint, StaticSource, make_snapshot
from inference_picker.recording import Recorder
from inference_picker.sampling import Sampling
from inference_picker.servicer import ExternalProcessor

if TYPE_CHECKING:
    from collections.abc import Iterable

ENDPOINT = "10.0.0.1:8000"
BODY = '{"messages":[{"content":"\\"model\\":\\"x\\" é"}], "model" : "chat" , "n":1}'.encode()
MODES = [BodyMode.FULL_DUPLEX_STREAMED, BodyMode.STREAMED]


def run(mode: BodyMode, chunks: Iterable[bytes], *, unasked: bool = True) -> list[Command]:
    """What an exchange sends for a body in these chunks; picks are made at once."""
    exchange = Exchange()
    sent: list[Command] = []

    def take(event: Event) -> None:
        events = [event]
        while events:
            for command in exchange.receive(events.pop(), at=0.0):
                if isinstance(command, PickEndpoint):
                    pick = Pick(
                        endpoints=(ENDPOINT,),
                        model=command.model or "",
                        target="chat-v1" if command.model else "",
                        rewrite_back=True,
                    )
                    events.append(Picked(pick=pick))
                else:
                    sent.append(command)

    take(RequestHeaders(headers={}, request_body_mode=mode, body_follows_unasked=unasked))
    pieces = list(chunks)
    for number, piece in enumerate(pieces, start=1):
        take(RequestBody(chunk=piece, end_of_stream=number == len(pieces)))
    return sent


def body_of(commands: Iterable[Command]) -> bytes:
    sent = b""
    for command in commands:
        if isinstance(command, StreamRequestBody):
            sent += command.chunk
        elif isinstance(command, AnswerRequestBody):
            sent += command.replacement or b""
    return sent


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_a_body_that_is_cut_at_any_byte_gives_the_same_commands(mode: BodyMode) -> None:
    whole = run(mode, [BODY])
    expected = BODY.replace(b'"chat"', b'"chat-v1"', 1)
    assert body_of(whole) == expected

    for cut in range(1, len(BODY)):
        found = run(mode, [BODY[:cut], BODY[cut:]])

        assert body_of(found) == expected
        assert [c for c in found if isinstance(c, AnswerRequestHeaders)] == [
            c for c in whole if isinstance(c, AnswerRequestHeaders)
        ]
        if mode is BodyMode.FULL_DUPLEX_STREAMED:
            assert found == whole


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=8,
)
bodies = (
    st.binary(max_size=80)
    | st.dictionaries(
        st.sampled_from(["model", "prompt", "messages", "max_tokens", "stream", "n", "x"]),
        json_values,
        max_size=5,
    ).map(lambda found: json.dumps(found).encode())
    | json_values.map(lambda found: json.dumps(found).encode())
)


@given(bodies, st.sampled_from([*MODES, BodyMode.BUFFERED]))
def test_any_body_is_forwarded_whole_or_refused(body: bytes, mode: BodyMode) -> None:
    sent = run(mode, [body])

    refused = any(isinstance(command, Reject) for command in sent)
    if not refused and mode is not BodyMode.BUFFERED:
        assert json.loads(body_of(sent))["model"] == "chat-v1"


def service() -> ExternalProcessor:
    metrics = Metrics()
    members = [
        Endpoint(address=f"10.0.0.{number}:80", models=frozenset({"base"})) for number in range(3)
    ]
    source = StaticSource(make_snapshot(members))
    return ExternalProcessor(
        Director(source=source, metrics=metrics, settings=Settings()),
        recorder=Recorder(metrics),
        gateways=Gateways(metrics),
        sampling=Sampling(share=1.0),
    )


SERVICE = service()


@given(bodies)
def test_no_body_breaks_the_scheduler(body: bytes) -> None:
    messages = [
        pb.ProcessingRequest(request_headers=pb.HttpHeaders()),
        pb.ProcessingRequest(request_body=pb.HttpBody(body=body, end_of_stream=True)),
    ]
    stream = SERVICE.open()
    answers = [
        answer
        for message in messages
        for answer in stream.take(wire.decode(message.SerializeToString()))
    ]
    stream.close()

    assert answers
    assert SERVICE.recorder.metrics.failures.values == {(): 0}
    assert not SERVICE.director.flights.counts


headers = st.builds(
    lambda pairs: pb.HttpHeaders(
        headers=pb.HeaderMap(
            headers=[pb.HeaderValue(key=key, raw_value=value) for key, value in pairs]
        )
    ),
    st.lists(
        st.tuples(
            st.sampled_from([":status", "content-type", "content-length", "x-session-id", "x"]),
            st.binary(max_size=12)
            | st.sampled_from([b"200", b"500", b"text/event-stream", b"application/json"]),
        ),
        max_size=4,
    ),
)
http_bodies = st.builds(
    lambda body, last: pb.HttpBody(body=body, end_of_stream=last), bodies, st.booleans()
)
messages = st.binary(max_size=60) | st.one_of(
    headers.map(lambda found: pb.ProcessingRequest(request_headers=found)),
    headers.map(lambda found: pb.ProcessingRequest(response_headers=found)),
    http_bodies.map(lambda found: pb.ProcessingRequest(request_body=found)),
    http_bodies.map(lambda found: pb.ProcessingRequest(response_body=found)),
    st.just(pb.ProcessingRequest(request_trailers=pb.HttpTrailers())),
    st.just(pb.ProcessingRequest(response_trailers=pb.HttpTrailers())),
    st.just(pb.ProcessingRequest()),
).map(lambda found: found.SerializeToString())


@given(st.lists(messages, max_size=8), st.booleans())
def test_whatever_comes_only_the_exchanges_own_error_is_raised(
    sent: list[bytes], leaves: bool
) -> None:
    stream = SERVICE.open(leaves=leaves)
    for data in sent:
        try:
            stream.take(wire.decode(data))
        except PeerProtocolError:
            break
    stream.take(StreamClosed())
    stream.close()

    assert SERVICE.recorder.metrics.failures.values == {(): 0}
    assert not SERVICE.director.flights.counts
