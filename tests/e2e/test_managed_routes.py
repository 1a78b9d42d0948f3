"""Header routes and mirrors: who answers, and who hears of it, through the real gateway."""

from __future__ import annotations

import asyncio
import re
import signal
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from inference_common.kube import GRPCROUTE, HTTPROUTE, ROLLOUT
from support import manifests as m
from support.deployments import hash_addressed, served
from support.scenario import TIMEOUT_S, is_accepted, weights
from support.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.scenario import Scenario

Object = dict[str, Any]
BETA = {"x-beta": "yes"}
ROUTING: Object = {"managedRoutes": [{"name": "beta"}, {"name": "shadow"}]}
SCALE: Object = {"setCanaryScale": {"replicas": 1}}
HEADER: Object = {
    "setHeaderRoute": {
        "name": "beta",
        "match": [{"headerName": "x-beta", "headerValue": {"exact": "yes"}}],
    }
}
PAUSE: Object = {"pause": {}}
_ENDED = re.compile(r"^vllm:request_success_total\{.*\} ([0-9.e+]+)$", re.MULTILINE)
_UNDER_WAY = re.compile(r"^vllm:num_requests_(?:running|waiting)\{.*\} ([0-9.e+]+)$", re.MULTILINE)
STILL = 5
"""Equal counts, .2 s apart, that show that nothing is under way."""


def mirror(percentage: int) -> Object:
    match = [{"path": {"prefix": "/v1"}}]
    return {"setMirrorRoute": {"name": "shadow", "percentage": percentage, "match": match}}


async def until_rules(scenario: Scenario, *names: str) -> Object:
    """The route once its rules have exactly these names, accepted by the gateway."""

    def there(obj: Object | None) -> bool:
        return obj is not None and [rule.get("name", "") for rule in obj["spec"]["rules"]] == [
            *names
        ]

    await scenario.until(HTTPROUTE, "chat", there, what=f"rules {names}")
    return await scenario.until_accepted("chat")


async def until_step(scenario: Scenario, index: int) -> None:
    """Return once the Rollout waits in the pause at that index of its steps."""

    def waits(obj: Object | None) -> bool:
        status = (obj or {}).get("status", {})
        return status.get("currentStepIndex") == index and bool(status.get("pauseConditions"))

    await scenario.until(ROLLOUT, "chat", waits, what=f"a pause at step {index}")


async def requests_at(scenario: Scenario, pod_template_hash: str, at_least: int = 0) -> int:
    """Requests that the pods of one revision have ended, by their own metrics.

    Once these are that many, and none is under way: copies are answered when they are, whatever
    the clients have by then.
    """
    still, before = 0, -1
    async with asyncio.timeout(TIMEOUT_S):
        while still < STILL:
            ended, under_way = await counted(scenario, pod_template_hash)
            quiet = ended == before and not under_way and ended >= at_least
            still, before = still + 1 if quiet else 0, ended
            await asyncio.sleep(0.2)
    return before


async def counted(scenario: Scenario, pod_template_hash: str) -> tuple[int, int]:
    """Requests that the pods have ended, and those that they run or keep waiting."""
    pages = []
    async with aiohttp.ClientSession() as session:
        for pod in await scenario.pods_of(pod_template_hash):
            url = f"http://{pod['status']['podIP']}:{m.MODEL_PORT}/metrics"
            async with session.get(url) as answer:
                pages.append(await answer.text())
    ended, under_way = (
        sum(int(float(value)) for page in pages for value in pattern.findall(page))
        for pattern in (_ENDED, _UNDER_WAY)
    )
    return ended, under_way


async def ask(address: str, count: int) -> Traffic:
    """So many requests, each answered before this returns."""
    async with Traffic(address, model="mymodel", concurrency=8, max_requests=count) as traffic:
        await traffic.until_answers(count)
    return traffic


async def test_requests_with_the_header_go_to_the_canary_until_promotion_and_until_abort(
    scenario: Scenario,
) -> None:
    steps = [SCALE, HEADER, PAUSE, {"setWeight": 30}, PAUSE]
    await served(scenario, "v1", canary_steps=steps, routing=ROUTING)
    address = await scenario.address()
    async with (
        Traffic(address, model="mymodel", rate=5) as anybody,
        Traffic(address, model="mymodel", rate=5, headers=BETA) as testers,
    ):
        template = {"spec": {"containers": [m.simulated_vllm("v2")]}}
        await scenario.revise("chat", template)
        await until_step(scenario, 2)
        await until_rules(scenario, "beta", "")
        assert (await testers.until_answers(20)).shares() == {"v2": 1.0}
        assert (await anybody.until_answers(20)).shares() == {"v1": 1.0}
        # Later steps keep it.
        await scenario.argo("promote", "chat")
        await scenario.until_paused("chat", 30)
        await scenario.until_accepted("chat")
        assert (await testers.until_answers(20)).shares() == {"v2": 1.0}
        await scenario.argo("promote", "chat")
        await scenario.until_healthy("chat")
        await until_rules(scenario, "")
        assert (await testers.until_answers(10)).shares() == {"v2": 1.0}
        # The pools have changed roles: the next header route follows.
        template = {"spec": {"containers": [m.simulated_vllm("v3")]}}
        await scenario.revise("chat", template)
        await until_step(scenario, 2)
        await until_rules(scenario, "beta", "")
        assert (await testers.until_answers(20)).shares() == {"v3": 1.0}
        assert (await anybody.until_answers(20)).shares() == {"v2": 1.0}
        await scenario.argo("abort", "chat")
        await until_rules(scenario, "")
        assert (await testers.until_answers(20)).shares() == {"v2": 1.0}
    assert anybody.failures == []
    assert testers.failures == []


async def test_mirrored_requests_arrive_at_the_canary_and_clients_see_only_stable(
    scenario: Scenario,
) -> None:
    labels = {"app": "chat"}
    # A mirror of 0 % is none, although the wire from the controller can't tell it from 100 %.
    steps = [SCALE, mirror(50), PAUSE, mirror(0), PAUSE, mirror(100), PAUSE]
    await scenario.apply(
        m.gateway(),
        m.service("chat-stable", labels),
        m.service("chat-canary", labels),
        m.route("chat", m.service_ref("chat-stable", 100), m.service_ref("chat-canary", 0)),
        m.rollout(
            "chat",
            m.pod_template(m.simulated_vllm("v1"), labels=labels),
            {"httpRoute": "chat"},
            canary_steps=steps,
            routing=ROUTING,
            stableService="chat-stable",
            canaryService="chat-canary",
        ),
    )
    await scenario.until_healthy("chat")
    await scenario.until_accepted("chat")
    address = await scenario.address()
    await scenario.revise("chat", m.pod_template(m.simulated_vllm("v2"), labels=labels))
    await until_step(scenario, 2)
    await until_rules(scenario, "shadow", "")
    canary = (await scenario.hashes("chat"))["current"]
    half = await ask(address, 200)
    # Five standard deviations of 7.1 around 100, and as many copies as there are by then.
    copies = await requests_at(scenario, canary, at_least=62)
    assert copies <= 138
    await scenario.argo("promote", "chat")
    await until_step(scenario, 4)
    await until_rules(scenario, "")
    none = await ask(address, 40)
    assert await requests_at(scenario, canary) == copies
    await scenario.argo("promote", "chat")
    await until_step(scenario, 6)
    await until_rules(scenario, "shadow", "")
    every = await ask(address, 40)
    assert await requests_at(scenario, canary, at_least=copies + 40) == copies + 40
    await scenario.argo("abort", "chat")
    await until_rules(scenario, "")
    for traffic in (half, none, every):
        assert {request.version for request in traffic.requests} == {"v1"}
        assert traffic.failures == []


async def test_a_grpc_route_beside_the_http_route_gets_the_rule_too(scenario: Scenario) -> None:
    refs = [m.pool_ref("chat-a", 100), m.pool_ref("chat-b", 0)]
    grpc_route = m.route("chat", *refs) | {"kind": "GRPCRoute"}
    del grpc_route["spec"]["rules"][0]["matches"]
    await scenario.apply(grpc_route)
    await hash_addressed(
        scenario,
        config={"grpcRoute": "chat"},
        canary_steps=[SCALE, HEADER, PAUSE],
        routing=ROUTING,
    )
    await scenario.revise("chat", "2")
    await until_rules(scenario, "beta", "")

    def has(*names: str) -> Callable[[Object | None], bool]:
        def found(obj: Object | None) -> bool:
            if obj is None or not is_accepted(obj):
                return False
            return [rule.get("name", "") for rule in obj["spec"]["rules"]] == [*names]

        return found

    route = await scenario.until(GRPCROUTE, "chat", has("beta", ""), what="the rule beta")
    made = route["spec"]["rules"][0]
    assert made["matches"] == [{"headers": [{"type": "Exact", "name": "x-beta", "value": "yes"}]}]
    assert [ref["name"] for ref in made["backendRefs"]] == ["chat-b"]
    await scenario.argo("abort", "chat")
    await scenario.until(GRPCROUTE, "chat", has(""), what="no rule beta")


async def test_a_rule_of_that_name_that_is_not_ours_is_refused_and_left(scenario: Scenario) -> None:
    steps = [SCALE, HEADER, PAUSE]
    await hash_addressed(scenario, canary_steps=steps, routing=ROUTING)
    theirs = {
        "name": "beta",
        "matches": [{"path": {"type": "PathPrefix", "value": "/beta"}}],
        "backendRefs": [m.pool_ref("chat-a", 1)],
    }
    add = [{"op": "add", "path": "/spec/rules/-", "value": theirs}]
    await scenario.kube.patch(HTTPROUTE, "chat", add, scenario.namespace)
    before = (await scenario.get(HTTPROUTE, "chat"))["spec"]["rules"][1]
    await scenario.revise("chat", "2")
    await scenario.until_event("InvalidConfig", "rule beta")
    await scenario.until(
        ROLLOUT,
        "chat",
        lambda obj: obj is not None and obj["status"].get("currentStepIndex") == 1,
        what="the step of the header route",
    )
    # It is not complete without its rule.
    for _ in range(2):
        await scenario.reconcile("chat")
    assert (await scenario.get(ROLLOUT, "chat"))["status"]["currentStepIndex"] == 1
    await scenario.argo("abort", "chat")
    await scenario.until_aborted("chat")
    route = await scenario.get(HTTPROUTE, "chat")
    assert route["spec"]["rules"][1] == before
    assert weights(route) == {"chat-a": 100, "chat-b": 0}


async def test_a_prefix_of_a_header_is_refused_with_the_remedy(scenario: Scenario) -> None:
    value = {"headerName": "x-beta", "headerValue": {"prefix": "y"}}
    step = {"setHeaderRoute": {"name": "beta", "match": [value]}}
    await hash_addressed(scenario, canary_steps=[SCALE, step, PAUSE], routing=ROUTING)
    await scenario.revise("chat", "2")
    await scenario.until_event("InvalidConfig", "compared by prefix, which the Gateway API can't")
    route = await scenario.get(HTTPROUTE, "chat")
    assert len(route["spec"]["rules"]) == 1


async def test_an_edited_header_route_is_put_back(scenario: Scenario) -> None:
    await hash_addressed(scenario, canary_steps=[SCALE, HEADER, PAUSE], routing=ROUTING)
    await scenario.revise("chat", "2")
    await until_step(scenario, 2)
    made = (await until_rules(scenario, "beta", ""))["spec"]["rules"][0]
    remove = [{"op": "remove", "path": "/spec/rules/0"}]
    await scenario.kube.patch(HTTPROUTE, "chat", remove, scenario.namespace)
    await scenario.until_event("DriftRepaired", "rule beta of a managed route")
    assert (await until_rules(scenario, "beta", ""))["spec"]["rules"][0] == made


@pytest.mark.alone
async def test_a_header_route_survives_a_restart_of_the_server_long_after_its_step(
    scenario: Scenario,
) -> None:
    steps = [SCALE, HEADER, {"setWeight": 20}, PAUSE]
    await hash_addressed(scenario, canary_steps=steps, routing=ROUTING)
    await scenario.revise("chat", "2")
    await scenario.until_paused("chat", 20)
    await until_rules(scenario, "beta", "")
    scenario.cluster.signal("plugin", signal.SIGKILL)
    remove = [{"op": "remove", "path": "/spec/rules/0"}]
    await scenario.kube.patch(HTTPROUTE, "chat", remove, scenario.namespace)
    await until_rules(scenario, "beta", "")
    await scenario.argo("promote", "chat")
    await scenario.until_healthy("chat")
    await until_rules(scenario, "")
