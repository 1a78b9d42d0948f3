"""Which rules move, what waits for a second gateway, and what scaling in mid-canary does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inference_common.kube import HTTPROUTE, INFERENCEPOOL_X, ROLLOUT, PatchKind
from support import manifests as m
from support.deployments import POOLS, hash_addressed
from support.history import History
from support.scenario import is_observed

if TYPE_CHECKING:
    from support.scenario import Scenario

Object = dict[str, Any]


def rule(path: str, *weights: int, name: str | None = None) -> Object:
    refs = [m.pool_ref(pool, weight) for pool, weight in zip(POOLS, weights, strict=True)]
    found = {"matches": [{"path": {"type": "PathPrefix", "value": path}}], "backendRefs": refs}
    return found if name is None else {"name": name, **found}


async def shown(scenario: Scenario) -> list[Object]:
    rules: list[Object] = (await scenario.get(HTTPROUTE, "chat"))["spec"]["rules"]
    return rules


async def scale(scenario: Scenario, replicas: int) -> None:
    """As a HorizontalPodAutoscaler does it, and until its pods are there."""

    def scaled(obj: Object | None) -> bool:
        # The canary's one pod at 10 % comes on top where there is no room for it.
        wanted = {replicas, replicas + 1}
        if obj is None or not is_observed(obj):
            return False
        return obj["status"].get("availableReplicas") in wanted

    await scenario.kube.patch(
        ROLLOUT,
        "chat",
        {"spec": {"replicas": replicas}},
        scenario.namespace,
        kind=PatchKind.MERGE,
        subresource="scale",
    )
    await scenario.until(ROLLOUT, "chat", scaled, what=f"{replicas} replicas")


async def test_rules_chosen_by_name_and_by_match_move_and_no_other(scenario: Scenario) -> None:
    """A third rule with both pools is pinned: it stays as it is, byte by byte."""
    chosen = [{"name": "chat", "rules": ["named", {"path": "/v1/completions"}]}]
    await hash_addressed(
        scenario,
        config={"httpRoutes": chosen},
        rules=[
            rule("/v1/chat", 100, 0, name="named"),
            rule("/v1/embeddings", 100, 0),
            rule("/v1/completions", 100, 0),
        ],
    )
    before = await shown(scenario)
    await scenario.revise("chat", "2")
    await scenario.until_paused("chat", 10)
    after = await shown(scenario)
    assert after[1] == before[1]
    for index in (0, 2):
        refs = after[index].pop("backendRefs")
        assert [ref["weight"] for ref in refs] == [90, 10]
        assert after[index] == {k: v for k, v in before[index].items() if k != "backendRefs"}


async def test_a_step_waits_for_every_gateway_of_the_route(scenario: Scenario) -> None:
    """What a gateway said about an older generation, or never said, counts for nothing."""
    await hash_addressed(scenario)
    await scenario.revise("chat", "2")
    await scenario.until_paused("chat", 10)
    parents = [{"name": m.GATEWAY}, {"name": "unserved"}]
    await attach(scenario, parents)
    await scenario.argo("promote", "chat")
    await scenario.until_weights("chat", {"chat-a": 50, "chat-b": 50})
    await scenario.until_event("WaitingForGateway", "Gateway unserved has not reported on it")
    rollout = await scenario.get(ROLLOUT, "chat")
    assert rollout["status"]["currentStepIndex"] == 2, "setWeight 50 is not complete"
    await attach(scenario, parents[:1])
    await scenario.until_paused("chat", 50)


async def attach(scenario: Scenario, parents: list[Object]) -> None:
    await scenario.kube.patch(
        HTTPROUTE,
        "chat",
        {"spec": {"parentRefs": parents}},
        scenario.namespace,
        kind=PatchKind.MERGE,
    )


async def test_scaling_in_mid_canary_moves_no_weight(scenario: Scenario) -> None:
    """As a HorizontalPodAutoscaler does it; the controller skips traffic in that pass."""
    await hash_addressed(scenario, replicas=2)
    await scenario.revise("chat", "2")
    await scenario.until_paused("chat", 10)
    async with History(scenario) as history:
        for replicas in (5, 1):
            await scale(scenario, replicas)
            await scenario.reconcile("chat")
        assert history.weights("chat") == [{"chat-a": 90, "chat-b": 10}]
        assert history.unanswered() == []
    await scenario.argo("promote", "chat")
    await scenario.until_paused("chat", 50)
    await scenario.until_weights("chat", {"chat-a": 50, "chat-b": 50})


async def test_pools_of_the_older_group_are_aimed_where_both_are_installed(
    scenario: Scenario,
) -> None:
    """A pool of the same name in the other group is another object."""
    await scenario.apply(*[m.pool(name, {"app": "stranger"}) for name in POOLS])
    await hash_addressed(scenario, resource=INFERENCEPOOL_X)
    await scenario.revise("chat", "2")
    await scenario.until_paused("chat", 10)
    hashes = await scenario.hashes("chat")
    aimed = [await scenario.pool_hash(name, INFERENCEPOOL_X) for name in POOLS]
    assert aimed == [hashes["stable"], hashes["current"]]
    assert [await scenario.pool_hash(name) for name in POOLS] == [None, None]
    await scenario.argo("promote", "chat", "--full")
    await scenario.until_healthy("chat")
    await scenario.until_weights("chat", {"chat-a": 0, "chat-b": 100})
