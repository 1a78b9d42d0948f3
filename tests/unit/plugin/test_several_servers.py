"""Who looks after drift among several servers, and what a killed one leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from inference_common.errors import KubeError, KubeUnreachable
from inference_common.kube import HTTPROUTE, LEASE, POD, ROLLOUT, SERVICE
from inference_common.names import COMMANDED_ANNOTATION
from inference_plugin import commanded
from inference_plugin.carriers import Permissions
from inference_plugin.commanded import Commanded
from inference_plugin.events import Recorder
from inference_plugin.keepers import Keepers
from inference_plugin.leadership import Leadership, LeaseTerms
from inference_plugin.locks import ObjectLocks, WaitSlots
from inference_plugin.recovery import interrupted
from inference_plugin.rollouts import Command, RolloutKey, RolloutSpec
from inference_plugin.server import default_identity
from inference_plugin.shares import Hashes, Weighting
from inference_plugin.supersession import Supersession
from inference_plugin.telemetry import Metrics
from inference_plugin.tools import Tools
from support.memory_cluster import (
    NAMESPACE,
    MemoryCluster,
    make_pod,
    make_rollout,
    make_route,
    service_ref,
    weights_of,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Object = dict[str, Any]
TERMS = LeaseTerms()


class LeaseServer:
    """One Lease with optimistic locking, as the API server keeps it."""

    def __init__(self) -> None:
        self.lease: Object | None = None
        self.away = False

    async def get(self, resource: Any, name: str, namespace: str) -> Object:
        del name, namespace
        assert resource == LEASE
        self._reachable()
        if self.lease is None:
            raise KubeError(404, "NotFound", "no lease")
        return copy.deepcopy(self.lease)

    async def create(self, resource: Any, body: Object, namespace: str) -> Object:
        del resource, namespace
        self._reachable()
        if self.lease is not None:
            raise KubeError(409, "AlreadyExists", "there is one")
        return self._store(body, 0)

    async def replace(self, resource: Any, name: str, body: Object, namespace: str) -> Object:
        del resource, name, namespace
        self._reachable()
        assert self.lease is not None
        version = self.lease["metadata"]["resourceVersion"]
        if body["metadata"]["resourceVersion"] != version:
            raise KubeError(409, "Conflict", "modified")
        return self._store(body, int(version))

    def _reachable(self) -> None:
        if self.away:
            raise KubeUnreachable("away")

    def _store(self, body: Object, version: int) -> Object:
        metadata = body["metadata"] | {"resourceVersion": str(version + 1)}
        self.lease = copy.deepcopy(body) | {"metadata": metadata}
        return copy.deepcopy(self.lease)

    @property
    def holder(self) -> str:
        assert self.lease is not None
        found: str = self.lease["spec"]["holderIdentity"]
        return found


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def contender(server: LeaseServer, clock: Clock, name: str, told: list[bool]) -> Leadership:
    return Leadership(
        cast("Any", server), "ns", "lease", identity=name, on_change=told.append, clock=clock
    )


async def attempt(one: Leadership) -> None:
    with contextlib.suppress(KubeError):
        await one.step()
    one._tell()


async def test_the_first_one_leads_and_the_second_waits_for_its_silence() -> None:
    server, clock, told = LeaseServer(), Clock(), list[bool]()
    one, two = contender(server, clock, "one", told), contender(server, clock, "two", [])
    await attempt(one)
    await attempt(two)
    assert (one.leads, two.leads, told) == (True, False, [True])
    assert one.lease == "ns/lease"
    # The first falls silent: it stops to trust itself before the second takes over.
    clock.now = TERMS.deadline_s
    await attempt(two)
    assert (one.leads, two.leads) == (False, False)
    clock.now = TERMS.duration_s
    await attempt(two)
    assert (two.leads, server.holder) == (True, "two")
    assert server.lease is not None
    assert server.lease["spec"]["leaseTransitions"] == 1
    # Back again, it finds that it was replaced.
    await attempt(one)
    assert (one.leads, told) == (False, [True, False])


async def test_silence_is_measured_from_when_the_lease_was_last_seen_to_change() -> None:
    """A renewTime of a clock that is an hour ahead or behind decides nothing."""
    server, clock = LeaseServer(), Clock()
    long_ago = datetime(2000, 1, 1, tzinfo=UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec = {"holderIdentity": "other", "leaseDurationSeconds": 15, "renewTime": long_ago}
    server._store({"metadata": {"name": "lease"}, "spec": spec}, 0)
    one = contender(server, clock, "one", [])
    await attempt(one)
    assert not one.leads
    clock.now = 14.0
    assert server.lease is not None
    server._store(server.lease, 1)
    await attempt(one)
    clock.now = 28.0
    await attempt(one)
    assert not one.leads
    clock.now = 29.0
    await attempt(one)
    assert one.leads


async def test_a_released_lease_is_taken_at_once() -> None:
    server, clock = LeaseServer(), Clock()
    one, two = contender(server, clock, "one", []), contender(server, clock, "two", [])
    await attempt(one)
    await one.release()
    assert (one.leads, server.holder) == (False, "")
    await attempt(two)
    assert two.leads
    # A release of what is no longer ours does nothing.
    await one.release()
    assert server.holder == "two"


async def test_a_holder_without_the_api_server_stops_in_time() -> None:
    server, clock, told = LeaseServer(), Clock(), list[bool]()
    one = contender(server, clock, "one", told)
    await attempt(one)
    server.away = True
    for clock.now in (2.0, 4.0, 9.9):
        await attempt(one)
        assert one.leads
    clock.now = 10.0
    await attempt(one)
    assert (one.leads, told) == (False, [True, False])
    server.away = False
    await attempt(one)
    assert one.leads


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["one", "two", "away"]), st.floats(0, 8)), max_size=60))
async def test_never_do_two_lead_at_once(moves: list[tuple[str, float]]) -> None:
    server, clock = LeaseServer(), Clock()
    contenders = {name: contender(server, clock, name, []) for name in ("one", "two")}
    for name, passed in moves:
        clock.now += passed
        if name == "away":
            server.away = not server.away
        else:
            await attempt(contenders[name])
        assert sum(each.leads for each in contenders.values()) <= 1


async def test_a_restarted_pod_is_the_holder_that_it_was() -> None:
    pod = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    assert default_identity(pod, "plugin-0") == default_identity(pod, "plugin-0") == "plugin-0"
    assert default_identity({}, "laptop") != default_identity({}, "laptop")
    server, clock = LeaseServer(), Clock()
    before = contender(server, clock, "plugin-0", [])
    await attempt(before)
    after = contender(server, clock, "plugin-0", [])
    await attempt(after)
    assert after.leads


SPEC = RolloutSpec(key=RolloutKey(namespace="llm", name="chat"), uid="u", config=b"{}")
HASHES = Hashes(stable="h1", canary="h2")


def entry(desired: int, since: float, **changes: Any) -> Commanded:
    base: Object = {
        "rollout": "llm/chat",
        "uid": "u",
        "stable": "h1",
        "canary": "h2",
        "desired": desired,
        "maximum": 100,
        "placed": (),
        "since": since,
    }
    return Commanded(**(base | changes))


@pytest.mark.parametrize(
    ("entries", "desired"),
    [
        pytest.param([], None, id="nothing commanded"),
        pytest.param([entry(10, 1.0), entry(10, 2.0)], None, id="all the same"),
        pytest.param([entry(50, 2.0), entry(10, 1.0)], 50, id="the second was left"),
        pytest.param([entry(0, 3.0), entry(50, 2.0)], 0, id="on the way back"),
        pytest.param([entry(50, 2.0, canary="h3"), entry(10, 1.0)], None, id="other revisions"),
        pytest.param([entry(50, 2.0, maximum=200), entry(10, 1.0)], None, id="another maximum"),
        pytest.param([entry(50, 2.0, beside="x"), entry(10, 1.0)], None, id="an Experiment"),
    ],
)
def test_the_newest_of_differing_commands_was_being_carried_out(
    entries: list[Commanded], desired: int | None
) -> None:
    found = interrupted(SPEC, HASHES, entries)
    assert (found.weighting.desired if found else None) == desired


def wish(desired: int) -> Command:
    return Command(spec=SPEC, hashes=HASHES, weighting=Weighting(desired=desired))


@pytest.mark.parametrize(
    ("before", "after", "over"),
    [
        pytest.param(entry(10, 1.0), entry(10, 1.0), False, id="not yet written"),
        pytest.param(entry(10, 1.0), entry(50, 2.0), False, id="written by us"),
        pytest.param(entry(10, 1.0), entry(20, 2.0), True, id="written by another server"),
        pytest.param(entry(50, 1.0), entry(50, 1.0), False, id="already there"),
    ],
)
def test_a_command_is_over_once_another_server_was_given_a_later_one(
    before: Commanded, after: Commanded, *, over: bool
) -> None:
    where = (HTTPROUTE, "llm", "chat")
    found = Supersession()
    found.take([(where, before)])
    assert found.over([(where, after)], wish(50)) is over


class World:
    """One of several servers, over a cluster in memory with a canary at 10 %."""

    def __init__(self) -> None:
        self.leads = False
        self.lease = "ns/lease"
        self.cluster = MemoryCluster()
        metrics = Metrics(CollectorRegistry())
        self.keepers = Keepers(
            Tools(
                cluster=cast("Any", self.cluster),
                recorder=Recorder(cast("Any", None), metrics),
                metrics=metrics,
                locks=ObjectLocks(),
                slots=WaitSlots(0),
                permissions=Permissions(),
                leadership=cast("Any", self),
            )
        )
        for role in ("stable", "canary"):
            self.cluster.put(
                SERVICE, {"metadata": {"name": role}, "spec": {"selector": {"role": role}}}
            )
            self.cluster.put(POD, make_pod(f"{role}-0", {"role": role}))
        refs = [service_ref("stable"), service_ref("canary", 0)]
        self.cluster.put(HTTPROUTE, make_route("chat", refs))
        self.cluster.accept("chat")
        self.rollout()

    def rollout(self, **status: Any) -> None:
        made = make_rollout("chat", {"httpRoute": "chat"}, stable="h1", canary="h2", **status)
        made["spec"]["strategy"]["canary"] |= {"stableService": "stable", "canaryService": "canary"}
        self.cluster.put(ROLLOUT, made)

    async def set_weight(self, weight: int) -> None:
        spec = RolloutSpec(
            key=RolloutKey(namespace=NAMESPACE, name="chat"), uid="uid-chat", config=b""
        )
        await self.keepers.of(spec.key).set_weight(spec, Weighting(desired=weight), 1)
        self.cluster.accept("chat")
        await self.calm()

    async def calm(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    def edit(self, stable: int, canary: int) -> None:
        def change(route: Object) -> None:
            for ref, weight in zip(
                route["spec"]["rules"][0]["backendRefs"], (stable, canary), strict=True
            ):
                ref["weight"] = weight

        self.cluster.change(HTTPROUTE, "chat", change)

    def command_elsewhere(self, weight: int) -> None:
        """Another server carries out a later command."""

        def change(route: Object) -> None:
            found = commanded.read(route, "llm/chat")
            assert found is not None
            placed = tuple(
                replace(each, weight=weight if each.item.endswith("canary") else 100 - weight)
                for each in found.placed
            )
            later = replace(found, desired=weight, placed=placed, since=found.since + 1)
            metadata = route["metadata"]
            metadata["annotations"][COMMANDED_ANNOTATION] = commanded.annotation_value(route, later)
            for ref in route["spec"]["rules"][0]["backendRefs"]:
                ref["weight"] = weight if ref["name"] == "canary" else 100 - weight

        self.cluster.change(HTTPROUTE, "chat", change)

    def weights(self) -> Object:
        return weights_of(self.cluster, "chat")


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    try:
        yield made
    finally:
        await made.keepers.stop()


TEN = {"stable": 90, "canary": 10}


async def test_a_server_that_does_not_lead_answers_and_leaves_drift_alone(world: World) -> None:
    await world.set_weight(10)
    assert world.weights() == TEN
    world.edit(20, 80)
    await world.calm()
    assert world.weights() == {"stable": 20, "canary": 80}
    world.leads = True
    world.keepers.wake_all()
    await world.calm()
    assert world.weights() == TEN


async def test_a_server_that_does_not_lead_leaves_an_abort_to_the_one_that_does(
    world: World,
) -> None:
    await world.set_weight(10)
    world.rollout(abort=True)
    await world.calm()
    assert world.weights() == TEN
    world.leads = True
    world.keepers.wake_all()
    await world.calm()
    assert world.weights() == {"stable": 100, "canary": 0}


async def test_a_leader_does_not_bring_back_what_another_server_was_told_to_change(
    world: World,
) -> None:
    world.leads = True
    await world.set_weight(10)
    world.command_elsewhere(50)
    await world.calm()
    assert world.weights() == {"stable": 50, "canary": 50}
    # Drift from the other server's command is repaired all the same.
    world.edit(0, 100)
    await world.calm()
    assert world.weights() == {"stable": 50, "canary": 50}


async def test_an_abort_is_the_leaders_even_while_a_command_is_still_under_way(
    world: World,
) -> None:
    await world.set_weight(10)
    world.cluster.put(POD, make_pod("canary-0", {"role": "canary"}, ready=False))
    await world.set_weight(50)
    assert world.weights() == TEN
    world.rollout(abort=True)
    await world.calm()
    assert world.weights() == TEN


async def test_a_server_that_does_not_lead_finishes_what_it_was_told_itself(world: World) -> None:
    await world.set_weight(10)
    world.cluster.put(POD, make_pod("canary-0", {"role": "canary"}, ready=False))
    await world.set_weight(50)
    assert world.weights() == TEN
    world.cluster.put(POD, make_pod("canary-0", {"role": "canary"}))
    await world.calm()
    assert world.weights() == {"stable": 50, "canary": 50}
