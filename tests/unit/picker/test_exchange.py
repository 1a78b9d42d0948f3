"""The ext_proc exchange: what each mode of the gateway gets, message by message."""

import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_picker.chunks import CHUNK_LIMIT
from inference_picker.errors import PeerProtocolError
from inference_picker.exchange import Exchange
from inference_picker.messages import (
    AnswerRequestBody,
    AnswerRequestHeaders,
    AnswerRequestTrailers,
    AnswerResponseBody,
    AnswerResponseHeaders,
    AnswerResponseTrailers,
    BodyMode,
    BodyOverride,
    ChooseTarget,
    Command,
    Ended,
    EndStream,
    Event,
    Finish,
    FirstByte,
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
from inference_picker.request_side import RequestSide, RequestState
from inference_picker.response_side import ResponseSide, ResponseState

BODY = b'{"messages":[],"model":"chat"}'
REWRITTEN = b'{"messages":[],"model":"chat-v1"}'
OK = {":status": "200", "content-type": "text/event-stream"}
EVENT = b'data: {"model":"chat-v1"}\n\n'
RESTORED = b'data: {"model":"chat"}\n\n'
DESTINATION = "10.0.0.1:8000"


@dataclass
class Owner:
    """Answers the exchange's questions; the clock moves by one second with each event."""

    exchange: Exchange = field(default_factory=Exchange)
    refusal: Refused | None = None
    target: str = "chat-v1"
    rewrite_back: bool = True
    watch_body: bool = True
    now: float = 100.0
    questions: list[PickEndpoint | ChooseTarget] = field(default_factory=list)
    finishes: list[Finish] = field(default_factory=list)
    first_bytes: int = 0

    def take(self, event: Event) -> list[Command]:
        """What goes to Envoy because of the event."""
        sent: list[Command] = []
        events: list[Event] = [event]
        while events:
            commands = self.exchange.receive(events.pop(), at=self.now)
            for command in commands:
                if isinstance(command, PickEndpoint | ChooseTarget):
                    self.questions.append(command)
                    events.append(self._answer(command))
                elif isinstance(command, FirstByte):
                    self.first_bytes += 1
                elif isinstance(command, Finish):
                    self.finishes.append(command)
                else:
                    sent.append(command)
        self.now += 1
        return sent

    def take_all(self, events: Iterable[Event]) -> list[Command]:
        return [command for event in events for command in self.take(event)]

    def _answer(self, question: PickEndpoint | ChooseTarget) -> Event:
        if self.refusal is not None:
            return self.refusal
        pick = Pick(
            endpoints=(DESTINATION,),
            model=question.model or "",
            target=self.target if question.model else "",
            rewrite_back=self.rewrite_back and question.model is not None,
            watch_body=self.watch_body,
        )
        return Picked(pick=pick) if isinstance(question, PickEndpoint) else Retargeted(pick=pick)


def head(
    request: BodyMode = BodyMode.BUFFERED,
    response: BodyMode = BodyMode.NONE,
    **fields: object,
) -> RequestHeaders:
    return RequestHeaders(
        request_body_mode=request,
        response_body_mode=response,
        **{"headers": {":method": "POST"}, **fields},  # type: ignore[arg-type]
    )


def forwarded(owner: Owner | None = None, response: BodyMode = BodyMode.NONE) -> Owner:
    """An exchange whose request is on its way to the server."""
    found = owner or Owner()
    found.take(head(response=response))
    found.take(RequestBody(chunk=BODY, end_of_stream=True))
    return found


def request_bytes(commands: Iterable[Command]) -> bytes:
    sent = b""
    for command in commands:
        match command:
            case StreamRequestBody():
                sent += command.chunk
            case AnswerRequestBody():
                assert command.replacement is not None
                sent += command.replacement
            case _:
                pass
    return sent


# --- the request in each body mode ------------------------------------------------------------


def test_a_buffered_request_is_picked_at_its_body() -> None:
    owner = Owner()

    assert owner.take(head()) == [AnswerRequestHeaders()]
    assert owner.take(RequestBody(chunk=BODY, end_of_stream=True)) == [
        AnswerRequestBody(
            route=Route(
                destination=DESTINATION,
                content_length=len(REWRITTEN),
                remove_headers=("accept-encoding",),
            ),
            replacement=REWRITTEN,
        )
    ]
    assert owner.questions == [
        PickEndpoint(
            model="chat",
            headers={":method": "POST"},
            content={"messages": [], "model": "chat"},
            body=BODY,
        )
    ]


def test_a_body_whose_model_stays_is_not_replaced() -> None:
    owner = Owner(target="chat", rewrite_back=False)
    owner.take(head())

    assert owner.take(RequestBody(chunk=BODY, end_of_stream=True)) == [
        AnswerRequestBody(route=Route(destination=DESTINATION))
    ]


def test_a_buffered_body_before_trailers_is_whole() -> None:
    owner = Owner()
    owner.take(head())

    assert request_bytes(owner.take(RequestBody(chunk=BODY))) == REWRITTEN
    assert owner.take(RequestTrailers()) == [AnswerRequestTrailers()]


@pytest.mark.parametrize("mode", list(BodyMode), ids=lambda mode: mode.name)
def test_a_request_without_body_is_picked_at_its_headers(mode: BodyMode) -> None:
    owner = Owner()

    assert owner.take(head(mode, end_of_stream=True, headers={":method": "GET"})) == [
        AnswerRequestHeaders(route=Route(destination=DESTINATION))
    ]
    assert owner.questions == [PickEndpoint(model=None, headers={":method": "GET"})]


def test_a_full_duplex_request_is_answered_in_order_once_its_body_is_there() -> None:
    owner = Owner()
    mode = BodyMode.FULL_DUPLEX_STREAMED

    assert owner.take(head(mode, mode)) == []
    assert owner.take(RequestBody(chunk=BODY[:5])) == []
    sent = owner.take(RequestBody(chunk=BODY[5:], end_of_stream=True))

    assert sent == [
        AnswerRequestHeaders(
            route=Route(
                destination=DESTINATION,
                content_length=len(REWRITTEN),
                remove_headers=("accept-encoding",),
            )
        ),
        StreamRequestBody(chunk=REWRITTEN, end_of_stream=True),
    ]


def test_a_full_duplex_body_goes_back_in_chunks_of_at_most_62_kb() -> None:
    owner = Owner(target="chat", rewrite_back=False)
    text = json.dumps({"model": "chat", "prompt": "x" * 200_000}).encode()
    owner.take(head(BodyMode.FULL_DUPLEX_STREAMED, BodyMode.FULL_DUPLEX_STREAMED))

    chunks = owner.take(RequestBody(chunk=text, end_of_stream=True))[1:]

    assert request_bytes(chunks) == text
    assert all(isinstance(each, StreamRequestBody) for each in chunks)
    sizes = [len(each.chunk) for each in chunks if isinstance(each, StreamRequestBody)]
    assert max(sizes) <= CHUNK_LIMIT == 62_000
    ends = [each.end_of_stream for each in chunks if isinstance(each, StreamRequestBody)]
    assert ends == [False] * (len(chunks) - 1) + [True]


def test_full_duplex_trailers_end_the_body_and_come_last() -> None:
    owner = Owner()
    owner.take(head(BodyMode.FULL_DUPLEX_STREAMED))
    owner.take(RequestBody(chunk=BODY))

    sent = owner.take(RequestTrailers())

    assert [type(each) for each in sent] == [
        AnswerRequestHeaders,
        StreamRequestBody,
        AnswerRequestTrailers,
    ]
    assert sent[1] == StreamRequestBody(chunk=REWRITTEN, end_of_stream=False)


@pytest.mark.parametrize("mode", [BodyMode.FULL_DUPLEX_STREAMED, BodyMode.BUFFERED])
def test_an_end_of_stream_that_comes_twice_is_ignored(mode: BodyMode) -> None:
    # envoy #46237: the last message of large bodies may be delivered twice.
    owner = Owner()
    owner.take(head(mode))
    last = RequestBody(chunk=BODY, end_of_stream=True)
    owner.take(last)

    assert owner.take(last) == []
    assert len(owner.questions) == 1


def test_a_streamed_request_is_picked_at_its_headers_and_its_model_replaced_at_the_end() -> None:
    owner = Owner()

    assert owner.take(head(BodyMode.STREAMED)) == [
        AnswerRequestHeaders(route=Route(destination=DESTINATION))
    ]
    assert owner.take(RequestBody(chunk=BODY[:9])) == [AnswerRequestBody(replacement=b"")]
    assert owner.take(RequestBody(chunk=BODY[9:], end_of_stream=True)) == [
        AnswerRequestBody(replacement=REWRITTEN)
    ]
    assert isinstance(owner.questions[1], ChooseTarget)


def test_a_streamed_request_that_comes_unasked_is_picked_by_its_model() -> None:
    owner = Owner()

    assert owner.take(head(BodyMode.STREAMED, body_follows_unasked=True)) == []
    assert owner.take(RequestBody(chunk=BODY[:9])) == []
    sent = owner.take(RequestBody(chunk=BODY[9:], end_of_stream=True))

    # One answer for the head and one for each chunk, or Envoy would wait for the missing one.
    assert [type(each) for each in sent] == [
        AnswerRequestHeaders,
        AnswerRequestBody,
        AnswerRequestBody,
    ]
    assert request_bytes(sent) == REWRITTEN


@given(
    st.lists(st.integers(0, len(BODY)), max_size=6),
    st.sampled_from([BodyMode.STREAMED, BodyMode.FULL_DUPLEX_STREAMED]),
    st.booleans(),
)
def test_however_a_body_is_split_the_same_bytes_and_questions_come_out(
    cuts: list[int], mode: BodyMode, unasked: bool
) -> None:
    bounds = [0, *sorted(cuts), len(BODY)]
    chunks = [BODY[a:b] for a, b in itertools.pairwise(bounds)]
    owner = Owner()
    events: list[Event] = [head(mode, body_follows_unasked=unasked)]
    events += [
        RequestBody(chunk=chunk, end_of_stream=index == len(chunks) - 1)
        for index, chunk in enumerate(chunks)
    ]

    sent = owner.take_all(events)

    assert request_bytes(sent) == REWRITTEN
    assert owner.questions[-1].model == "chat"
    if mode is BodyMode.STREAMED:
        assert len(sent) == len(events)


def test_the_subset_hint_of_the_body_message_replaces_that_of_the_head() -> None:
    owner = Owner()
    owner.take(head(subset=("a",)))
    owner.take(RequestBody(chunk=BODY, end_of_stream=True, subset=("b",)))

    question = owner.questions[0]
    assert isinstance(question, PickEndpoint)
    assert question.subset == ("b",)


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        pytest.param(b"{", 400, Reason.MALFORMED_BODY, id="no-json"),
        pytest.param(b"[]", 400, Reason.MALFORMED_BODY, id="no-object"),
        pytest.param(b"{}", 400, Reason.NO_MODEL, id="no-model"),
        pytest.param(b"x" * 101, 413, Reason.BODY_TOO_LARGE, id="too-large"),
    ],
)
@pytest.mark.parametrize(
    "mode", [BodyMode.BUFFERED, BodyMode.STREAMED, BodyMode.FULL_DUPLEX_STREAMED]
)
def test_a_bad_body_is_refused_in_every_mode(
    body: bytes, status: int, reason: Reason, mode: BodyMode
) -> None:
    owner = Owner(exchange=Exchange(max_body_bytes=100))
    owner.take(head(mode))

    sent = owner.take(RequestBody(chunk=body, end_of_stream=True))

    assert [(each.status, each.reason) for each in sent if isinstance(each, Reject)] == [
        (status, reason)
    ]
    assert len(sent) == 1


def test_a_declared_length_above_the_limit_is_refused_before_the_body_comes() -> None:
    owner = Owner(exchange=Exchange(max_body_bytes=100))

    (sent,) = owner.take(head(headers={"content-length": "101"}))

    assert isinstance(sent, Reject)
    assert (sent.status, sent.reason) == (413, Reason.BODY_TOO_LARGE)


def test_chunks_are_not_gathered_beyond_the_limit() -> None:
    owner = Owner(exchange=Exchange(max_body_bytes=100))
    owner.take(head(BodyMode.FULL_DUPLEX_STREAMED))
    sent = owner.take_all(RequestBody(chunk=b"x" * 30) for _ in range(10))

    assert len(sent) == 1
    assert isinstance(sent[0], Reject)


def test_a_partial_buffer_that_is_full_is_too_large() -> None:
    owner = Owner()
    owner.take(head(BodyMode.BUFFERED_PARTIAL))

    (sent,) = owner.take(RequestBody(chunk=BODY))

    assert isinstance(sent, Reject)
    assert sent.reason is Reason.BODY_TOO_LARGE


def test_the_owners_refusal_reaches_the_client_and_leaves_nothing_to_finish() -> None:
    refusal = Refused(status=503, reason=Reason.NO_ENDPOINTS, message="none")
    owner = forwarded(Owner(refusal=refusal))

    assert owner.take(RequestBody(chunk=b"late")) == []
    assert owner.take(StreamClosed()) == []
    assert owner.finishes == []


def test_a_refusal_after_the_pick_finishes_it() -> None:
    owner = Owner()
    owner.take(head(BodyMode.STREAMED))
    owner.take(RequestBody(chunk=b"{}", end_of_stream=True))
    owner.take(StreamClosed())

    assert [(each.ended, each.status) for each in owner.finishes] == [(Ended.NO_RESPONSE, 400)]


# --- the response -----------------------------------------------------------------------------


def test_a_response_that_nobody_must_see_passes_and_ends_with_the_stream() -> None:
    owner = forwarded(Owner(target="chat", rewrite_back=False, watch_body=False))

    assert owner.take(ResponseHeaders(headers=OK)) == [AnswerResponseHeaders()]
    assert owner.take(StreamClosed()) == []
    (finish,) = owner.finishes
    assert (finish.ended, finish.status, finish.body_asked) == (Ended.UNSEEN, 200, False)
    # Events come a second apart: head, body, response head, end.
    assert (finish.duration_s, finish.first_token_s) == (3.0, None)


def test_the_body_is_asked_for_where_the_name_must_be_written_back() -> None:
    owner = forwarded(Owner(watch_body=False))

    assert owner.take(ResponseHeaders(headers=OK)) == [
        AnswerResponseHeaders(override=BodyOverride.STREAM, remove_content_length=True)
    ]
    assert owner.take(ResponseBody(chunk=EVENT[:15])) == [AnswerResponseBody(replacement=EVENT[:7])]
    assert owner.take(ResponseBody(chunk=EVENT[15:])) == [
        AnswerResponseBody(replacement=RESTORED[7:])
    ]
    assert owner.take(ResponseBody(chunk=b"", end_of_stream=True)) == [AnswerResponseBody()]
    (finish,) = owner.finishes
    assert (finish.ended, finish.first_token_s, finish.duration_s) == (Ended.COMPLETE, 3.0, 5.0)


def test_the_body_is_asked_for_where_the_first_token_is_watched() -> None:
    owner = forwarded(Owner(target="chat", rewrite_back=False))

    assert owner.take(ResponseHeaders(headers=OK)) == [
        AnswerResponseHeaders(override=BodyOverride.STREAM)
    ]
    assert owner.take(ResponseBody(chunk=EVENT)) == [AnswerResponseBody()]


@pytest.mark.parametrize("mode", [BodyMode.STREAMED, BodyMode.BUFFERED])
def test_a_body_that_nobody_must_see_is_declined_where_the_gateway_would_send_it(
    mode: BodyMode,
) -> None:
    owner = forwarded(Owner(target="chat", rewrite_back=False, watch_body=False), response=mode)

    assert owner.take(ResponseHeaders(headers=OK)) == [
        AnswerResponseHeaders(override=BodyOverride.SKIP)
    ]
    # A gateway that takes no override sends it all the same.
    assert owner.take(ResponseBody(chunk=EVENT)) == [AnswerResponseBody()]
    owner.take(ResponseBody(chunk=b"", end_of_stream=True))
    assert owner.finishes[0].ended is Ended.COMPLETE
    assert owner.finishes[0].tokens is None


def leaving(**fields: object) -> Owner:
    fields = {"target": "chat", "rewrite_back": False, "watch_body": False, **fields}
    return Owner(exchange=Exchange(leaves=True), **fields)  # type: ignore[arg-type]


FULL_DUPLEX = head(BodyMode.FULL_DUPLEX_STREAMED, BodyMode.FULL_DUPLEX_STREAMED)


def test_an_answer_that_nobody_must_see_is_left_with_the_requests_last_piece() -> None:
    owner = leaving()
    owner.take(FULL_DUPLEX)

    sent = owner.take(RequestBody(chunk=BODY, end_of_stream=True))

    assert sent[1:] == [StreamRequestBody(chunk=BODY, end_of_stream=True), EndStream()]
    assert [finish.ended for finish in owner.finishes] == [Ended.UNFOLLOWED]
    assert owner.take(StreamClosed()) == []
    assert len(owner.finishes) == 1


def test_without_the_means_to_leave_safely_every_chunk_is_sent_back() -> None:
    owner = Owner(target="chat", rewrite_back=False, watch_body=False)
    owner.take(FULL_DUPLEX)

    assert EndStream() not in owner.take(RequestBody(chunk=BODY, end_of_stream=True))
    owner.take(ResponseHeaders(headers=OK))
    assert owner.take(ResponseBody(chunk=EVENT)) == [
        StreamResponseBody(chunk=EVENT, end_of_stream=False)
    ]


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"watch_body": True}, id="sampled"),
        pytest.param({"rewrite_back": True, "target": "chat-v1"}, id="rewritten"),
    ],
)
def test_what_must_be_seen_is_left_only_at_the_answers_end(fields: dict[str, object]) -> None:
    owner = leaving(**fields)
    owner.take(FULL_DUPLEX)

    assert EndStream() not in owner.take(RequestBody(chunk=BODY, end_of_stream=True))
    assert EndStream() not in owner.take(ResponseHeaders(headers=OK))
    assert EndStream() not in owner.take(ResponseBody(chunk=EVENT))
    assert owner.take(ResponseBody(chunk=b"", end_of_stream=True))[-1] == EndStream()
    assert owner.finishes[0].ended is Ended.COMPLETE
    assert owner.finishes[0].tokens is not None


def test_a_refusal_ends_the_stream_where_that_is_safe() -> None:
    owner = leaving(refusal=Refused(status=503, reason=Reason.NO_ENDPOINTS, message="none"))
    owner.take(FULL_DUPLEX)

    sent = owner.take(RequestBody(chunk=BODY, end_of_stream=True))

    assert [type(command) for command in sent] == [Reject, EndStream]


def test_an_answer_in_one_piece_has_no_first_token() -> None:
    owner = forwarded()
    json_head = {":status": "200", "content-type": "application/json; charset=utf-8"}
    owner.take(ResponseHeaders(headers=json_head))

    sent = owner.take(ResponseBody(chunk=b'{"model":"chat-v1"}', end_of_stream=True))

    assert sent == [AnswerResponseBody(replacement=b'{"model":"chat"}')]
    assert owner.finishes[0].first_token_s is None


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({**OK, "content-encoding": "gzip"}, id="compressed"),
        pytest.param({":status": "200", "content-type": "audio/mpeg"}, id="no-json"),
        pytest.param({":status": "200"}, id="unknown-format"),
    ],
)
def test_what_is_no_plain_json_is_not_searched_for_names(headers: dict[str, str]) -> None:
    owner = forwarded(Owner(watch_body=False))

    assert owner.take(ResponseHeaders(headers=headers)) == [AnswerResponseHeaders()]


def test_a_full_duplex_response_is_echoed_with_the_name_written_back() -> None:
    owner = forwarded(response=BodyMode.FULL_DUPLEX_STREAMED)

    assert owner.take(ResponseHeaders(headers=OK)) == [
        AnswerResponseHeaders(remove_content_length=True)
    ]
    assert owner.take(ResponseBody(chunk=EVENT[:15])) == [
        StreamResponseBody(chunk=EVENT[:7], end_of_stream=False)
    ]
    assert owner.take(ResponseBody(chunk=EVENT[15:], end_of_stream=True)) == [
        StreamResponseBody(chunk=RESTORED[7:], end_of_stream=True)
    ]


def test_full_duplex_trailers_flush_what_was_held_back() -> None:
    owner = forwarded(response=BodyMode.FULL_DUPLEX_STREAMED)
    owner.take(ResponseHeaders(headers=OK))
    owner.take(ResponseBody(chunk=b'x"mod'))

    assert owner.take(ResponseTrailers()) == [
        StreamResponseBody(chunk=b'"mod', end_of_stream=False),
        AnswerResponseTrailers(),
    ]


def test_a_buffered_response_gets_its_new_length() -> None:
    owner = forwarded(response=BodyMode.BUFFERED)
    owner.take(ResponseHeaders(headers=OK))

    assert owner.take(ResponseBody(chunk=EVENT, end_of_stream=True)) == [
        AnswerResponseBody(replacement=RESTORED, content_length=len(RESTORED))
    ]


@given(st.lists(st.integers(0, 2 * len(EVENT)), max_size=6), st.sampled_from([0, 1, 4]))
def test_however_a_response_is_split_the_client_gets_the_same_bytes(
    cuts: list[int], mode_number: int
) -> None:
    mode = BodyMode(mode_number)
    owner = forwarded(response=mode)
    owner.take(ResponseHeaders(headers=OK))
    whole = EVENT + EVENT
    bounds = [0, *sorted(cuts), len(whole)]
    chunks = [whole[a:b] for a, b in itertools.pairwise(bounds)]
    received = b""

    for index, chunk in enumerate(chunks):
        last = index == len(chunks) - 1
        for sent in owner.take(ResponseBody(chunk=chunk, end_of_stream=last)):
            if isinstance(sent, StreamResponseBody):
                received += sent.chunk
            elif isinstance(sent, AnswerResponseBody):
                received += chunk if sent.replacement is None else sent.replacement

    assert received == RESTORED + RESTORED
    assert [each.ended for each in owner.finishes] == [Ended.COMPLETE]


def test_a_response_without_body_is_complete_at_its_head() -> None:
    owner = forwarded()
    owner.take(ResponseHeaders(headers={":status": "204"}, end_of_stream=True))

    assert [(each.ended, each.status) for each in owner.finishes] == [(Ended.COMPLETE, 204)]


def test_the_endpoint_that_served_is_reported() -> None:
    owner = forwarded()
    owner.take(ResponseHeaders(headers=OK, served="10.0.0.9:8000"))
    owner.take(StreamClosed())

    assert owner.finishes[0].served == "10.0.0.9:8000"


@pytest.mark.parametrize(
    ("events", "ended"),
    [
        pytest.param([], Ended.NO_RESPONSE, id="before-the-response"),
        pytest.param([ResponseHeaders(headers=OK)], Ended.UNSEEN, id="after-its-head"),
        pytest.param(
            [ResponseHeaders(headers=OK), ResponseBody(chunk=EVENT)], Ended.RESET, id="inside-it"
        ),
        pytest.param(
            [ResponseHeaders(headers=OK), ResponseBody(chunk=EVENT, end_of_stream=True)],
            Ended.COMPLETE,
            id="after-its-last-byte",
        ),
        pytest.param(
            [ResponseHeaders(headers=OK), ResponseBody(chunk=EVENT), ResponseTrailers()],
            Ended.COMPLETE,
            id="after-its-trailers",
        ),
    ],
)
def test_the_end_of_the_stream_says_how_the_request_ended(
    events: list[Event], ended: Ended
) -> None:
    owner = forwarded()
    owner.take_all(events)
    owner.take_all([StreamClosed(), StreamClosed()])

    assert [each.ended for each in owner.finishes] == [ended]


def test_a_broken_head_is_a_reset_where_bodies_always_come() -> None:
    owner = forwarded(response=BodyMode.STREAMED)
    owner.take(ResponseHeaders(headers=OK))
    owner.take(StreamClosed())

    assert owner.finishes[0].ended is Ended.RESET


def test_a_local_reply_of_the_gateway_passes_without_a_pick() -> None:
    owner = Owner()
    owner.take(head())

    assert owner.take(ResponseHeaders(headers={":status": "413"})) == [AnswerResponseHeaders()]
    owner.take(StreamClosed())
    assert owner.finishes == []


# --- whatever comes -----------------------------------------------------------------------------

modes = st.sampled_from(list(BodyMode))
some_bytes = st.sampled_from([b"", BODY, BODY[:9], BODY[9:], b"{}", b"\xff", EVENT, b'"mod'])
events = st.one_of(
    st.builds(
        RequestHeaders,
        headers=st.sampled_from(
            [{}, {"content-length": "9"}, {"content-length": "9" * 30}, {"content-length": "²"}]
        ),
        end_of_stream=st.booleans(),
        request_body_mode=modes,
        response_body_mode=modes,
        body_follows_unasked=st.booleans(),
    ),
    st.builds(RequestBody, chunk=some_bytes, end_of_stream=st.booleans()),
    st.just(RequestTrailers()),
    st.builds(
        ResponseHeaders,
        headers=st.sampled_from([OK, {}, {":status": "x"}, {":status": "503"}]),
        end_of_stream=st.booleans(),
    ),
    st.builds(ResponseBody, chunk=some_bytes, end_of_stream=st.booleans()),
    st.just(ResponseTrailers()),
    st.just(StreamClosed()),
)


def state_of(exchange: Exchange) -> dict[str, object]:
    """A copy of what an exchange remembers."""
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in vars(exchange).items()
    }


@given(st.lists(events, max_size=12), st.booleans(), st.booleans())
def test_each_pick_is_finished_exactly_once_whatever_comes_in_whatever_order(
    sequence: list[Event], rewrite_back: bool, refuse: bool
) -> None:
    refusal = Refused(status=503, reason=Reason.NO_ENDPOINTS, message="none") if refuse else None
    owner = Owner(rewrite_back=rewrite_back, refusal=refusal)
    for event in sequence:
        before = state_of(owner.exchange)
        try:
            owner.take(event)
        except PeerProtocolError:
            assert state_of(owner.exchange) == before
    owner.take(StreamClosed())
    owner.take(StreamClosed())

    picks = [each for each in owner.questions if isinstance(each, PickEndpoint)]
    assert len(picks) <= 1
    assert len(owner.finishes) == (len(picks) if not refuse else 0)
    assert owner.exchange.request_state is RequestState.OVER
    assert owner.exchange.response_state is ResponseState.OVER


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(RequestBody(chunk=b""), id="body"),
        pytest.param(RequestTrailers(), id="trailers"),
        pytest.param(ResponseHeaders(headers=OK), id="response"),
        pytest.param(Picked(pick=Pick(endpoints=("a",))), id="answer-without-question"),
    ],
)
def test_an_exchange_begins_with_request_headers(event: Event) -> None:
    with pytest.raises(PeerProtocolError, match="Check the processing mode of the gateway's"):
        Exchange().receive(event, at=0.0)


def test_the_tables_cover_every_state() -> None:
    assert set(RequestSide.TABLE) == set(RequestState)
    assert set(ResponseSide.TABLE) == set(ResponseState)
