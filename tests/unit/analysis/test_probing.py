"""The prober against a scripted model endpoint on a loopback port."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import Counter
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest

from inference_analysis.errors import EndpointError, InputError
from inference_analysis.observations import Arm
from inference_analysis.prompts.endpoints import TAG, Limits, ask, sessions
from inference_analysis.prompts.judge import Preference
from inference_analysis.prompts.judging import JudgePlan, judge
from inference_analysis.prompts.probe_runs import probed
from inference_analysis.prompts.probing import ProbePlan, probe
from inference_analysis.prompts.prompt_sets import PromptSet, Question
from inference_analysis.prompts.schedules import Pace, turns
from inference_analysis.prompts.text_checks import Regex
from inference_common.names import PROBE_HEADER
from support.scripted_model import (
    Model,
    answered,
    broken,
    hanging,
    models,
    saying,
    sometimes,
    status,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from aiohttp import web

    from inference_analysis.prompts.probing import Exchange
    from support.scripted_model import Respond

    Start = Callable[..., Awaitable[Model]]

FAST = ProbePlan(rate=1000.0, limits=Limits(timeout_s=60.0, retries=1))


def questions(count: int) -> tuple[Question, ...]:
    return tuple(
        Question(
            id=f"q{i:02}",
            messages=({"role": "user", "content": f"question {i}"},),
            checks=(Regex(pattern="answer"),),
            parameters=MappingProxyType({"temperature": 0}),
        )
        for i in range(count)
    )


def prompt_set(count: int = 12) -> PromptSet:
    return PromptSet(name="mine", version="1", digest="d", questions=questions(count))


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    async with models() as started:
        yield started


async def run(
    canary: Model, stable: Model, plan: ProbePlan = FAST, *, count: int = 12
) -> tuple[Exchange, ...]:
    endpoints = {Arm.CANARY: canary.endpoint("canary"), Arm.STABLE: stable.endpoint("stable")}
    async with sessions(concurrency=plan.concurrency) as session:
        return await probe(session, prompt_set(count), endpoints, plan)


async def test_both_versions_get_the_same_marked_requests(start: Start) -> None:
    canary, stable = await start(version="v2"), await start()
    found = await run(canary, stable, replace(FAST, repeats=2))
    assert [(e.question.id, e.repeat) for e in found] == [
        (f"q{i:02}", repeat) for i in range(12) for repeat in range(2)
    ]
    assert found[0].canary.answer.text == "answer to question 0"
    assert (found[0].canary.version, found[0].stable.version) == ("v2", "v1")
    assert found[0].canary.first_token_s is not None
    for model in (canary, stable):
        assert len(model.bodies) == 24
        assert {body["user"] for body in model.bodies} == {TAG}
        assert {headers[PROBE_HEADER] for headers in model.headers} == {"quality"}
        assert all(headers["X-Request-Id"].startswith(TAG) for headers in model.headers)
    key = lambda body: (body["messages"][-1]["content"], body["seed"])  # noqa: E731 - short
    assert Counter(map(key, canary.bodies)) == Counter(map(key, stable.bodies))
    assert len(set(map(key, canary.bodies))) == 24


async def test_no_more_requests_are_in_flight_than_allowed(start: Start) -> None:
    now, most, arrived = 0, 0, asyncio.Event()

    async def busy(model: Model, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        nonlocal now, most
        now += 1
        most = max(most, now)
        if now == 3:
            arrived.set()
        # The first three are held until all of them are there, and then long enough for a fourth.
        await arrived.wait()
        for _ in range(50):
            await asyncio.sleep(0)
        now -= 1
        return await answered(model, request, body)

    canary, stable = await start(respond=busy), await start(respond=busy, version="v0")
    await run(canary, stable, replace(FAST, rate=1e6, concurrency=3), count=30)
    assert most == 3


async def test_an_unreachable_endpoint_is_one_clear_error(start: Start) -> None:
    canary, stable = await start(), await start()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        canary.url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(EndpointError) as caught:
        await run(canary, stable)
    assert str(caught.value).startswith("canary: http://127.0.0.1:")
    assert "was not reached in 2 attempts" in str(caught.value)


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        pytest.param(401, "give a token", id="no-token"),
        pytest.param(404, "check the address and the model's name", id="unknown-model"),
        pytest.param(429, "lower --rate", id="too-fast"),
    ],
)
async def test_a_refusal_that_says_nothing_of_the_answers_is_an_error(
    start: Start,
    code: int,
    remedy: str,
) -> None:
    canary, stable = await start(), await start(respond=status(code))
    with pytest.raises(EndpointError) as caught:
        await run(canary, stable)
    assert f"answers {code} to model 'mymodel'" in str(caught.value)
    assert remedy in str(caught.value)


@pytest.mark.parametrize(
    ("respond", "problem", "requests"),
    [
        pytest.param(status(500), "status 500", 1, id="error-status"),
        pytest.param(status(400), "status 400", 1, id="prompt-refused"),
        pytest.param(saying(""), "", 1, id="empty-is-an-answer"),
        pytest.param(broken, "connection lost in 2 attempts", 2, id="cut-in-the-middle"),
        pytest.param(hanging, "no whole answer within 0.3 s", 1, id="hangs"),
    ],
)
async def test_an_answer_that_fails_is_kept_as_such_and_only_connections_are_tried_again(
    start: Start,
    respond: Respond,
    problem: str,
    requests: int,
) -> None:
    canary = await start(respond=sometimes(respond, "question 3"))
    stable = await start()
    plan = replace(FAST, limits=Limits(timeout_s=0.3 if respond is hanging else 60.0, retries=1))
    found = await run(canary, stable, plan)
    assert [bool(e.canary.answer.problem) for e in found].count(True) == (1 if problem else 0)
    assert problem in found[3].canary.answer.problem
    assert found[3].canary.attempts == requests
    asked = Counter(body["messages"][-1]["content"] for body in canary.bodies)
    assert asked["question 3"] == requests


async def test_a_connection_that_breaks_once_is_counted_and_forgotten(start: Start) -> None:
    left = [broken]

    async def once(model: Model, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        respond = left.pop() if left else answered
        return await respond(model, request, body)

    canary, stable = await start(respond=once), await start()
    found = await run(canary, stable)
    assert not any(e.canary.answer.problem for e in found)
    assert sum(e.canary.attempts for e in found) == len(found) + 1


async def test_without_stables_answers_there_is_nothing_to_compare_with(start: Start) -> None:
    stable = await start(respond=sometimes(status(503), "question 1", "question 2"))
    with pytest.raises(EndpointError, match="stable: 2 of 20 answers are missing"):
        await run(await start(), stable, count=20)


async def test_a_version_that_never_answers_is_an_error_long_before_the_last_prompt(
    start: Start,
) -> None:
    canary, stable = await start(respond=status(500)), await start()
    with pytest.raises(EndpointError, match="gave none of 10 answers"):
        await run(canary, stable, count=200)
    assert len(canary.bodies) < 30


async def test_several_versions_behind_one_address_are_refused(start: Start) -> None:
    async def mixed(model: Model, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        model.version = f"v{len(model.bodies) % 2}"
        return await answered(model, request, body)

    canary, stable = await start(respond=mixed), await start()
    with pytest.raises(EndpointError, match=r"canary: answers came from 2 versions \(v0, v1;"):
        await run(canary, stable)


async def test_one_endpoint_for_both_versions_is_refused_unless_told_apart(start: Start) -> None:
    model = await start()
    with pytest.raises(InputError, match="canary and stable are both http"):
        await run(model, model)
    endpoints = {
        Arm.CANARY: replace(model.endpoint("canary"), headers={"x-version": "canary"}),
        Arm.STABLE: model.endpoint("stable"),
    }
    async with sessions(concurrency=2) as session:
        await probe(session, prompt_set(2), endpoints, FAST)
    assert [headers.get("x-version") for headers in model.headers].count("canary") == 2


async def test_several_addresses_of_a_version_are_asked_in_turn(start: Start) -> None:
    one, two, stable = await start(), await start(), await start(version="v0")
    endpoints = {
        Arm.CANARY: replace(
            one.endpoint("canary"), urls=(*one.endpoint("").urls, *two.endpoint("").urls)
        ),
        Arm.STABLE: stable.endpoint("stable"),
    }
    async with sessions(concurrency=2) as session:
        await probe(session, prompt_set(10), endpoints, FAST)
    assert (len(one.bodies), len(two.bodies)) == (5, 5)


async def test_a_tool_call_without_streaming_is_read(start: Start) -> None:
    model = await start(respond=saying("hello"))
    async with sessions(concurrency=1) as session:
        reply = await ask(
            session,
            model.endpoint("canary"),
            Limits(),
            messages=[{"role": "user", "content": "hi"}],
            parameters={},
            tools=[{"type": "function", "function": {"name": "f"}}],
            stream=False,
        )
    assert (reply.answer.text, reply.first_token_s) == ("hello", None)
    assert model.bodies[0]["tools"] == [{"type": "function", "function": {"name": "f"}}]
    assert "stream_options" not in model.bodies[0]


async def judged(
    start: Start,
    respond: Respond,
    *,
    limit: float = 0.1,
    alike: bool = False,
) -> tuple[tuple[Preference, ...], Model]:
    stable = await start(respond=answered if alike else saying("something else"))
    model = await start(respond=respond)
    exchanges = await run(await start(), stable)
    plan = JudgePlan(nonsense_limit=limit, limits=Limits(timeout_s=60.0, retries=0))
    async with sessions(concurrency=2) as session:
        return await judge(session, model.endpoint("judge"), exchanges, plan), model


async def test_a_judge_is_asked_in_both_orders(start: Start) -> None:
    async def honest(_: Model, __: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        pair = json.loads(body["messages"][-1]["content"])
        verdict = "A" if pair["answer_a"].startswith("answer") else "B"
        return await saying(json.dumps({"winner": verdict}))(_, __, body)

    found, model = await judged(start, honest)
    assert set(found) == {Preference.CANARY}
    assert len(model.bodies) == 2 * len(found)


async def test_a_judge_that_prefers_the_first_answer_finds_ties(start: Start) -> None:
    found, _ = await judged(start, saying('{"winner": "A"}'))
    assert set(found) == {Preference.INCONSISTENT}


async def test_equal_answers_cost_no_judge(start: Start) -> None:
    found, model = await judged(start, saying('{"winner": "B"}'), alike=True)
    assert set(found) == {Preference.TIE}
    assert model.bodies == []


async def test_a_judge_that_answers_nonsense_is_not_believed(start: Start) -> None:
    with pytest.raises(EndpointError, match="gave no verdict on 12 of 12 pairs"):
        await judged(start, saying("Both are lovely!"))


async def test_a_little_nonsense_is_counted_and_left_out(start: Start) -> None:
    async def mostly(
        model: Model, request: web.Request, body: dict[str, Any]
    ) -> web.StreamResponse:
        asked = json.loads(body["messages"][-1]["content"])["question"]
        text = "hm" if asked == "question 3" else '{"winner": "tie"}'
        return await saying(text)(model, request, body)

    found, _ = await judged(start, mostly)
    assert Counter(found) == {Preference.TIE: 11, Preference.NONSENSE: 1}


async def test_a_whole_run_becomes_the_prompts_of_a_cells_file(start: Start) -> None:
    canary = await start(respond=sometimes(saying("I do not know."), "question 3"))
    stable, model = await start(), await start(respond=saying('{"winner": "tie"}'))
    found = await probed(
        prompt_set(),
        {Arm.CANARY: canary.endpoint("canary"), Arm.STABLE: stable.endpoint("stable")},
        FAST,
        judging=(model.endpoint("judge"), JudgePlan(limits=Limits())),
        hashes={Arm.CANARY: "6d5f", Arm.STABLE: "9c1b"},
        keep_answers=False,
    )
    prompts = {(p["measure"], p["id"]): p for p in found.prompts(canary_hash="6d5f")}
    assert {measure for measure, _ in prompts} == {
        *("quality", "judge", "empty", "refusal", "repetition", "truncation", "length")
    }
    assert prompts["quality", "q03"]["canary"] == [0.0]
    assert prompts["quality", "q03"]["canaryAnswer"].startswith("(sha256 ")
    assert "I do not know." not in found.text.replace("in 'I do not know.'", "")
    assert prompts["judge", "q03"]["canary"] == [0.5]
    assert "quality: canary 0.917, stable 1.000" in found.summary
    assert "judge: 0 of 12 verdicts turned with the order, 0 were none" in found.summary
    with pytest.raises(InputError, match="Probe these versions"):
        found.prompts(canary_hash="ffff")


async def test_prompts_without_checks_need_a_judge(start: Start) -> None:
    canary, stable = await start(), await start()
    bare = replace(
        prompt_set(), questions=tuple(replace(q, checks=()) for q in prompt_set().questions)
    )
    with pytest.raises(InputError, match="12 prompts have no checks"):
        await probed(
            bare,
            {Arm.CANARY: canary.endpoint("canary"), Arm.STABLE: stable.endpoint("stable")},
            FAST,
            hashes={Arm.CANARY: "", Arm.STABLE: ""},
        )
    assert canary.bodies == []


def test_the_order_is_random_fair_and_the_same_for_the_same_seed() -> None:
    found = turns(questions(200), repeats=2, seed=1)
    assert found == turns(questions(200), repeats=2, seed=1)
    assert found != turns(questions(200), repeats=2, seed=2)
    assert Counter((t.question.id, t.repeat) for t in found) == Counter(
        (q.id, repeat) for q in questions(200) for repeat in range(2)
    )
    first = sum(turn.order[0] is Arm.CANARY for turn in found)
    # Binomial(400, .5) is within 52 of 200 but for one case in ten million.
    assert abs(first - 200) < 52
    assert len({turn.seed for turn in found}) == 400


async def test_starts_are_spaced_evenly_and_no_time_is_made_up_for() -> None:
    now, starts = 0.0, []

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    pace = Pace(2.0, clock=lambda: now, sleep=sleep)
    for _ in range(3):
        await pace.wait()
        starts.append(now)
    now = 10.0
    for _ in range(2):
        await pace.wait()
        starts.append(now)
    assert starts == [0.0, 0.5, 1.0, 10.0, 10.5]
