"""Objects that are not a Rollout's alone: other backends, other Rollouts, several routes as one."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from inference_common.errors import KubeError
from inference_common.kube import HTTPROUTE, PatchKind, Resource
from support import manifests as m
from support.deployments import APP, POOLS, hash_addressed
from support.history import History
from support.scenario import TIMEOUT_S, weights

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.scenario import Object, Scenario

GROUP = "admissionregistration.k8s.io"
POLICY = Resource(
    GROUP,
    "v1",
    "validatingadmissionpolicies",
    "ValidatingAdmissionPolicy",
    namespaced=False,
)
BINDING = Resource(
    GROUP,
    "v1",
    "validatingadmissionpolicybindings",
    "ValidatingAdmissionPolicyBinding",
    namespaced=False,
)


def fraction(route: Object, name: str) -> float:
    shown = {key: 1 if value is None else value for key, value in weights(route).items()}
    return shown[name] / sum(shown.values())


async def test_third_backend_keeps_its_share_at_every_step(scenario: Scenario) -> None:
    """1 + 1 beside 1 has no integer 10 %: the rule's weights grow, nobody's share changes."""
    await scenario.apply(m.service("other", {"app": "other"}))
    await hash_addressed(scenario, weights=(1, 1), others=[m.service_ref("other", 1)])
    async with History(scenario) as history:
        await scenario.revise("chat", "2")
        await scenario.until_paused("chat", 10)
        route = await scenario.get(HTTPROUTE, "chat")
        assert fraction(route, "chat-b") == pytest.approx(2 / 3 * 0.1)
        await scenario.argo("promote", "chat")
        await scenario.until_paused("chat", 50)
        await scenario.argo("abort", "chat")
        await scenario.until_aborted("chat")
        await scenario.until_canary_share("chat", 0)
    for found in history.weights("chat"):
        shown = {key: 1 if value is None else value for key, value in found.items()}
        assert shown["other"] / sum(shown.values()) == pytest.approx(1 / 3)


def named_rollout(name: str, route: Object) -> Object:
    template = m.pod_template(m.noop(), labels={"app": name})
    config = {"httpRoutes": [route], "inferencePools": [f"{name}-a", f"{name}-b"]}
    return m.rollout(name, template, config)


async def test_two_rollouts_share_a_route_in_rules_of_their_own(scenario: Scenario) -> None:
    names = ("blue", "green")
    route = m.route("shared", m.pool_ref("blue-a", 100), m.pool_ref("blue-b", 0), rule="blue")
    second = m.route("shared", m.pool_ref("green-a", 100), m.pool_ref("green-b", 0), rule="green")
    second["spec"]["rules"][0]["matches"] = [{"path": {"type": "PathPrefix", "value": "/v2"}}]
    route["spec"]["rules"] += second["spec"]["rules"]
    pools = [m.pool(f"{name}-{side}", {"app": name}) for name in names for side in "ab"]
    await scenario.apply(
        m.gateway(),
        m.deployment("picker", m.noop(), labels={"app": "picker"}),
        m.service("picker", {"app": "picker"}, m.PICKER_PORT),
        *pools,
        route,
    )
    await scenario.until_available("picker")
    for name in names:
        await scenario.apply(named_rollout(name, {"name": "shared", "rules": [name]}))
    for name in names:
        await scenario.until_healthy(name)
    for name in names:
        await scenario.revise(name, "2")
    for name in names:
        await scenario.until_paused(name, 10)
    found = await scenario.get(HTTPROUTE, "shared")
    assert [
        {ref["name"]: ref["weight"] for ref in rule["backendRefs"]}
        for rule in found["spec"]["rules"]
    ] == [{"blue-a": 90, "blue-b": 10}, {"green-a": 90, "green-b": 10}]


async def test_second_rollout_on_the_same_reference_is_refused_with_the_owners_name(
    scenario: Scenario,
) -> None:
    await hash_addressed(scenario)
    before = await scenario.until_weights("chat", {"chat-a": 100, "chat-b": 0})
    config = {"httpRoute": "chat", "inferencePools": list(POOLS)}
    template = m.pod_template(m.noop(), labels=APP | {"copy": "yes"})
    await scenario.apply(m.rollout("usurper", template, config))
    await scenario.until_event("InvalidConfig", f"managed by Rollout {scenario.namespace}/chat")
    after = await scenario.get(HTTPROUTE, "chat")
    assert after["spec"] == before["spec"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """An admission policy that keeps weight 10 off one route of the scenario's namespace."""

    scenario: Scenario
    name: str

    async def start(self, route: str, *, dry_run_too: bool) -> None:
        refused = "object.spec.rules.exists(r, r.backendRefs.exists(b, b.weight == 10))"
        if not dry_run_too:
            refused = f"request.dryRun != true && {refused}"
        probed = "has(object.metadata.labels) && 'probe' in object.metadata.labels"
        rule = {"apiGroups": [HTTPROUTE.group], "apiVersions": ["*"], "resources": ["httproutes"]}
        policy = {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [rule | {"operations": ["UPDATE"]}]},
            "matchConditions": [
                {"name": "one", "expression": f"object.metadata.name == '{route}'"}
            ],
            "validations": [
                {"expression": f"!({refused})", "message": "the scenario refuses this weight"},
                {"expression": f"!({probed})", "message": "the policy is in effect"},
            ],
        }
        here = {"kubernetes.io/metadata.name": self.scenario.namespace}
        binding = {
            "policyName": self.name,
            "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": {"matchLabels": here}},
        }
        kube = self.scenario.kube
        await kube.create(POLICY, {"metadata": {"name": self.name}, "spec": policy})
        await kube.create(BINDING, {"metadata": {"name": self.name}, "spec": binding})
        async with asyncio.timeout(TIMEOUT_S):
            # The API server takes policies in with a delay, and tells nobody when it has.
            while not await self._is_in_effect(route):  # noqa: ASYNC110 - there is no watch
                await asyncio.sleep(0.1)

    async def end(self) -> None:
        for resource in (BINDING, POLICY):
            with contextlib.suppress(KubeError):
                await self.scenario.kube.delete(resource, self.name)

    async def _is_in_effect(self, route: str) -> bool:
        probe = {"metadata": {"labels": {"probe": "yes"}}}
        space = self.scenario.namespace
        try:
            await self.scenario.kube.patch(
                HTTPROUTE, route, probe, space, kind=PatchKind.MERGE, dry_run=True
            )
        except KubeError as error:
            return "the policy is in effect" in error.message
        return False


@pytest.fixture
async def refusal(scenario: Scenario) -> AsyncIterator[Refusal]:
    found = Refusal(scenario, f"refuse-{scenario.namespace}")
    try:
        yield found
    finally:
        await found.end()


async def test_second_of_two_routes_that_would_be_refused_leaves_the_first_untouched(
    scenario: Scenario, refusal: Refusal
) -> None:
    await hash_addressed(scenario, routes=("chat", "chat-too"))
    async with History(scenario) as history:
        await refusal.start("chat-too", dry_run_too=True)
        await scenario.revise("chat", "2")
        await scenario.until_event("TrafficRoutingError", "the scenario refuses this weight")
    assert history.weights("chat") == [{"chat-a": 100, "chat-b": 0}]
    assert history.weights("chat-too") == [{"chat-a": 100, "chat-b": 0}]


async def test_second_of_two_routes_that_fails_has_the_first_restored(
    scenario: Scenario, refusal: Refusal
) -> None:
    """The refusal hides from dry runs: only the write itself shows it."""
    await hash_addressed(scenario, routes=("chat", "chat-too"))
    async with History(scenario) as history:
        await refusal.start("chat-too", dry_run_too=False)
        await scenario.revise("chat", "2")
        await scenario.until_event("WeightsRestored", "the scenario refuses this weight")
        await scenario.until_weights("chat", {"chat-a": 100, "chat-b": 0})
    seen = history.weights("chat")
    assert seen[:3] == [
        {"chat-a": 100, "chat-b": 0},
        {"chat-a": 90, "chat-b": 10},
        {"chat-a": 100, "chat-b": 0},
    ]
    assert history.weights("chat-too") == [{"chat-a": 100, "chat-b": 0}]
    # Without the refusal both move.
    await refusal.end()
    await scenario.until_paused("chat", 10)
    for name in ("chat", "chat-too"):
        await scenario.until_weights(name, {"chat-a": 90, "chat-b": 10})
