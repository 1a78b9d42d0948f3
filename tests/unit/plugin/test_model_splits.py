"""Splits of one model name's requests: InferenceModelRewrite of both groups, and any list."""

from __future__ import annotations

import asyncio
import copy
import json
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_common.kube import (
    INFERENCEMODEL,
    INFERENCEMODELREWRITE,
    INFERENCEMODELREWRITE_X,
    INFERENCEPOOL,
    POD,
    REPLICASET,
    Resource,
)
from inference_plugin import commanded
from inference_plugin.carriers import Permissions
from inference_plugin.config import RouterConfig
from inference_plugin.errors import ConfigError
from inference_plugin.managed import drift_of, restore
from inference_plugin.planning import plan
from inference_plugin.rollouts import Command, RolloutKey, RolloutSpec
from inference_plugin.shares import Hashes, Weighting
from inference_plugin.splits import ModelSplit, split_of
from support.memory_cluster import (
    NAMESPACE,
    MemoryCluster,
    make_pod,
    make_pool,
    make_replica_set,
    make_rollout,
)

if TYPE_CHECKING:
    from inference_plugin.decisions import Decision

Object = dict[str, Any]
REWRITE: Object = {"inferenceModelRewrite": {"name": "travel"}}
VERSIONS = Resource("models.example.com", "v1", "models", "Model")
LIST: Object = {
    "modelList": {
        "kind": "Model",
        "group": "models.example.com",
        "name": "travel",
        "listPath": "spec.versions",
        "nameKey": "adapter",
        "weightKey": "share",
    }
}
SCHEMA: Object = {
    "properties": {
        "spec": {
            "properties": {
                "versions": {
                    "type": "array",
                    "items": {
                        "properties": {"adapter": {"type": "string"}, "share": {"type": "integer"}}
                    },
                }
            }
        }
    }
}


def make_rule(*targets: tuple[str, int | None], model: str | None = None) -> Object:
    found = [
        {"modelRewrite": name} | ({} if weight is None else {"weight": weight})
        for name, weight in targets
    ]
    rule: Object = {"targets": found}
    if model is not None:
        rule["matches"] = [{"model": {"type": "Exact", "value": model}}]
    return rule


def make_rewrite(*rules: Object, pool: str = "vllm") -> Object:
    spec = {"poolRef": {"group": INFERENCEPOOL.group, "name": pool}, "rules": list(rules)}
    return {"metadata": {"name": "travel"}, "spec": spec}


@pytest.fixture
def cluster() -> MemoryCluster:
    """A pool with a ready pod; the revisions h1 and h2 name the adapters v1 and v2."""
    cluster = MemoryCluster()
    cluster.put(INFERENCEPOOL, make_pool("vllm", {"app": "vllm"}))
    cluster.put(POD, make_pod("vllm-0", {"app": "vllm"}))
    cluster.put(REPLICASET, make_replica_set("chat", "h1", destination="v1"))
    cluster.put(REPLICASET, make_replica_set("chat", "h2", destination="v2"))
    return cluster


def make_command(
    config: Object, *, desired: int = 0, stable: str = "h1", canary: str = "h2", name: str = "chat"
) -> Command:
    return Command(
        spec=RolloutSpec(
            key=RolloutKey(namespace=NAMESPACE, name=name),
            uid=f"uid-{name}",
            config=json.dumps(config).encode(),
        ),
        hashes=Hashes(stable=stable, canary=canary),
        weighting=Weighting(desired=desired),
    )


def decide(cluster: MemoryCluster, command: Command) -> Decision:
    return plan(command, cluster, now=5000.0, permissions=Permissions())


async def carry_out(cluster: MemoryCluster, command: Command) -> Decision:
    for _ in range(3):
        decision = decide(cluster, command)
        for write in decision.writes:
            await cluster.write(write)
        if not decision.writes:
            return decision
    raise AssertionError("the plan never ends")


def refusal(cluster: MemoryCluster, command: Command) -> str:
    with pytest.raises(ConfigError) as found:
        decide(cluster, command)
    return str(found.value)


def live(cluster: MemoryCluster, config: Object, resource: Resource) -> ModelSplit:
    obj = cluster.objects[resource, NAMESPACE, "travel"]
    return split_of(obj, resource, RouterConfig.model_validate(config))


def weights(cluster: MemoryCluster, config: Object, resource: Resource) -> dict[str, int]:
    split = live(cluster, config, resource)
    return dict(zip(split.names, split.weights, strict=True))


@pytest.mark.parametrize(
    ("config", "resource", "obj"),
    [
        pytest.param(
            REWRITE, INFERENCEMODELREWRITE, make_rewrite(make_rule(("v1", None))), id="llm-d"
        ),
        pytest.param(
            {"inferenceModelRewrite": {"name": "travel", "group": INFERENCEMODELREWRITE_X.group}},
            INFERENCEMODELREWRITE_X,
            make_rewrite(make_rule(("v1", None))),
            id="x-k8s.io",
        ),
        pytest.param(
            LIST,
            VERSIONS,
            {"metadata": {"name": "travel"}, "spec": {"versions": [{"adapter": "v1"}]}},
            id="any-list",
        ),
        pytest.param(
            LIST,
            VERSIONS,
            {"metadata": {"name": "travel"}, "spec": {"modelName": "travel"}},
            id="a-list-that-is-not-there-yet",
        ),
    ],
)
async def test_a_release_goes_through_the_list_and_zero_leaves_it(
    cluster: MemoryCluster, config: Object, resource: Resource, obj: Object
) -> None:
    cluster.schemas[VERSIONS] = SCHEMA
    cluster.put(resource, copy.deepcopy(obj))
    await carry_out(cluster, make_command(config))
    assert set(weights(cluster, config, resource)) == {"v1"}
    for desired, expected in ((10, {"v1": 90, "v2": 10}), (100, {"v2": 100}), (0, {"v1": 100})):
        decision = await carry_out(cluster, make_command(config, desired=desired))
        assert decision.verified
        assert weights(cluster, config, resource) == expected


async def test_the_newer_group_is_meant_where_both_are_served(cluster: MemoryCluster) -> None:
    for resource in (INFERENCEMODELREWRITE, INFERENCEMODELREWRITE_X):
        cluster.put(resource, make_rewrite(make_rule(("v1", None))))
    await carry_out(cluster, make_command(REWRITE, desired=10))
    assert weights(cluster, REWRITE, INFERENCEMODELREWRITE) == {"v1": 90, "v2": 10}
    assert weights(cluster, REWRITE, INFERENCEMODELREWRITE_X) == {"v1": 1}


async def test_the_older_group_is_meant_where_it_alone_is_served(cluster: MemoryCluster) -> None:
    cluster.unserved.add(INFERENCEMODELREWRITE)
    cluster.put(INFERENCEMODELREWRITE_X, make_rewrite(make_rule(("v1", None))))
    await carry_out(cluster, make_command(REWRITE, desired=10))
    assert weights(cluster, REWRITE, INFERENCEMODELREWRITE_X) == {"v1": 90, "v2": 10}


RULES = [
    make_rule(("base", None), model="base"),
    make_rule(("v1", 50), ("other", 50), model="travel"),
    make_rule(("v1", None)),
]


@pytest.mark.parametrize(
    ("chosen", "index"),
    [
        pytest.param({"model": "travel"}, 1, id="by-the-model-it-matches"),
        pytest.param({"rule": 2}, 2, id="by-its-index"),
    ],
)
async def test_only_the_chosen_rule_is_changed(
    cluster: MemoryCluster, chosen: Object, index: int
) -> None:
    config = {"inferenceModelRewrite": {"name": "travel"} | chosen}
    cluster.put(INFERENCEMODELREWRITE, make_rewrite(*copy.deepcopy(RULES)))
    await carry_out(cluster, make_command(config, desired=10))
    rules = cluster.objects[INFERENCEMODELREWRITE, NAMESPACE, "travel"]["spec"]["rules"]
    assert {target["modelRewrite"] for target in rules[index]["targets"]} >= {"v1", "v2"}
    assert [rule for at, rule in enumerate(rules) if at != index] == [
        rule for at, rule in enumerate(RULES) if at != index
    ]
    assert rules[index].get("matches") == RULES[index].get("matches")


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        pytest.param({}, "has 3 rules (found 0: 'base', 1: 'travel', 2: every model)", id="many"),
        pytest.param({"model": "gone"}, "no rule that matches the model 'gone'", id="no-match"),
        pytest.param({"rule": 3}, "has no rule 3 (found 0: 'base'", id="no-index"),
        pytest.param({"rule": 0}, "none of 'v1', 'v2' (found 'base')", id="other-targets-only"),
    ],
)
def test_a_rule_that_can_not_be_meant_is_refused(
    cluster: MemoryCluster, chosen: Object, message: str
) -> None:
    cluster.put(INFERENCEMODELREWRITE, make_rewrite(*RULES))
    config = {"inferenceModelRewrite": {"name": "travel"} | chosen}
    assert message in refusal(cluster, make_command(config, desired=10))


async def test_a_rule_put_in_front_does_not_take_the_place_of_a_managed_one(
    cluster: MemoryCluster,
) -> None:
    config = {"inferenceModelRewrite": {"name": "travel", "model": "travel"}}
    cluster.put(INFERENCEMODELREWRITE, make_rewrite(make_rule(("v1", None), model="travel")))
    await carry_out(cluster, make_command(config, desired=10))

    def put_in_front(obj: Object) -> None:
        obj["spec"]["rules"].insert(0, make_rule(("v1", None), model="base"))

    obj = cluster.change(INFERENCEMODELREWRITE, "travel", put_in_front)
    entry = commanded.read(obj, f"{NAMESPACE}/chat")
    assert entry is not None
    parsed = RouterConfig.model_validate(config)
    assert drift_of(INFERENCEMODELREWRITE, obj, entry, parsed) == ""
    await carry_out(cluster, make_command(config, desired=50))
    assert weights(cluster, config, INFERENCEMODELREWRITE) == {"v1": 50, "v2": 50}


async def test_an_edit_of_a_target_is_told_and_put_back(cluster: MemoryCluster) -> None:
    cluster.put(INFERENCEMODELREWRITE, make_rewrite(make_rule(("v1", None))))
    await carry_out(cluster, make_command(REWRITE, desired=10))

    def edit(obj: Object) -> None:
        obj["spec"]["rules"][0]["targets"] = [{"modelRewrite": "v2", "weight": 1}]

    obj = cluster.change(INFERENCEMODELREWRITE, "travel", edit)
    entry = commanded.read(obj, f"{NAMESPACE}/chat")
    assert entry is not None
    parsed = RouterConfig.model_validate(REWRITE)
    drift = drift_of(INFERENCEMODELREWRITE, obj, entry, parsed)
    assert drift == "v1: absent, commanded 90; v2: 1, commanded 10"
    patch = restore(INFERENCEMODELREWRITE, obj, entry, parsed)
    assert patch is not None
    await cluster.write(patch)
    assert weights(cluster, REWRITE, INFERENCEMODELREWRITE) == {"v2": 10, "v1": 90}


async def test_a_target_without_a_weight_beside_weighted_ones_keeps_its_nothing(
    cluster: MemoryCluster,
) -> None:
    # Upstream's picker never draws such a target (router research, section 5).
    cluster.put(INFERENCEMODELREWRITE, make_rewrite(make_rule(("v1", 3), ("old", None))))
    await carry_out(cluster, make_command(REWRITE, desired=10))
    rule = cluster.objects[INFERENCEMODELREWRITE, NAMESPACE, "travel"]["spec"]["rules"][0]
    assert rule["targets"] == [
        {"modelRewrite": "v1", "weight": 90},
        {"modelRewrite": "old"},
        {"modelRewrite": "v2", "weight": 10},
    ]


async def test_a_target_that_is_listed_twice_is_refused(cluster: MemoryCluster) -> None:
    cluster.put(INFERENCEMODELREWRITE, make_rewrite(make_rule(("v1", 3), ("v1", 4))))
    message = refusal(cluster, make_command(REWRITE, desired=10))
    assert "'v1' appears 2 times in spec.rules[0].targets" in message


async def test_a_share_is_not_raised_while_the_pool_has_no_ready_pod(
    cluster: MemoryCluster,
) -> None:
    cluster.put(INFERENCEMODELREWRITE, make_rewrite(make_rule(("v1", None)), pool="empty"))
    cluster.put(INFERENCEPOOL, make_pool("empty", {"app": "none"}))
    decision = await carry_out(cluster, make_command(REWRITE, desired=10))
    assert [wait.reason for wait in decision.waits] == ["WaitingForReadyPods"]
    assert weights(cluster, REWRITE, INFERENCEMODELREWRITE) == {"v1": 1}


async def test_two_rollouts_may_share_a_rewrite_but_not_a_rule(cluster: MemoryCluster) -> None:
    rules = (make_rule(("v1", None), model="a"), make_rule(("v1", None), model="b"))
    cluster.put(INFERENCEMODELREWRITE, make_rewrite(*rules))
    for name in ("chat", "talk"):
        cluster.put(REPLICASET, make_replica_set(name, "h1", destination="v1"))
        cluster.put(REPLICASET, make_replica_set(name, "h2", destination="v2"))
    configs = {
        model: {"inferenceModelRewrite": {"name": "travel", "model": model}} for model in "ab"
    }
    rollout = make_rollout("chat", configs["a"], stable="h1", canary="h2")
    cluster.put(
        Resource("argoproj.io", "v1alpha1", "rollouts", "Rollout"),
        rollout,
    )
    await carry_out(cluster, make_command(configs["a"], desired=10))
    await carry_out(cluster, make_command(configs["b"], desired=50, name="talk"))
    assert weights(cluster, configs["a"], INFERENCEMODELREWRITE) == {"v1": 90, "v2": 10}
    assert weights(cluster, configs["b"], INFERENCEMODELREWRITE) == {"v1": 50, "v2": 50}
    message = refusal(cluster, make_command(configs["a"], desired=50, name="talk"))
    assert "v1, v2 is managed by Rollout llm/chat" in message


def test_a_kind_that_is_not_served_is_refused(cluster: MemoryCluster) -> None:
    message = refusal(cluster, make_command(LIST, desired=10))
    assert "serves no kind Model in the group models.example.com" in message


def test_a_list_that_the_schema_lacks_is_refused(cluster: MemoryCluster) -> None:
    cluster.schemas[VERSIONS] = {"properties": {"spec": {"properties": {"targets": {}}}}}
    message = refusal(cluster, make_command(LIST, desired=10))
    assert "has no spec.versions (spec has targets), so that the API server would drop" in message


# A list as any user may have written it: all weighted, none weighted, or mixed.
LISTS = st.lists(
    st.tuples(
        st.sampled_from(["v1", "v2", "w1", "w2", "w3"]),
        st.one_of(st.none(), st.integers(1, 1000)),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda pair: pair[0],
)


@given(LISTS, st.lists(st.integers(0, 100), min_size=1, max_size=4))
def test_the_laws_of_a_list_with_a_least_weight_of_one_hold(
    targets: list[tuple[str, int | None]], steps: list[int]
) -> None:
    asyncio.run(check_laws(targets, steps))


async def check_laws(targets: list[tuple[str, int | None]], steps: list[int]) -> None:
    cluster = MemoryCluster()
    cluster.put(INFERENCEPOOL, make_pool("vllm", {"app": "vllm"}))
    cluster.put(POD, make_pod("vllm-0", {"app": "vllm"}))
    for number in "12":
        found = make_replica_set("chat", f"h{number}", destination=f"v{number}")
        cluster.put(REPLICASET, found)
    cluster.put(INFERENCEMODELREWRITE, make_rewrite(make_rule(*targets)))

    def others() -> dict[str, Fraction]:
        now = weights(cluster, REWRITE, INFERENCEMODELREWRITE)
        return {
            name: Fraction(weight, sum(now.values()))
            for name, weight in now.items()
            if name.startswith("w")
        }

    before = others()
    for desired in steps:
        try:
            await carry_out(cluster, make_command(REWRITE, desired=desired))
        except ConfigError:
            # The managed ones had no share that could be split.
            assert sum(before.values()) == 1
            return
        entries = live(cluster, REWRITE, INFERENCEMODELREWRITE).entries
        assert entries
        assert all(entry.get("weight", 1) >= 1 for entry in entries)
        now = weights(cluster, REWRITE, INFERENCEMODELREWRITE)
        assert now.get("v1", 0) + now.get("v2", 0) > 0
        pair = now.get("v1", 0) + now.get("v2", 0)
        assert Fraction(now.get("v2", 0), pair) == Fraction(desired, 100)
        assert others() == before
        assert decide(cluster, make_command(REWRITE, desired=desired)).writes == ()


def test_an_unknown_resource_holds_no_split() -> None:
    config = RouterConfig.model_validate({"inferenceModel": "travel"})
    obj: Object = {"metadata": {"name": "travel"}}
    assert split_of(obj, INFERENCEMODEL, config).entries == []
    with pytest.raises(ValueError, match="holds no model split"):
        split_of(obj, POD, config)
