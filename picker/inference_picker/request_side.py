"""The request side of an exchange: what reaches the picker before the server is asked.

When the endpoint is chosen depends on how Envoy sends the request body:

=====================  ==========================================================================
no body, mode NONE     at the headers, without a model
BUFFERED               at the body; headers pass at once, Envoy holds them until the body's answer
STREAMED               at the headers, without a model; chunks are taken away until the last one,
                       which is answered with the whole body, its model rewritten
STREAMED, unasked,     at the end of the body; the answers to headers and chunks wait for it
FULL_DUPLEX_STREAMED
=====================  ==========================================================================
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, ClassVar, Final

from inference_picker.bodies import content_of, model_in, with_model
from inference_picker.chunks import chunked
from inference_picker.errors import BodyError
from inference_picker.messages import (
    AnswerRequestBody,
    AnswerRequestHeaders,
    AnswerRequestTrailers,
    BodyMode,
    ChooseTarget,
    Command,
    Ended,
    Event,
    Pick,
    Picked,
    PickEndpoint,
    Reason,
    Refused,
    Reject,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    Retargeted,
    Route,
    StreamRequestBody,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from inference_picker.books import Books

    Commands = tuple[Command, ...]
    Handler = Callable[["RequestSide", Any, float], Commands]

WHOLE: Final = frozenset({BodyMode.BUFFERED, BodyMode.BUFFERED_PARTIAL})
"""The modes in which a body comes in one piece."""

_MAX_LENGTH_DIGITS: Final = 19


class RequestState(enum.Enum):
    """Where the request side stands."""

    HEADERS = "awaits headers"
    COLLECTING = "collects the body"
    PICKING = "awaits the pick"
    TAKING = "takes the body, endpoint chosen"
    TARGETING = "awaits the target"
    SENT = "sent"
    OVER = "over"


class RequestSide:
    """Collects the body, asks for a pick, and answers what waited for it."""

    def __init__(self, books: Books, *, max_body_bytes: int, leaves: bool = False) -> None:
        """``leaves``: whether the exchange may end before the response."""
        self.state = RequestState.HEADERS
        self.head = RequestHeaders(headers={})
        self._books = books
        self._max_body_bytes = max_body_bytes
        self._leaves = leaves
        self._subset: tuple[str, ...] | None = None
        self._chunks: list[bytes] = []
        self._size = 0
        self._body = b""
        self._trailers_follow = False
        self._withheld = 0

    def close(self) -> None:
        """Take nothing more, and hold nothing any longer."""
        self.state = RequestState.OVER
        self._chunks.clear()
        self._body = b""

    def _on_request_headers(self, event: RequestHeaders, at: float) -> Commands:
        self._books.started_at = at
        self.head = event
        self._subset = event.subset
        mode = event.request_body_mode
        if event.end_of_stream or mode is BodyMode.NONE:
            return self._ask(model=None)
        if _declared_length(event.headers) > self._max_body_bytes:
            return self._reject_too_large()
        if mode in WHOLE:
            self.state = RequestState.COLLECTING
            return (AnswerRequestHeaders(),)
        if mode is BodyMode.STREAMED and not event.body_follows_unasked:
            return self._ask(model=None)
        self.state = RequestState.COLLECTING
        return ()

    def _on_request_chunk(self, event: RequestBody, _at: float) -> Commands:
        mode = self.head.request_body_mode
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

    def _on_picked(self, event: Picked, at: float) -> Commands:
        pick = self._books.pick = event.pick
        mode = self.head.request_body_mode
        if self.head.end_of_stream or mode is BodyMode.NONE:
            return (AnswerRequestHeaders(route=self._route(pick)), *self._sent(pick, at))
        if not self._body and mode is BodyMode.STREAMED and not self.head.body_follows_unasked:
            self.state = RequestState.TAKING
            return (AnswerRequestHeaders(route=self._route(pick)),)
        return (*self._forward(pick), *self._sent(pick, at))

    def _on_retargeted(self, event: Retargeted, at: float) -> Commands:
        pick = self._books.pick = event.pick
        body = self._take_body(pick)
        answer = AnswerRequestBody(replacement=self._body if body is None else body)
        return (answer, *self._sent(pick, at))

    def _sent(self, pick: Pick, at: float) -> Commands:
        """The request is on its way. Whoever won't look at the response leaves here or never.

        In FULL_DUPLEX_STREAMED every chunk of the response would come and have to be sent back;
        after the response headers it is too late to leave: Envoy loses a chunk then.
        """
        self.state = RequestState.SENT
        self._body = b""
        echo = self.head.response_body_mode is BodyMode.FULL_DUPLEX_STREAMED
        if not self._leaves or not echo or pick.watch_body or pick.rewrite_back:
            return ()
        if pick.session is not None and pick.session.is_news(pick.endpoints[0]):
            return ()
        finish = self._books.close(Ended.UNFOLLOWED, at)
        self._books.over = True
        return finish

    def _on_refused(self, event: Refused, at: float) -> Commands:
        return self._reject(event.status, event.reason, event.message, at, event.retry_after_s)

    def _ignore(self, _event: Event, _at: float) -> Commands:
        return ()

    def _ask(self, model: str | None, content: Mapping[str, Any] | None = None) -> Commands:
        self.state = RequestState.PICKING
        question = PickEndpoint(
            model=model,
            headers=self.head.headers,
            subset=self._subset,
            content=content,
            body=self._body,
        )
        return (question,)

    def _body_complete(self) -> Commands:
        self._body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        try:
            content = content_of(self._body)
            model = model_in(content)
        except BodyError as error:
            reason = Reason.NO_MODEL if error.names_no_model else Reason.MALFORMED_BODY
            return self._reject(400, reason, str(error))
        if self._books.pick is None:
            return self._ask(model, content)
        self.state = RequestState.TARGETING
        return (ChooseTarget(model=model, pick=self._books.pick),)

    def _forward(self, pick: Pick) -> Iterator[Command]:
        """Answer everything that waited for the pick, in Envoy's order: head, body, trailers."""
        body = self._take_body(pick)
        sent = self._body if body is None else body
        route = self._route(pick, content_length=len(sent))
        mode = self.head.request_body_mode
        if mode is BodyMode.FULL_DUPLEX_STREAMED:
            yield AnswerRequestHeaders(route=route)
            last = not self._trailers_follow
            for chunk, is_last in chunked(sent):
                yield StreamRequestBody(chunk=chunk, end_of_stream=is_last and last)
        elif mode is BodyMode.STREAMED:
            yield AnswerRequestHeaders(route=route)
            waiting = self._withheld + (0 if self._trailers_follow else 1)
            for _ in range(waiting - 1):
                yield AnswerRequestBody(replacement=b"")
            yield AnswerRequestBody(replacement=sent)
        else:
            # What stays as it is keeps its length.
            length = None if body is None else len(body)
            route = self._route(pick, content_length=length)
            yield AnswerRequestBody(route=route, replacement=body)
        if self._trailers_follow:
            yield AnswerRequestTrailers()

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
        self,
        status: int,
        reason: Reason,
        message: str,
        at: float | None = None,
        retry_after_s: float | None = None,
    ) -> Commands:
        rejection = Reject(
            status=status, reason=reason, message=message, retry_after_s=retry_after_s
        )
        self._books.status = status
        finish = self._books.close(Ended.NO_RESPONSE, self._books.started_at if at is None else at)
        self._books.over = True
        return (rejection, *finish)

    # Envoy may deliver the last body message twice (envoy #46237): a body event after the end is
    # ignored, not refused. In OVER the gateway's messages cross a rejection that is on its way.
    TABLE: ClassVar[dict[RequestState, dict[type, Handler]]] = {
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


def _declared_length(headers: Mapping[str, str]) -> int:
    text = headers.get("content-length", "")
    plain = text.isascii() and text.isdigit() and len(text) <= _MAX_LENGTH_DIGITS
    return int(text) if plain else 0
