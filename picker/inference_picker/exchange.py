"""One ext_proc exchange without I/O: events in, commands out.

An exchange is one HTTP request on one gRPC stream. House rules:

1. Request side and response side each have a state; `Exchange.REQUEST_TABLE` and
   `Exchange.RESPONSE_TABLE` say which event is legal in which state and which method handles it.
   Nothing else decides that.
2. An illegal event raises PeerProtocolError and changes nothing.
3. The exchange asks (`PickEndpoint`, `ChooseTarget`) and its owner answers with an event.
4. Once a pick was made, exactly one `Finish` follows, at the latest on `StreamClosed`.
5. The exchange never ends a stream that still has a response to come: Envoy loses a chunk then.
6. What is held in memory is bounded by ``max_body_bytes``.

When the endpoint is chosen depends on how Envoy sends the request body:

=====================  ==========================================================================
no body, mode NONE     at the headers, without a model
BUFFERED               at the body; headers pass at once, Envoy holds them until the body's answer
STREAMED               at the headers, without a model; chunks are taken away until the last one,
                       which is answered with the whole body, its model rewritten
STREAMED, unasked,     at the end of the body; the answers to headers and chunks wait for it
FULL_DUPLEX_STREAMED
=====================  ==========================================================================

Source: envoy/service/ext_proc/v3 and the endpoint picker protocol (proposal 004 of the Gateway
API Inference Extension).
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, ClassVar, Final

from inference_picker.bodies import model_of, with_model
from inference_picker.errors import BodyError, PeerProtocolError
from inference_picker.messages import (
    AnswerRequestBody,
    AnswerRequestHeaders,
    AnswerRequestTrailers,
    AnswerResponseBody,
    AnswerResponseHeaders,
    AnswerResponseTrailers,
    BodyMode,
    ChooseTarget,
    Command,
    Ended,
    Event,
    Finish,
    Pick,
    Picked,
    PickEndpoint,
    Reason,
    Refused,
    Reject,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
    Retargeted,
    Route,
    StreamClosed,
    StreamRequestBody,
    StreamResponseBody,
)
from inference_picker.rewriting import NameRestorer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Commands = tuple[Command, ...]
    Handler = Callable[["Exchange", Any, float], Commands]

# Some builds of Envoy refuse larger messages (inference extension #854, #2056).
CHUNK_LIMIT: Final = 62_000
DEFAULT_MAX_BODY_BYTES: Final = 10 * 1024 * 1024

_WHOLE: Final = frozenset({BodyMode.BUFFERED, BodyMode.BUFFERED_PARTIAL})
_EVENT_STREAM: Final = "text/event-stream"
# Formats whose last byte is never the beginning of a name that is being looked for.
_RESTORABLE: Final = ("application/json", _EVENT_STREAM)


class RequestState(enum.Enum):
    """Where the request side stands."""

    HEADERS = "awaits headers"
    COLLECTING = "collects the body"
    PICKING = "awaits the pick"
    TAKING = "takes the body, endpoint chosen"
    TARGETING = "awaits the target"
    SENT = "sent"
    OVER = "over"


class ResponseState(enum.Enum):
    """Where the response side stands."""

    IDLE = "no request yet"
    HEADERS = "awaits headers"
    BODY = "in the body"
    SENT = "sent"
    OVER = "over"


class Exchange:
    """The state machine of one exchange. ``at`` is a monotonic clock's reading in seconds."""

    def __init__(self, *, max_body_bytes: int = DEFAULT_MAX_BODY_BYTES) -> None:
        """Begin before the first message."""
        self.request_state = RequestState.HEADERS
        self.response_state = ResponseState.IDLE
        self._max_body_bytes = max_body_bytes
        self._started_at = 0.0
        self._head = RequestHeaders(headers={})
        self._subset: tuple[str, ...] | None = None
        self._chunks: list[bytes] = []
        self._size = 0
        self._body = b""
        self._trailers_follow = False
        self._withheld = 0
        self._pick: Pick | None = None
        self._finished = False
        self._status: int | None = None
        self._served: str | None = None
        self._first_token_at: float | None = None
        self._counts_first_token = False
        self._body_asked = False
        self._saw_chunk = False
        self._restorer: NameRestorer | None = None

    def receive(self, event: Event, *, at: float) -> Commands:
        """What to do about the event, in order.

        Raises PeerProtocolError for an event that is illegal now; the state is unchanged then.
        """
        if isinstance(event, StreamClosed):
            return self._closed(at)
        kind = type(event)
        if kind in _RESPONSE_EVENTS:
            handler = self.RESPONSE_TABLE[self.response_state].get(kind)
        else:
            handler = self.REQUEST_TABLE[self.request_state].get(kind)
        if handler is None:
            raise PeerProtocolError(
                f"{kind.__name__} is illegal while the request {self.request_state.value} and "
                f"the response side: {self.response_state.value}. Check the processing mode of "
                "the gateway's ext_proc filter: request and response headers must be sent."
            )
        return handler(self, event, at)

    # --- request side ---------------------------------------------------------------------

    def _on_request_headers(self, event: RequestHeaders, at: float) -> Commands:
        self._started_at = at
        self._head = event
        self._subset = event.subset
        self.response_state = ResponseState.HEADERS
        mode = event.request_body_mode
        if event.end_of_stream or mode is BodyMode.NONE:
            return self._ask(model=None)
        if _declared_length(event.headers) > self._max_body_bytes:
            return self._reject_too_large()
        if mode in _WHOLE:
            self.request_state = RequestState.COLLECTING
            return (AnswerRequestHeaders(),)
        if mode is BodyMode.STREAMED and not event.body_follows_unasked:
            return self._ask(model=None)
        self.request_state = RequestState.COLLECTING
        return ()

    def _on_request_chunk(self, event: RequestBody, _at: float) -> Commands:
        mode = self._head.request_body_mode
        if self._size + len(event.chunk) > self._max_body_bytes:
            return self._reject_too_large()
        if mode is BodyMode.BUFFERED_PARTIAL and not event.end_of_stream:
            # Envoy's buffer is full and the rest would follow unseen.
            return self._reject_too_large()
        self._chunks.append(event.chunk)
        self._size += len(event.chunk)
        if event.subset is not None:
            self._subset = event.subset
        # A buffered body is whole even where trailers end the stream.
        if event.end_of_stream or mode is BodyMode.BUFFERED:
            return self._body_complete()
        self._withheld += 1
        return ()

    def _on_chunk_after_pick(self, event: RequestBody, _at: float) -> Commands:
        if self._size + len(event.chunk) > self._max_body_bytes:
            return self._reject_too_large()
        self._chunks.append(event.chunk)
        self._size += len(event.chunk)
        if event.end_of_stream:
            return self._body_complete()
        return (AnswerRequestBody(replacement=b""),)

    def _on_trailers_end_body(self, _event: RequestTrailers, _at: float) -> Commands:
        self._trailers_follow = True
        return self._body_complete()

    def _on_trailers_after_pick(self, _event: RequestTrailers, _at: float) -> Commands:
        # Every chunk was taken away in the hope of a last one to put the body into.
        return self._reject(
            400,
            Reason.MALFORMED_BODY,
            "A request with trailers can't be rewritten in body mode STREAMED; set the "
            "gateway's request body mode to BUFFERED or FULL_DUPLEX_STREAMED.",
        )

    def _on_late_trailers(self, _event: RequestTrailers, _at: float) -> Commands:
        return (AnswerRequestTrailers(),)

    def _on_picked(self, event: Picked, _at: float) -> Commands:
        pick = self._pick = event.pick
        mode = self._head.request_body_mode
        if self._head.end_of_stream or mode is BodyMode.NONE:
            self.request_state = RequestState.SENT
            return (AnswerRequestHeaders(route=self._route(pick)),)
        if not self._body and mode is BodyMode.STREAMED and not self._head.body_follows_unasked:
            self.request_state = RequestState.TAKING
            return (AnswerRequestHeaders(route=self._route(pick)),)
        self.request_state = RequestState.SENT
        return tuple(self._forward(pick))

    def _on_retargeted(self, event: Retargeted, _at: float) -> Commands:
        self._pick = event.pick
        self.request_state = RequestState.SENT
        body = self._take_body(event.pick)
        return (AnswerRequestBody(replacement=self._body if body is None else body),)

    def _on_refused(self, event: Refused, at: float) -> Commands:
        return self._reject(event.status, event.reason, event.message, at)

    def _ignore(self, _event: Event, _at: float) -> Commands:
        return ()

    def _ask(self, model: str | None) -> Commands:
        self.request_state = RequestState.PICKING
        question = PickEndpoint(model=model, headers=self._head.headers, subset=self._subset)
        return (question,)

    def _body_complete(self) -> Commands:
        self._body = b"".join(self._chunks)
        self._chunks.clear()
        try:
            model = model_of(self._body)
        except BodyError as error:
            reason = Reason.NO_MODEL if error.names_no_model else Reason.MALFORMED_BODY
            return self._reject(400, reason, str(error))
        if self._pick is None:
            return self._ask(model)
        self.request_state = RequestState.TARGETING
        return (ChooseTarget(model=model, pick=self._pick),)

    def _forward(self, pick: Pick) -> Iterator[Command]:
        """Answer everything that waited for the pick, in Envoy's order: head, body, trailers."""
        body = self._take_body(pick)
        sent = self._body if body is None else body
        route = self._route(pick, content_length=len(sent))
        mode = self._head.request_body_mode
        if mode is BodyMode.FULL_DUPLEX_STREAMED:
            yield AnswerRequestHeaders(route=route)
            last = not self._trailers_follow
            for chunk, is_last in _chunked(sent):
                yield StreamRequestBody(chunk=chunk, end_of_stream=is_last and last)
        elif mode is BodyMode.STREAMED:
            yield AnswerRequestHeaders(route=route)
            waiting = self._withheld + (0 if self._trailers_follow else 1)
            for _ in range(waiting - 1):
                yield AnswerRequestBody(replacement=b"")
            yield AnswerRequestBody(replacement=sent)
        else:
            yield AnswerRequestBody(route=route, replacement=body)
        if self._trailers_follow:
            yield AnswerRequestTrailers()
        self._body = b""

    def _take_body(self, pick: Pick) -> bytes | None:
        """The rewritten body, or None where the client's can stay."""
        if not pick.target or pick.target == pick.model:
            return None
        return with_model(self._body, pick.target)

    def _route(self, pick: Pick, content_length: int | None = None) -> Route:
        # A compressed response would hide the name that has to be written back.
        remove = ("accept-encoding",) if pick.rewrite_back else ()
        return Route(
            destination=",".join(pick.endpoints),
            content_length=content_length,
            remove_headers=remove,
        )

    def _reject_too_large(self) -> Commands:
        return self._reject(
            413,
            Reason.BODY_TOO_LARGE,
            f"The request body is larger than {self._max_body_bytes} bytes.",
        )

    def _reject(
        self, status: int, reason: Reason, message: str, at: float | None = None
    ) -> Commands:
        rejection = Reject(status=status, reason=reason, message=message)
        self._status = status
        finish = self._finish(Ended.NO_RESPONSE, self._started_at if at is None else at)
        self.request_state = RequestState.OVER
        self.response_state = ResponseState.OVER
        self._chunks.clear()
        self._body = b""
        return (rejection, *finish)

    # --- response side --------------------------------------------------------------------

    def _on_response_headers(self, event: ResponseHeaders, at: float) -> Commands:
        self._status = _status(event.headers)
        self._served = event.served
        pick = self._pick
        if event.end_of_stream:
            self.response_state = ResponseState.SENT
            return (AnswerResponseHeaders(), *self._finish(Ended.COMPLETE, at))
        self.response_state = ResponseState.BODY
        content_type = event.headers.get("content-type", "").partition(";")[0].strip().lower()
        self._counts_first_token = content_type == _EVENT_STREAM
        if pick is not None and pick.rewrite_back and _restorable(content_type, event.headers):
            self._restorer = NameRestorer(target=pick.target, model=pick.model)
        mode = self._head.response_body_mode
        wanted = self._restorer is not None or (
            pick is not None and pick.watch_body and self._counts_first_token
        )
        self._body_asked = wanted or mode is not BodyMode.NONE
        return (
            AnswerResponseHeaders(
                stream_body=wanted and mode is BodyMode.NONE,
                remove_content_length=(self._restorer is not None and mode not in _WHOLE),
            ),
        )

    def _on_response_chunk(self, event: ResponseBody, at: float) -> Commands:
        if event.chunk and self._first_token_at is None and self._counts_first_token:
            self._first_token_at = at
        self._saw_chunk = True
        chunk: bytes | None = None
        if self._restorer is not None:
            # A buffered body is whole even where trailers end the stream.
            whole = event.end_of_stream or self._head.response_body_mode in _WHOLE
            chunk = self._restorer.feed(event.chunk, last=whole)
        answers = self._response_answers(event, chunk)
        if not event.end_of_stream:
            return answers
        self.response_state = ResponseState.SENT
        return (*answers, *self._finish(Ended.COMPLETE, at))

    def _response_answers(self, event: ResponseBody, chunk: bytes | None) -> Commands:
        mode = self._head.response_body_mode
        if mode is BodyMode.FULL_DUPLEX_STREAMED:
            sent = event.chunk if chunk is None else chunk
            if not sent and not event.end_of_stream:
                return ()
            return tuple(
                StreamResponseBody(chunk=piece, end_of_stream=last and event.end_of_stream)
                for piece, last in _chunked(sent)
            )
        if chunk is None or chunk == event.chunk:
            return (AnswerResponseBody(),)
        length = len(chunk) if mode in _WHOLE else None
        return (AnswerResponseBody(replacement=chunk, content_length=length),)

    def _on_response_trailers(self, _event: ResponseTrailers, at: float) -> Commands:
        held = b"" if self._restorer is None else self._restorer.feed(b"", last=True)
        self.response_state = ResponseState.SENT
        pieces: Commands = ()
        if held and self._head.response_body_mode is BodyMode.FULL_DUPLEX_STREAMED:
            pieces = (StreamResponseBody(chunk=held, end_of_stream=False),)
        finish = self._finish(Ended.COMPLETE, at)
        return (*pieces, AnswerResponseTrailers(), *finish)

    def _on_late_response_trailers(self, _event: ResponseTrailers, _at: float) -> Commands:
        return (AnswerResponseTrailers(),)

    # --- the end --------------------------------------------------------------------------

    def _closed(self, at: float) -> Commands:
        match self.response_state:
            case ResponseState.BODY:
                body_comes = self._head.response_body_mode is not BodyMode.NONE
                ended = Ended.RESET if self._saw_chunk or body_comes else Ended.UNSEEN
            case _:
                ended = Ended.NO_RESPONSE
        self.request_state = RequestState.OVER
        self.response_state = ResponseState.OVER
        self._chunks.clear()
        self._body = b""
        return self._finish(ended, at)

    def _finish(self, ended: Ended, at: float) -> Commands:
        pick = self._pick
        if pick is None or self._finished:
            return ()
        self._finished = True
        first = self._first_token_at
        return (
            Finish(
                pick=pick,
                ended=ended,
                duration_s=at - self._started_at,
                status=self._status,
                served=self._served,
                first_token_s=None if first is None else first - self._started_at,
                body_asked=self._body_asked,
            ),
        )

    # --- the tables -----------------------------------------------------------------------

    # Envoy may deliver the last body message twice (envoy #46237): a body event after the end is
    # ignored, not refused. In OVER the gateway's messages cross a rejection that is on its way.
    REQUEST_TABLE: ClassVar[dict[RequestState, dict[type, Handler]]] = {
        RequestState.HEADERS: {RequestHeaders: _on_request_headers},
        RequestState.COLLECTING: {
            RequestBody: _on_request_chunk,
            RequestTrailers: _on_trailers_end_body,
        },
        RequestState.PICKING: {
            Picked: _on_picked,
            Refused: _on_refused,
            RequestBody: _ignore,
        },
        RequestState.TAKING: {
            RequestBody: _on_chunk_after_pick,
            RequestTrailers: _on_trailers_after_pick,
        },
        RequestState.TARGETING: {
            Retargeted: _on_retargeted,
            Refused: _on_refused,
            RequestBody: _ignore,
        },
        RequestState.SENT: {
            RequestBody: _ignore,
            RequestTrailers: _on_late_trailers,
        },
        RequestState.OVER: dict.fromkeys(
            (RequestHeaders, RequestBody, RequestTrailers, Picked, Retargeted, Refused), _ignore
        ),
    }

    RESPONSE_TABLE: ClassVar[dict[ResponseState, dict[type, Handler]]] = {
        ResponseState.IDLE: {},
        ResponseState.HEADERS: {ResponseHeaders: _on_response_headers},
        ResponseState.BODY: {
            ResponseBody: _on_response_chunk,
            ResponseTrailers: _on_response_trailers,
        },
        ResponseState.SENT: {
            ResponseBody: _ignore,
            ResponseTrailers: _on_late_response_trailers,
        },
        ResponseState.OVER: dict.fromkeys(
            (ResponseHeaders, ResponseBody, ResponseTrailers), _ignore
        ),
    }


def _declared_length(headers: Mapping[str, str]) -> int:
    text = headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0  # noqa: PLR2004


def _status(headers: Mapping[str, str]) -> int | None:
    text = headers.get(":status", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) == 3 else None  # noqa: PLR2004


def _restorable(content_type: str, headers: Mapping[str, str]) -> bool:
    plain = headers.get("content-encoding", "identity") == "identity"
    return plain and content_type in _RESTORABLE


def _chunked(data: bytes) -> Iterator[tuple[bytes, bool]]:
    """Pieces of at most `CHUNK_LIMIT` bytes, each with whether it is the last; at least one."""
    if len(data) <= CHUNK_LIMIT:
        yield data, True
        return
    for start in range(0, len(data), CHUNK_LIMIT):
        yield data[start : start + CHUNK_LIMIT], start + CHUNK_LIMIT >= len(data)


_RESPONSE_EVENTS: Final = frozenset({ResponseHeaders, ResponseBody, ResponseTrailers})
