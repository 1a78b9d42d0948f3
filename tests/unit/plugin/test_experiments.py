"""Destinations of an Experiment beside the two revisions, ping-pong Services, and large maxima."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_common.kube import (
    HTTPROUTE,
    INFERENCEMODEL,
    INFERENCEPOOL,
    INFERENCEPOOL_X,
    POD,
    REPLICASET,
    ROLLOUT,
    SERVICE,
)
from inference_common.names import HASH_LABEL
from inference_plugin import commanded
from inference_plugin.carriers import Permissions
from inference_plugin.destinations import UnknownRevisionError
from inference_plugin.ends import release
from inference_plugin.errors import ConfigError, StaleError
from inference_plugin.planning import plan
from inference_plugin.rollouts import Command, RolloutKey, RolloutSpec, ping_pong
from inference_plugin.shares import Extra, Hashes, Weighting
from inference_plugin.slim import slim_replica_set, slim_rollout
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

Object = dict[str, Any]
NOW = 1_000_000.0
BASELINE = Extra(service="exp-baseline", pod_template_hash="e1", weight=5)
TREATMENT = Extra(service="exp-treatment", pod_template_hash="e2", weight=15)


def make_command(
    desired: int = 0,
    *extras: Extra,
    maximum: int = 100,
    services: tuple[str, str] = ("stable", "canary"),
    **config: Any,
) -> Command:
    return Command(
        spec=RolloutSpec(
            key=RolloutKey(namespace=NAMESPACE, name="chat"),
            uid="uid-chat",
            config=json.dumps(config or {"httpRoute": "chat"}).encode(),
            stable_service=services[0],
            canary_service=services[1],
        ),
        hashes=Hashes(stable="h1", canary="h2"),
        weighting=Weighting(desired=desired, additional=extras, maximum=maximum),
    )


def decide(cluster: MemoryCluster, command: Command) -> Decision:
    return plan(command, cluster, now=NOW, permissions=Permissions())


async def carry_out(cluster: MemoryCluster, command: Command) -> Decision:
    for _ in range(5):
        decision = decide(cluster, command)
        if not decision.writes:
            return decision
        for write in decision.writes:
            await cluster.write(write)
    raise AssertionError("the plan never ends")


def put_service(cluster: MemoryCluster, name: str, *ports: int, ready: bool = True) -> None:
    spec = {"selector": {"role": name}, "ports": [{"port": port} for port in ports]}
    cluster.put(SERVICE, {"metadata": {"name": name}, "spec": spec})
    cluster.put(POD, make_pod(f"{name}-0", {"role": name}, ready=ready))


def put_template(
    cluster: MemoryCluster,
    extra: Extra,
    destination: str | None = None,
    *,
    template: str = "treatment",
    experiment: str = "chat-1",
) -> None:
    """The ReplicaSet of an Experiment's template, as the plugin's cache keeps it."""
    made = make_replica_set("exp", extra.pod_template_hash, destination=destination)
    made["metadata"]["name"] = extra.service
    made["metadata"]["annotations"] = {
        "experiment.argoproj.io/name": experiment,
        "experiment.argoproj.io/template-name": template,
        "rollout.argoproj.io/desired-replicas": "1",
    }
    owner = {"kind": "Experiment", "name": experiment, "uid": "uid-experiment", "controller": True}
    made["metadata"]["ownerReferences"] = [owner]
    cluster.put(REPLICASET, slim_replica_set(made))


@pytest.fixture
def cluster() -> MemoryCluster:
    """Services of a Rollout and of an Experiment's two templates; all pods are ready."""
    cluster = MemoryCluster()
    for name in ("stable", "canary"):
        put_service(cluster, name, 80)
    for extra in (BASELINE, TREATMENT):
        put_service(cluster, extra.service, 8000)
        put_template(cluster, extra)
    cluster.put(HTTPROUTE, make_route("chat", [service_ref("stable"), service_ref("canary", 0)]))
    cluster.accept("chat")
    return cluster


def refs(cluster: MemoryCluster) -> list[Object]:
    found: list[Object] = cluster.objects[HTTPROUTE, NAMESPACE, "chat"]["spec"]["rules"][0][
        "backendRefs"
    ]
    return found


async def test_the_templates_get_their_weights_and_stable_the_rest(cluster: MemoryCluster) -> None:
    await carry_out(cluster, make_command(10, BASELINE, TREATMENT))
    assert weights_of(cluster, "chat") == {
        "stable": 70,
        "canary": 10,
        "exp-baseline": 5,
        "exp-treatment": 15,
    }
    # The Service that Argo Rollouts makes has the ports of the template's containers.
    assert [ref["port"] for ref in refs(cluster)] == [80, 80, 8000, 8000]
    count = len(cluster.writes)
    await carry_out(cluster, make_command(10, BASELINE, TREATMENT))
    assert len(cluster.writes) == count


async def test_references_of_an_experiment_leave_with_it(cluster: MemoryCluster) -> None:
    await carry_out(cluster, make_command(10, BASELINE, TREATMENT))
    await carry_out(cluster, make_command(10))
    assert weights_of(cluster, "chat") == {"stable": 90, "canary": 10}
    entry = commanded.read(cluster.objects[HTTPROUTE, NAMESPACE, "chat"], "llm/chat")
    assert entry is not None
    assert entry.added == ()
    assert entry.items == {"Service/llm/stable", "Service/llm/canary"}


async def test_a_reference_that_the_user_wrote_stays_at_zero(cluster: MemoryCluster) -> None:
    written = [service_ref("stable"), service_ref("canary", 0), service_ref("exp-baseline", 0)]
    cluster.put(HTTPROUTE, make_route("chat", written))
    await carry_out(cluster, make_command(10, BASELINE))
    await carry_out(cluster, make_command(10))
    assert weights_of(cluster, "chat") == {"stable": 90, "canary": 10, "exp-baseline": 0}


async def test_a_template_without_a_ready_pod_waits_and_stable_keeps_its_share(
    cluster: MemoryCluster,
) -> None:
    put_service(cluster, "exp-baseline", 8000, ready=False)
    decision = await carry_out(cluster, make_command(10, BASELINE))
    assert weights_of(cluster, "chat") == {"stable": 90, "canary": 10}
    assert [wait.reason for wait in decision.waits] == ["WaitingForReadyPods"]


async def test_a_service_that_is_gone_already_leaves_its_share_on_stable(
    cluster: MemoryCluster,
) -> None:
    await carry_out(cluster, make_command(10, BASELINE))
    cluster.remove(SERVICE, "exp-baseline")
    decision = await carry_out(cluster, make_command(10, BASELINE))
    assert weights_of(cluster, "chat") == {"stable": 90, "canary": 10}
    assert "Service llm/exp-baseline" in decision.waits[0].message


async def test_two_templates_of_one_hash_are_two_destinations(cluster: MemoryCluster) -> None:
    """Templates from one spec without labels of their own have equal hashes."""
    twin = Extra(service="exp-treatment", pod_template_hash="e1", weight=7)
    await carry_out(cluster, make_command(0, BASELINE, twin))
    assert weights_of(cluster, "chat")["stable"] == 88


async def test_templates_beside_pools_may_name_a_pool(cluster: MemoryCluster) -> None:
    for name in ("a", "b", "c"):
        cluster.put(INFERENCEPOOL, make_pool(name, {"app": name}))
        cluster.put(POD, make_pod(f"{name}-0", {"app": name}))
    cluster.put(HTTPROUTE, make_route("chat", [pool_ref("a"), pool_ref("b", 0)]))
    put_template(cluster, TREATMENT, destination="c")
    static = {"kind": "InferencePool", "stable": "a", "canary": "b"}
    command = make_command(10, TREATMENT, httpRoute="chat", static=static)
    await carry_out(cluster, command)
    assert weights_of(cluster, "chat") == {"a": 75, "b": 10, "c": 15}
    assert refs(cluster)[2]["kind"] == "InferencePool"


async def test_templates_beside_adapters_name_an_adapter(cluster: MemoryCluster) -> None:
    cluster.put(
        INFERENCEPOOL_X, make_pool("lora-pool", {"role": "stable"}, resource=INFERENCEPOOL_X)
    )
    for one, name in (("h1", "v1"), ("h2", "v2")):
        cluster.put(REPLICASET, make_replica_set("chat", one, destination=name))
    cluster.put(INFERENCEMODEL, make_model("travel", {"name": "v1"}))
    put_template(cluster, TREATMENT, destination="v3")
    await carry_out(cluster, make_command(10, TREATMENT, inferenceModel="travel"))
    assert targets_of(cluster, "travel") == {"v1": 75, "v2": 10, "v3": 15}
    await carry_out(cluster, make_command(10, inferenceModel="travel"))
    assert targets_of(cluster, "travel") == {"v1": 90, "v2": 10}
    put_template(cluster, BASELINE)
    with pytest.raises(ConfigError, match="names its adapter"):
        decide(cluster, make_command(10, BASELINE, inferenceModel="travel"))


def stand_at_experiment(cluster: MemoryCluster, *templates: Object, experiment: str) -> None:
    """The Rollout at an experiment step, as the plugin's cache keeps it."""
    made = make_rollout("chat", {"httpRoute": "chat"}, stable="h1", canary="h2")
    steps: list[Object] = [{"setWeight": 10}, {"experiment": {"templates": list(templates)}}]
    made["spec"]["strategy"]["canary"]["steps"] = steps
    made["status"] |= {"currentStepIndex": 1, "canary": {"currentExperiment": experiment}}
    cluster.put(ROLLOUT, slim_rollout(made))


def lost(extra: Extra) -> Extra:
    """The template as the controller asks for it once its status has lost both names."""
    return Extra(service="", pod_template_hash="", weight=extra.weight)


TEMPLATES: list[Object] = [
    {"name": "baseline", "specRef": "stable", "weight": 5},
    {"name": "beside", "specRef": "stable"},
    {"name": "treatment", "specRef": "canary", "weight": 15},
]


@pytest.mark.parametrize(
    "asked",
    [(lost(BASELINE), lost(TREATMENT)), (BASELINE, lost(TREATMENT)), (lost(BASELINE), TREATMENT)],
)
async def test_templates_whose_status_lost_their_names_are_found_by_the_step(
    cluster: MemoryCluster, asked: tuple[Extra, Extra]
) -> None:
    stand_at_experiment(cluster, *TEMPLATES, experiment="chat-h2-2-1")
    put_template(cluster, BASELINE, template="baseline", experiment="chat-h2-2-1")
    put_template(cluster, TREATMENT, template="treatment", experiment="chat-h2-2-1")
    await carry_out(cluster, make_command(10, *asked))
    assert weights_of(cluster, "chat") == {
        "stable": 70,
        "canary": 10,
        "exp-baseline": 5,
        "exp-treatment": 15,
    }


def test_templates_of_another_experiment_or_step_are_not_taken_for_it(
    cluster: MemoryCluster,
) -> None:
    stand_at_experiment(cluster, *TEMPLATES, experiment="chat-h2-2-1")
    put_template(cluster, BASELINE, template="baseline", experiment="chat-h1-1-1")
    with pytest.raises(StaleError, match="'baseline' of the Experiment 'chat-h2-2-1'"):
        decide(cluster, make_command(10, lost(BASELINE), lost(TREATMENT)))
    with pytest.raises(StaleError, match="the Rollout's current step has the weights"):
        decide(cluster, make_command(10, lost(TREATMENT)))


async def test_a_template_without_a_service_leaves_its_share_on_stable(
    cluster: MemoryCluster,
) -> None:
    """Argo Rollouts makes none for containers without ports, and names no hash either."""
    portless = Extra(service="exp-portless", pod_template_hash="e3", weight=5)
    stand_at_experiment(cluster, TEMPLATES[0], experiment="chat-h2-2-1")
    put_template(cluster, portless, template="baseline", experiment="chat-h2-2-1")
    decision = await carry_out(cluster, make_command(10, lost(portless)))
    assert weights_of(cluster, "chat") == {"stable": 90, "canary": 10}
    assert "only where its containers declare ports" in decision.waits[0].message


def test_a_service_of_several_ports_is_refused_unless_one_is_known(cluster: MemoryCluster) -> None:
    put_service(cluster, "exp-baseline", 8000, 9000)
    with pytest.raises(ConfigError, match="it has the ports 8000, 9000"):
        decide(cluster, make_command(0, BASELINE))
    put_service(cluster, "exp-baseline", 80, 9000)
    assert decide(cluster, make_command(0, BASELINE)).writes


def test_a_template_that_is_not_known_yet_is_asked_for(cluster: MemoryCluster) -> None:
    unknown = Extra(service="exp-new", pod_template_hash="e9", weight=5)
    with pytest.raises(UnknownRevisionError):
        decide(cluster, make_command(0, unknown))


def test_more_weight_than_there_is_is_refused(cluster: MemoryCluster) -> None:
    with pytest.raises(ConfigError, match="ask for more than maxTrafficWeight 100"):
        decide(cluster, make_command(90, TREATMENT))


@pytest.mark.parametrize(
    ("on_end", "expected"),
    [("stable", {"stable": 100, "canary": 0}), ("keep", {"stable": 90, "canary": 10})],
)
async def test_the_end_of_the_rollout_ends_its_experiment_too(
    cluster: MemoryCluster, on_end: str, expected: dict[str, int]
) -> None:
    command = make_command(10, BASELINE, httpRoute="chat", onEnd=on_end)
    await carry_out(cluster, command)
    route = cluster.objects[HTTPROUTE, NAMESPACE, "chat"]
    entry = commanded.read(route, "llm/chat")
    assert entry is not None
    patch = release(HTTPROUTE, route, entry, None, stable_hash="h1")
    after = apply_patch(route, patch.operations)["spec"]["rules"][0]["backendRefs"]
    assert {ref["name"]: ref["weight"] for ref in after} == expected


_EXTRAS = st.lists(st.sampled_from([BASELINE, TREATMENT]), unique=True, max_size=2)


@settings(deadline=None)
@given(
    # Beside others the largest weights of the API can't hold every split out of a million.
    sizes=st.one_of(
        st.tuples(st.sampled_from([100, 1000]), st.integers(0, 3)),
        st.just((1_000_000, 0)),
    ),
    moments=st.lists(st.tuples(st.integers(0, 80), _EXTRAS), min_size=1, max_size=6),
)
def test_weights_add_up_and_others_keep_their_share(
    sizes: tuple[int, int], moments: list[tuple[int, list[Extra]]]
) -> None:
    maximum, other = sizes
    cluster = MemoryCluster()
    for name in ("stable", "canary"):
        put_service(cluster, name, 80)
    for extra in (BASELINE, TREATMENT):
        put_service(cluster, extra.service, 8000)
        put_template(cluster, extra)
    written = [service_ref("stable"), service_ref("canary", 0)]
    written += [service_ref("docs", other)] if other else []
    cluster.put(HTTPROUTE, make_route("chat", written))
    for desired, extras in [*moments, (0, [])]:
        command = make_command(desired, *extras, maximum=maximum)
        for write in decide(cluster, command).writes:
            with pytest.raises(StopIteration):
                cluster.write(write).send(None)
        assert not decide(cluster, command).writes
        weights = weights_of(cluster, "chat")
        docs = weights.pop("docs", 0)
        total = sum(weights.values())
        assert docs == other * total
        for extra in extras:
            assert weights[extra.service] * maximum == extra.weight * total
        assert weights["canary"] * maximum == desired * total
        assert set(weights) == {"stable", "canary"} | {extra.service for extra in extras}


# maxTrafficWeight


@pytest.mark.parametrize(
    ("maximum", "desired", "expected"),
    [
        pytest.param(1000, 1, {"stable": 999, "canary": 1}, id="a-thousandth"),
        pytest.param(1_000_000, 1, {"stable": 999_999, "canary": 1}, id="the-most-of-the-gateway"),
        # Beyond the API's largest weight the same shares are had by smaller numbers.
        pytest.param(2_000_000, 200_000, {"stable": 900_000, "canary": 100_000}, id="beyond-it"),
    ],
)
async def test_weights_are_out_of_max_traffic_weight(
    cluster: MemoryCluster, maximum: int, desired: int, expected: dict[str, int]
) -> None:
    """gateway-api v1.6 apis/v1/shared_types.go: a weight is 0 to 1,000,000."""
    await carry_out(cluster, make_command(desired, maximum=maximum))
    assert weights_of(cluster, "chat") == expected


# Ping-pong


def rollout_with_ping_pong(turn: str | None) -> Object:
    made = make_rollout("chat", {"httpRoute": "chat"}, stable="h1", canary="h2")
    strategy = made["spec"]["strategy"]["canary"]
    strategy["pingPong"] = {"pingService": "stable", "pongService": "canary"}
    if turn is not None:
        made["status"]["canary"] = {"stablePingPong": turn}
    return made


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        pytest.param("ping", ("stable", "canary"), id="ping"),
        pytest.param("pong", ("canary", "stable"), id="pong"),
        pytest.param(None, ("canary", "stable"), id="not-said"),
    ],
)
def test_ping_and_pong_take_turns(turn: str | None, expected: tuple[str, str]) -> None:
    """argo-rollouts v1.10.2, rollout/trafficrouting/service_helper.go IsStablePing."""
    assert ping_pong(rollout_with_ping_pong(turn)) == expected


async def test_ping_pong_services_get_the_weights_of_their_roles(cluster: MemoryCluster) -> None:
    cluster.put(ROLLOUT, rollout_with_ping_pong("ping"))
    await carry_out(cluster, make_command(10, services=("", "")))
    assert weights_of(cluster, "chat") == {"stable": 90, "canary": 10}
    cluster.put(ROLLOUT, rollout_with_ping_pong("pong"))
    await carry_out(cluster, make_command(10, services=("", "")))
    assert weights_of(cluster, "chat") == {"stable": 10, "canary": 90}


async def test_fixed_services_come_before_ping_pong(cluster: MemoryCluster) -> None:
    """GetStableAndCanaryServices: ping-pong only where neither of the two is set."""
    cluster.put(ROLLOUT, rollout_with_ping_pong("pong"))
    await carry_out(cluster, make_command(10))
    assert weights_of(cluster, "chat") == {"stable": 90, "canary": 10}


def test_no_services_at_all_is_refused(cluster: MemoryCluster) -> None:
    cluster.put(ROLLOUT, make_rollout("chat", {"httpRoute": "chat"}, stable="h1", canary="h2"))
    with pytest.raises(ConfigError, match="pingPong None"):
        decide(cluster, make_command(services=("", "")))


# Hash-addressed pools


async def test_a_pool_that_a_header_route_sends_to_is_not_re_aimed(cluster: MemoryCluster) -> None:
    """V3 while V2 has a header route at weight 0: the rule goes first, then the pool."""
    for name in ("a", "b"):
        cluster.put(INFERENCEPOOL, make_pool(name, {"app": "chat"}))
    cluster.put(HTTPROUTE, make_route("chat", [pool_ref("a", 100), pool_ref("b", 0)]))
    step = {
        "setHeaderRoute": {
            "name": "beta",
            "match": [{"headerName": "x-beta", "headerValue": {"exact": "yes"}}],
        }
    }

    def rollout(canary: str) -> None:
        made = make_rollout("chat", {}, stable="h1", canary=canary, currentStepIndex=0)
        strategy = made["spec"]["strategy"]["canary"]
        strategy |= {"steps": [step], "trafficRouting": {"managedRoutes": [{"name": "beta"}]}}
        cluster.put(ROLLOUT, made)

    for revision in ("h1", "h2", "h3"):
        cluster.put(POD, make_pod(f"chat-{revision}", {"app": "chat", HASH_LABEL: revision}))

    async def settle(canary: str) -> None:
        command = make_command(httpRoute="chat", inferencePools=["a", "b"])
        command = Command(
            spec=command.spec,
            hashes=Hashes(stable="h1", canary=canary),
            weighting=command.weighting,
        )
        for _ in range(4):
            await carry_out(cluster, command)
            cluster.accept("chat")
            cluster.pass_time(3)

    rollout("h2")
    await settle("h2")
    spec = cluster.objects[HTTPROUTE, NAMESPACE, "chat"]["spec"]
    assert spec["rules"][0]["backendRefs"] == [pool_ref("b", 1)]
    rollout("h3")
    seen = []

    def about_to_write(write: Any) -> None:
        live = cluster.objects[HTTPROUTE, NAMESPACE, "chat"]["spec"]["rules"]
        seen.append((write.resource.kind, [rule.get("name") for rule in live]))

    cluster.before_write = about_to_write
    await settle("h3")
    assert seen == [
        ("HTTPRoute", ["beta", None]),
        ("InferencePool", [None]),
        ("HTTPRoute", [None]),
    ]
