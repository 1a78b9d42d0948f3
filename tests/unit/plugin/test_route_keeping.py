"""What the controller's calls about managed routes do: early words, and taking rules away."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from inference_common.kube import HTTPROUTE, POD, ROLLOUT, SERVICE
from inference_common.names import HASH_LABEL
from inference_plugin.carriers import Permissions
from inference_plugin.errors import ConfigError, HoldingError
from inference_plugin.events import Recorder
from inference_plugin.keeper import Keeper
from inference_plugin.locks import ObjectLocks, WaitSlots
from inference_plugin.rollouts import RolloutKey, RolloutSpec
from inference_plugin.shares import Hashes, Weighting
from inference_plugin.telemetry import Metrics
from inference_plugin.tools import Tools
from support.memory_cluster import (
    NAMESPACE,
    MemoryCluster,
    make_pod,
    make_rollout,
    make_route,
    service_ref,
)

Object = dict[str, Any]
HEADER: Object = {
    "setHeaderRoute": {
        "name": "beta",
        "match": [{"headerName": "x-beta", "headerValue": {"exact": "yes"}}],
    }
}


class Story:
    """A Rollout at its header route, the keeper, and the controller's calls."""

    def __init__(self) -> None:
        self.cluster = MemoryCluster()
        metrics = Metrics(CollectorRegistry())
        self.recorder = Recorder(cast("Any", None), metrics)
        self.keeper = Keeper(
            RolloutKey(namespace=NAMESPACE, name="chat"),
            Tools(
                cluster=cast("Any", self.cluster),
                recorder=self.recorder,
                metrics=metrics,
                locks=ObjectLocks(),
                slots=WaitSlots(0),
                permissions=Permissions(),
            ),
        )
        # As Keepers relays what the watches tell.
        self.cluster.listen(lambda *_: self.keeper.look_again())
        self.spec = RolloutSpec(
            key=self.keeper.key,
            uid="uid-chat",
            config=json.dumps({"httpRoute": "chat"}).encode(),
            stable_service="stable",
            canary_service="canary",
        )
        for role, revision in (("stable", "h1"), ("canary", "h2")):
            self.cluster.put(
                SERVICE, {"metadata": {"name": role}, "spec": {"selector": {"role": role}}}
            )
            self.canary_pod(role, revision)
        route = make_route("chat", [service_ref("stable", 100), service_ref("canary", 0)])
        self.cluster.put(HTTPROUTE, route)
        self.cluster.accept("chat")

    def canary_pod(self, role: str = "canary", revision: str = "h2") -> None:
        self.cluster.put(POD, make_pod(f"{role}-0", {"role": role, HASH_LABEL: revision}))

    def rollout(self, step: Object = HEADER, canary: str = "h2", **status: Any) -> None:
        made = make_rollout("chat", {"httpRoute": "chat"}, stable="h1", canary=canary, **status)
        strategy = made["spec"]["strategy"]["canary"]
        strategy |= {"stableService": "stable", "canaryService": "canary", "steps": [step]}
        strategy["trafficRouting"]["managedRoutes"] = [{"name": "beta"}]
        self.cluster.put(ROLLOUT, made)

    async def set_weight(self, canary: str = "h2") -> None:
        await self.keeper.update_hash(self.spec, Hashes(stable="h1", canary=canary))
        await self.keeper.set_weight(self.spec, Weighting(desired=0), 1)

    def rules(self) -> list[str]:
        rules = self.cluster.objects[HTTPROUTE, NAMESPACE, "chat"]["spec"]["rules"]
        return [rule.get("name", "") for rule in rules]

    def heard(self) -> list[str]:
        return [note.reason for note, _ in self.recorder._queue._queue]  # type: ignore[attr-defined]


@pytest.fixture
async def story() -> Story:
    made = Story()
    made.rollout()
    await made.keeper.check_routes(made.spec)
    await made.set_weight()
    assert made.rules() == ["beta", ""]
    return made


async def test_rules_that_the_steps_want_stay_when_the_controller_is_a_moment_behind(
    story: Story,
) -> None:
    await story.keeper.remove_routes(story.spec)
    assert story.rules() == ["beta", ""]
    # The ReplicaSet was read once more before that was decided.
    assert story.cluster.reads == ["replicasets h2"]


async def test_rules_go_with_the_last_canary_pod_and_come_back_with_the_next(story: Story) -> None:
    """Without a SetWeight: the controller makes none while stable is short of a pod."""
    story.cluster.remove(POD, "canary-0")
    await story.keeper.remove_routes(story.spec)
    assert story.rules() == [""]
    story.canary_pod()
    await story.set_weight()
    assert story.rules() == ["beta", ""]


async def test_rules_of_an_abort_with_dynamic_stable_scale_go_at_once(story: Story) -> None:
    """The traffic goes back only as fast as stable pods appear; the header route does not wait."""
    story.rollout(abort=True)

    def scaled(rollout: Object) -> None:
        rollout["spec"]["strategy"]["canary"]["dynamicStableScale"] = True

    story.cluster.change(ROLLOUT, "chat", scaled)
    await story.keeper.remove_routes(story.spec)
    assert story.rules() == [""]


async def test_an_abort_is_left_to_the_move_of_the_weights(story: Story) -> None:
    story.rollout(abort=True)
    count = len(story.cluster.writes)
    await story.keeper.remove_routes(story.spec)
    assert len(story.cluster.writes) == count
    # The controller asks for a header route of a first step on abort too.
    await story.keeper.check_routes(story.spec)
    with pytest.raises(HoldingError, match="Service/llm/canary is not in effect yet"):
        await story.set_weight()
    assert story.rules() == [""]


async def test_a_call_that_has_nothing_to_take_away_reads_and_writes_nothing() -> None:
    story = Story()
    story.rollout(canary="h1")
    for _ in range(3):
        await story.keeper.remove_routes(story.spec)
    assert story.cluster.writes == []
    assert story.cluster.reads == []


async def test_a_rule_of_somebody_else_is_told_and_left() -> None:
    story = Story()
    story.rollout(canary="h1")
    theirs = {"name": "beta", "backendRefs": [service_ref("docs", 1)]}
    story.cluster.change(HTTPROUTE, "chat", lambda route: route["spec"]["rules"].append(theirs))
    await story.keeper.remove_routes(story.spec)
    assert story.rules() == ["", "beta"]
    assert story.heard() == ["InvalidConfig"]


async def test_a_step_that_can_not_be_had_is_refused_before_any_weight() -> None:
    story = Story()
    story.rollout({"setHeaderRoute": {"name": "beta", "match": [{"headerName": "x"}]}})
    with pytest.raises(ConfigError, match="exactly one of exact, prefix and regex"):
        await story.keeper.check_routes(story.spec)


async def test_a_step_whose_name_is_taken_is_refused_before_it_counts_as_done() -> None:
    story = Story()
    story.rollout()
    theirs = {"name": "beta", "backendRefs": [service_ref("docs", 1)]}
    story.cluster.change(HTTPROUTE, "chat", lambda route: route["spec"]["rules"].append(theirs))
    with pytest.raises(ConfigError, match="rule beta is not made by this plugin"):
        await story.keeper.check_routes(story.spec)
