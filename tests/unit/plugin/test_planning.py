"""What is written, awaited or refused, by kind of destination; everything else stays as it was."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_common.kube import (
    GRPCROUTE,
    HTTPROUTE,
    INFERENCEMODEL,
    INFERENCEPOOL,
    INFERENCEPOOL_X,
    POD,
    REPLICASET,
    ROLLOUT,
    SERVICE,
)
from inference_common.names import COMMANDED_ANNOTATION, HASH_LABEL
from inference_plugin import commanded
from inference_plugin.carriers import Permissions
from inference_plugin.errors import ConfigError
from inference_plugin.patches import ObjectPatch, PoolAim
from inference_plugin.planning import plan
from inference_plugin.rollouts import Command, RolloutKey, RolloutSpec
from inference_plugin.shares import Hashes, Weighting
from inference_plugin.targets import WaitReason
from support.memory_cluster import (
    NAMESPACE,
    MemoryCluster,
    apply_patch,
    make_model,
    make_pod,
    make_pool,
    make_replica_set,
    make_rollout,
    make_route,
    pool_ref,
    service_ref,
    targets_of,
    weights_of,
)

if TYPE_CHECKING:
    from inference_plugin.decisions import Decision

NOW = 1_000_000.0


def make_command(
    config: Any,
    *,
    desired: int = 0,
    stable: str = "h1",
    canary: str = "h2",
    own: bool = False,
    services: tuple[str, str] = ("", ""),
    name: str = "chat",
) -> Command:
    return Command(
        spec=RolloutSpec(
            key=RolloutKey(namespace=NAMESPACE, name=name),
            uid=f"uid-{name}",
            config=json.dumps(config).encode(),
            stable_service=services[0],
            canary_service=services[1],
        ),
        hashes=Hashes(stable=stable, canary=canary),
        weighting=Weighting(desired=desired),
        own=own,
    )


def decide(cluster: MemoryCluster, command: Command, *, now: float = NOW) -> Decision:
    return plan(command, cluster, now=now, permissions=Permissions())


async def carry_out(cluster: MemoryCluster, command: Command, *, now: float = NOW) -> Decision:
    """Plan and write until nothing is left to write."""
    for _ in range(5):
        decision = decide(cluster, command, now=now)
        if not decision.writes:
            return decision
        for write in decision.writes:
            await cluster.write(write)
    raise AssertionError("the plan never ends")


@pytest.fixture
def services() -> MemoryCluster:
    """Two Services of one Rollout, both with ready pods."""
    cluster = MemoryCluster()
    for role in ("stable", "canary"):
        cluster.put(SERVICE, {"metadata": {"name": role}, "spec": {"selector": {"role": role}}})
        cluster.put(POD, make_pod(f"{role}-0", {"role": role}))
    cluster.put(HTTPROUTE, make_route("chat", [service_ref("stable"), service_ref("canary", 0)]))
    cluster.accept("chat")
    return cluster


@pytest.fixture
def pools() -> MemoryCluster:
    """Two pools run by somebody else, named by the revisions h1 and h2."""
    cluster = MemoryCluster()
    for name in ("qwen", "deepseek"):
        cluster.put(INFERENCEPOOL, make_pool(name, {"model": name}, picker=f"{name}-picker"))
        cluster.put(POD, make_pod(f"{name}-0", {"model": name}))
        picker = {"metadata": {"name": f"{name}-picker"}, "spec": {"selector": {"epp": name}}}
        cluster.put(SERVICE, picker)
        cluster.put(POD, make_pod(f"{name}-picker-0", {"epp": name}))
    cluster.put(REPLICASET, make_replica_set("chat", "h1", destination="qwen"))
    cluster.put(REPLICASET, make_replica_set("chat", "h2", destination="deepseek"))
    refs = [pool_ref("qwen") | {"port": 8000}, pool_ref("deepseek", 0)]
    cluster.put(HTTPROUTE, make_route("chat", refs))
    cluster.accept("chat")
    return cluster


@pytest.fixture
def adapters() -> MemoryCluster:
    """A model with two adapters, named by the revisions h1 and h2."""
    cluster = MemoryCluster()
    cluster.put(INFERENCEPOOL_X, make_pool("lora-pool", {"app": "vllm"}, resource=INFERENCEPOOL_X))
    cluster.put(POD, make_pod("vllm-0", {"app": "vllm"}))
    cluster.put(REPLICASET, make_replica_set("chat", "h1", destination="travel-v1"))
    cluster.put(REPLICASET, make_replica_set("chat", "h2", destination="travel-v2"))
    cluster.put(INFERENCEMODEL, make_model("travel", {"name": "travel-v1"}))
    return cluster


SERVICES: Any = {"httpRoute": "chat"}
NAMED: Any = {"httpRoute": "chat", "destinationKind": "InferencePool"}
MODEL: Any = {"inferenceModel": "travel"}


async def test_services_named_by_the_rollout_get_its_weights(services: MemoryCluster) -> None:
    command = make_command(SERVICES, desired=10, services=("stable", "canary"))
    await carry_out(services, command)
    assert weights_of(services, "chat") == {"stable": 90, "canary": 10}


async def test_a_grpc_route_beside_an_http_route_of_the_same_name_gets_the_weights_too(
    services: MemoryCluster,
) -> None:
    refs = [service_ref("stable", 3), service_ref("canary", 0), service_ref("other", 1)]
    services.put(GRPCROUTE, make_route("chat", refs) | {"apiVersion": GRPCROUTE.api_version})
    services.accept("chat", GRPCROUTE)
    config = {"httpRoute": "chat", "grpcRoute": "chat"}
    command = make_command(config, desired=50, services=("stable", "canary"))
    decision = await carry_out(services, command)
    assert weights_of(services, "chat") == {"stable": 50, "canary": 50}
    # The third backend keeps its quarter: 3 + 3 beside 2.
    assert weights_of(services, "chat", resource=GRPCROUTE) == {
        "stable": 3,
        "canary": 3,
        "other": 2,
    }
    assert not decision.verified
    assert "HTTPRoute llm/chat" in decision.unaccepted
    assert "GRPCRoute llm/chat" in decision.unaccepted
    services.accept("chat")
    assert decide(services, command).unaccepted.startswith("GRPCRoute llm/chat")
    services.accept("chat", GRPCROUTE)
    assert decide(services, command).verified


async def test_a_pool_named_by_the_revision_gets_its_weight(pools: MemoryCluster) -> None:
    await carry_out(pools, make_command(NAMED, desired=10))
    assert weights_of(pools, "chat") == {"qwen": 90, "deepseek": 10}
    refs = pools.objects[HTTPROUTE, NAMESPACE, "chat"]["spec"]["rules"][0]["backendRefs"]
    assert [ref.get("port") for ref in refs] == [8000, None]


async def test_a_pool_that_the_route_lacks_is_added_when_it_gets_weight(
    pools: MemoryCluster,
) -> None:
    pools.put(HTTPROUTE, make_route("chat", [pool_ref("qwen")]))
    await carry_out(pools, make_command(NAMED))
    assert weights_of(pools, "chat") == {"qwen": 1}
    await carry_out(pools, make_command(NAMED, desired=10))
    assert weights_of(pools, "chat") == {"qwen": 90, "deepseek": 10}


async def test_going_on_to_a_third_pool_leaves_the_first_at_zero(pools: MemoryCluster) -> None:
    await carry_out(pools, make_command(NAMED, desired=100))
    pools.put(INFERENCEPOOL, make_pool("llama", {"model": "llama"}))
    pools.put(POD, make_pod("llama-0", {"model": "llama"}))
    pools.put(REPLICASET, make_replica_set("chat", "h3", destination="llama"))
    await carry_out(pools, make_command(NAMED, desired=25, stable="h2", canary="h3"))
    assert weights_of(pools, "chat") == {"qwen": 0, "deepseek": 75, "llama": 25}


async def test_an_adapter_gets_its_weight_and_leaves_the_list_at_zero(
    adapters: MemoryCluster,
) -> None:
    await carry_out(adapters, make_command(MODEL))
    assert targets_of(adapters, "travel") == {"travel-v1": 1}
    await carry_out(adapters, make_command(MODEL, desired=10))
    assert targets_of(adapters, "travel") == {"travel-v1": 90, "travel-v2": 10}
    await carry_out(adapters, make_command(MODEL, desired=100))
    assert targets_of(adapters, "travel") == {"travel-v2": 100}
    await carry_out(adapters, make_command(MODEL, stable="h2", canary="h2"))
    assert targets_of(adapters, "travel") == {"travel-v2": 100}


async def test_a_model_without_targets_gets_the_stable_one(adapters: MemoryCluster) -> None:
    adapters.put(INFERENCEMODEL, make_model("travel"))
    await carry_out(adapters, make_command(MODEL, stable="h1", canary="h1"))
    assert targets_of(adapters, "travel") == {"travel-v1": 100}


async def test_other_targets_of_a_model_keep_their_share(adapters: MemoryCluster) -> None:
    adapters.put(INFERENCEMODEL, make_model("travel", {"name": "travel-v1"}, {"name": "fallback"}))
    await carry_out(adapters, make_command(MODEL, desired=10))
    # One of two keeps a half: 9 + 1 beside 10.
    assert targets_of(adapters, "travel") == {"travel-v1": 9, "fallback": 10, "travel-v2": 1}


async def test_the_same_command_again_writes_nothing(
    services: MemoryCluster, pools: MemoryCluster, adapters: MemoryCluster
) -> None:
    for cluster, command in (
        (services, make_command(SERVICES, desired=10, services=("stable", "canary"))),
        (pools, make_command(NAMED, desired=10)),
        (adapters, make_command(MODEL, desired=10)),
    ):
        await carry_out(cluster, command)
        count = len(cluster.writes)
        await carry_out(cluster, command, now=NOW + 100)
        assert count == 1
        assert len(cluster.writes) == count


def test_a_write_carries_its_guard_and_what_was_commanded(services: MemoryCluster) -> None:
    command = make_command(SERVICES, desired=10, services=("stable", "canary"))
    [write] = decide(services, command).writes
    assert isinstance(write, ObjectPatch)
    route = services.objects[HTTPROUTE, NAMESPACE, "chat"]
    assert [(one["op"], one["path"]) for one in write.operations] == [
        ("test", "/metadata/uid"),
        ("replace", "/metadata/resourceVersion"),
        ("test", "/spec/rules/0/backendRefs"),
        ("add", "/spec/rules/0/backendRefs/0/weight"),
        ("add", "/spec/rules/0/backendRefs/1/weight"),
        ("add", "/metadata/annotations"),
        ("add", "/metadata/annotations/inference-rollouts.io~1commanded"),
    ]
    entry = commanded.read(apply_patch(route, write.operations), "llm/chat")
    assert entry is not None
    assert (entry.desired, entry.stable, entry.canary, entry.since) == (10, "h1", "h2", NOW)
    assert {placed.item: placed.weight for placed in entry.placed} == {
        "Service/llm/stable": 90,
        "Service/llm/canary": 10,
    }


async def test_weights_that_are_right_already_are_taken_over_once(services: MemoryCluster) -> None:
    command = make_command(SERVICES, services=("stable", "canary"))
    [write] = decide(services, command).writes
    assert "taken over" in write.summary
    await carry_out(services, command)
    assert weights_of(services, "chat") == {"stable": 1, "canary": 0}


# Gates


@pytest.mark.parametrize(
    ("pod", "reason"),
    [
        pytest.param("deepseek-0", WaitReason.READY_PODS, id="no-ready-pod"),
        pytest.param("deepseek-picker-0", WaitReason.PICKER, id="no-ready-picker"),
    ],
)
async def test_a_share_is_not_raised_before_its_destination_is_ready(
    pools: MemoryCluster, pod: str, reason: WaitReason
) -> None:
    labels = pools.objects[POD, NAMESPACE, pod]["metadata"]["labels"]
    pools.put(POD, make_pod(pod, labels, ready=False))
    decision = await carry_out(pools, make_command(NAMED, desired=10))
    assert weights_of(pools, "chat") == {"qwen": 1, "deepseek": 0}
    assert not decision.reached
    assert [wait.reason for wait in decision.waits] == [reason]
    pools.put(POD, make_pod(pod, labels))
    await carry_out(pools, make_command(NAMED, desired=10))
    assert weights_of(pools, "chat") == {"qwen": 90, "deepseek": 10}


async def test_the_move_towards_stable_is_never_gated(pools: MemoryCluster) -> None:
    await carry_out(pools, make_command(NAMED, desired=50))
    for pod in ("qwen-0", "deepseek-0"):
        labels = pools.objects[POD, NAMESPACE, pod]["metadata"]["labels"]
        pools.put(POD, make_pod(pod, labels, ready=False))
    await carry_out(pools, make_command(NAMED, desired=0))
    assert weights_of(pools, "chat") == {"qwen": 100, "deepseek": 0}


async def test_the_servers_own_move_to_stable_waits_for_a_ready_endpoint(
    pools: MemoryCluster,
) -> None:
    await carry_out(pools, make_command(NAMED, desired=50))
    pools.put(POD, make_pod("qwen-0", {"model": "qwen"}, ready=False))
    own = make_command(NAMED, own=True)
    decision = await carry_out(pools, own)
    assert weights_of(pools, "chat") == {"qwen": 50, "deepseek": 50}
    assert [wait.reason for wait in decision.waits] == [WaitReason.STABLE]
    pools.put(POD, make_pod("qwen-0", {"model": "qwen"}))
    await carry_out(pools, own)
    assert weights_of(pools, "chat") == {"qwen": 100, "deepseek": 0}


# Verification and holding pods


async def test_weights_are_verified_when_the_gateway_took_in_this_generation(
    services: MemoryCluster,
) -> None:
    command = make_command(SERVICES, desired=10, services=("stable", "canary"))
    decision = await carry_out(services, command)
    assert (decision.reached, decision.verified) == (True, False)
    assert "is of generation 1, the route is at 2" in decision.unaccepted
    services.accept("chat")
    assert (await carry_out(services, command)).verified


async def test_pods_are_held_until_the_gateway_took_in_their_weight_zero(
    services: MemoryCluster,
) -> None:
    up, down = (
        make_command(SERVICES, desired=weight, services=("stable", "canary")) for weight in (50, 0)
    )
    await carry_out(services, up)
    services.accept("chat")
    assert (await carry_out(services, down)).hold is not None
    services.accept("chat")
    assert (await carry_out(services, down)).hold is None


async def test_a_hold_ends_after_its_time_and_says_so(services: MemoryCluster) -> None:
    up, down = (
        make_command(SERVICES, desired=weight, services=("stable", "canary")) for weight in (50, 0)
    )
    await carry_out(services, up)
    await carry_out(services, down)
    assert decide(services, down, now=NOW + 29).hold is not None
    late = decide(services, down, now=NOW + 31)
    assert late.hold is None
    assert "no gateway confirmed weight 0" in late.notes[0]


async def test_pods_of_a_revision_that_is_no_longer_current_are_held_for_the_settle_time(
    pools: MemoryCluster,
) -> None:
    """V3 while V2 has traffic: the controller ends V2's pods in the same reconcile."""
    await carry_out(pools, make_command(NAMED, desired=50))
    pools.put(REPLICASET, make_replica_set("chat", "h3", destination="deepseek-2"))
    pools.put(INFERENCEPOOL, make_pool("deepseek-2", {"model": "deepseek-2"}))
    third = make_command(NAMED, canary="h3")
    await carry_out(pools, third)
    assert weights_of(pools, "chat") == {"qwen": 100, "deepseek": 0}
    pools.accept("chat")
    pools.pass_time(1.0)
    held = decide(pools, third).hold
    assert held is not None
    assert held.retry_s == pytest.approx(1.0)
    pools.pass_time(1.1)
    assert decide(pools, third).hold is None


# Drift


def edit_weight(cluster: MemoryCluster, name: str, weight: int) -> None:
    def edit(route: Any) -> None:
        for ref in route["spec"]["rules"][0]["backendRefs"]:
            if ref["name"] == name:
                ref["weight"] = weight

    cluster.change(HTTPROUTE, "chat", edit)


async def test_a_changed_weight_is_only_reported_if_so_configured(services: MemoryCluster) -> None:
    config = SERVICES | {"drift": "report"}
    command = make_command(config, desired=10, services=("stable", "canary"))
    await carry_out(services, command)
    edit_weight(services, "canary", 60)
    decision = await carry_out(services, command)
    assert weights_of(services, "chat") == {"stable": 90, "canary": 60}
    assert not decision.reached
    assert [wait.reason for wait in decision.waits] == [WaitReason.DRIFT]
    # The next step is a new wish and is carried out.
    await carry_out(services, make_command(config, desired=50, services=("stable", "canary")))
    assert weights_of(services, "chat") == {"stable": 50, "canary": 50}


async def test_a_changed_weight_is_put_right_by_the_next_call(services: MemoryCluster) -> None:
    command = make_command(SERVICES, desired=10, services=("stable", "canary"))
    await carry_out(services, command)
    edit_weight(services, "canary", 60)
    assert decide(services, command).drifted
    await carry_out(services, command)
    assert weights_of(services, "chat") == {"stable": 90, "canary": 10}


# A backend at weight 0 may leave the rule


async def test_a_backend_at_zero_leaves_the_rule_and_comes_back_as_it_was(
    services: MemoryCluster,
) -> None:
    config = SERVICES | {"zeroWeight": "remove"}
    filters = [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["x"]}}]
    canary = service_ref("canary", 0, port=8081) | {"filters": filters}
    services.put(HTTPROUTE, make_route("chat", [service_ref("stable"), canary]))
    await carry_out(services, make_command(config, services=("stable", "canary")))
    assert weights_of(services, "chat") == {"stable": 1}
    await carry_out(services, make_command(config, desired=10, services=("stable", "canary")))
    refs = services.objects[HTTPROUTE, NAMESPACE, "chat"]["spec"]["rules"][0]["backendRefs"]
    assert refs == [service_ref("stable", 90), {**canary, "weight": 10}]


# Refusals: what, where, what was found, the remedy


def refusal(cluster: MemoryCluster, command: Command) -> str:
    with pytest.raises(ConfigError) as found:
        decide(cluster, command)
    return str(found.value)


async def test_wrong_names_are_refused_with_what_was_found(
    services: MemoryCluster, pools: MemoryCluster, adapters: MemoryCluster
) -> None:
    names = ("stable", "canary")
    assert refusal(services, make_command({"httpRoute": "chatt"}, services=names)).startswith(
        "HTTPRoute llm/chatt (gateway.networking.k8s.io/v1) does not exist (found in llm: chat)."
    )
    assert (
        "no rule has backendRefs to Service llm/canari, Service llm/stable (found rule #0: "
        "Service llm/canary, Service llm/stable)"
    ) in refusal(services, make_command(SERVICES, services=("stable", "canari")))
    assert "stableService is 'stable', canaryService ''" in refusal(
        services, make_command(SERVICES, services=("stable", ""))
    )
    rules: Any = {"httpRoutes": [{"name": "chat", "rules": ["main"]}]}
    assert "has no rule 'main' (found no named rule)" in refusal(
        services, make_command(rules, services=names)
    )
    assert "does not allow it. Start it with --allow-namespace other" in refusal(
        services, make_command(SERVICES | {"namespace": "other"}, services=names)
    )
    pools.put(REPLICASET, make_replica_set("chat", "h2", destination="deepsek"))
    assert "InferencePool llm/deepsek (inference.networking.k8s.io/v1) does not exist" in refusal(
        pools, make_command(NAMED, desired=10)
    )
    adapters.put(REPLICASET, make_replica_set("chat", "h2"))
    assert "ReplicaSet llm/chat-h2 does not say what its revision stands for" in refusal(
        adapters, make_command(MODEL, desired=10)
    )
    adapters.put(INFERENCEMODEL, make_model("travel", {"name": "other"}))
    assert "spec.targetModels has none of 'travel-v1' (found 'other')" in refusal(
        adapters, make_command(MODEL, stable="h1", canary="h1")
    )
    services.unserved.add(HTTPROUTE)
    assert "does not serve httproutes.gateway.networking.k8s.io/v1" in refusal(
        services, make_command(SERVICES, services=names)
    )


async def test_a_canary_that_can_not_be_named_never_keeps_traffic_from_stable(
    pools: MemoryCluster,
) -> None:
    await carry_out(pools, make_command(NAMED, desired=10))
    pools.put(REPLICASET, make_replica_set("chat", "h2"))
    decision = await carry_out(pools, make_command(NAMED, desired=0))
    assert weights_of(pools, "chat") == {"qwen": 100, "deepseek": 0}
    assert [wait.reason for wait in decision.waits] == [WaitReason.DESTINATION]


def test_two_identities_of_one_destination_are_refused(pools: MemoryCluster) -> None:
    for one, identity in (("h1", "qwen-2.5"), ("h2", "qwen-3")):
        pools.put(REPLICASET, make_replica_set("chat", one, destination="qwen", identity=identity))
    assert "with different inference-rollouts.io/identity" in refusal(
        pools, make_command(NAMED, desired=10)
    )


async def test_a_backend_of_another_rollout_is_refused_while_that_one_lives(
    services: MemoryCluster,
) -> None:
    services.put(ROLLOUT, make_rollout("first", SERVICES, stable="h1"))
    first = make_command(SERVICES, services=("stable", "canary"), name="first")
    await carry_out(services, first)
    second = make_command(SERVICES, desired=10, services=("stable", "canary"), name="second")
    assert "is managed by Rollout llm/first" in refusal(services, second)
    services.remove(ROLLOUT, "first")
    await carry_out(services, second)
    assert weights_of(services, "chat") == {"stable": 90, "canary": 10}


# Rules


async def test_only_rules_that_hold_the_pair_are_touched_and_all_else_stays_byte_equal(
    services: MemoryCluster,
) -> None:
    pinned = {"backendRefs": [service_ref("stable")], "matches": [{"path": {"value": "/pinned"}}]}
    foreign = {"backendRefs": [service_ref("docs", 3)], "filters": [{"type": "URLRewrite"}]}
    pair = [service_ref("stable", 1), service_ref("canary", 1), service_ref("mirror", 2)]
    services.put(HTTPROUTE, make_route("chat", pinned, foreign, pair))
    before = copy.deepcopy(services.objects[HTTPROUTE, NAMESPACE, "chat"])
    await carry_out(services, make_command(SERVICES, desired=10, services=("stable", "canary")))
    after = services.objects[HTTPROUTE, NAMESPACE, "chat"]
    assert weights_of(services, "chat", rule=2) == {"stable": 9, "canary": 1, "mirror": 10}
    assert json.dumps(after["spec"]["rules"][:2]) == json.dumps(before["spec"]["rules"][:2])
    assert after["spec"]["parentRefs"] == before["spec"]["parentRefs"]


async def test_a_named_rule_is_managed_and_no_other(services: MemoryCluster) -> None:
    rules = [
        {"name": name, "backendRefs": [service_ref("stable"), service_ref("canary", 0)]}
        for name in ("chat", "embed")
    ]
    services.put(HTTPROUTE, make_route("chat", *rules))
    config = {"httpRoutes": [{"name": "chat", "rules": ["embed"]}]}
    await carry_out(services, make_command(config, desired=10, services=("stable", "canary")))
    assert weights_of(services, "chat", rule=0) == {"stable": 1, "canary": 0}
    assert weights_of(services, "chat", rule=1) == {"stable": 90, "canary": 10}


@given(
    rules=st.lists(
        st.lists(
            st.tuples(
                st.sampled_from(["stable", "canary", "docs", "mirror"]),
                st.one_of(st.none(), st.integers(0, 1000)),
            ),
            unique_by=lambda item: item[0],
            max_size=4,
        ),
        min_size=1,
        max_size=4,
    ),
    desired=st.integers(0, 100),
)
async def test_any_route_keeps_what_is_not_ours_and_a_second_plan_is_empty(
    rules: list[list[tuple[str, int | None]]], desired: int
) -> None:
    cluster = MemoryCluster()
    for role in ("stable", "canary"):
        cluster.put(SERVICE, {"metadata": {"name": role}, "spec": {"selector": {"role": role}}})
        cluster.put(POD, make_pod(f"{role}-0", {"role": role}))
    made = [[service_ref(name, weight) for name, weight in rule] for rule in rules]
    before = cluster.put(HTTPROUTE, make_route("chat", *made))["spec"]["rules"]
    command = make_command(SERVICES, desired=desired, services=("stable", "canary"))
    try:
        await carry_out(cluster, command)
    except ConfigError:
        assert not cluster.writes
        return
    after = cluster.objects[HTTPROUTE, NAMESPACE, "chat"]["spec"]["rules"]
    for old, new in zip(before, after, strict=True):
        names = {ref["name"] for ref in old["backendRefs"]}
        if not {"stable", "canary"} <= names:
            assert json.dumps(old) == json.dumps(new)
            continue
        weights = {ref["name"]: ref.get("weight", 1) for ref in new["backendRefs"]}
        was = {ref["name"]: ref.get("weight", 1) for ref in old["backendRefs"]}
        pair, pair_was = (one["stable"] + one["canary"] for one in (weights, was))
        assert pair > 0
        assert weights["canary"] * 100 == pair * desired
        for name in names - {"stable", "canary"}:
            assert weights[name] * (pair_was or 1) == was[name] * (pair if pair_was else 1)
    # carry_out ended with an empty plan: one write at most was enough for everything.
    assert len(cluster.writes) == 1


# Hash-addressed pools: the object side; the machine itself is in test_hash_pools.py


@pytest.mark.parametrize("group", [INFERENCEPOOL, INFERENCEPOOL_X], ids=["v1", "v1alpha2"])
def test_aiming_a_pool_owns_only_the_hash_in_its_selector(group: Any) -> None:
    cluster = MemoryCluster()
    for name in ("a", "b"):
        cluster.put(group, make_pool(name, {"app": "chat"}, resource=group))
    cluster.put(POD, make_pod("chat-0", {"app": "chat", HASH_LABEL: "h1"}))
    refs = [pool_ref(name, group=group.group) for name in ("a", "b")]
    cluster.put(HTTPROUTE, make_route("chat", refs))
    config = {"httpRoute": "chat", "inferencePools": ["a", "b"], "poolGroup": group.group}
    [write] = decide(cluster, make_command(config, stable="h1", canary="h1")).writes
    assert isinstance(write, PoolAim)
    wanted = {HASH_LABEL: "h1"}
    assert write.body["spec"] == {
        "selector": {"matchLabels": wanted} if group == INFERENCEPOOL else wanted
    }
    assert write.body["apiVersion"] == group.api_version


def test_a_broken_annotation_counts_as_absent(services: MemoryCluster) -> None:
    def spoil(route: Any) -> None:
        route["metadata"]["annotations"] = {COMMANDED_ANNOTATION: "{"}

    route = services.change(HTTPROUTE, "chat", spoil)
    assert commanded.read_all(route) == {}
    command = make_command(SERVICES, desired=10, services=("stable", "canary"))
    assert len(decide(services, command).writes) == 1
