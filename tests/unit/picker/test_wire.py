"""Between protobuf and the exchange's vocabulary."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_picker import wire
from inference_picker._pb import ext_proc_pb2 as pb
from inference_picker.errors import PeerProtocolError
from inference_picker.messages import (
    AnswerRequestBody,
    AnswerRequestHeaders,
    AnswerRequestTrailers,
    AnswerResponseBody,
    AnswerResponseHeaders,
    AnswerResponseTrailers,
    BodyMode,
    BodyOverride,
    Reason,
    Reject,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
    Route,
    StreamRequestBody,
    StreamResponseBody,
)

ROUTE = Route(destination="10.0.0.1:80", content_length=7, remove_headers=("accept-encoding",))


def decoded(**fields: Any) -> object:
    return wire.decode(pb.ProcessingRequest(**fields).SerializeToString())


def headers(**pairs: str) -> object:
    return pb.HttpHeaders(
        headers=pb.HeaderMap(
            headers=[
                pb.HeaderValue(key=key.replace("_", "-"), raw_value=value.encode())
                for key, value in pairs.items()
            ]
        )
    )


def test_bytes_as_envoy_sends_them_are_read_by_their_field_numbers() -> None:
    # By hand from envoy's external_processor.proto: request_headers = 2 {headers = 1
    # {headers = 1 {key = 1, raw_value = 3}}, end_of_stream = 3}, protocol_config = 11
    # {request_body_mode = 1: FULL_DUPLEX_STREAMED = 4, response_body_mode = 2: STREAMED = 1}.
    pair = b"\x0a\x01a\x1a\x02bc"
    head = b"\x0a" + bytes([len(pair) + 2]) + b"\x0a" + bytes([len(pair)]) + pair + b"\x18\x01"
    message = b"\x12" + bytes([len(head)]) + head + b"\x5a\x04\x08\x04\x10\x01"

    assert wire.decode(message) == RequestHeaders(
        headers={"a": "bc"},
        end_of_stream=True,
        request_body_mode=BodyMode.FULL_DUPLEX_STREAMED,
        response_body_mode=BodyMode.STREAMED,
    )


@pytest.mark.parametrize(
    ("fields", "event"),
    [
        pytest.param(
            {"request_body": pb.HttpBody(body=b"x", end_of_stream=True)},
            RequestBody(chunk=b"x", end_of_stream=True),
            id="request-body",
        ),
        pytest.param({"request_trailers": pb.HttpTrailers()}, RequestTrailers(), id="trailers"),
        pytest.param(
            {"response_body": pb.HttpBody(body=b"y")}, ResponseBody(chunk=b"y"), id="response-body"
        ),
        pytest.param(
            {"response_trailers": pb.HttpTrailers()}, ResponseTrailers(), id="response-trailers"
        ),
    ],
)
def test_each_message_is_its_event(fields: dict[str, object], event: object) -> None:
    assert decoded(**fields) == event


def test_headers_in_either_field_are_read() -> None:
    head = pb.HttpHeaders()
    head.headers.headers.add(key=":status", raw_value=b"200")
    head.headers.headers.add(key="old", value="text")
    head.headers.headers.add(key="odd", raw_value=b"\xff")

    assert decoded(response_headers=head) == ResponseHeaders(
        headers={":status": "200", "old": "text", "odd": "\ufffd"}
    )


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        pytest.param(["10.0.0.1:80", "10.0.0.2:80"], ("10.0.0.1:80", "10.0.0.2:80"), id="list"),
        pytest.param("10.0.0.1:80,10.0.0.2", ("10.0.0.1:80", "10.0.0.2"), id="string"),
        pytest.param([], (), id="empty-list"),
        pytest.param(True, (), id="of-no-readable-kind"),
    ],
)
@pytest.mark.parametrize("message", ["request_headers", "request_body"])
def test_the_subset_hint_is_read_from_both_messages(
    hint: Any, expected: tuple[str, ...], message: str
) -> None:
    context = pb.Metadata()
    context.filter_metadata["envoy.lb.subset_hint"].update(
        {"x-gateway-destination-endpoint-subset": hint}
    )
    body = headers() if message == "request_headers" else pb.HttpBody()

    found = decoded(**{message: body, "metadata_context": context})

    assert isinstance(found, RequestHeaders | RequestBody)
    assert found.subset == expected


def test_other_metadata_is_no_hint() -> None:
    context = pb.Metadata()
    context.filter_metadata["envoy.lb.subset_hint"].update({"other": "x"})

    found = decoded(request_headers=headers(), metadata_context=context)

    assert isinstance(found, RequestHeaders)
    assert found.subset is None


def test_the_endpoint_that_served_is_read_from_the_metadata() -> None:
    context = pb.Metadata()
    context.filter_metadata["envoy.lb"].update(
        {"x-gateway-destination-endpoint-served": "10.0.0.1:80"}
    )

    found = decoded(response_headers=headers(), metadata_context=context)

    assert isinstance(found, ResponseHeaders)
    assert found.served == "10.0.0.1:80"


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(AnswerRequestHeaders(route=ROUTE), id="at-the-headers"),
        pytest.param(AnswerRequestBody(route=ROUTE, replacement=b"new"), id="at-the-body"),
    ],
)
def test_a_route_is_header_and_metadata_of_the_same_value(
    command: AnswerRequestHeaders | AnswerRequestBody,
) -> None:
    answer = pb.ProcessingResponse.FromString(wire.encode(command))

    at_headers = isinstance(command, AnswerRequestHeaders)
    common = (answer.request_headers if at_headers else answer.request_body).response
    mutation = common.header_mutation
    found = {each.header.key: each.header.raw_value for each in mutation.set_headers}
    assert found == {"x-gateway-destination-endpoint": b"10.0.0.1:80", "content-length": b"7"}
    # A client's own header of that name must go, not be added to.
    assert all(
        each.append_action == pb.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
        and not each.header.value
        for each in mutation.set_headers
    )
    assert list(mutation.remove_headers) == ["accept-encoding"]
    assert common.clear_route_cache
    metadata = answer.dynamic_metadata.fields["envoy.lb"].struct_value
    assert metadata.fields["x-gateway-destination-endpoint"].string_value == "10.0.0.1:80"
    if not at_headers:
        assert common.body_mutation.body == b"new"


@pytest.mark.parametrize(
    ("command", "field"),
    [
        pytest.param(AnswerRequestHeaders(), "request_headers", id="request-headers"),
        pytest.param(AnswerRequestBody(), "request_body", id="request-body"),
        pytest.param(AnswerRequestTrailers(), "request_trailers", id="request-trailers"),
        pytest.param(AnswerResponseHeaders(), "response_headers", id="response-headers"),
        pytest.param(AnswerResponseBody(), "response_body", id="response-body"),
        pytest.param(AnswerResponseTrailers(), "response_trailers", id="response-trailers"),
    ],
)
def test_an_answer_that_changes_nothing_is_empty_and_of_its_kind(
    command: wire.Answer, field: str
) -> None:
    answer = pb.ProcessingResponse.FromString(wire.encode(command))

    assert answer.WhichOneof("response") == field
    assert answer == pb.ProcessingResponse(**{field: getattr(pb.ProcessingResponse(), field)})


@pytest.mark.parametrize(
    ("command", "field"),
    [
        pytest.param(
            StreamRequestBody(chunk=b"x", end_of_stream=True), "request_body", id="request"
        ),
        pytest.param(
            StreamResponseBody(chunk=b"x", end_of_stream=True), "response_body", id="response"
        ),
    ],
)
def test_full_duplex_chunks_are_streamed_responses(command: wire.Answer, field: str) -> None:
    answer = pb.ProcessingResponse.FromString(wire.encode(command))

    piece = getattr(answer, field).response.body_mutation.streamed_response
    assert (piece.body, piece.end_of_stream) == (b"x", True)


def test_a_chunk_is_taken_away_by_clearing_it() -> None:
    for command in (AnswerRequestBody(replacement=b""), AnswerResponseBody(replacement=b"")):
        answer = pb.ProcessingResponse.FromString(wire.encode(command))
        kind = answer.WhichOneof("response")
        assert getattr(answer, kind).response.body_mutation.clear_body


def test_asking_for_the_response_body_overrides_the_mode() -> None:
    command = AnswerResponseHeaders(override=BodyOverride.STREAM, remove_content_length=True)

    answer = pb.ProcessingResponse.FromString(wire.encode(command))

    assert answer.mode_override.response_body_mode == pb.ProcessingMode.STREAMED
    mutation = answer.response_headers.response.header_mutation
    assert list(mutation.remove_headers) == ["content-length"]


def test_a_replaced_response_has_its_length() -> None:
    command = AnswerResponseBody(replacement=b"new", content_length=3)

    answer = pb.ProcessingResponse.FromString(wire.encode(command))

    (header,) = answer.response_body.response.header_mutation.set_headers
    assert (header.header.key, header.header.raw_value) == ("content-length", b"3")


def test_a_rejection_says_why_in_status_body_and_both_headers() -> None:
    command = Reject(status=503, reason=Reason.NO_ENDPOINTS, message='none "ready"')

    answer = pb.ProcessingResponse.FromString(wire.encode(command)).immediate_response

    assert answer.status.code == 503
    assert answer.body == (
        b'{"error":{"message":"none \\"ready\\"","type":"rejected-no-endpoints",'
        b'"param":null,"code":503}}'
    )
    found = {each.header.key: each.header.raw_value for each in answer.headers.set_headers}
    assert found == {
        "content-type": b"application/json",
        "x-gateway-request-dropped-reason": b"rejected-no-endpoints",
        "x-llm-d-request-dropped-reason": b"rejected-no-endpoints",
    }


@pytest.mark.parametrize(
    ("data", "says"),
    [
        pytest.param(b"\xff", "Not a ProcessingRequest", id="no-protobuf"),
        pytest.param(b"", "without a message", id="empty"),
        pytest.param(b"\x12\x00\x5a\x02\x08\x09", "Body mode 9 is unknown", id="future-mode"),
    ],
)
def test_what_is_no_known_message_is_the_peers_error(data: bytes, says: str) -> None:
    with pytest.raises(PeerProtocolError, match=says):
        wire.decode(data)


@given(st.binary(max_size=80))
def test_arbitrary_bytes_raise_nothing_but_the_peers_error(data: bytes) -> None:
    try:
        wire.decode(data)
    except PeerProtocolError:
        return
