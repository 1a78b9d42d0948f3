"""Between Envoy's protobuf messages and the exchange's events and commands."""

from __future__ import annotations

from functools import lru_cache
from math import ceil
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.message import DecodeError

from inference_picker._pb import ext_proc_pb2 as pb
from inference_picker.bodies import encoded
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
from inference_picker.sessions import TOKEN_HEADER
from inference_picker.subsets import split_hint

if TYPE_CHECKING:
    from collections.abc import Callable

    from inference_picker.messages import RequestEvent, ResponseEvent

SERVICE: Final = "envoy.service.ext_proc.v3.ExternalProcessor"
METHOD: Final = "Process"

DESTINATION: Final = "x-gateway-destination-endpoint"
DESTINATION_NAMESPACE: Final = "envoy.lb"
SERVED: Final = "x-gateway-destination-endpoint-served"
SUBSET: Final = "x-gateway-destination-endpoint-subset"
SUBSET_NAMESPACE: Final = "envoy.lb.subset_hint"
DROPPED: Final = ("x-gateway-request-dropped-reason", "x-llm-d-request-dropped-reason")
"""The header that says why a request was refused, under both prefixes in use."""

_OVERWRITE: Final = pb.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD


def _overriding(override: BodyOverride) -> Any:
    stream = override is BodyOverride.STREAM
    return pb.ProcessingMode(
        response_header_mode=pb.ProcessingMode.SEND,
        request_body_mode=pb.ProcessingMode.BUFFERED,
        response_body_mode=pb.ProcessingMode.STREAMED if stream else pb.ProcessingMode.NONE,
        response_trailer_mode=pb.ProcessingMode.SEND,
    )


Answer = (
    AnswerRequestHeaders
    | AnswerRequestBody
    | StreamRequestBody
    | AnswerRequestTrailers
    | AnswerResponseHeaders
    | AnswerResponseBody
    | StreamResponseBody
    | AnswerResponseTrailers
    | Reject
)

# Answers that never vary are encoded once.
_PASS_REQUEST_HEADERS: Final = pb.ProcessingResponse(
    request_headers=pb.HeadersResponse()
).SerializeToString()
_PASS_REQUEST_BODY: Final = pb.ProcessingResponse(
    request_body=pb.BodyResponse()
).SerializeToString()
_PASS_REQUEST_TRAILERS: Final = pb.ProcessingResponse(
    request_trailers=pb.TrailersResponse()
).SerializeToString()
_PASS_RESPONSE_HEADERS: Final = pb.ProcessingResponse(
    response_headers=pb.HeadersResponse()
).SerializeToString()
_PASS_RESPONSE_BODY: Final = pb.ProcessingResponse(
    response_body=pb.BodyResponse()
).SerializeToString()
_PASS_RESPONSE_TRAILERS: Final = pb.ProcessingResponse(
    response_trailers=pb.TrailersResponse()
).SerializeToString()


_SKIP_RESPONSE_BODY: Final = pb.ProcessingResponse(
    response_headers=pb.HeadersResponse(), mode_override=_overriding(BodyOverride.SKIP)
).SerializeToString()


def decode(data: bytes) -> RequestEvent | ResponseEvent:
    """The event in one ProcessingRequest.

    Raises PeerProtocolError for bytes that are none, or that carry no known message.
    """
    try:
        message = pb.ProcessingRequest.FromString(data)
    except DecodeError as error:
        raise PeerProtocolError(f"Not a ProcessingRequest: {error}") from error
    match message.WhichOneof("request"):
        case "request_headers":
            head = message.request_headers
            config = message.protocol_config
            return RequestHeaders(
                headers=_headers(head.headers),
                end_of_stream=head.end_of_stream,
                subset=_subset(message),
                request_body_mode=_body_mode(message, config.request_body_mode, BodyMode.BUFFERED),
                response_body_mode=_body_mode(message, config.response_body_mode, BodyMode.NONE),
                body_follows_unasked=config.send_body_without_waiting_for_header_response,
            )
        case "request_body":
            body = message.request_body
            return RequestBody(
                chunk=body.body, end_of_stream=body.end_of_stream, subset=_subset(message)
            )
        case "request_trailers":
            return RequestTrailers()
        case "response_headers":
            head = message.response_headers
            return ResponseHeaders(
                headers=_headers(head.headers),
                end_of_stream=head.end_of_stream,
                served=_metadata_text(message, DESTINATION_NAMESPACE, SERVED),
            )
        case "response_body":
            body = message.response_body
            return ResponseBody(chunk=body.body, end_of_stream=body.end_of_stream)
        case "response_trailers":
            return ResponseTrailers()
        case _:
            raise PeerProtocolError("A ProcessingRequest without a message that is known here.")


def encode(command: Answer) -> bytes:
    """One ProcessingResponse."""
    return _ENCODERS[type(command)](command)


def _request_headers(command: AnswerRequestHeaders) -> bytes:
    if command.route is None:
        return _PASS_REQUEST_HEADERS
    head = pb.HeadersResponse(response=_routed(command.route))
    return _bytes(_with_metadata(pb.ProcessingResponse(request_headers=head), command.route))


def _request_body(command: AnswerRequestBody) -> bytes:
    if command.replacement is None:
        if command.route is None:
            return _PASS_REQUEST_BODY
        if command.route.content_length is None and not command.route.remove_headers:
            return _routed_body(command.route.destination)
    common = pb.CommonResponse() if command.route is None else _routed(command.route)
    _replace_body(common, command.replacement)
    answer = pb.ProcessingResponse(request_body=pb.BodyResponse(response=common))
    return _bytes(answer if command.route is None else _with_metadata(answer, command.route))


@lru_cache(maxsize=4096)
def _routed_body(destination: str) -> bytes:
    """The answer to a body that stays as it is: nothing but the endpoint varies."""
    route = Route(destination=destination)
    answer = pb.ProcessingResponse(request_body=pb.BodyResponse(response=_routed(route)))
    return _bytes(_with_metadata(answer, route))


def _response_body(command: AnswerResponseBody) -> bytes:
    if command.replacement is None:
        return _PASS_RESPONSE_BODY
    common = pb.CommonResponse()
    _replace_body(common, command.replacement)
    if command.content_length is not None:
        _set_header(common.header_mutation, "content-length", str(command.content_length))
    return _bytes(pb.ProcessingResponse(response_body=pb.BodyResponse(response=common)))


def _response_headers(command: AnswerResponseHeaders) -> bytes:
    plain = not command.remove_content_length and command.session_token is None
    if command.override is None and plain:
        return _PASS_RESPONSE_HEADERS
    if command.override is BodyOverride.SKIP and plain:
        return _SKIP_RESPONSE_BODY
    answer = pb.ProcessingResponse(response_headers=pb.HeadersResponse())
    if command.session_token is not None:
        mutation = answer.response_headers.response.header_mutation
        _set_header(mutation, TOKEN_HEADER, command.session_token)
    if command.remove_content_length:
        mutation = answer.response_headers.response.header_mutation
        mutation.remove_headers.append("content-length")
    if command.override is not None:
        answer.mode_override.CopyFrom(_overriding(command.override))
    return _bytes(answer)


def _routed(route: Route) -> Any:
    common = pb.CommonResponse(clear_route_cache=True)
    mutation = common.header_mutation
    _set_header(mutation, DESTINATION, route.destination)
    if route.content_length is not None:
        _set_header(mutation, "content-length", str(route.content_length))
    mutation.remove_headers.extend(route.remove_headers)
    return common


def _with_metadata(answer: Any, route: Route) -> Any:
    namespace = answer.dynamic_metadata.fields[DESTINATION_NAMESPACE].struct_value
    namespace.fields[DESTINATION].string_value = route.destination
    return answer


def _set_header(mutation: Any, name: str, value: str) -> None:
    # Envoy refuses a header that has both value and raw_value; raw_value takes any byte.
    header = pb.HeaderValue(key=name, raw_value=value.encode("ascii"))
    mutation.set_headers.append(pb.HeaderValueOption(header=header, append_action=_OVERWRITE))


def _replace_body(common: Any, replacement: bytes | None) -> None:
    if replacement:
        common.body_mutation.body = replacement
    elif replacement is not None:
        common.body_mutation.clear_body = True


def _streamed(command: StreamRequestBody | StreamResponseBody) -> Any:
    piece = pb.StreamedBodyResponse(body=command.chunk, end_of_stream=command.end_of_stream)
    mutation = pb.BodyMutation(streamed_response=piece)
    return pb.BodyResponse(response=pb.CommonResponse(body_mutation=mutation))


def _rejection(command: Reject) -> bytes:
    message = b'{"error":{"message":%b,"type":%b,"param":null,"code":%d}}' % (
        encoded(command.message),
        encoded(command.reason),
        command.status,
    )
    answer = pb.ImmediateResponse(
        status=pb.HttpStatus(code=command.status),
        body=message,
        details=f"inference_picker:{command.reason}",
    )
    _set_header(answer.headers, "content-type", "application/json")
    for name in DROPPED:
        _set_header(answer.headers, name, command.reason)
    if command.retry_after_s is not None:
        _set_header(answer.headers, "retry-after", str(max(1, ceil(command.retry_after_s))))
    return _bytes(pb.ProcessingResponse(immediate_response=answer))


def _bytes(answer: Any) -> bytes:
    encoded_answer: bytes = answer.SerializeToString()
    return encoded_answer


def _headers(found: Any) -> dict[str, str]:
    return {
        header.key: header.raw_value.decode("utf-8", "replace") or header.value
        for header in found.headers
    }


def _body_mode(message: Any, number: int, default: BodyMode) -> BodyMode:
    if not message.HasField("protocol_config"):
        return default
    try:
        return BodyMode(number)
    except ValueError as error:
        raise PeerProtocolError(f"Body mode {number} is unknown here.") from error


def _subset(message: Any) -> tuple[str, ...] | None:
    if not message.HasField("metadata_context"):
        return None
    namespaces = message.metadata_context.filter_metadata
    if SUBSET_NAMESPACE not in namespaces or SUBSET not in namespaces[SUBSET_NAMESPACE].fields:
        return None
    value = namespaces[SUBSET_NAMESPACE].fields[SUBSET]
    match value.WhichOneof("kind"):
        case "string_value":
            return split_hint(value.string_value)
        case "list_value":
            return split_hint([entry.string_value for entry in value.list_value.values])
        case _:
            # A hint that can't be read allows nothing: better refused than sent anywhere.
            return ()


def _metadata_text(message: Any, namespace: str, key: str) -> str | None:
    if not message.HasField("metadata_context"):
        return None
    namespaces = message.metadata_context.filter_metadata
    if namespace not in namespaces or key not in namespaces[namespace].fields:
        return None
    return namespaces[namespace].fields[key].string_value or None


_ENCODERS: Final[dict[type, Callable[[Any], bytes]]] = {
    AnswerRequestHeaders: _request_headers,
    AnswerRequestBody: _request_body,
    StreamRequestBody: lambda command: _bytes(
        pb.ProcessingResponse(request_body=_streamed(command))
    ),
    AnswerRequestTrailers: lambda _: _PASS_REQUEST_TRAILERS,
    AnswerResponseHeaders: _response_headers,
    AnswerResponseBody: _response_body,
    StreamResponseBody: lambda command: _bytes(
        pb.ProcessingResponse(response_body=_streamed(command))
    ),
    AnswerResponseTrailers: lambda _: _PASS_RESPONSE_TRAILERS,
    Reject: _rejection,
}
ANSWERS: Final = frozenset(_ENCODERS)
"""The commands that are messages for Envoy."""
