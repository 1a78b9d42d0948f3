"""One ext_proc exchange without I/O: events in, commands out.

An exchange is one HTTP request on one gRPC stream. House rules:

1. Request side and response side each have a state; `RequestSide.TABLE` and `ResponseSide.TABLE`
   say which event is legal in which state and which method handles it. Nothing else decides that.
2. An illegal event raises PeerProtocolError and changes nothing.
3. The exchange asks (`PickEndpoint`, `ChooseTarget`) and its owner answers with an event.
4. Once a pick was made, exactly one `Finish` follows, at the latest on `StreamClosed`.
5. The exchange never ends a stream between the response's headers and its end: Envoy loses a
   chunk then. Where it leaves (`EndStream`), its last answer and the end must go out as one.
6. What is held in memory is bounded by ``max_body_bytes``.

How far the answer is followed is the pick's wish (``watch_body``, ``rewrite_back``) within what
the gateway's response body mode allows:

=====================  ============================  ==========================================
response body mode     wanted                        not wanted
=====================  ============================  ==========================================
NONE                   mode_override STREAMED        status and end
STREAMED, BUFFERED     every chunk                   mode_override NONE, else every chunk passes
FULL_DUPLEX_STREAMED   every chunk is sent back      the stream ends with the request's answer
=====================  ============================  ==========================================

Source: envoy/service/ext_proc/v3 and the endpoint picker protocol (proposal 004 of the Gateway
API Inference Extension).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from inference_picker.books import Books
from inference_picker.errors import PeerProtocolError
from inference_picker.messages import (
    EndStream,
    Event,
    RequestHeaders,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
    StreamClosed,
)
from inference_picker.request_side import RequestSide, RequestState
from inference_picker.response_side import ResponseSide, ResponseState

if TYPE_CHECKING:
    from inference_picker.messages import Command

    Commands = tuple[Command, ...]

DEFAULT_MAX_BODY_BYTES: Final = 10 * 1024 * 1024

_RESPONSE_EVENTS: Final = frozenset({ResponseHeaders, ResponseBody, ResponseTrailers})


class Exchange:
    """The state machine of one exchange. ``at`` is a monotonic clock's reading in seconds."""

    def __init__(
        self, *, max_body_bytes: int = DEFAULT_MAX_BODY_BYTES, leaves: bool = False
    ) -> None:
        """``leaves``: the owner can send an answer and the end of the stream as one."""
        self._books = Books()
        self._leaves = leaves
        self._request = RequestSide(self._books, max_body_bytes=max_body_bytes, leaves=leaves)
        self._response = ResponseSide(self._books)

    @property
    def request_state(self) -> RequestState:
        """Where the request side stands."""
        return self._request.state

    @property
    def response_state(self) -> ResponseState:
        """Where the response side stands."""
        return self._response.state

    def receive(self, event: Event, *, at: float) -> Commands:
        """What to do about the event, in order.

        Raises PeerProtocolError for an event that is illegal now; the state is unchanged then.
        """
        if isinstance(event, StreamClosed):
            return self._closed(at)
        kind = type(event)
        commands: Commands | None = None
        if kind in _RESPONSE_EVENTS:
            on_response = ResponseSide.TABLE[self._response.state].get(kind)
            if on_response is not None:
                commands = on_response(self._response, event, at)
        else:
            on_request = RequestSide.TABLE[self._request.state].get(kind)
            if on_request is not None:
                if isinstance(event, RequestHeaders) and self._response.state is ResponseState.IDLE:
                    self._response.open(event.response_body_mode)
                commands = on_request(self._request, event, at)
        if commands is None:
            raise PeerProtocolError(
                f"{kind.__name__} is illegal while the request {self._request.state.value} and "
                f"the response side: {self._response.state.value}. Check the processing mode of "
                "the gateway's ext_proc filter: request and response headers must be sent."
            )
        if self._books.over:
            self._request.close()
            self._response.close()
        if self._leaves and self._is_answered:
            # Nothing can follow: the end goes out with the last answer.
            return (*commands, EndStream())
        return commands

    @property
    def _is_answered(self) -> bool:
        over = self._books.over and self.request_state is RequestState.OVER
        return over or self.response_state is ResponseState.SENT

    def _closed(self, at: float) -> Commands:
        self._request.close()
        return self._books.close(self._response.close(), at)
