from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web

from inference_plugin.prober.decision import Answer, Probe
from inference_plugin.prober.identity import parse_identity
from inference_plugin.prober.models import combined, fetcher, read_models
from support.simulated_vllm.server import Server
from support.simulated_vllm.settings import parse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LIST = {"data": [{"id": "base", "root": "/models/Qwen"}, {"id": "v1", "root": "/lora/v1"}]}


def read(body: Any, *, status: int = 200, name: str = "v1", identity: str = "") -> Probe:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_models(status, raw, name=name, identity=parse_identity(identity), pod={})


@pytest.mark.parametrize(
    ("probe", "answer", "detail"),
    [
        pytest.param(read(LIST), Answer.LISTED, "", id="listed"),
        pytest.param(read(LIST, name="v2"), Answer.MISSING, "it serves base, v1", id="missing"),
        pytest.param(
            read(LIST, identity="v9"),
            Answer.MISSING,
            "root is /lora/v1, expected v9",
            id="identity",
        ),
        pytest.param(read({"data": []}), Answer.MISSING, "it serves nothing", id="empty"),
        pytest.param(read(b"<html>"), Answer.MISSING, "is not a list of models", id="not-json"),
        pytest.param(read({}), Answer.MISSING, "is not a list of models: KeyError", id="no-data"),
        pytest.param(read([1]), Answer.MISSING, "is not a list of models", id="a-list"),
        pytest.param(read({"data": [3]}), Answer.MISSING, "is not a list of models", id="no-card"),
        pytest.param(read({}, status=404), Answer.MISSING, "answered 404", id="not-openai"),
        pytest.param(read({}, status=503), Answer.UNANSWERED, "answered 503", id="starting"),
    ],
)
def test_an_answer_of_v1_models_is_read(probe: Probe, answer: Answer, detail: str) -> None:
    assert (probe.answer, detail in probe.detail) == (answer, True)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        pytest.param("LL", Answer.LISTED, id="all-list-it"),
        pytest.param("LM", Answer.MISSING, id="one-lacks-it"),
        pytest.param("-L", Answer.UNANSWERED, id="one-is-silent"),
        pytest.param("-M", Answer.MISSING, id="a-definite-answer-weighs-more"),
    ],
)
def test_a_pod_with_several_ports_lists_the_name_only_if_all_do(
    answers: str, expected: Answer
) -> None:
    letters = {"L": Answer.LISTED, "M": Answer.MISSING, "-": Answer.UNANSWERED}
    assert combined([Probe(answer=letters[a]) for a in answers]).answer is expected


@pytest.fixture
async def server() -> AsyncIterator[tuple[Server, int]]:
    found = Server(parse(["--served-model-name", "base", "--lora-modules", "v1=/lora/v1"], {}))
    runner = web.AppRunner(found.application())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield found, runner.addresses[0][1]
    await runner.cleanup()


async def test_a_served_adapter_is_found_and_gone_after_it_was_unloaded(
    server: tuple[Server, int],
) -> None:
    simulated, port = server
    async with aiohttp.ClientSession() as session:
        fetch = fetcher(session, timeout_s=60)
        answers = []
        for _ in range(2):
            found = await fetch("127.0.0.1", port)
            assert not isinstance(found, str)
            answers.append(read_models(*found, name="v1", identity=(), pod={}).answer)
            simulated.models.adapters.clear()
    assert answers == [Answer.LISTED, Answer.MISSING]


async def test_a_closed_port_is_no_answer() -> None:
    async with aiohttp.ClientSession() as session:
        # Port 1 (tcpmux) of an own loopback address: nothing listens there.
        found = await fetcher(session, timeout_s=60)("127.254.254.254", 1)
    assert isinstance(found, str)
    assert found.startswith("port 1: ClientConnectorError")


async def test_an_endless_list_is_cut() -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(64):
            await response.write(b" " * 2**16)
        return response

    application = web.Application()
    application.router.add_get("/v1/models", endless)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession() as session:
        found = await fetcher(session, timeout_s=60)("127.0.0.1", runner.addresses[0][1])
    await runner.cleanup()
    assert not isinstance(found, str)
    assert len(found[1]) < 2**21
