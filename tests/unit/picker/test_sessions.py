"""Session tokens: what they say, when an answer carries one, and what is drawn by them."""

from __future__ import annotations

import base64
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_picker import wire
from inference_picker._pb import ext_proc_pb2 as pb
from inference_picker.config import read_config
from inference_picker.director import Director, Settings
from inference_picker.exchange import Exchange
from inference_picker.messages import (
    AnswerResponseHeaders,
    BodyMode,
    BodyOverride,
    EndStream,
    Pick,
    Picked,
    PickEndpoint,
    RequestBody,
    RequestHeaders,
    ResponseHeaders,
)
from inference_picker.metrics import Metrics
from inference_picker.pool import Endpoint, StaticSource, make_snapshot
from inference_picker.sessions import (
    Session,
    SessionToken,
    is_named,
    read_token,
    session_of,
    token_of,
)
from inference_picker.splits import ModelSplit, Target
from inference_picker.versions import key_of

if TYPE_CHECKING:
    from collections.abc import Mapping

A = Endpoint(address="10.0.0.1:8000", pod="gpu-a", version="v1")
B = Endpoint(address="10.0.0.2:8000", pod="gpu-b", version="v2")
AFFINITY = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: session-affinity-scorer}]
"""
# What llm-d-router writes: base64 of the pod's namespaced name.
UPSTREAM = base64.b64encode(b"llm/gpu-a").decode()


@given(st.text(), st.text(alphabet="0123456789abcdef", min_size=1))
def test_a_token_names_the_endpoint_and_the_session(pod: str, session: str) -> None:
    endpoint = Endpoint(address="10.0.0.1:8000", pod=pod)
    token = token_of(endpoint, session)

    found = read_token(token)

    # A header's value: what a client sends back must not have been changed on the way.
    assert token.isascii()
    assert token.isprintable()
    if len(token) > 1024:
        assert found is None
        return
    assert found is not None
    assert found.session == session
    assert is_named(endpoint, found.endpoint)


@given(st.text())
def test_whatever_a_client_sends_raises_nothing(text: str) -> None:
    read_token(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(UPSTREAM, SessionToken(endpoint="gpu-a"), id="llm-d-router"),
        pytest.param("", None, id="none"),
        pytest.param("my-own-session", None, id="a-clients-own"),
        pytest.param(base64.b64encode(b"gpu-a").decode(), None, id="base64-of-something"),
        pytest.param(base64.b64encode(b"/gpu-a").decode(), None, id="no-namespace"),
    ],
)
def test_tokens_of_others_are_told_apart(text: str, expected: SessionToken | None) -> None:
    assert read_token(text) == expected


@pytest.mark.parametrize(
    ("name", "named"),
    [
        pytest.param("gpu-a", True, id="pod"),
        pytest.param("gpu-a:8000", True, id="pod-and-port"),
        pytest.param("gpu-a:8001", False, id="another-port-of-the-pod"),
        pytest.param("10.0.0.1:8000", True, id="address"),
        pytest.param("gpu-b", False, id="another-pod"),
        pytest.param("", False, id="empty"),
        pytest.param(":8000", False, id="port-alone"),
    ],
)
def test_a_token_names_one_endpoint_or_all_of_a_pod(name: str, *, named: bool) -> None:
    assert is_named(A, name) is named


def test_a_pod_whose_name_is_unknown_is_named_by_nothing_but_its_address() -> None:
    endpoint = Endpoint(address="[fd00::1]:8000")
    found = read_token(token_of(endpoint, "1"))

    assert found is not None
    assert found.endpoint == "[fd00::1]:8000"
    assert not is_named(endpoint, "")


@pytest.mark.parametrize(
    ("sent", "status", "expected"),
    [
        pytest.param("", 200, "a", id="the-first-answer"),
        pytest.param("a", 200, None, id="the-client-knows"),
        pytest.param("b", 200, "a", id="it-was-elsewhere-before"),
        pytest.param("", 500, None, id="nobody-should-come-back-to-a-failure"),
        pytest.param("", None, None, id="no-status"),
    ],
)
def test_an_answer_carries_the_token_where_it_is_news(
    sent: str, status: int | None, expected: str | None
) -> None:
    session = Session(sent=sent, tokens={A.address: "a", B.address: "b"})

    assert session.answer(A.address, status) == expected


def test_the_token_is_that_of_the_endpoint_that_served() -> None:
    session = Session(sent="", tokens={A.address: "a", B.address: "b"})

    assert session.answer(B.address, 200) == "b"
    assert session.answer("10.0.0.9:8000", 200) is None


@pytest.mark.parametrize("override", [None, BodyOverride.STREAM, BodyOverride.SKIP])
def test_the_token_goes_out_as_a_header_whatever_else_is_asked_for(
    override: BodyOverride | None,
) -> None:
    answer = pb.ProcessingResponse.FromString(
        wire.encode(AnswerResponseHeaders(session_token="abc", override=override))
    )

    (header,) = answer.response_headers.response.header_mutation.set_headers
    assert (header.header.key, header.header.raw_value) == ("x-session-token", b"abc")
    assert answer.HasField("mode_override") is (override is not None)


@pytest.mark.parametrize(
    ("sent", "leaves"),
    [pytest.param("", False, id="news-waits-for-the-answer"), pytest.param("a", True, id="known")],
)
def test_an_exchange_is_left_early_only_where_the_client_has_the_token(
    sent: str, *, leaves: bool
) -> None:
    exchange = Exchange(leaves=True)
    full = BodyMode.FULL_DUPLEX_STREAMED
    head = RequestHeaders(headers={}, request_body_mode=full, response_body_mode=full)
    exchange.receive(head, at=0.0)
    exchange.receive(RequestBody(chunk=b'{"model":"m"}', end_of_stream=True), at=0.0)
    session = Session(sent=sent, tokens={A.address: "a"})

    commands = exchange.receive(
        Picked(pick=Pick(endpoints=(A.address,), model="m", target="m", session=session)), at=0.0
    )

    assert any(isinstance(each, EndStream) for each in commands) is leaves
    if not leaves:
        answers = exchange.receive(ResponseHeaders(headers={":status": "200"}), at=1.0)
        assert answers[0] == AnswerResponseHeaders(session_token="a")


def directed(source: StaticSource, config: str = AFFINITY) -> Director:
    settings = Settings(config=read_config(config))
    return Director(source=source, metrics=Metrics(), settings=settings)


def asked(director: Director, headers: Mapping[str, str], model: str = "m") -> Pick:
    question = PickEndpoint(
        model=model, headers=headers, subset=None, content={"model": model}, body=b""
    )
    found = director.pick(question)
    assert isinstance(found, tuple)
    return found[0]


def test_a_session_comes_back_until_its_pod_goes_and_then_stays_with_the_next() -> None:
    source = StaticSource(make_snapshot([A, B]))
    director = directed(source)
    first = asked(director, {})
    assert first.session is not None
    (home,) = first.endpoints
    token = first.session.answer(home, 200)
    assert token is not None

    # It is the busier one by then: none of its requests is over.
    for _ in range(5):
        again = asked(director, {"x-session-token": token})
        assert again.endpoints == (home,)
        assert again.session is not None
        assert again.session.answer(home, 200) is None

    source.current = make_snapshot([each for each in (A, B) if each.address != home])
    moved = asked(director, {"x-session-token": token})
    assert moved.session is not None
    new = moved.session.answer(moved.endpoints[0], 200)
    assert new is not None
    before, after = read_token(token), read_token(new)
    assert before is not None
    assert after is not None
    assert after.session == before.session
    assert after.endpoint != before.endpoint

    # Its old home is back: it has no claim any more.
    source.current = make_snapshot([A, B])
    assert asked(director, {"x-session-token": new}).endpoints == moved.endpoints


def test_without_the_scorer_no_answer_has_a_token() -> None:
    config = AFFINITY.replace("session-affinity", "queue")
    director = directed(StaticSource(make_snapshot([A])), config)

    assert asked(director, {}).session is None


def test_the_analysis_own_prompts_have_no_session() -> None:
    director = directed(StaticSource(make_snapshot([A])))

    assert asked(director, {"x-inference-rollouts-probe": "1"}).session is None


def test_a_session_keeps_its_drawn_target_from_the_first_request_on() -> None:
    split = ModelSplit(
        model="chat", targets=(Target(name="v1", weight=50), Target(name="v2", weight=50))
    )
    director = directed(StaticSource(make_snapshot([A, B], [split])))
    for _ in range(20):
        first = asked(director, {}, "chat")
        assert first.session is not None
        token = first.session.answer(first.endpoints[0], 200)
        assert token is not None
        assert asked(director, {"x-session-token": token}, "chat").target == first.target


@pytest.mark.parametrize(
    ("token", "key"),
    [
        pytest.param(token_of(A, "beef"), "beef", id="the-session-not-the-pod"),
        pytest.param(UPSTREAM, None, id="a-pod-is-no-user"),
        pytest.param("my-own-session", "my-own-session", id="a-clients-own"),
    ],
)
def test_versions_are_drawn_by_the_session_not_by_the_pod(token: str, key: str | None) -> None:
    assert key_of({"x-session-token": token}, None) == key


def test_a_token_of_another_picker_gets_a_session() -> None:
    sent, session = session_of({"x-session-token": UPSTREAM}, Random(1))

    assert sent == UPSTREAM
    assert len(session) == 16
