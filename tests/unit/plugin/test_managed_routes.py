"""Header routes and mirrors: what a Rollout's steps ask for, and the rules that are made for it."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from inference_common.kube import GRPCROUTE, HTTPROUTE, POD, ROLLOUT, SERVICE
from inference_common.names import HASH_LABEL
from inference_plugin import commanded
from inference_plugin.carriers import Permissions
from inference_plugin.config import parse_config
from inference_plugin.contexts import wished_of
from inference_plugin.ends import release
from inference_plugin.errors import ConfigError
from inference_plugin.managed_routes import Comparison, ManagedRoute, RequestMatch, Text
from inference_plugin.managed_routes import wished_routes as wished
from inference_plugin.matching import combined
from inference_plugin.patches import ObjectPatch
from inference_plugin.planning import plan
from inference_plugin.rollouts import Command, RolloutKey, RolloutSpec
from inference_plugin.route_drift import adopt, drift_of, restore
from inference_plugin.route_keeping import without_made
from inference_plugin.shares import Hashes, Weighting
from inference_plugin.telemetry import Metrics
from inference_plugin.writing import Together, Writer
from support.memory_cluster import (
    NAMESPACE,
    MemoryCluster,
    apply_patch,
    make_pod,
    make_rollout,
    make_route,
    service_ref,
    weights_of,
)

if TYPE_CHECKING:
    from inference_plugin.decisions import Decision

Object = dict[str, Any]
NOW = 1_000_000.0
PAIR = Hashes(stable="h1", canary="h2")
HEADER = {
    "setHeaderRoute": {
        "name": "beta",
        "match": [{"headerName": "x-beta", "headerValue": {"exact": "yes"}}],
    }
}
MIRROR = {
    "setMirrorRoute": {"name": "shadow", "percentage": 35, "match": [{"path": {"prefix": "/v1"}}]}
}
V1 = {"path": {"type": "PathPrefix", "value": "/v1"}}


def header(name: str, value: str, kind: str = "Exact") -> Object:
    return {"type": kind, "name": name, "value": value}


def rollout_at(
    steps: list[Object],
    index: int,
    *names: str,
    stable: str = "h1",
    canary: str = "h2",
    **status: Any,
) -> Object:
    made = make_rollout(
        "chat",
        {"httpRoute": "chat"},
        stable=stable,
        canary=canary,
        currentStepIndex=index,
        **status,
    )
    strategy = made["spec"]["strategy"]["canary"]
    strategy["steps"] = steps
    strategy["trafficRouting"]["managedRoutes"] = [
        {"name": name} for name in names or ("beta", "shadow")
    ]
    return made


# What the steps ask for


@pytest.mark.parametrize(
    ("steps", "index", "expected"),
    [
        pytest.param([HEADER], 0, ["beta"], id="at-its-step"),
        pytest.param([{"setWeight": 5}, HEADER], 0, [], id="before-its-step"),
        pytest.param([HEADER, {"pause": {}}, {"setWeight": 9}], 2, ["beta"], id="long-after-it"),
        pytest.param([HEADER, {"pause": {}}], 2, ["beta"], id="after-the-last-step"),
        pytest.param([MIRROR, HEADER], 1, ["beta", "shadow"], id="in-the-order-of-managedRoutes"),
        pytest.param(
            [HEADER, {"setHeaderRoute": {"name": "beta"}}], 1, [], id="a-step-without-match-ends-it"
        ),
        pytest.param(
            [MIRROR, {"setMirrorRoute": {"name": "shadow", "match": []}}],
            1,
            [],
            id="of-a-mirror-too",
        ),
        pytest.param(
            [{"setMirrorRoute": MIRROR["setMirrorRoute"] | {"percentage": 0}}],
            0,
            [],
            id="a-mirror-of-nothing-is-none",
        ),
        pytest.param(
            [HEADER, {"setMirrorRoute": MIRROR["setMirrorRoute"] | {"name": "beta"}}],
            1,
            ["beta"],
            id="a-later-one-of-the-name-replaces-it",
        ),
    ],
)
def test_managed_routes_are_those_of_the_steps_up_to_the_current_one(
    steps: list[Object], index: int, expected: list[str]
) -> None:
    found = wished(rollout_at(steps, index), PAIR, 1)
    assert [route.name for route in found] == expected


@pytest.mark.parametrize(
    ("rollout", "available"),
    [
        pytest.param(rollout_at([HEADER], 0, abort=True), 1, id="aborted"),
        pytest.param(rollout_at([HEADER], 0, promoteFull=True), 1, id="promoted-in-full"),
        pytest.param(rollout_at([HEADER], 1, canary="h1"), 1, id="promoted"),
        pytest.param(rollout_at([HEADER], 0), 0, id="no-canary-pod"),
        pytest.param(rollout_at([HEADER], 0, canary="h3"), 1, id="another-revision-by-now"),
        pytest.param(rollout_at([HEADER], 0, "other"), 1, id="not-in-managedRoutes"),
        pytest.param(make_rollout("chat", {}, stable="h1", canary="h2"), 1, id="none-at-all"),
    ],
)
def test_managed_routes_are_over(rollout: Object, available: int) -> None:
    assert wished(rollout, PAIR, available) == ()


@pytest.mark.parametrize(
    ("percentage", "expected"), [({}, 100), ({"percentage": 1}, 1), ({"percentage": 100}, 100)]
)
def test_a_mirror_without_a_percentage_takes_everything(percentage: Object, expected: int) -> None:
    """argo-rollouts v1.10.2, rollout/trafficrouting/istio/istio.go createMirrorRoute."""
    step = {"setMirrorRoute": {"name": "shadow", "match": [{}]} | percentage}
    [route] = wished(rollout_at([step], 0), PAIR, 1)
    assert route.percent == expected


@pytest.mark.parametrize(
    ("step", "says"),
    [
        pytest.param(
            {"setMirrorRoute": {"name": "shadow", "percentage": 101, "match": [{}]}},
            "percentage is 101",
            id="percentage",
        ),
        pytest.param(
            {"setHeaderRoute": {"name": "beta", "match": [{"headerName": "x"}]}},
            "x needs exactly one of exact, prefix and regex",
            id="no-value",
        ),
    ],
)
def test_a_step_that_says_nothing_clear_is_refused(step: Object, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        wished(rollout_at([step], 0), PAIR, 1)


# Matches


def text(given: Object | None) -> Text | None:
    if given is None:
        return None
    [(kind, value)] = given.items()
    return Text(comparison=Comparison(kind), value=value)


def request(
    path: Object | None = None, method: Object | None = None, **headers: Object
) -> RequestMatch:
    pairs = tuple((name.replace("_", "-"), text(value)) for name, value in headers.items())
    return RequestMatch(path=text(path), method=text(method), headers=pairs)  # type: ignore[arg-type]


def exact(value: str) -> Object:
    return {"path": {"type": "Exact", "value": value}}


@pytest.mark.parametrize(
    ("own", "wanted", "expected"),
    [
        pytest.param(V1, request(), V1, id="any-path-is-the-rules-own"),
        pytest.param({}, request(), {"path": {"type": "PathPrefix", "value": "/"}}, id="default"),
        pytest.param(V1, request({"exact": "/v1/chat"}), exact("/v1/chat"), id="exact-below"),
        pytest.param(V1, request({"exact": "/v1"}), exact("/v1"), id="exact-the-prefix-itself"),
        pytest.param(V1, request({"exact": "/v1chat"}), None, id="exact-beside-by-element"),
        pytest.param(
            V1,
            request({"prefix": "/v1/chat"}),
            {"path": {"type": "PathPrefix", "value": "/v1/chat"}},
            id="narrower-prefix",
        ),
        pytest.param(V1, request({"prefix": "/"}), V1, id="wider-prefix"),
        pytest.param(V1, request({"prefix": "/v2"}), None, id="another-prefix"),
        pytest.param(exact("/a"), request({"prefix": "/a"}), exact("/a"), id="prefix-of-an-exact"),
        pytest.param(exact("/a"), request({"exact": "/b"}), None, id="two-exact-ones"),
        pytest.param(
            {"path": {"type": "PathPrefix", "value": "/"}},
            request({"regex": "/v1/.*"}),
            {"path": {"type": "RegularExpression", "value": "/v1/.*"}},
            id="regex-of-everything",
        ),
        pytest.param(V1, request(method={"exact": "POST"}), V1 | {"method": "POST"}, id="method"),
        pytest.param(
            V1 | {"method": "GET"}, request(method={"exact": "POST"}), None, id="another-method"
        ),
        pytest.param(
            V1 | {"headers": [header("X-Beta", "yes")]},
            request(x_beta={"exact": "yes"}, x_team={"regex": "a|b"}),
            V1
            | {"headers": [header("X-Beta", "yes"), header("x-team", "a|b", "RegularExpression")]},
            id="headers-add-up",
        ),
    ],
)
def test_matches_are_those_of_both(own: Object, wanted: RequestMatch, expected: Object) -> None:
    found = combined("HTTPRoute", [own], [wanted], "here")
    assert found == ([] if expected is None else [expected])


@pytest.mark.parametrize(
    ("own", "wanted", "says"),
    [
        pytest.param(
            V1,
            request(x={"prefix": "a"}),
            "by prefix, which the Gateway API can't",
            id="header-prefix",
        ),
        pytest.param(
            V1, request({"regex": "/v1.*"}), "can't be put together", id="regex-below-a-prefix"
        ),
        pytest.param(
            {"path": {"type": "RegularExpression", "value": "/a"}},
            request({"exact": "/a"}),
            "can't be put together",
            id="rule-with-a-regex",
        ),
        pytest.param(V1, request(method={"regex": "P.*"}), "takes exact", id="method-regex"),
        pytest.param(V1, request(method={"exact": "post"}), "one of GET", id="no-such-method"),
        pytest.param(
            V1 | {"headers": [header("x", "1")]},
            request(x={"exact": "2"}),
            "header x is already compared with '1'",
            id="one-header-twice",
        ),
    ],
)
def test_what_the_gateway_api_has_no_words_for_is_refused(
    own: Object, wanted: RequestMatch, says: str
) -> None:
    with pytest.raises(ConfigError, match=f"here: .*{says}"):
        combined("HTTPRoute", [own], [wanted], "here")


CALL = {"type": "Exact", "service": "llm.Chat", "method": "Say"}


@pytest.mark.parametrize(
    ("own", "wanted", "expected"),
    [
        pytest.param({}, request(), {}, id="everything"),
        pytest.param({}, request({"exact": "/llm.Chat/Say"}), {"method": CALL}, id="a-method"),
        pytest.param(
            {},
            request({"prefix": "/llm.Chat/"}),
            {"method": {"type": "Exact", "service": "llm.Chat"}},
            id="a-service",
        ),
        pytest.param(
            {"method": CALL}, request({"prefix": "/llm.Chat/"}), {"method": CALL}, id="both"
        ),
        pytest.param({"method": CALL}, request({"prefix": "/"}), {"method": CALL}, id="any-path"),
        pytest.param({"method": CALL}, request({"prefix": "/x.Y/"}), None, id="another-service"),
        pytest.param({}, request(method={"exact": "POST"}), {}, id="grpc-is-always-post"),
        pytest.param({}, request(method={"exact": "GET"}), None, id="never-get"),
        pytest.param({}, request(x={"exact": "1"}), {"headers": [header("x", "1")]}, id="a-header"),
    ],
)
def test_paths_of_a_grpc_route_are_services_and_methods(
    own: Object, wanted: RequestMatch, expected: Object | None
) -> None:
    found = combined("GRPCRoute", [own], [wanted], "here")
    assert found == ([] if expected is None else [expected])


@pytest.mark.parametrize("path", [{"regex": "/a.*"}, {"exact": "/llm.Chat"}, {"prefix": "/llm"}])
def test_a_path_that_is_no_grpc_method_is_refused(path: Object) -> None:
    with pytest.raises(ConfigError, match="names no gRPC method"):
        combined("GRPCRoute", [{}], [request(path)], "here")


# Rules on a route


def make_command(
    desired: int = 0, hashes: Hashes = PAIR, *, own: bool = False, **config: Any
) -> Command:
    return Command(
        spec=RolloutSpec(
            key=RolloutKey(namespace=NAMESPACE, name="chat"),
            uid="uid-chat",
            config=json.dumps({"httpRoute": "chat"} | config).encode(),
            stable_service="stable",
            canary_service="canary",
        ),
        hashes=hashes,
        weighting=Weighting(desired=desired),
        own=own,
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


def make_cluster(*rules: Object) -> MemoryCluster:
    cluster = MemoryCluster()
    for role in ("stable", "canary"):
        cluster.put(SERVICE, {"metadata": {"name": role}, "spec": {"selector": {"role": role}}})
        cluster.put(POD, make_pod(f"{role}-0", {"role": role, HASH_LABEL: getattr(PAIR, role)}))
    cluster.put(HTTPROUTE, make_route("chat", *rules))
    cluster.accept("chat")
    return cluster


RULE: Object = {
    "name": "chat",
    "matches": [V1],
    "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["x-a"]}}],
    "backendRefs": [service_ref("stable", 100), service_ref("canary", 0)],
    "timeouts": {"request": "60s"},
}
THEIRS: Object = {
    "matches": [exact("/health")],
    "backendRefs": [service_ref("health", 1)],
}


@pytest.fixture
def cluster() -> MemoryCluster:
    """A route whose first rule is managed, and a rule of somebody else behind it."""
    return make_cluster(RULE, THEIRS)


def rules(cluster: MemoryCluster) -> list[Object]:
    found: list[Object] = cluster.objects[HTTPROUTE, NAMESPACE, "chat"]["spec"]["rules"]
    return found


def entry_of(cluster: MemoryCluster) -> commanded.Commanded:
    found = commanded.read(cluster.objects[HTTPROUTE, NAMESPACE, "chat"], "llm/chat")
    assert found is not None
    return found


async def test_a_header_route_is_the_rule_with_the_header_and_the_canary_alone(
    cluster: MemoryCluster,
) -> None:
    cluster.put(ROLLOUT, rollout_at([{"setWeight": 10}, HEADER], 1))
    await carry_out(cluster, make_command(10))
    made, managed, theirs = rules(cluster)
    assert made == {
        "name": "beta",
        "matches": [V1 | {"headers": [header("x-beta", "yes")]}],
        "filters": RULE["filters"],
        "backendRefs": [service_ref("canary", 1)],
        "timeouts": RULE["timeouts"],
    }
    assert [ref["weight"] for ref in managed["backendRefs"]] == [90, 10]
    assert theirs == THEIRS
    count = len(cluster.writes)
    await carry_out(cluster, make_command(10))
    assert len(cluster.writes) == count == 1


async def test_a_mirror_answers_as_the_rule_does_and_copies_to_the_canary(
    cluster: MemoryCluster,
) -> None:
    cluster.put(ROLLOUT, rollout_at([MIRROR], 0))
    await carry_out(cluster, make_command())
    made = rules(cluster)[0]
    assert made["name"] == "shadow"
    assert made["matches"] == [V1]
    assert made["backendRefs"] == rules(cluster)[1]["backendRefs"]
    [modifier, mirror] = made["filters"]
    assert modifier == RULE["filters"][0]
    backend = {"group": "", "kind": "Service", "name": "canary", "port": 80}
    assert mirror == {
        "type": "RequestMirror",
        "requestMirror": {"backendRef": backend, "percent": 35},
    }


async def test_a_mirrors_weights_follow_the_rules(cluster: MemoryCluster) -> None:
    cluster.put(ROLLOUT, rollout_at([MIRROR, {"setWeight": 25}], 1))
    await carry_out(cluster, make_command(25))
    assert weights_of(cluster, "chat", rule=0) == {"stable": 75, "canary": 25}
    assert weights_of(cluster, "chat", rule=1) == {"stable": 75, "canary": 25}


async def test_managed_routes_stand_in_front_in_their_order_and_are_gone_after_promotion(
    cluster: MemoryCluster,
) -> None:
    before = copy.deepcopy(rules(cluster))
    cluster.put(ROLLOUT, rollout_at([HEADER, MIRROR], 1, "shadow", "beta"))
    await carry_out(cluster, make_command())
    assert [rule.get("name") for rule in rules(cluster)] == ["shadow", "beta", "chat", None]
    cluster.put(ROLLOUT, rollout_at([HEADER, MIRROR], 2, stable="h2"))
    await carry_out(cluster, make_command(hashes=Hashes(stable="h2", canary="h2")))
    assert rules(cluster) == before


async def test_an_abort_takes_rules_and_weights_back_in_one_write(cluster: MemoryCluster) -> None:
    cluster.put(ROLLOUT, rollout_at([{"setWeight": 10}, HEADER], 1))
    await carry_out(cluster, make_command(10))
    cluster.put(ROLLOUT, rollout_at([{"setWeight": 10}, HEADER], 0, abort=True))
    count = len(cluster.writes)
    await carry_out(cluster, make_command(own=True))
    assert len(cluster.writes) == count + 1
    assert rules(cluster)[0]["name"] == "chat"
    assert weights_of(cluster, "chat") == {"stable": 100, "canary": 0}


async def test_pods_of_a_header_route_are_held_until_the_gateway_has_let_go_of_it(
    cluster: MemoryCluster,
) -> None:
    cluster.put(ROLLOUT, rollout_at([HEADER], 0))
    await carry_out(cluster, make_command())
    cluster.accept("chat")
    cluster.put(ROLLOUT, rollout_at([HEADER], 0, abort=True))
    decision = await carry_out(cluster, make_command())
    assert decision.hold is not None
    assert "Service/llm/canary" in decision.hold.message
    cluster.accept("chat")
    assert (await carry_out(cluster, make_command())).hold is None


async def test_a_header_route_waits_for_a_ready_canary_and_then_stays(
    cluster: MemoryCluster,
) -> None:
    cluster.put(ROLLOUT, rollout_at([HEADER], 0))
    labels = {"role": "canary", HASH_LABEL: "h2"}
    cluster.put(POD, make_pod("canary-0", labels, ready=False))
    decision = await carry_out(cluster, make_command())
    assert [wait.reason for wait in decision.waits] == ["WaitingForReadyPods"]
    assert rules(cluster)[0]["name"] == "chat"
    cluster.put(POD, make_pod("canary-0", labels))
    await carry_out(cluster, make_command())
    assert rules(cluster)[0]["name"] == "beta"
    cluster.put(POD, make_pod("canary-0", labels, ready=False))
    await carry_out(cluster, make_command())
    assert rules(cluster)[0]["name"] == "beta"


async def test_rules_without_names_keep_their_place_beside_made_ones() -> None:
    unnamed = {key: value for key, value in RULE.items() if key != "name"}
    cluster = make_cluster(unnamed)
    cluster.put(ROLLOUT, rollout_at([HEADER], 0))
    await carry_out(cluster, make_command(10))
    assert entry_of(cluster).places == {"#0"}
    await carry_out(cluster, make_command(20))
    assert weights_of(cluster, "chat", rule=1) == {"stable": 80, "canary": 20}


async def test_every_managed_rule_gets_one_of_its_own() -> None:
    second = RULE | {"name": "embeddings", "matches": [exact("/embed"), exact("/rank")]}
    cluster = make_cluster(RULE, second)
    cluster.put(ROLLOUT, rollout_at([HEADER], 0))
    await carry_out(cluster, make_command())
    made = rules(cluster)[:2]
    assert [rule["name"] for rule in made] == ["beta", "beta-2"]
    assert [len(rule["matches"]) for rule in made] == [1, 2]


async def test_a_grpc_route_gets_the_rule_too(cluster: MemoryCluster) -> None:
    rule = {"backendRefs": RULE["backendRefs"]}
    made_route = make_route("chat", rule) | {"apiVersion": GRPCROUTE.api_version}
    cluster.put(GRPCROUTE, made_route)
    cluster.put(ROLLOUT, rollout_at([HEADER], 0))
    await carry_out(cluster, make_command(grpcRoute="chat"))
    [made, _] = cluster.objects[GRPCROUTE, NAMESPACE, "chat"]["spec"]["rules"]
    assert made["matches"] == [{"headers": [header("x-beta", "yes")]}]
    assert made["backendRefs"] == [service_ref("canary", 1)]


async def test_two_rollouts_have_rules_on_one_route() -> None:
    other = RULE | {"name": "other", "backendRefs": [service_ref("a", 1), service_ref("b", 0)]}
    cluster = make_cluster(RULE, other)
    for role, pod_template_hash in (("a", "h1"), ("b", "h2")):
        cluster.put(SERVICE, {"metadata": {"name": role}, "spec": {"selector": {"role": role}}})
        labels = {"role": role, HASH_LABEL: pod_template_hash}
        cluster.put(POD, make_pod(f"{role}-0", labels))
    cluster.put(ROLLOUT, rollout_at([HEADER], 0))
    second = rollout_at([HEADER | {}], 0, "gamma")
    second["metadata"]["name"] = "second"
    step = copy.deepcopy(HEADER)
    step["setHeaderRoute"]["name"] = "gamma"
    second["spec"]["strategy"]["canary"]["steps"] = [step]
    cluster.put(ROLLOUT, second)
    first = make_command()
    spec = replace(
        first.spec,
        key=RolloutKey(namespace=NAMESPACE, name="second"),
        uid="uid-second",
        stable_service="a",
        canary_service="b",
    )
    for command in (first, replace(first, spec=spec)) * 2:
        await carry_out(cluster, command)
    assert [rule["name"] for rule in rules(cluster)] == ["beta", "gamma", "chat", "other"]
    assert len(cluster.writes) == 2


# Ownership


@pytest.mark.parametrize(
    ("taken", "says"),
    [
        pytest.param(
            {"name": "beta"} | THEIRS, "rule beta is not made by this plugin", id="a-users"
        ),
    ],
)
async def test_a_rule_of_somebody_else_with_that_name_is_refused_and_left(
    taken: Object, says: str
) -> None:
    cluster = make_cluster(RULE, taken)
    cluster.put(ROLLOUT, rollout_at([HEADER], 0))
    with pytest.raises(ConfigError, match=says):
        decide(cluster, make_command())
    cluster.put(ROLLOUT, rollout_at([HEADER], 0, abort=True))
    await carry_out(cluster, make_command())
    assert rules(cluster)[1] == taken


async def test_the_rule_that_another_rollout_made_is_refused_by_its_name(
    cluster: MemoryCluster,
) -> None:
    cluster.put(ROLLOUT, rollout_at([HEADER], 0))
    await carry_out(cluster, make_command())

    def rename(route: Object) -> None:
        annotations = route["metadata"]["annotations"]
        [key] = annotations
        annotations[key] = annotations[key].replace('"llm/chat"', '"llm/before"')

    cluster.change(HTTPROUTE, "chat", rename)
    with pytest.raises(ConfigError, match="beta is made for Rollout llm/before"):
        decide(cluster, make_command())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param({"name": "Beta!"}, "can't be called that", id="no-name-for-a-rule"),
        pytest.param(
            {"match": [{"headerName": "x", "headerValue": {"prefix": "a"}}]},
            "by prefix",
            id="header-prefix",
        ),
    ],
)
def test_a_step_that_no_route_can_express_writes_nothing(
    cluster: MemoryCluster, change: Object, says: str
) -> None:
    step = {"setHeaderRoute": HEADER["setHeaderRoute"] | change}
    cluster.put(ROLLOUT, rollout_at([step], 0, "beta", "Beta!"))
    with pytest.raises(ConfigError, match=says):
        decide(cluster, make_command())


def test_a_match_that_has_nothing_in_common_with_the_rule_is_refused(
    cluster: MemoryCluster,
) -> None:
    step = copy.deepcopy(MIRROR)
    step["setMirrorRoute"]["match"] = [{"path": {"exact": "/v2"}}]
    cluster.put(ROLLOUT, rollout_at([step], 0))
    with pytest.raises(ConfigError, match="nothing in common"):
        decide(cluster, make_command())


def test_a_path_in_front_of_a_replaced_prefix_is_refused() -> None:
    rewrite = {"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch"}}}
    cluster = make_cluster(RULE | {"filters": [rewrite]})
    cluster.put(ROLLOUT, rollout_at([MIRROR], 0))
    with pytest.raises(ConfigError, match="replaces the prefix"):
        decide(cluster, make_command())


@pytest.mark.parametrize(
    "rest",
    [
        pytest.param([THEIRS] * 15, id="rules"),
        pytest.param([THEIRS | {"matches": [exact("/x")] * 64}] * 2, id="matches"),
    ],
)
def test_a_route_that_would_be_too_large_is_refused(rest: list[Object]) -> None:
    cluster = make_cluster(RULE, *rest)
    cluster.put(ROLLOUT, rollout_at([HEADER], 0))
    with pytest.raises(ConfigError, match="a route allows 16, 128 and 64"):
        decide(cluster, make_command())


def test_adapters_have_no_header_routes() -> None:
    cluster = make_cluster(RULE)
    cluster.put(ROLLOUT, rollout_at([HEADER], 0))
    config = parse_config(b'{"inferenceModel": "travel"}')
    with pytest.raises(ConfigError, match="inferenceModel has none"):
        wished_of(make_command().spec, PAIR, config, cluster)


# Drift and ends


async def test_an_edited_and_a_deleted_rule_are_put_back(cluster: MemoryCluster) -> None:
    cluster.put(ROLLOUT, rollout_at([{"setWeight": 10}, HEADER, MIRROR], 2))
    await carry_out(cluster, make_command(10))
    good = copy.deepcopy(rules(cluster))

    def edit(route: Object) -> None:
        del route["spec"]["rules"][0]
        route["spec"]["rules"][0]["filters"][1]["requestMirror"]["percent"] = 90
        route["spec"]["rules"][1]["backendRefs"][0]["weight"] = 1

    route = cluster.change(HTTPROUTE, "chat", edit)
    entry = entry_of(cluster)
    assert "commanded 90" in drift_of(route, entry)
    assert "rule beta, shadow of a managed route" in drift_of(route, entry)
    patch = restore(route, entry)
    assert patch is not None
    assert apply_patch(route, patch.operations)["spec"]["rules"] == good


async def test_an_edited_rule_is_adopted_until_the_next_wish(cluster: MemoryCluster) -> None:
    cluster.put(ROLLOUT, rollout_at([HEADER, {"setWeight": 5}], 0))
    command = make_command(drift="adopt")
    await carry_out(cluster, command)
    route = cluster.change(HTTPROUTE, "chat", lambda obj: obj["spec"]["rules"].pop(0))
    patch = adopt(route, entry_of(cluster))
    assert patch is not None
    await cluster.write(patch)
    await carry_out(cluster, command)
    assert rules(cluster)[0]["name"] == "chat"
    await carry_out(cluster, make_command(5, drift="adopt"))
    assert rules(cluster)[0]["name"] == "beta"


async def test_what_the_api_server_fills_in_is_no_drift(cluster: MemoryCluster) -> None:
    cluster.put(ROLLOUT, rollout_at([HEADER], 0))
    await carry_out(cluster, make_command())

    def default(route: Object) -> None:
        route["spec"]["rules"][0]["backendRefs"][0]["someday"] = "a default"

    route = cluster.change(HTTPROUTE, "chat", default)
    assert drift_of(route, entry_of(cluster)) == ""
    assert not decide(cluster, make_command()).writes


@pytest.mark.parametrize("on_end", ["stable", "keep"])
async def test_the_end_of_the_rollout_takes_the_rules_away(
    cluster: MemoryCluster, on_end: str
) -> None:
    cluster.put(ROLLOUT, rollout_at([{"setWeight": 10}, HEADER], 1))
    await carry_out(cluster, make_command(10, onEnd=on_end))
    route = cluster.objects[HTTPROUTE, NAMESPACE, "chat"]
    patch = release(HTTPROUTE, route, entry_of(cluster), None, stable_hash="h1")
    after = apply_patch(route, patch.operations)
    assert [rule.get("name") for rule in after["spec"]["rules"]] == ["chat", None]
    weights = [ref["weight"] for ref in after["spec"]["rules"][0]["backendRefs"]]
    assert weights == ([100, 0] if on_end == "stable" else [90, 10])


async def test_rules_taken_away_alone_leave_the_weights_and_tell_what_is_drained(
    cluster: MemoryCluster,
) -> None:
    cluster.put(ROLLOUT, rollout_at([HEADER], 0))
    await carry_out(cluster, make_command())
    route = cluster.objects[HTTPROUTE, NAMESPACE, "chat"]
    await cluster.write(without_made(route, entry_of(cluster), NOW + 5))
    assert rules(cluster) == [RULE, THEIRS]
    entry = entry_of(cluster)
    assert (entry.made, entry.drained, entry.since) == ((), ("Service/llm/canary",), NOW + 5)


# Laws

_NAMES = st.sampled_from(["x-a", "x-b", "x-c"])
_HEADER_STEP = st.builds(
    lambda name, header_name, value: {
        "setHeaderRoute": {
            "name": name,
            "match": [{"headerName": header_name, "headerValue": {"exact": value}}]
            if value
            else [],
        }
    },
    st.sampled_from(["beta", "shadow"]),
    _NAMES,
    st.sampled_from(["", "1", "2"]),
)
_MIRROR_STEP = st.builds(
    lambda name, path, percent: {
        "setMirrorRoute": {"name": name, "match": [{"path": {"prefix": path}}]}
        | ({} if percent is None else {"percentage": percent})
    },
    st.sampled_from(["beta", "shadow"]),
    st.sampled_from(["/", "/v1", "/v1/chat"]),
    st.sampled_from([None, 0, 7, 100]),
)
_STEPS = st.lists(
    st.one_of(
        _HEADER_STEP,
        _MIRROR_STEP,
        st.builds(lambda weight: {"setWeight": weight}, st.integers(0, 100)),
    ),
    min_size=1,
    max_size=5,
)


@settings(deadline=None)
@given(steps=_STEPS, moments=st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=6))
def test_rules_that_are_not_ours_stay_byte_equal_whatever_is_done(
    steps: list[Object], moments: list[tuple[int, bool]]
) -> None:
    """And every plan is idempotent, and what was made is gone in the end."""
    cluster = make_cluster(THEIRS, RULE, THEIRS | {"name": "last"})
    theirs = json.dumps([THEIRS, THEIRS | {"name": "last"}])
    shape = {key: value for key, value in RULE.items() if key != "backendRefs"}
    for index, aborted in [*moments, (0, True)]:
        cluster.put(ROLLOUT, rollout_at(steps, index, abort=aborted))
        given = [step["setWeight"] for step in steps[: index + 1] if "setWeight" in step]
        desired = 0 if aborted or not given else given[-1]
        for write in decide(cluster, make_command(desired)).writes:
            assert isinstance(write, ObjectPatch)
            work = cluster.write(write)
            with pytest.raises(StopIteration):
                work.send(None)
        assert not decide(cluster, make_command(desired)).writes
        live = rules(cluster)
        ours = {made.name for made in entry_of(cluster).made}
        assert ours == {rule.name for rule in _wanted(steps, index, aborted)}
        rest = [rule for rule in live if rule.get("name") not in ours]
        assert json.dumps([rest[0], rest[2]]) == theirs
        assert {key: value for key, value in rest[1].items() if key != "backendRefs"} == shape
        assert [ref["weight"] for ref in rest[1]["backendRefs"]] == [100 - desired, desired]
        assert live[: len(ours)] == [rule for rule in live if rule.get("name") in ours]
    assert len(rules(cluster)) == 3


def _wanted(steps: list[Object], index: int, aborted: bool) -> tuple[ManagedRoute, ...]:
    return wished(rollout_at(steps, index, abort=aborted), PAIR, 1)


# What the API server keeps


@pytest.mark.parametrize("field", ["name", "percent"])
async def test_a_rule_that_the_api_server_would_cut_is_not_written(
    cluster: MemoryCluster, field: str
) -> None:
    """Fields that its schema lacks are dropped without a word."""

    def prune(route: Object) -> None:
        made = route["spec"]["rules"][0]
        if field == "name":
            made.pop("name", None)
        for entry in made.get("filters", []):
            entry.get("requestMirror", {}).pop(field, None)

    cluster.prune = prune
    cluster.put(ROLLOUT, rollout_at([MIRROR], 0))
    together = Together(
        Writer(cast("Any", SimpleNamespace(cluster=cluster, metrics=Metrics(CollectorRegistry())))),
        cast("Any", cluster),
        told=lambda *_: None,
        restored=lambda *_: None,
    )
    with pytest.raises(ConfigError, match="would not keep rule shadow"):
        await together.carry_out(decide(cluster, make_command()))
    assert cluster.writes == []
    cluster.prune = None
    assert await together.carry_out(decide(cluster, make_command()))
    assert rules(cluster)[0]["name"] == "shadow"
