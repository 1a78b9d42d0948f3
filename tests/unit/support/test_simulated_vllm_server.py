from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web

from support.simulated_vllm.server import Server
from support.simulated_vllm.settings import parse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    Start = Callable[..., Coroutine[Any, Any, "Running"]]

CHAT = "/v1/chat/completions"
ADAPTERS = ("travel-helper-v1=/lora/v1", "travel-helper-v2=/lora/v2")


class Running:
    """A served `Server` and a client of it."""

    def __init__(self, server: Server, session: aiohttp.ClientSession) -> None:
        self.server = server
        self.session = session

    async def chat(
        self, model: str = "mymodel", *, fault: str | None = None, **request: Any
    ) -> tuple[int, dict[str, Any]]:
        body = {"model": model, "messages": [{"role": "user", "content": "who are you?"}]}
        async with self.session.post(
            CHAT, json=body | request, headers={"x-fault": fault} if fault else {}
        ) as response:
            return response.status, await response.json()

    async def post(self, path: str, body: object) -> tuple[int, str]:
        async with self.session.post(path, json=body) as response:
            return response.status, await response.text()

    async def models(self) -> list[str]:
        async with self.session.get("/v1/models") as response:
            return [card["id"] for card in (await response.json())["data"]]

    async def metrics(self) -> str:
        async with self.session.get("/metrics") as response:
            return await response.text()

    async def idle(self) -> None:
        """Return when no request is in the engine."""
        engine = self.server.engine
        await until(lambda: not engine.running and not engine.waiting)


async def until(condition: Callable[[], bool]) -> None:
    """Let other tasks run until the condition holds."""
    while not condition():  # noqa: ASYNC110 - the engine has no event for its state
        await asyncio.sleep(0)


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    undo: list[Callable[[], Coroutine[Any, Any, None]]] = []

    async def run(*flags: str) -> Running:
        arguments = ["--version", "Qwen", "--served-model-name", "mymodel", "--speed", "100"]
        arguments += ["--name", "pod-1", "--lora-modules", *ADAPTERS, *flags]
        server = Server(parse(arguments, {}))
        runner = web.AppRunner(
            server.application(), handler_cancellation=True, shutdown_timeout=0.1
        )
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        session = aiohttp.ClientSession(f"http://{host}:{port}")
        undo.extend([runner.cleanup, session.close])
        return Running(server, session)

    yield run
    while undo:
        await undo.pop()()


@pytest.mark.parametrize(
    ("model", "text"),
    [
        pytest.param("mymodel", "I am Qwen.", id="base"),
        pytest.param("travel-helper-v2", "I am travel-helper-v2 on Qwen.", id="adapter"),
    ],
)
async def test_an_answer_names_what_was_asked_and_what_answered(
    start: Start, model: str, text: str
) -> None:
    running = await start()
    status, answer = await running.chat(model)
    assert status == 200
    assert answer["model"] == model
    assert answer["system_fingerprint"] == "Qwen"
    assert answer["choices"][0]["message"]["content"].startswith(text)
    assert answer["choices"][0]["finish_reason"] == "stop"


async def test_every_response_says_which_pod_and_version_served_it(start: Start) -> None:
    running = await start()
    for path in ("/health", "/v1/models", "/metrics"):
        async with running.session.get(path) as response:
            assert response.headers["x-served-by"] == "pod-1/Qwen"


async def test_a_stream_ends_with_usage_and_done(start: Start) -> None:
    running = await start()
    body = {
        "model": "mymodel",
        "prompt": "hello",
        "max_tokens": 5,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    async with running.session.post("/v1/completions", json=body) as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        events = (await response.text()).removesuffix("\n\n").split("\n\n")
    assert events.pop() == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    assert chunks[-1]["usage"]["completion_tokens"] == 5
    assert [len(c["choices"]) for c in chunks] == [1, 1, 1, 1, 1, 0]
    assert chunks[-2]["choices"][0]["finish_reason"] == "length"


async def test_ignore_eos_gives_exactly_max_tokens(start: Start) -> None:
    running = await start()
    _, answer = await running.chat(max_tokens=300, ignore_eos=True)
    assert answer["usage"]["completion_tokens"] == 300


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param(b"{", 400, id="not-json"),
        pytest.param(b'{"model": "nobody", "messages": []}', 404, id="unknown-model"),
    ],
)
async def test_a_refusal_has_vllms_error_body_and_is_counted_by_http_status(
    start: Start, body: bytes, status: int
) -> None:
    running = await start()
    async with running.session.post(CHAT, data=body) as response:
        assert response.status == status
        assert (await response.json())["error"]["code"] == status
    page = await running.metrics()
    assert f'http_requests_total{{handler="{CHAT}",method="POST",status="4xx"}} 1.0' in page
    finished = 'vllm:request_success_total{engine="0",finished_reason="stop",model_name="mymodel"}'
    assert f"{finished} 0.0" in page


async def test_adapters_appear_and_vanish_at_run_time(start: Start) -> None:
    running = await start()
    new = {"lora_name": "travel-helper-v3", "lora_path": "/lora/v3"}
    assert (await running.post("/v1/load_lora_adapter", new))[0] == 200
    assert await running.models() == [
        "mymodel",
        "travel-helper-v1",
        "travel-helper-v2",
        "travel-helper-v3",
    ]
    assert (await running.chat("travel-helper-v3"))[0] == 200

    assert (await running.post("/v1/unload_lora_adapter", new))[0] == 200
    assert "travel-helper-v3" not in await running.models()
    assert (await running.chat("travel-helper-v3"))[0] == 404


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        pytest.param("/v1/load_lora_adapter", {"lora_name": "x"}, 400, "must be", id="path"),
        pytest.param(
            "/v1/load_lora_adapter",
            {"lora_name": "travel-helper-v1", "lora_path": "/p"},
            400,
            "already been loaded",
            id="twice",
        ),
        pytest.param("/v1/unload_lora_adapter", {}, 400, "must be provided", id="no-name"),
        pytest.param("/v1/unload_lora_adapter", {"lora_name": "x"}, 404, "cannot be", id="absent"),
    ],
)
async def test_a_wrong_adapter_change_is_refused(
    start: Start, path: str, body: dict[str, str], status: int, message: str
) -> None:
    running = await start()
    found, text = await running.post(path, body)
    assert (found, message in text) == (status, True)


async def test_faults_change_at_run_time_and_are_cleared(start: Start) -> None:
    running = await start()
    status, _ = await running.post("/faults", {"error_rate": 1, "error_status": 503})
    assert status == 200
    assert (await running.chat())[0] == 503
    assert (await running.post("/faults", {"eror_rate": 1}))[0] == 400

    async with running.session.delete("/faults"):
        assert (await running.chat())[0] == 200


async def test_a_slow_server_slows_its_engine_and_a_slow_model_only_itself(start: Start) -> None:
    running = await start()
    await running.post("/faults", {"slow_factor": 2})
    assert running.server.engine.slow_factor == 2
    await running.post("/faults", {"models": ["travel-helper-v2"]})
    assert running.server.engine.slow_factor == 1


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_a_cut_request_loses_its_connection(start: Start, stream: bool) -> None:
    running = await start()
    body = {"messages": [{"role": "user", "content": "hi"}], "stream": stream}
    with pytest.raises(aiohttp.ClientError):
        async with running.session.post(CHAT, json=body, headers={"x-fault": "cut"}) as response:
            await response.read()
    await running.idle()


async def test_a_client_that_leaves_frees_its_blocks(start: Start) -> None:
    running = await start("--speed", "1")
    body = {
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "max_tokens": 4000,
        "ignore_eos": True,
    }
    async with running.session.post(CHAT, json=body) as response:
        await response.content.readline()
        assert running.server.engine.pool.usage > 0
        response.close()
    await running.idle()
    assert running.server.engine.pool.usage == 0
    aborted = running.server.metrics.finished["abort"]
    await until(lambda: aborted._value.get() == 1)


async def test_a_hanging_request_is_never_answered(start: Start) -> None:
    running = await start()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(running.chat(fault="hang"), timeout=0.2)


async def test_a_worse_answer_is_worse(start: Start) -> None:
    running = await start()
    _, answer = await running.chat(fault="worse")
    assert "I do not know." in answer["choices"][0]["message"]["content"]


async def test_an_unknown_fault_in_the_header_is_refused(start: Start) -> None:
    running = await start()
    status, answer = await running.chat(fault="explode")
    assert status == 400
    assert "header x-fault: unknown fault 'explode'" in answer["error"]["message"]


async def test_requests_above_the_queue_limit_are_refused(start: Start) -> None:
    running = await start("--max-num-seqs", "1", "--max-num-queued-reqs", "2", "--speed", "1")
    results = await asyncio.gather(*(running.chat(max_tokens=2) for _ in range(6)))
    statuses = sorted(status for status, _ in results)
    # One runs and two wait, or two wait before the first step began: 503 for the others.
    assert statuses in ([200] * 3 + [503] * 3, [200] * 2 + [503] * 4)
    rejected = 'vllm:admission_rejections_total{model_name="mymodel",reason="max_num_queued_reqs"}'
    assert f"{rejected} {float(statuses.count(503))}" in await running.metrics()


async def test_unhealthy_is_only_about_health(start: Start) -> None:
    running = await start("--fault", "unhealthy")
    async with running.session.get("/health") as response:
        assert response.status == 503
    assert (await running.chat())[0] == 200


async def test_while_draining_every_connection_is_closed_after_its_answer(start: Start) -> None:
    running = await start()
    running.server.draining = True
    async with running.session.get("/health") as response:
        assert response.status == 503
    body = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
    async with running.session.post(CHAT, json=body) as response:
        assert response.headers["Connection"] == "close"
        assert (await response.text()).endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_tool_is_called_when_it_is_offered(start: Start, stream: bool) -> None:
    running = await start()
    tool = {"type": "function", "function": {"name": "set_timer"}}
    body = {
        "messages": [{"role": "user", "content": "Set a timer for 12 minutes."}],
        "tools": [tool],
        "stream": stream,
    }
    async with running.session.post(CHAT, json=body) as response:
        text = await response.text()
    if stream:
        events = text.removesuffix("\n\n").split("\n\n")[:-1]
        choices = [json.loads(event.removeprefix("data: "))["choices"][0] for event in events]
        assert not any(choice["delta"].get("content") for choice in choices)
        found, reason = choices[-1]["delta"]["tool_calls"], choices[-1]["finish_reason"]
    else:
        choice = json.loads(text)["choices"][0]
        found, reason = choice["message"]["tool_calls"], choice["finish_reason"]
        assert choice["message"]["content"] is None
    (call,) = found
    assert call["function"] == {"name": "set_timer", "arguments": '{"minutes": 12}'}
    assert reason == "tool_calls"
    await running.idle()
    # To the engine the sequence just stopped.
    assert running.server.metrics.finished["stop"]._value.get() == 1


async def test_a_tool_that_is_not_offered_is_not_called(start: Start) -> None:
    running = await start()
    messages = [{"role": "user", "content": "Set a timer for 12 minutes."}]
    _, answer = await running.chat(messages=messages)
    assert answer["choices"][0]["message"]["tool_calls"] == []


async def test_a_wrong_share_of_prompts_is_answered_wrongly_every_time(start: Start) -> None:
    running = await start()
    question = "What is 17 + 25? Answer with the number alone."
    for fault, wanted in (("wrong_share=0", "42"), ("wrong_share=1", "I do not know.")):
        for _ in range(2):
            _, answer = await running.chat(
                messages=[{"role": "user", "content": question}], fault=fault
            )
            assert answer["choices"][0]["message"]["content"].startswith(wanted)
