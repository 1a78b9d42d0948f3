"""Shares of versions on one pool: what is written, what is refused, what counts as in force."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_common.errors import KubeError
from inference_common.kube import INFERENCEPOOL, POD, SERVICE
from inference_common.names import COMMANDED_ANNOTATION, HASH_LABEL, SHARES_ANNOTATION
from inference_common.shares import PoolShares, commanded_weights, decode, digest, encode
from inference_plugin import commanded
from inference_plugin.carriers import Permissions
from inference_plugin.config import parse_config
from inference_plugin.ends import release
from inference_plugin.errors import ConfigError
from inference_plugin.patches import ObjectPatch
from inference_plugin.planning import plan as plan_command
from inference_plugin.pool_shares import (
    Acknowledgement,
    adopt,
    drift_of,
    plan_pool_shares,
    removal,
    restore,
    unacknowledged,
)
from inference_plugin.rollouts import Command, RolloutKey, RolloutSpec
from inference_plugin.shares import Hashes, Weighting
from inference_plugin.targets import Context, ObjectPlan, Target, Wait, WaitReason
from support.memory_cluster import NAMESPACE, MemoryCluster, make_pod

if TYPE_CHECKING:
    from inference_plugin.decisions import Decision

Object = dict[str, Any]
ROLLOUT = f"{NAMESPACE}/chat"
READY = frozenset({"h1", "h2", "h3"})


def a_pool(**annotations: str) -> Object:
    return {
        "metadata": {"name": "chat", "annotations": annotations}
        if annotations
        else {"name": "chat"},
        "spec": {
            "selector": {"matchLabels": {"app": "chat"}},
            "targetPorts": [{"number": 8000}],
            "endpointPickerRef": {"name": "picker", "port": {"number": 9002}},
        },
    }


def a_cluster(pool: Object | None = None) -> MemoryCluster:
    cluster = MemoryCluster()
    cluster.put(INFERENCEPOOL, pool or a_pool())
    return cluster


def pool_of(cluster: MemoryCluster) -> Object:
    return cluster.objects[INFERENCEPOOL, NAMESPACE, "chat"]


def plan(
    cluster: MemoryCluster,
    desired: int,
    *,
    stable: str = "h1",
    canary: str = "h2",
    ready: frozenset[str] = READY,
    now: float = 1000.0,
    uid: str = "u",
    lives: bool = True,
    report: bool = False,
    adopted: bool = False,
) -> ObjectPlan:
    shares = {stable: 100 - desired}
    shares[canary] = shares.get(canary, 0) + desired

    def gate(version: str) -> Wait | None:
        if version in ready:
            return None
        return Wait(reason=WaitReason.READY_PODS, message=f"{version} is not ready")

    homes = frozenset({stable, canary})
    return plan_pool_shares(
        INFERENCEPOOL,
        pool_of(cluster),
        Target(shares=shares, maximum=100, stable=stable, homes=homes, required=homes, gate=gate),
        context=Context(
            rollout=ROLLOUT,
            uid=uid,
            hashes=Hashes(stable=stable, canary=canary),
            desired=desired,
            now=now,
            may_add=True,
            remove_zero=False,
            report_drift=report,
            adopt_drift=adopted,
            owner_lives=lambda _name, _uid: lives,
        ),
    )


async def settle(cluster: MemoryCluster, desired: int, **more: Any) -> ObjectPlan:
    """Plan and write until nothing is left to write."""
    for _ in range(5):
        found = plan(cluster, desired, **more)
        if found.patch is None:
            return found
        await cluster.write(found.patch)
    raise AssertionError("the plan never comes to rest")


def value(cluster: MemoryCluster) -> PoolShares:
    return decode(pool_of(cluster)["metadata"]["annotations"][SHARES_ANNOTATION])


async def test_the_first_command_gives_stable_everything_before_a_canary_exists() -> None:
    cluster = a_cluster()
    await settle(cluster, 0, canary="h1")
    assert (value(cluster).weights, value(cluster).stable) == ({"h1": 100}, "h1")


async def test_each_step_writes_its_shares_once_and_its_counter_rises() -> None:
    cluster = a_cluster()
    counters = []
    for desired in (0, 10, 50, 100):
        await settle(cluster, desired)
        counters.append(value(cluster).counter)
        assert value(cluster).weights == {"h1": 100 - desired, "h2": desired}
    assert len(cluster.writes) == 4
    assert counters == sorted(set(counters))


async def test_a_version_without_ready_pods_is_given_no_more_than_it_has() -> None:
    cluster = a_cluster()
    await settle(cluster, 10)
    found = await settle(cluster, 50, ready=frozenset({"h1"}))
    assert value(cluster).weights == {"h1": 90, "h2": 10}
    assert [wait.message for wait in found.waits] == ["h2 is not ready"]
    await settle(cluster, 0, ready=frozenset())
    assert value(cluster).weights == {"h1": 100, "h2": 0}


async def test_the_mark_beside_the_shares_says_the_same() -> None:
    cluster = a_cluster()
    for desired in (0, 10, 50):
        await settle(cluster, desired)
        mark = pool_of(cluster)["metadata"]["annotations"][COMMANDED_ANNOTATION]
        assert commanded_weights(mark, ROLLOUT, "u") == value(cluster).weights


async def test_a_third_version_leaves_with_the_next_command() -> None:
    cluster = a_cluster()
    await settle(cluster, 50)
    await settle(cluster, 10, canary="h3")
    assert value(cluster).weights == {"h1": 90, "h3": 10}


async def test_promotion_makes_the_new_version_stable() -> None:
    cluster = a_cluster()
    await settle(cluster, 100)
    await settle(cluster, 0, stable="h2", canary="h2")
    assert (value(cluster).stable, value(cluster).weights) == ("h2", {"h2": 100})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "is gone"),
        ("{", "not JSON"),
        (
            encode(PoolShares(rollout=ROLLOUT, uid="u", counter=9, stable="h1", weights={"h2": 1})),
            "h1: 0, commanded 90; h2: 1, commanded 10",
        ),
        (
            encode(
                PoolShares(
                    rollout=ROLLOUT, uid="v", counter=9, stable="h2", weights={"h1": 90, "h2": 10}
                )
            ),
            "uid: v, commanded u; stable: h2, commanded h1",
        ),
    ],
    ids=["removed", "mangled", "overwritten", "of-another"],
)
async def test_whatever_happens_to_the_annotation_it_is_put_back(
    text: str | None, words: str
) -> None:
    cluster = a_cluster()
    await settle(cluster, 10)
    before = value(cluster).counter

    def spoil(pool: Object) -> None:
        if text is None:
            del pool["metadata"]["annotations"][SHARES_ANNOTATION]
        else:
            pool["metadata"]["annotations"][SHARES_ANNOTATION] = text

    cluster.change(INFERENCEPOOL, "chat", spoil)
    entry = commanded.read(pool_of(cluster), ROLLOUT)
    assert entry is not None
    assert words in drift_of(pool_of(cluster), entry)
    patch = restore(INFERENCEPOOL, pool_of(cluster), entry)
    assert patch is not None
    await cluster.write(patch)
    assert value(cluster).weights == {"h1": 90, "h2": 10}
    assert value(cluster).counter > before
    assert drift_of(pool_of(cluster), entry) == ""
    assert restore(INFERENCEPOOL, pool_of(cluster), entry) is None


async def test_with_the_annotation_gone_a_command_gives_no_more_than_was_commanded() -> None:
    """A picker keeps what it had, so that the canary still counts as having its 50 %."""
    cluster = a_cluster()
    await settle(cluster, 50)
    cluster.change(
        INFERENCEPOOL, "chat", lambda pool: pool["metadata"]["annotations"].pop(SHARES_ANNOTATION)
    )
    await settle(cluster, 60, ready=frozenset({"h1"}))
    assert value(cluster).weights == {"h1": 50, "h2": 50}


async def test_drift_is_only_reported_or_taken_over_as_configured() -> None:
    cluster = a_cluster()
    await settle(cluster, 10)

    def edit(pool: Object) -> None:
        live = json.loads(pool["metadata"]["annotations"][SHARES_ANNOTATION])
        live["shares"] = {"h1": 70, "h2": 30}
        pool["metadata"]["annotations"][SHARES_ANNOTATION] = json.dumps(live)

    cluster.change(INFERENCEPOOL, "chat", edit)
    reported = plan(cluster, 10, report=True)
    assert reported.patch is None
    assert [wait.reason for wait in reported.waits] == [WaitReason.DRIFT]
    # Another command is carried out all the same.
    assert plan(cluster, 50, report=True).patch is not None
    taken = plan(cluster, 10, adopted=True)
    assert taken.patch is not None
    await cluster.write(taken.patch)
    assert value(cluster).weights == {"h1": 70, "h2": 30}
    assert plan(cluster, 10, adopted=True).patch is None


async def test_an_unreadable_annotation_is_never_taken_over() -> None:
    cluster = a_cluster()
    await settle(cluster, 10)
    entry = commanded.read(pool_of(cluster), ROLLOUT)
    assert entry is not None
    cluster.change(
        INFERENCEPOOL,
        "chat",
        lambda pool: pool["metadata"]["annotations"].update({SHARES_ANNOTATION: "?"}),
    )
    assert adopt(INFERENCEPOOL, pool_of(cluster), entry) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"endpointPickerRef": None}, "has no endpoint picker"),
        (
            {"endpointPickerRef": {"name": "picker", "failureMode": "FailOpen"}},
            "failureMode is FailOpen",
        ),
    ],
    ids=["no-picker", "fail-open"],
)
async def test_a_pool_whose_picker_may_be_passed_by_is_refused(
    change: Object, message: str
) -> None:
    pool = a_pool()
    pool["spec"] |= change
    with pytest.raises(ConfigError, match=message):
        plan(a_cluster(pool), 10)


async def test_two_rollouts_on_one_pool_are_refused_by_the_owners_name() -> None:
    cluster = a_cluster()
    await settle(cluster, 10)
    text = pool_of(cluster)["metadata"]["annotations"][COMMANDED_ANNOTATION]
    other = a_pool(**{COMMANDED_ANNOTATION: text.replace(ROLLOUT, f"{NAMESPACE}/other")})
    with pytest.raises(ConfigError, match=f"managed by Rollout {NAMESPACE}/other"):
        plan(a_cluster(other), 10)
    assert plan(a_cluster(other), 10, lives=False).patch is not None


def test_the_removal_holds_only_for_the_value_that_was_seen() -> None:
    assert removal(a_pool()) == []
    assert [step["op"] for step in removal(a_pool(**{SHARES_ANNOTATION: "x"}))] == [
        "test",
        "remove",
    ]


async def test_a_share_is_in_force_when_every_ready_picker_says_so() -> None:
    cluster = a_cluster()
    await settle(cluster, 10)
    pool = pool_of(cluster)
    wanted = digest(pool["metadata"]["annotations"][SHARES_ANNOTATION])
    pickers = [{"metadata": {"name": name}} for name in ("a", "b")]
    applied = Acknowledgement(digest=wanted, state="applied")
    assert unacknowledged(pool, pickers, {"a": applied, "b": applied}) == ""
    for other, words in (
        (Acknowledgement(digest="0", state="applied"), "picker b: applied 0"),
        (Acknowledgement(digest=wanted, state="kept"), f"picker b: kept {wanted}"),
        (Acknowledgement(problem="no answer"), "picker b: no answer"),
    ):
        assert words in unacknowledged(pool, pickers, {"a": applied, "b": other})
    assert "not asked yet" in unacknowledged(pool, pickers, {"a": applied})
    assert "no ready endpoint picker" in unacknowledged(pool, [], {})
    assert "has no annotation" in unacknowledged(
        a_cluster().objects[INFERENCEPOOL, NAMESPACE, "chat"], pickers, {}
    )


@given(
    st.lists(
        st.tuples(
            st.integers(0, 100),
            st.sampled_from(["h1", "h2"]),
            st.sampled_from(["h1", "h2", "h3"]),
            st.frozensets(st.sampled_from(["h1", "h2", "h3"])),
        ),
        max_size=6,
    )
)
async def test_no_story_of_commands_leaves_the_pool_without_shares_or_raises_an_unready_version(
    story: list[tuple[int, str, str, frozenset[str]]],
) -> None:
    cluster = a_cluster()
    for desired, stable, canary, ready in story:
        annotations = pool_of(cluster)["metadata"].get("annotations") or {}
        before = decode(annotations[SHARES_ANNOTATION]) if annotations else None
        await settle(cluster, desired, stable=stable, canary=canary, ready=ready)
        after = value(cluster)
        assert sum(after.weights.values()) > 0
        for version in set(after.weights) - ready - {stable}:
            had = before.share(version) if before else 0.0
            assert after.share(version) <= had + 1e-9
        unchanged = copy.deepcopy(pool_of(cluster))
        assert plan(cluster, desired, stable=stable, canary=canary, ready=ready).patch is None
        assert pool_of(cluster) == unchanged


async def test_a_write_onto_a_pool_that_changed_meanwhile_is_refused() -> None:
    cluster = a_cluster()
    patch = plan(cluster, 10).patch
    assert isinstance(patch, ObjectPatch)
    cluster.change(INFERENCEPOOL, "chat", lambda pool: pool["metadata"].update(labels={"a": "b"}))
    with pytest.raises(KubeError):
        await cluster.write(patch)


# Together with the rest of the plugin


def a_command(desired: int, config: Object | None = None) -> Command:
    return Command(
        spec=RolloutSpec(
            key=RolloutKey(namespace=NAMESPACE, name="chat"),
            uid="uid-chat",
            config=json.dumps(config or {"sharedPool": "chat"}).encode(),
            stable_service="",
            canary_service="",
            max_weight=100,
        ),
        hashes=Hashes(stable="h1", canary="h2"),
        weighting=Weighting(desired=desired),
    )


def a_running_cluster() -> MemoryCluster:
    cluster = a_cluster()
    cluster.put(SERVICE, {"metadata": {"name": "picker"}, "spec": {"selector": {"app": "epp"}}})
    cluster.put(POD, make_pod("picker-0", {"app": "epp"}))
    for version in ("h1", "h2"):
        cluster.put(POD, make_pod(version, {"app": "chat", HASH_LABEL: version}))
    return cluster


async def test_a_step_is_verified_once_the_picker_acknowledges_it() -> None:
    cluster = a_running_cluster()

    def decide() -> Decision:
        return plan_command(a_command(10), cluster, now=1.0, permissions=Permissions())

    for write in decide().writes:
        await cluster.write(write)
    found = decide()
    assert (found.writes, found.reached, found.verified) == ((), True, False)
    assert "picker picker-0: not asked yet" in found.unaccepted
    assert found.retry_s is not None
    text = pool_of(cluster)["metadata"]["annotations"][SHARES_ANNOTATION]
    cluster.acknowledgements["picker-0"] = Acknowledgement(digest=digest(text), state="applied")
    assert decide().verified


async def test_at_the_end_of_its_rollout_the_pool_is_as_it_was() -> None:
    cluster = a_running_cluster()
    before = copy.deepcopy(pool_of(cluster))
    for write in plan_command(a_command(10), cluster, now=1.0, permissions=Permissions()).writes:
        await cluster.write(write)
    entry = commanded.read(pool_of(cluster), ROLLOUT)
    assert entry is not None
    patch = release(INFERENCEPOOL, pool_of(cluster), entry, None, stable_hash="h1")
    await cluster.write(patch)
    assert pool_of(cluster)["spec"] == before["spec"]
    assert pool_of(cluster)["metadata"]["annotations"] == {}
    assert "its shares taken off" in patch.summary


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"httpRoute": "r"}, "exactly one of"),
        ({"inferencePools": ["a", "b"]}, "inferencePools does not go with sharedPool"),
        ({"namespace": "other"}, "namespace does not go with sharedPool"),
        ({"pickerPort": 0}, "pickerPort"),
    ],
    ids=["route", "pools", "namespace", "port"],
)
def test_what_a_shared_pool_can_not_have_is_refused(more: Object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(json.dumps({"sharedPool": "chat"} | more).encode())
