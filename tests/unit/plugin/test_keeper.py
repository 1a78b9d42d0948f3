"""Stories of one Rollout, told by the controller's calls, edits by hand, pods and the gateway.

The groups of calls are those of the real controller (plugin-walk and controller-calls, kept in
docs/plugin.md): UpdateHash, SetWeight, VerifyWeight within milliseconds.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest
from prometheus_client import CollectorRegistry

from inference_common.errors import KubeError
from inference_common.kube import HTTPROUTE, INFERENCEPOOL, POD, REPLICASET, ROLLOUT, SERVICE
from inference_common.names import COMMANDED_ANNOTATION, HASH_LABEL
from inference_plugin import steering
from inference_plugin.carriers import Permissions
from inference_plugin.errors import ConfigError, ConflictError, HoldingError, StaleError
from inference_plugin.events import Recorder
from inference_plugin.keepers import Keepers
from inference_plugin.locks import ObjectLocks, WaitSlots
from inference_plugin.planning import plan
from inference_plugin.rollouts import Command, RolloutKey, RolloutSpec
from inference_plugin.shares import Hashes, Weighting
from inference_plugin.telemetry import Metrics
from inference_plugin.tools import Tools
from support.memory_cluster import (
    NAMESPACE,
    MemoryCluster,
    aims_of,
    make_pod,
    make_pool,
    make_replica_set,
    make_rollout,
    make_route,
    pool_ref,
    service_ref,
    weights_of,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from inference_plugin.decisions import Decision
    from inference_plugin.view import View

POOLS: Any = {"httpRoute": "chat", "inferencePools": ["a", "b"]}
SERVICES: Any = {"httpRoute": "chat"}


class World:
    """A cluster, the keepers, and the controller's side of the conversation."""

    def __init__(self, config: Any) -> None:
        self.cluster = MemoryCluster()
        self.registry = CollectorRegistry()
        metrics = Metrics(self.registry)
        self.recorder = Recorder(cast("Any", None), metrics)
        self.keepers = Keepers(
            Tools(
                cluster=cast("Any", self.cluster),
                recorder=self.recorder,
                metrics=metrics,
                locks=ObjectLocks(),
                # Calls answer at once: what a call may wait for is the tests' to bring about.
                slots=WaitSlots(0),
                permissions=Permissions(),
            )
        )
        self.config = config
        self.spec = RolloutSpec(
            key=RolloutKey(namespace=NAMESPACE, name="chat"),
            uid="uid-chat",
            config=json.dumps(config).encode(),
            stable_service="stable",
            canary_service="canary",
        )

    def rollout(self, stable: str, canary: str = "", **status: Any) -> None:
        made = make_rollout("chat", self.config, stable=stable, canary=canary, **status)
        made["spec"]["strategy"]["canary"] |= {"stableService": "stable", "canaryService": "canary"}
        self.cluster.put(ROLLOUT, made)

    def pods(self, pod_template_hash: str, ready: int = 1) -> None:
        labels = {"app": "chat", HASH_LABEL: pod_template_hash}
        self.cluster.put(POD, make_pod(f"chat-{pod_template_hash}", labels, ready=bool(ready)))
        self.cluster.put(REPLICASET, make_replica_set("chat", pod_template_hash))

    async def calls(self, stable: str, canary: str, weight: int) -> bool:
        """One reconcile of the controller; what VerifyWeight answered."""
        keeper = self.keepers.of(self.spec.key)
        await keeper.update_hash(self.spec, Hashes(stable=stable, canary=canary))
        await self.set_weight(weight)
        weighting = Weighting(desired=weight)
        return await keeper.verify_weight(self.spec, weighting, 1)

    async def set_weight(self, weight: int) -> None:
        keeper = self.keepers.of(self.spec.key)
        await keeper.set_weight(self.spec, Weighting(desired=weight), 1)

    async def calm(self) -> None:
        """Let background passes that are due run."""
        for _ in range(20):
            await asyncio.sleep(0)

    def weights(self) -> dict[str, int]:
        return weights_of(self.cluster, "chat")

    def aims(self) -> dict[str, str | None]:
        return aims_of(self.cluster)

    def heard(self) -> list[str]:
        """Reasons of the Events so far."""
        return [note.reason for note, _ in self.recorder._queue._queue]  # type: ignore[attr-defined]

    def count(self, name: str, **labels: str) -> float:
        full = f"inference_rollouts_plugin_{name}"
        return self.registry.get_sample_value(full, labels) or 0.0


@asynccontextmanager
async def world_of(config: Any) -> AsyncIterator[World]:
    world = World(config)
    try:
        yield world
    finally:
        await world.keepers.stop()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A Rollout with two hash-addressed pools; the first revision is deployed."""
    async with world_of(POOLS) as made:
        for name in ("a", "b"):
            made.cluster.put(INFERENCEPOOL, make_pool(name, {"app": "chat"}))
        made.cluster.put(HTTPROUTE, make_route("chat", [pool_ref("a"), pool_ref("b")]))
        made.cluster.accept("chat")
        made.pods("h1")
        made.rollout("h1")
        yield made


@pytest.fixture
async def services() -> AsyncIterator[World]:
    """A Rollout with stableService and canaryService, at 10 %."""
    async with world_of(SERVICES) as made:
        for role in ("stable", "canary"):
            made.cluster.put(
                SERVICE, {"metadata": {"name": role}, "spec": {"selector": {"role": role}}}
            )
            made.cluster.put(POD, make_pod(f"{role}-0", {"role": role}))
        route = make_route("chat", [service_ref("stable"), service_ref("canary", 0)])
        made.cluster.put(HTTPROUTE, route)
        made.cluster.accept("chat")
        made.rollout("h1", "h2")
        await made.calls("h1", "h2", 10)
        made.cluster.accept("chat")
        yield made


async def deploy(world: World) -> None:
    """The first deploy's calls, to the end."""
    await world.calls("h1", "h1", 0)
    world.cluster.accept("chat")
    world.cluster.pass_time(5)
    assert await world.calls("h1", "h1", 0)


async def start_canary(world: World, stable: str, canary: str, weight: int) -> None:
    """From a new revision's first call to a verified weight."""
    world.rollout(stable, canary)
    await world.calls(stable, canary, 0)
    world.pods(canary)
    await world.calls(stable, canary, weight)
    world.cluster.pass_time(3)
    await world.calls(stable, canary, weight)
    world.cluster.accept("chat")
    world.cluster.pass_time(3)
    assert await world.calls(stable, canary, weight)


async def test_first_deploy_with_both_weights_absent(world: World) -> None:
    await deploy(world)
    assert world.weights() == {"a": 100, "b": 0}
    assert world.aims() == {"a": "h1", "b": None}


async def test_a_new_revision_is_brought_to_the_idle_pool_and_raised_when_settled(
    world: World,
) -> None:
    await deploy(world)
    world.rollout("h1", "h2")
    assert await world.calls("h1", "h2", 0)
    assert world.aims()["b"] is None
    world.pods("h2")
    # Without any call of the controller: the keeper waits for the first ready pod.
    await world.calm()
    assert world.aims() == {"a": "h1", "b": "h2"}
    assert not await world.calls("h1", "h2", 10)
    assert world.weights() == {"a": 100, "b": 0}
    world.cluster.pass_time(2.5)
    assert not await world.calls("h1", "h2", 10)
    assert world.weights() == {"a": 90, "b": 10}
    world.cluster.accept("chat")
    assert await world.calls("h1", "h2", 10)


async def test_a_promotion_writes_nothing(world: World) -> None:
    await deploy(world)
    await start_canary(world, "h1", "h2", 100)
    count = len(world.cluster.writes)
    world.rollout("h2")
    assert await world.calls("h2", "h2", 0)
    assert len(world.cluster.writes) == count
    assert world.weights() == {"a": 0, "b": 100}


async def test_promote_full_moves_the_rest_in_one_write_without_the_controller(
    world: World,
) -> None:
    await deploy(world)
    await start_canary(world, "h1", "h2", 10)
    world.rollout("h2")
    await world.calm()
    assert world.weights() == {"a": 0, "b": 100}
    with pytest.raises(HoldingError, match="weight 0 of InferencePool"):
        await world.calls("h2", "h2", 0)
    world.cluster.accept("chat")
    world.cluster.pass_time(2.5)
    assert await world.calls("h2", "h2", 0)


async def test_abort_moves_traffic_while_the_controller_calls_nothing(world: World) -> None:
    """One of four stable pods is unready: the controller skips SetWeight, on abort too."""
    await deploy(world)
    await start_canary(world, "h1", "h2", 10)
    world.rollout("h1", "h2", abort=True)
    await world.calm()
    assert world.weights() == {"a": 100, "b": 0}
    assert world.count("moves_to_stable_total") == 1


async def test_abort_without_any_ready_stable_pod_waits_and_says_so(world: World) -> None:
    await deploy(world)
    await start_canary(world, "h1", "h2", 10)
    world.pods("h1", ready=0)
    world.rollout("h1", "h2", abort=True)
    await world.calm()
    assert world.weights() == {"a": 90, "b": 10}
    assert "WaitingForStable" in world.heard()
    world.pods("h1")
    await world.calm()
    assert world.weights() == {"a": 100, "b": 0}


async def test_retry_after_an_abort_does_not_raise_before_the_controller_asks(
    world: World,
) -> None:
    await deploy(world)
    await start_canary(world, "h1", "h2", 10)
    world.rollout("h1", "h2", abort=True)
    await world.calm()
    world.rollout("h1", "h2")
    await world.calm()
    assert world.weights() == {"a": 100, "b": 0}


async def test_a_raise_that_arrives_after_the_abort_is_refused(world: World) -> None:
    await deploy(world)
    await start_canary(world, "h1", "h2", 10)
    world.rollout("h1", "h2", abort=True)
    await world.calm()
    with pytest.raises(StaleError, match="is aborted or fully promoted"):
        await world.set_weight(50)
    assert world.weights() == {"a": 100, "b": 0}


async def test_undo_finds_the_old_revision_where_it_was(world: World) -> None:
    await deploy(world)
    await start_canary(world, "h1", "h2", 100)
    world.rollout("h2")
    await world.calls("h2", "h2", 0)
    world.rollout("h2", "h1")
    await world.calls("h2", "h1", 10)
    assert world.weights() == {"a": 10, "b": 90}
    assert world.aims() == {"a": "h1", "b": "h2"}


async def test_v3_while_v2_has_traffic(world: World) -> None:
    """SetWeight(0) arrives before UpdateHash, and V2's pods end in the same reconcile."""
    await deploy(world)
    await start_canary(world, "h1", "h2", 50)
    world.rollout("h1", "h3")
    with pytest.raises(HoldingError):
        await world.set_weight(0)
    assert world.weights() == {"a": 100, "b": 0}
    world.pods("h3")
    await world.calm()
    assert world.aims()["b"] == "h2", "the gateway has not taken in weight 0 yet"
    world.cluster.accept("chat")
    with pytest.raises(HoldingError, match="is settling"):
        await world.set_weight(0)
    world.cluster.pass_time(2.5)
    assert await world.calls("h1", "h3", 0)
    assert world.aims()["b"] == "h3"


async def test_v3_is_an_older_revision_that_still_runs(world: World) -> None:
    """UpdateHash comes first and must not fail, or SetWeight would never be called."""
    await deploy(world)
    await start_canary(world, "h1", "h2", 50)
    world.pods("h0")
    world.rollout("h1", "h0")
    assert not await world.calls("h1", "h0", 10)
    assert world.weights() == {"a": 100, "b": 0}
    world.cluster.accept("chat")
    world.cluster.pass_time(2.5)
    await world.calls("h1", "h0", 10)
    world.cluster.pass_time(2.5)
    await world.calls("h1", "h0", 10)
    assert world.aims() == {"a": "h1", "b": "h0"}
    assert world.weights() == {"a": 90, "b": 10}


async def test_a_promotion_that_found_no_pool_holds_the_old_pods_and_then_moves(
    world: World,
) -> None:
    """promote --full before the canary's pool was aimed."""
    await deploy(world)
    world.pods("h2")
    world.rollout("h2")
    with pytest.raises(HoldingError, match="serves the promoted revision h2 yet"):
        await world.calls("h2", "h2", 0)
    await world.calm()
    assert world.aims()["b"] == "h2"
    assert world.weights() == {"a": 100, "b": 0}
    world.cluster.pass_time(2.5)
    with pytest.raises(HoldingError):
        await world.calls("h2", "h2", 0)
    assert world.weights() == {"a": 0, "b": 100}
    world.cluster.accept("chat")
    world.cluster.pass_time(2.5)
    assert await world.calls("h2", "h2", 0)


async def test_the_same_call_again_neither_reads_nor_writes(world: World) -> None:
    await deploy(world)
    await start_canary(world, "h1", "h2", 10)
    writes, reads = len(world.cluster.writes), len(world.cluster.reads)
    for _ in range(3):
        assert await world.calls("h1", "h2", 10)
    assert (len(world.cluster.writes), len(world.cluster.reads)) == (writes, reads)
    assert world.count("writes_avoided_total") >= 3


async def test_a_restarted_server_goes_on_from_the_objects(world: World) -> None:
    await deploy(world)
    await start_canary(world, "h1", "h2", 10)
    other = World(POOLS)
    other.cluster = world.cluster
    fresh = Keepers(
        Tools(
            cluster=cast("Any", world.cluster),
            recorder=other.recorder,
            metrics=Metrics(CollectorRegistry()),
            locks=ObjectLocks(),
            slots=WaitSlots(0),
            permissions=Permissions(),
        )
    )
    await world.keepers.stop()
    other.keepers = fresh
    count = len(world.cluster.writes)
    assert await other.calls("h1", "h2", 10)
    assert len(world.cluster.writes) == count
    # Without a command in memory, an abort is carried out all the same.
    other.rollout("h1", "h2", abort=True)
    await other.calm()
    await fresh.stop()
    assert other.weights() == {"a": 100, "b": 0}


# Revisions


async def test_revisions_that_the_api_server_does_not_show_are_read_once_then_refused(
    services: World,
) -> None:
    with pytest.raises(StaleError, match="means canary h9 and stable h1"):
        await services.calls("h1", "h9", 10)
    assert services.cluster.reads == ["rollouts/chat hash_mismatch"] * 2
    assert services.weights() == {"stable": 90, "canary": 10}
    assert await services.calls("h1", "h2", 10)


# Drift


def edit(world: World, name: str, weight: int) -> None:
    def change(route: Any) -> None:
        for ref in route["spec"]["rules"][0]["backendRefs"]:
            if ref["name"] == name:
                ref["weight"] = weight

    world.cluster.change(HTTPROUTE, "chat", change)


async def test_a_weight_changed_by_hand_is_put_back_without_a_call(services: World) -> None:
    await services.calm()
    edit(services, "canary", 60)
    await services.calm()
    assert services.weights() == {"stable": 90, "canary": 10}
    assert "DriftRepaired" in services.heard()
    assert services.count("drift_total", action="repaired") == 1


async def test_a_fight_over_a_weight_slows_down_and_is_told(services: World) -> None:
    for _ in range(8):
        edit(services, "canary", 60)
        await services.calm()
    assert services.count("drift_total", action="repaired") == 5
    assert "DriftFight" in services.heard()


async def test_drift_is_only_reported_if_so_configured() -> None:
    async with world_of(SERVICES | {"drift": "report"}) as world:
        for role in ("stable", "canary"):
            service = {"metadata": {"name": role}, "spec": {"selector": {"role": role}}}
            world.cluster.put(SERVICE, service)
            world.cluster.put(POD, make_pod(f"{role}-0", {"role": role}))
        route = make_route("chat", [service_ref("stable"), service_ref("canary", 0)])
        world.cluster.put(HTTPROUTE, route)
        world.rollout("h1", "h2")
        await world.calls("h1", "h2", 10)
        edit(world, "canary", 60)
        await world.calm()
        assert world.weights() == {"stable": 90, "canary": 60}
        assert "DriftReported" in world.heard()


async def test_without_the_annotation_the_next_call_decides(services: World) -> None:
    def strip(route: Any) -> None:
        del route["metadata"]["annotations"][COMMANDED_ANNOTATION]
        route["spec"]["rules"][0]["backendRefs"][1]["weight"] = 60

    services.cluster.change(HTTPROUTE, "chat", strip)
    await services.calm()
    assert services.weights() == {"stable": 90, "canary": 60}
    await services.calls("h1", "h2", 10)
    assert services.weights() == {"stable": 90, "canary": 10}


# Writes that do not go through


async def test_a_conflict_is_read_again_and_planned_anew(services: World) -> None:
    edits = iter([None])

    def interfere(_: Any) -> None:
        for _ in edits:
            services.cluster.change(HTTPROUTE, "chat", lambda route: route["spec"].update(x=1))

    services.cluster.before_write = interfere
    await services.calls("h1", "h2", 50)
    assert services.weights() == {"stable": 50, "canary": 50}
    assert services.count("writes_total", resource="httproutes", outcome="conflict") == 1


async def test_a_conflict_at_every_attempt_is_told_in_the_end(services: World) -> None:
    def interfere(_: Any) -> None:
        services.cluster.change(HTTPROUTE, "chat", lambda route: route["spec"].update(x=1))

    services.cluster.before_write = interfere
    with pytest.raises(ConflictError, match="changed under each of 10 attempts"):
        await services.set_weight(50)


async def test_a_refusal_by_validation_is_not_tried_again(services: World) -> None:
    attempts = []

    def refuse(write: Any) -> None:
        attempts.append(write)
        raise KubeError(422, "Invalid", "spec.rules: too many")

    services.cluster.before_write = refuse
    with pytest.raises(KubeError, match="too many"):
        await services.set_weight(50)
    assert len(attempts) == 1


async def test_bad_configuration_is_an_event_and_writes_nothing(services: World) -> None:
    count = len(services.cluster.writes)
    services.config = {"httpRoot": 1}
    services.rollout("h1", "h2")
    with pytest.raises(ConfigError) as found:
        await services.set_weight(50)
    services.keepers.of(services.spec.key).problem(services.spec, found.value)
    assert "InvalidConfig" in services.heard()
    assert len(services.cluster.writes) == count


async def test_a_caller_can_not_name_what_is_written(services: World) -> None:
    """Over a network whoever may call still has no say in which objects a Rollout manages."""
    services.cluster.put(HTTPROUTE, make_route("other", [service_ref("a"), service_ref("b", 0)]))
    config = b'{"httpRoute": "other", "static": {"kind": "Service", "stable": "a", "canary": "b"}}'
    services.spec = RolloutSpec(
        key=services.spec.key, uid="uid-chat", config=config, max_weight=1000
    )
    await services.set_weight(50)
    assert services.weights() == {"stable": 50, "canary": 50}
    assert weights_of(services.cluster, "other") == {"a": 1, "b": 0}


@pytest.mark.parametrize(
    ("uid", "config"),
    [
        pytest.param("uid-else", {"httpRoute": "chat"}, id="another-uid"),
        pytest.param("uid-chat", None, id="not-routed-here"),
    ],
)
async def test_a_caller_can_not_move_what_is_not_that_rollouts(
    services: World, uid: str, config: Any
) -> None:
    services.config = config
    services.rollout("h1", "h2")
    services.spec = RolloutSpec(key=services.spec.key, uid=uid, config=b'{"httpRoute": "chat"}')
    with pytest.raises(StaleError):
        await services.set_weight(50)
    assert services.weights()["canary"] != 50


async def test_a_deleted_rollout_is_kept_no_longer(services: World) -> None:
    assert services.count("rollouts") == 1
    services.cluster.remove(ROLLOUT, "chat")
    assert services.count("rollouts") == 0


async def test_a_deleted_rollout_leaves_everything_on_stable(services: World) -> None:
    services.cluster.remove(ROLLOUT, "chat")
    await services.calm()
    assert services.weights() == {"stable": 100, "canary": 0}
    assert COMMANDED_ANNOTATION not in annotations_of(services)
    assert "Released" in services.heard()


async def test_a_rollout_that_ended_while_the_server_was_away_is_made_up_for(
    services: World,
) -> None:
    await services.keepers.stop()
    services.cluster._listeners.clear()
    services.cluster.remove(ROLLOUT, "chat")
    assert services.weights() == {"stable": 90, "canary": 10}
    fresh = Keepers(services.keepers._tools)
    fresh.wake_all()
    await services.calm()
    assert services.weights() == {"stable": 100, "canary": 0}
    await fresh.stop()


async def test_nothing_is_given_up_while_rollouts_are_not_served(services: World) -> None:
    await services.keepers.stop()
    services.cluster._listeners.clear()
    services.cluster.remove(ROLLOUT, "chat")
    services.cluster.unserved.add(ROLLOUT)
    fresh = Keepers(services.keepers._tools)
    fresh.wake_all()
    await services.calm()
    assert services.weights() == {"stable": 90, "canary": 10}
    await fresh.stop()


async def test_a_new_rollout_of_the_same_name_is_not_mistaken_for_the_ended_one(
    services: World,
) -> None:
    services.cluster.remove(ROLLOUT, "chat")
    made = make_rollout("chat", SERVICES, stable="h1", canary="h2")
    made["metadata"]["uid"] = "uid-another"
    services.cluster.put(ROLLOUT, made)
    await services.calm()
    # The old one is given up; the new one has asked for nothing yet.
    assert services.weights() == {"stable": 100, "canary": 0}


async def test_an_unmanaged_route_of_the_old_configuration_is_given_up(services: World) -> None:
    route = make_route("other", [service_ref("stable"), service_ref("canary", 0)])
    services.cluster.put(HTTPROUTE, route)
    services.config = {"httpRoute": "other"}
    services.rollout("h1", "h2")
    await services.calm()
    assert services.weights() == {"stable": 100, "canary": 0}
    assert COMMANDED_ANNOTATION not in annotations_of(services)


async def test_a_route_stays_managed_until_its_successor_exists(services: World) -> None:
    services.config = {"httpRoute": "other"}
    services.rollout("h1", "h2")
    await services.calm()
    assert services.weights() == {"stable": 90, "canary": 10}


async def test_a_pool_that_is_no_longer_named_is_drained_and_let_go(world: World) -> None:
    await world.calls("h1", "h1", 0)
    world.pods("h2")
    world.rollout("h1", "h2")
    await settle(world, "h1", "h2", 10)
    assert world.weights() == {"a": 90, "b": 10}
    assert world.aims() == {"a": "h1", "b": "h2"}
    world.cluster.put(INFERENCEPOOL, make_pool("c", {"app": "chat"}))

    def add(route: Any) -> None:
        route["spec"]["rules"][0]["backendRefs"].append(pool_ref("c", 0))

    world.cluster.change(HTTPROUTE, "chat", add)
    world.config = {"httpRoute": "chat", "inferencePools": ["a", "c"]}
    world.spec = replace(world.spec, config=json.dumps(world.config).encode())
    world.rollout("h1", "h2")
    await settle(world, "h1", "h2", 10)
    assert world.weights() == {"a": 90, "b": 0, "c": 10}
    assert world.aims() == {"a": "h1", "b": None, "c": "h2"}
    # Its share is nobody's any more: whoever gives it weight keeps that.
    assert "/b" not in annotations_of(world)[COMMANDED_ANNOTATION]


async def test_an_edit_is_adopted_until_the_next_command() -> None:
    async with world_of(SERVICES | {"drift": "adopt"}) as world:
        for role in ("stable", "canary"):
            service = {"metadata": {"name": role}, "spec": {"selector": {"role": role}}}
            world.cluster.put(SERVICE, service)
            world.cluster.put(POD, make_pod(f"{role}-0", {"role": role}))
        route = make_route("chat", [service_ref("stable"), service_ref("canary", 0)])
        world.cluster.put(HTTPROUTE, route)
        world.rollout("h1", "h2")
        await world.calls("h1", "h2", 10)
        edit(world, "canary", 60)
        await world.calm()
        assert "DriftAdopted" in world.heard()
        count = len(world.cluster.writes)
        await world.calls("h1", "h2", 10)
        assert (world.weights(), len(world.cluster.writes)) == ({"stable": 90, "canary": 60}, count)
        await world.calls("h1", "h2", 50)
        assert world.weights() == {"stable": 50, "canary": 50}


async def test_an_edit_that_leaves_nobody_any_weight_is_not_adopted() -> None:
    async with world_of(SERVICES | {"drift": "adopt"}) as world:
        for role in ("stable", "canary"):
            service = {"metadata": {"name": role}, "spec": {"selector": {"role": role}}}
            world.cluster.put(SERVICE, service)
            world.cluster.put(POD, make_pod(f"{role}-0", {"role": role}))
        route = make_route("chat", [service_ref("stable"), service_ref("canary", 0)])
        world.cluster.put(HTTPROUTE, route)
        world.rollout("h1", "h2")
        await world.calls("h1", "h2", 10)

        def empty(route: Any) -> None:
            for ref in route["spec"]["rules"][0]["backendRefs"]:
                ref["weight"] = 0

        world.cluster.change(HTTPROUTE, "chat", empty)
        await world.calm()
        assert world.weights() == {"stable": 90, "canary": 10}


# Steps that lower the weight


def at_step(world: World, index: int, *weights: int) -> None:
    """The Rollout stands at that step of these setWeight steps."""
    made = make_rollout("chat", world.config, stable="h1", canary="h2", currentStepIndex=index)
    canary = made["spec"]["strategy"]["canary"]
    canary |= {"stableService": "stable", "canaryService": "canary"}
    canary["steps"] = [{"setWeight": weight} for weight in weights]
    world.cluster.put(ROLLOUT, made)


async def test_a_falling_step_moves_traffic_before_the_controller_asks(services: World) -> None:
    at_step(services, 1, 10, 0)
    await services.calm()
    assert services.weights() == {"stable": 100, "canary": 0}


async def test_pods_are_held_until_a_falling_step_is_in_effect(services: World) -> None:
    """The controller repeats the weight before, and would scale the canary down next."""
    at_step(services, 1, 10, 0)
    with pytest.raises(HoldingError):
        await services.set_weight(10)
    services.cluster.accept("chat")
    services.cluster.pass_time(10)
    await services.set_weight(10)
    assert services.weights() == {"stable": 100, "canary": 0}


async def test_the_repeated_weight_of_a_falling_step_is_not_verified(services: World) -> None:
    at_step(services, 1, 10, 0)
    await services.calm()
    services.cluster.accept("chat")
    assert not await services.calls("h1", "h2", 10)


async def test_a_rising_step_waits_for_the_controller(services: World) -> None:
    at_step(services, 1, 10, 50)
    await services.calm()
    assert services.weights() == {"stable": 90, "canary": 10}


def annotations_of(world: World) -> dict[str, str]:
    route = world.cluster.objects[HTTPROUTE, NAMESPACE, "chat"]
    found: dict[str, str] = route["metadata"].get("annotations") or {}
    return found


async def settle(world: World, stable: str, canary: str, weight: int) -> None:
    """Calls of the controller until nothing changes, with a gateway that keeps up."""
    for _ in range(8):
        with suppress(HoldingError):
            await world.calls(stable, canary, weight)
        world.cluster.accept("chat")
        world.cluster.pass_time(3)


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The desired weight of each plan from now on."""
    made: list[int] = []

    def counted(command: Command, view: View, *, now: float, permissions: Permissions) -> Decision:
        made.append(command.weighting.desired)
        return plan(command, view, now=now, permissions=permissions)

    monkeypatch.setattr(steering, "plan", counted)
    return made


async def test_a_changed_weight_takes_two_plans_and_its_acceptance_one(
    world: World, plans: list[int]
) -> None:
    """Before the write and after it; neither the background nor later calls repeat the second."""
    await deploy(world)
    await start_canary(world, "h1", "h2", 10)
    await world.calm()
    plans.clear()
    for _ in range(3):
        assert not await world.calls("h1", "h2", 50)
        await world.calm()
    assert plans == [50, 50]
    world.cluster.accept("chat")
    await world.calm()
    assert await world.calls("h1", "h2", 50)
    assert plans == [50, 50, 50]


async def test_what_is_done_is_planned_anew_only_after_a_change_of_what_was_looked_at(
    world: World, plans: list[int]
) -> None:
    await deploy(world)
    await start_canary(world, "h1", "h2", 10)
    await world.calm()
    assert await world.calls("h1", "h2", 10)
    plans.clear()
    avoided = world.count("writes_avoided_total")
    for _ in range(3):
        assert await world.calls("h1", "h2", 10)
    assert plans == []
    assert world.count("writes_avoided_total") == avoided + 3
    # A pod of somebody else is nothing that the plan has looked at; one of the canary's is.
    world.cluster.put(POD, make_pod("stranger", {"app": "other"}))
    assert await world.calls("h1", "h2", 10)
    assert plans == []
    world.pods("h2", ready=0)
    assert await world.calls("h1", "h2", 10)
    assert plans == [10]
    # Another weight is another wish.
    world.pods("h2")
    await world.set_weight(50)
    assert world.weights() == {"a": 50, "b": 50}
