"""What the analysis cannot know pauses a Rollout, with the reason; it never promotes or aborts."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

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


async def test_a_prometheus_that_is_down_empty_slow_or_partial_pauses_whatever_job_is_lost(
    scenario: Scenario,
) -> None:
    quick = {"look": {"after": "2s", "every": "1s"}, "retryFor": "1s"}
    reasons = {
        # No vLLM runs in these pods.
        "empty": "has no series at all",
        "down": "not reached",
        "slow": "no answer in 1 s",
        "partial": "store gateway 2 of 3",
    }
    async with bad_servers() as urls:
        urls["empty"] = scenario.cluster.prometheus
        for name in reasons:
            access = {"prometheus": {"url": urls[name], "timeout": "1s"}}
            await a.install(scenario, a.values(scenario, **quick, **access), name=name)
        steps = [{"setWeight": 50}, *({"analysis": a.analysis_of(name)} for name in reasons)]
        await hash_addressed(scenario, canary_steps=[*steps, {"pause": {}}])
        await scenario.revise("chat", "2")
        for number, (name, reason) in enumerate(reasons.items()):
            runs = await a.until_begun(scenario, number + 1)
            if number:
                # Argo calls a Job that is gone an Error of that measurement, and starts another.
                job = await a.until_job(scenario, runs[-1]["metadata"]["uid"], number)
                await scenario.kube.delete(
                    JOB, job["metadata"]["name"], scenario.namespace, propagation="Background"
                )
            runs = await a.until_ended(scenario, number + 1)
            found = a.measurements(runs[-1])
            assert a.phases(runs)[-1] == "Inconclusive", (name, found, await a.said(scenario))
            assert [phase for phase in found if phase != "Error"] == [
                *("Successful", "Failed", "Successful")
            ]
            assert found.count("Error") == bool(number)
            assert number == 0 or found[number - 1] == "Error"
            said = (await a.said(scenario))[-1]
            assert reason in said, (name, found, await a.said(scenario))
            assert said.startswith("INCONCLUSIVE, pause")
            # Paused, and resumed by hand, it goes on to the next step.
            await scenario.until(
                ROLLOUT,
                "chat",
                lambda obj: obj is not None and obj["status"].get("pauseConditions"),
                what="a pause",
            )
            await scenario.argo("promote", "chat")


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
