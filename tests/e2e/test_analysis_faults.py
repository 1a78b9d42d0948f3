"""What the analysis cannot know pauses a Rollout, with the reason; it never promotes or aborts."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from inference_common.kube import JOB, ROLLOUT, Resource
from support import analysed as a
from support.deployments import hash_addressed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.scenario import Scenario

ROLE = Resource("rbac.authorization.k8s.io", "v1", "roles", "Role")
PARTIAL = {
    "status": "success",
    "warnings": ["store gateway 2 of 3 did not answer"],
    "data": {"resultType": "matrix", "result": []},
}


@contextlib.asynccontextmanager
async def bad_servers() -> AsyncIterator[dict[str, str]]:
    """URLs of servers that are slow and partial; on ``down`` nobody listens."""
    released = asyncio.Event()

    async def slow(_: web.Request) -> web.Response:
        await released.wait()
        return web.Response()

    async def partial(_: web.Request) -> web.Response:
        return web.json_response(PARTIAL)

    runners, urls = [], {}
    try:
        for name, handler in (("slow", slow), ("partial", partial), ("down", slow)):
            application = web.Application()
            application.router.add_route("*", "/{path:.*}", handler)
            runner = web.AppRunner(application, access_log=None)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            runners.append(runner)
            urls[name] = str(runner.addresses[0][1])
        await runners.pop().cleanup()
        yield {name: f"http://127.0.0.1:{port}" for name, port in urls.items()}
    finally:
        released.set()
        for runner in runners:
            await runner.cleanup()


async def release_all_but(scenario: Scenario, run_uid: str, number: int) -> str:
    """Let the gated Jobs of an AnalysisRun run to its end, but delete the n-th; its name."""
    lost = ""
    for at in itertools.count(1):
        measurement = await a.until_measurement(scenario, run_uid, at, followed=at == number)
        if measurement is None:
            return lost
        name = a.job_of(measurement)
        if at == number:
            # Argo calls a Job that is gone an Error of that measurement, and starts another.
            # It cannot have ended before: its pod is still at the gate.
            await scenario.kube.delete(JOB, name, scenario.namespace, propagation="Background")
            lost = name
        else:
            await a.open_gate(scenario, name)
    return lost


@pytest.mark.parametrize(
    ("server", "lost", "reason"),
    [
        # No vLLM runs in these pods.
        pytest.param("empty", 0, "has no series at all", id="empty"),
        pytest.param("down", 1, "not reached", id="down-first-lost"),
        pytest.param("slow", 2, "no answer in 1 s", id="slow-second-lost"),
        pytest.param("partial", 3, "store gateway 2 of 3", id="partial-third-lost"),
    ],
)
async def test_a_prometheus_that_is_down_empty_slow_or_partial_pauses_whatever_job_is_lost(
    scenario: Scenario, server: str, lost: int, reason: str
) -> None:
    quick = {"look": {"after": "2s", "every": "1s"}, "retryFor": "1s"}
    async with bad_servers() as urls:
        urls["empty"] = scenario.cluster.prometheus
        access = {"prometheus": {"url": urls[server], "timeout": "1s"}}
        await a.install(scenario, a.values(scenario, **quick, **access), gated=True)
        steps = [*a.steps(50), {"setWeight": 60}, {"pause": {}}]
        await hash_addressed(scenario, canary_steps=steps)
        await scenario.revise("chat", "2")
        (run,) = await a.until_begun(scenario, 1)
        lost_job = await release_all_but(scenario, run["metadata"]["uid"], lost)
        (run,) = await a.until_ended(scenario, 1)
        found = a.all_measurements(run)
        assert a.phases([run]) == ["Inconclusive"], (found, await a.said(scenario))
        assert a.measurements(run) == ["Successful", "Failed", "Successful"]
        errors = [one["phase"] for one in found if a.job_of(one) == lost_job]
        assert errors == ["Error"] * bool(lost)
        said = (await a.said(scenario))[-1]
        assert reason in said
        assert said.startswith("INCONCLUSIVE, pause")
        # Paused, and resumed by hand, it goes on to the next step.
        await scenario.until(
            ROLLOUT,
            "chat",
            lambda obj: obj is not None and obj["status"].get("pauseConditions"),
            what="a pause",
        )
        await scenario.argo("promote", "chat")
        await scenario.until_paused("chat", 60)


async def test_a_right_that_is_missing_pauses_with_what_was_refused(scenario: Scenario) -> None:
    await a.install(scenario, a.values(scenario))
    # The account may do all but list pods.
    name = "inference-analysis"
    role = await scenario.get(ROLE, name)
    rules = [rule for rule in role["rules"] if rule["resources"] != ["pods"]]
    await scenario.kube.replace(ROLE, name, role | {"rules": rules}, scenario.namespace)
    steps = [{"setWeight": 50}, {"analysis": a.analysis_of()}]
    await hash_addressed(scenario, canary_steps=steps)
    await scenario.revise("chat", "2")
    (run,) = await a.until_ended(scenario, 1)
    assert a.phases([run]) == ["Inconclusive"]
    assert "403 Forbidden: pods is forbidden" in (await a.said(scenario))[0]


async def test_arguments_that_are_wrong_pause_with_what_is_wrong(scenario: Scenario) -> None:
    # Where Prometheus is comes from the team's defaults.
    settings = a.values(scenario)
    await a.defaults(scenario, {"prometheus": settings.pop("prometheus")})
    await a.install(scenario, settings)
    analysis = a.analysis_of()
    analysis["args"][1]["valueFrom"]["podTemplateHashValue"] = "Latest"
    await hash_addressed(scenario, canary_steps=[{"setWeight": 50}, {"analysis": analysis}])
    await scenario.revise("chat", "2")
    (run,) = await a.until_ended(scenario, 1)
    assert a.phases([run]) == ["Inconclusive"]
    assert "podTemplateHashValue: Stable" in (await a.said(scenario))[0]
