"""The response side of an exchange: what is asked for, what is written back, what is seen."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, ClassVar, Final

from inference_picker.chunks import chunked
from inference_picker.messages import (
    AnswerResponseBody,
    AnswerResponseHeaders,
    AnswerResponseTrailers,
    BodyMode,
    BodyOverride,
    Command,
    Ended,
    Event,
    FirstByte,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
    StreamResponseBody,
)
from inference_picker.request_side import WHOLE
from inference_picker.rewriting import NameRestorer
from inference_picker.tokens import TokenWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from inference_picker.books import Books

    Commands = tuple[Command, ...]
    Handler = Callable[["ResponseSide", Any, float], Commands]

_EVENT_STREAM: Final = "text/event-stream"
# Formats whose last byte is never the beginning of a name that is being looked for.
_TEXT: Final = ("application/json", _EVENT_STREAM)
_STATUS_DIGITS: Final = 3


class ResponseState(enum.Enum):
    """Where the response side stands."""

    IDLE = "no request yet"
    HEADERS = "awaits headers"
    BODY = "in the body"
    SENT = "sent"
    OVER = "over"


class ResponseSide:
    """Decides at the response headers how far the answer is followed, and follows it."""

    def __init__(self, books: Books) -> None:
        """Begin before the first message."""
        self.state = ResponseState.IDLE
        self.mode = BodyMode.NONE
        self._books = books
        self._body_comes = False
        self._saw_chunk = False
        self._restorer: NameRestorer | None = None

    def open(self, mode: BodyMode) -> None:
        """The request's headers are there; ``mode`` is how the gateway sends response bodies."""
        self.state = ResponseState.HEADERS
        self.mode = mode

    def close(self) -> Ended:
        """Take nothing more. Returns how an exchange ends whose stream closes here."""
        ended = Ended.NO_RESPONSE
        if self.state is ResponseState.BODY:
            ended = Ended.RESET if self._saw_chunk or self._body_comes else Ended.UNSEEN
        self.state = ResponseState.OVER
        return ended

    def _on_response_headers(self, event: ResponseHeaders, at: float) -> Commands:
        books = self._books
        books.status = _status(event.headers)
        books.served = event.served
        token = self._session_token()
        if event.end_of_stream:
            self.state = ResponseState.SENT
            answer = AnswerResponseHeaders(session_token=token)
            return (answer, *books.close(Ended.COMPLETE, at))
        self.state = ResponseState.BODY
        wanted = self._watch(event.headers)
        here = self.mode is not BodyMode.NONE
        # Asked for and not answered may mean that the gateway takes no override.
        books.body_asked = wanted or here
        self._body_comes = here and wanted
        override = None
        if wanted and not here:
            override = BodyOverride.STREAM
        elif here and not wanted and self.mode is not BodyMode.FULL_DUPLEX_STREAMED:
            override = BodyOverride.SKIP
        answer = AnswerResponseHeaders(
            override=override,
            remove_content_length=self._restorer is not None and self.mode not in WHOLE,
            session_token=token,
        )
        early = wanted or _content_type(event.headers) == _EVENT_STREAM
        return (answer,) if early else (answer, FirstByte())

    def _session_token(self) -> str | None:
        """The token by which the client comes back to the endpoint that serves."""
        books = self._books
        if books.pick is None or books.pick.session is None:
            return None
        served = books.served or books.pick.endpoints[0]
        return books.pick.session.answer(served, books.status)

    def _watch(self, headers: Mapping[str, str]) -> bool:
        """Prepare to read and rewrite the body as the pick wishes; whether there is need to."""
        pick = self._books.pick
        content_type = _content_type(headers)
        plain = headers.get("content-encoding", "identity") == "identity"
        if pick is None or not plain or content_type not in _TEXT:
            return False
        if not pick.rewrite_back and not pick.watch_body:
            return False
        if pick.rewrite_back:
            self._restorer = NameRestorer(target=pick.target, model=pick.model)
        self._books.watch = TokenWatch(streamed=content_type == _EVENT_STREAM)
        return True

    def _on_response_chunk(self, event: ResponseBody, at: float) -> Commands:
        first = not self._saw_chunk and bool(event.chunk) and self._books.watch is not None
        self._saw_chunk = self._saw_chunk or bool(event.chunk)
        if self._books.watch is not None:
            self._books.watch.feed(event.chunk, at)
        chunk: bytes | None = None
        if self._restorer is not None:
            # A buffered body is whole even where trailers end the stream.
            whole = event.end_of_stream or self.mode in WHOLE
            chunk = self._restorer.feed(event.chunk, last=whole)
        answers = self._answers(event, chunk)
        if first:
            answers = (*answers, FirstByte())
        if not event.end_of_stream:
            return answers
        self.state = ResponseState.SENT
        return (*answers, *self._books.close(Ended.COMPLETE, at))

    def _answers(self, event: ResponseBody, chunk: bytes | None) -> Commands:
        if self.mode is BodyMode.FULL_DUPLEX_STREAMED:
            sent = event.chunk if chunk is None else chunk
            if not sent and not event.end_of_stream:
                return ()
            return tuple(
                StreamResponseBody(chunk=piece, end_of_stream=last and event.end_of_stream)
                for piece, last in chunked(sent)
            )
        if chunk is None or chunk == event.chunk:
            return (AnswerResponseBody(),)
        length = len(chunk) if self.mode in WHOLE else None
        return (AnswerResponseBody(replacement=chunk, content_length=length),)

    def _on_response_trailers(self, _event: ResponseTrailers, at: float) -> Commands:
        held = b"" if self._restorer is None else self._restorer.feed(b"", last=True)
        self.state = ResponseState.SENT
        pieces: Commands = ()
        if held and self.mode is BodyMode.FULL_DUPLEX_STREAMED:
            pieces = (StreamResponseBody(chunk=held, end_of_stream=False),)
        return (*pieces, AnswerResponseTrailers(), *self._books.close(Ended.COMPLETE, at))

    def _on_late_trailers(self, _event: ResponseTrailers, _at: float) -> Commands:
        return (AnswerResponseTrailers(),)

    def _ignore(self, _event: Event, _at: float) -> Commands:
        return ()

    TABLE: ClassVar[dict[ResponseState, dict[type, Handler]]] = {
        ResponseState.IDLE: {},
        ResponseState.HEADERS: {ResponseHeaders: _on_response_headers},
        ResponseState.BODY: {
            ResponseBody: _on_response_chunk,
            ResponseTrailers: _on_response_trailers,
        },
        ResponseState.SENT: {
            ResponseBody: _ignore,
            ResponseTrailers: _on_late_trailers,
        },
        ResponseState.OVER: dict.fromkeys(
            (ResponseHeaders, ResponseBody, ResponseTrailers), _ignore
        ),
    }


def _status(headers: Mapping[str, str]) -> int | None:
    text = headers.get(":status", "")
    plain = text.isascii() and text.isdigit() and len(text) == _STATUS_DIGITS
    return int(text) if plain else None


def _content_type(headers: Mapping[str, str]) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()
