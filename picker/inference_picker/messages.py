"""What an exchange takes in (events) and gives out (commands).

Events are what Envoy sends, plus the two answers that the exchange asks its owner for. Commands
are messages for Envoy, questions to the owner (`PickEndpoint`, `ChooseTarget`) and the one
`Finish` that closes the books on a pick. Nothing here does I/O or knows protobuf.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from inference_picker.decisions import Decision
    from inference_picker.sessions import Session


class BodyMode(enum.IntEnum):
    """How Envoy sends bodies: ext_proc's ProcessingMode.BodySendMode, same numbers."""

    NONE = 0
    STREAMED = 1
    BUFFERED = 2
    BUFFERED_PARTIAL = 3
    FULL_DUPLEX_STREAMED = 4
    GRPC = 5


class BodyOverride(enum.Enum):
    """What is asked for instead of the gateway's response body mode, for one answer."""

    STREAM = "every chunk"
    SKIP = "none of it"


class Sample(enum.StrEnum):
    """Which comparison a request belongs to: the label ``sample`` of every request series."""

    CANARY = "canary"
    CONTROL = "control"
    """The stable version's counterpart of the canary: as many requests on as many pods."""
    UNMATCHED = "control-unmatched"
    """As many requests, but on other pods than are comparable: their times to first token are
    biased, their errors are not."""
    BACKGROUND = "background"


class Phase(enum.StrEnum):
    """Whether the endpoint had been at work for a while when it was chosen."""

    WARM = "warm"
    WARMUP = "warmup"


class Reason(enum.StrEnum):
    """Why a request was refused: the closed list used in headers, metrics and logs alike."""

    MALFORMED_BODY = "rejected-malformed-body"
    NO_MODEL = "rejected-no-model"
    NO_TARGET = "rejected-no-target"
    BODY_TOO_LARGE = "rejected-body-too-large"
    NO_ENDPOINTS = "rejected-no-endpoints"
    INTERNAL = "rejected-internal-error"
    SATURATED = "rejected-saturated"
    QUEUE_FULL = "rejected-queue-full"
    TTL_EXPIRED = "rejected-ttl-expired"


class Ended(enum.StrEnum):
    """How an exchange with a pick came to its end."""

    COMPLETE = "complete"
    """The last byte of the response, or its trailers, passed."""
    NO_RESPONSE = "no-response"
    """The stream closed before response headers: as a rule the client left."""
    RESET = "reset"
    """The stream closed within a response body that was being watched."""
    UNSEEN = "unseen"
    """The stream closed after the response headers and no chunk was seen. Where the body was
    not asked for, Envoy closes at the true end, whether or not the response broke there."""
    UNFOLLOWED = "unfollowed"
    """The picker left the exchange after the request: the response was not to be looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """The ``usage`` of an answer, in tokens."""

    prompt: int = 0
    output: int = 0
    cached: int = 0
    """Of the prompt, those that came from the server's cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenTimes:
    """What a watched answer told about its tokens."""

    gaps_s: tuple[tuple[float, int], ...] = ()
    """Seconds from one event of a stream to the next, each with how often."""
    per_token_s: float | None = None
    """Seconds per output token after the first."""
    usage: Usage | None = None
    malformed: bool = False
    """Whether the body is no answer of a model server."""


# --- events: what Envoy sends -------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHeaders:
    """The first message of each exchange. Header names are lower case."""

    headers: Mapping[str, str]
    end_of_stream: bool = False
    subset: tuple[str, ...] | None = None
    request_body_mode: BodyMode = BodyMode.BUFFERED
    response_body_mode: BodyMode = BodyMode.NONE
    body_follows_unasked: bool = False
    """protocol_config.send_body_without_waiting_for_header_response."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestBody:
    """A chunk of the request body, or all of it in a BUFFERED mode."""

    chunk: bytes
    end_of_stream: bool = False
    subset: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestTrailers:
    """The request's trailers: its body is complete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseHeaders:
    """The response's head. ``served`` is the endpoint that answered, where Envoy tells it."""

    headers: Mapping[str, str]
    end_of_stream: bool = False
    served: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseBody:
    """A chunk of the response body, or all of it in a BUFFERED mode."""

    chunk: bytes
    end_of_stream: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseTrailers:
    """The response's trailers, where there are any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamClosed:
    """The gRPC stream is over, whoever ended it. Legal in every state."""


# --- events: what the owner answers -------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """The endpoints for one request, best first, and the model name to send there."""

    endpoints: tuple[str, ...]
    model: str = ""
    target: str = ""
    version: str = ""
    sample: Sample = Sample.BACKGROUND
    phase: Phase = Phase.WARM
    bucket: str = ""
    """0 to 63 where the version was drawn by a sticky key, else empty."""
    prompt_bytes: int = 0
    """Length of the prompt's text, to learn from the server's own count of its tokens."""
    decision: Decision | None = None
    """How the endpoint was chosen, where the question asked to explain."""
    rewrite_back: bool = False
    """Whether the response must name ``model`` where the server wrote ``target``."""
    watch_body: bool = False
    """Whether the response body is watched for its tokens."""
    session: Session | None = None
    """The request's session, where the answer may have to name its endpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picked:
    """Answer to `PickEndpoint`: here is one. It is counted as in flight from now on."""

    pick: Pick


@dataclass(frozen=True, slots=True, kw_only=True)
class Retargeted:
    """Answer to `ChooseTarget`: the same pick, with model and target filled in."""

    pick: Pick


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Answer to either question: there is none."""

    status: int
    reason: Reason
    message: str
    retry_after_s: float | None = None
    """When another try is worth it, for the header Retry-After."""


RequestEvent = RequestHeaders | RequestBody | RequestTrailers | Picked | Retargeted | Refused
ResponseEvent = ResponseHeaders | ResponseBody | ResponseTrailers
Event = RequestEvent | ResponseEvent | StreamClosed


# --- commands -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PickEndpoint:
    """Ask the owner for endpoints; answer with `Picked` or `Refused`."""

    model: str | None
    """None where the endpoint must be chosen before a body is there, or there is none."""
    headers: Mapping[str, str]
    subset: tuple[str, ...] | None = None
    content: Mapping[str, Any] | None = None
    """The parsed body, where there is one."""
    body: bytes = b""
    explain: bool = False
    """Whether the answer shall tell what was considered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChooseTarget:
    """Ask the owner which model name to send to an endpoint that is chosen already."""

    model: str
    pick: Pick


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where the request goes: header and dynamic metadata of the same value."""

    destination: str
    content_length: int | None = None
    remove_headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRequestHeaders:
    """Let the request's head pass, with a route once there is one."""

    route: Route | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRequestBody:
    """Let the body pass; ``replacement`` is the new one, empty to take a chunk away."""

    route: Route | None = None
    replacement: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRequestBody:
    """One piece of the request body of FULL_DUPLEX_STREAMED."""

    chunk: bytes
    end_of_stream: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRequestTrailers:
    """Let the request's trailers pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerResponseHeaders:
    """Let the response's head pass, and say whether Envoy shall send its body."""

    override: BodyOverride | None = None
    remove_content_length: bool = False
    session_token: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerResponseBody:
    """Let a response chunk pass, or replace it."""

    replacement: bytes | None = None
    content_length: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamResponseBody:
    """One piece of the response body of FULL_DUPLEX_STREAMED."""

    chunk: bytes
    end_of_stream: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerResponseTrailers:
    """Let the response's trailers pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """Answer the client in the server's place."""

    status: int
    reason: Reason
    message: str
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EndStream:
    """Leave the exchange: the gateway goes on without the picker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstByte:
    """The server has computed the prompt.

    The first byte of the answer's body is there, or its headers where the body is not watched and
    is no event stream, whose headers may come before.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """The end of a pick, once for each: release it and record what was seen.

    Times are seconds since the request's head came in; None where it was not seen.
    """

    pick: Pick
    ended: Ended
    duration_s: float
    status: int | None = None
    served: str | None = None
    first_token_s: float | None = None
    body_asked: bool = False
    """Whether Envoy was to send the response body."""
    tokens: TokenTimes | None = None
    """What the watched body told, where it was watched."""


Command = (
    PickEndpoint
    | ChooseTarget
    | AnswerRequestHeaders
    | AnswerRequestBody
    | StreamRequestBody
    | AnswerRequestTrailers
    | AnswerResponseHeaders
    | AnswerResponseBody
    | StreamResponseBody
    | AnswerResponseTrailers
    | Reject
    | EndStream
    | FirstByte
    | Finish
)
