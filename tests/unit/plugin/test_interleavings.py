"""What holds at every moment of every interleaving of controller, gateway, pods and edits by hand.

The machine below is the world: it lets the plugin carry out one step of a command at a time, and
checks after each single write.
"""

from __future__ import annotations

import json
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from inference_common.kube import (
    HTTPROUTE,
    INFERENCEMODEL,
    INFERENCEPOOL,
    POD,
    REPLICASET,
    ROLLOUT,
)
from inference_common.names import HASH_LABEL
from inference_plugin.carriers import Permissions
from inference_plugin.errors import PluginError
from inference_plugin.patches import PoolAim
from inference_plugin.planning import plan
from inference_plugin.rollouts import Command, RolloutKey, RolloutSpec
from inference_plugin.shares import Hashes, Weighting
from support.memory_cluster import (
    NAMESPACE,
    MemoryCluster,
    aims_of,
    make_model,
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
    from collections.abc import Coroutine

    from inference_plugin.patches import Write

POOLS = json.dumps({"httpRoute": "chat", "inferencePools": ["a", "b"]}).encode()
MODEL = json.dumps({"inferenceModel": "travel"}).encode()
NOW = 1_000_000.0


def run(work: Coroutine[Any, Any, Any]) -> None:
    """Run a coroutine that never has to wait."""
    try:
        work.send(None)
    except StopIteration:
        return
    raise AssertionError("it waited")


def make_command(config: bytes, stable: str, canary: str, desired: int, *, own: bool) -> Command:
    return Command(
        spec=RolloutSpec(
            key=RolloutKey(namespace=NAMESPACE, name="chat"), uid="uid-chat", config=config
        ),
        hashes=Hashes(stable=stable, canary=canary),
        weighting=Weighting(desired=desired),
        own=own,
    )


class HashAddressed(RuleBasedStateMachine):
    """One Rollout with two pools, and a third backend of somebody else in the same rule."""

    def __init__(self) -> None:
        super().__init__()
        self.cluster = MemoryCluster()
        self.revisions = 1
        self.stable = self.canary = "h1"
        self.desired = 0
        self.aborted = False
        self.header = False
        self.sent_by_header: set[str] = set()

    @initialize(weights=st.tuples(*[st.one_of(st.none(), st.integers(1, 9))] * 2))
    def deploy(self, weights: tuple[int | None, int | None]) -> None:
        for name in ("a", "b"):
            self.cluster.put(INFERENCEPOOL, make_pool(name, {"app": "chat"}))
        refs = [pool_ref(name, weight) for name, weight in zip("ab", weights, strict=True)]
        self.cluster.put(HTTPROUTE, make_route("chat", [*refs, service_ref("docs", 1)]))
        # Before the first command the gateway sends by what the user wrote.
        self.cluster.accept("chat")
        self.sent = weights_of(self.cluster, "chat", rule=-1)
        self.docs = Fraction(1, sum(self.sent.values()))
        self.pod("h1", ready=True)
        self.cluster.before_write = self.about_to_write

    def pod(self, revision: str, *, ready: bool) -> None:
        labels = {"app": "chat", HASH_LABEL: revision}
        self.cluster.put(POD, make_pod(f"chat-{revision}", labels, ready=ready))

    def about_to_write(self, write: Write) -> None:
        if not isinstance(write, PoolAim):
            return
        was = aims_of(self.cluster)[write.name]
        if was is None:
            return
        weight = weights_of(self.cluster, "chat", rule=-1)[write.name]
        assert weight == 0, "a pool of another revision is re-aimed only at weight 0"
        assert self.sent[write.name] == 0, "and only when the gateway sends nothing there"
        assert write.name not in self.headed() | self.sent_by_header, "by a header route neither"

    def headed(self) -> set[str]:
        """Where the header route sends, as the route says it now."""
        rules = self.cluster.objects[HTTPROUTE, NAMESPACE, "chat"]["spec"]["rules"]
        return {ref["name"] for rule in rules[:-1] for ref in rule["backendRefs"]}

    def rollout(self) -> None:
        """The Rollout's status, which says whether a header route is wished."""
        step = {
            "setHeaderRoute": {
                "name": "beta",
                "match": [{"headerName": "x-beta", "headerValue": {"exact": "yes"}}],
            }
        }
        made = make_rollout("chat", {}, stable=self.stable, canary=self.canary, abort=self.aborted)
        strategy = made["spec"]["strategy"]["canary"]
        strategy["steps"] = [step] if self.header else []
        strategy["trafficRouting"] = {"managedRoutes": [{"name": "beta"}]}
        self.cluster.put(ROLLOUT, made)

    @rule(wished=st.booleans())
    def header_step(self, wished: bool) -> None:
        self.header = wished

    @rule()
    def new_revision(self) -> None:
        self.revisions += 1
        self.canary = f"h{self.revisions}"
        self.desired, self.aborted = 0, False

    @rule(back=st.integers(1, 3))
    def old_revision(self, back: int) -> None:
        self.canary = f"h{max(self.revisions - back, 1)}"
        self.desired, self.aborted = 0, False

    @rule(ready=st.booleans())
    def canary_pods(self, ready: bool) -> None:
        self.pod(self.canary, ready=ready)

    @precondition(lambda self: self.canary != self.stable and not self.aborted)
    @rule(desired=st.sampled_from([0, 1, 10, 33, 50, 100]))
    def step_to(self, desired: int) -> None:
        self.desired = desired

    @precondition(lambda self: self.canary != self.stable and not self.aborted)
    @rule(desired=st.sampled_from([10, 50, 100]))
    def step_to_with_everything_in_order(self, desired: int) -> None:
        """What interleavings start from would rarely come about step by step."""
        self.desired = desired
        self.pod(self.canary, ready=True)
        for _ in range(3):
            self.the_plugin_takes_steps(4)
            self.gateway_takes_it_in()
            self.time_passes(3.0)

    @precondition(lambda self: self.canary != self.stable and not self.aborted)
    @rule()
    def header_route_with_everything_in_order(self) -> None:
        """The canary has no weight, but a header route that the gateway has taken in."""
        self.desired, self.header = 0, True
        self.pod(self.canary, ready=True)
        for _ in range(4):
            self.the_plugin_takes_steps(4)
            self.gateway_takes_it_in()
            self.time_passes(3.0)

    @rule()
    def promote(self) -> None:
        self.stable, self.desired, self.aborted = self.canary, 0, False

    @rule()
    def abort(self) -> None:
        self.desired, self.aborted = 0, True

    @rule()
    def gateway_takes_it_in(self) -> None:
        self.cluster.accept("chat")
        self.sent = weights_of(self.cluster, "chat", rule=-1)
        self.sent_by_header = self.headed()

    @rule(seconds=st.sampled_from([0.5, 2.0, 30.0]))
    def time_passes(self, seconds: float) -> None:
        self.cluster.pass_time(seconds)

    @rule(name=st.sampled_from("ab"), weight=st.integers(0, 200))
    def somebody_edits_a_managed_weight(self, name: str, weight: int) -> None:
        weights = weights_of(self.cluster, "chat", rule=-1)
        if weights["a"] + weights["b"] - weights[name] + weight == 0:
            return

        def edit(obj: Any) -> None:
            [ref] = [one for one in obj["spec"]["rules"][-1]["backendRefs"] if one["name"] == name]
            ref["weight"] = weight

        self.cluster.change(HTTPROUTE, "chat", edit)
        found = weights_of(self.cluster, "chat", rule=-1)
        self.docs = Fraction(found["docs"], sum(found.values()))

    @rule(most=st.integers(1, 4))
    def the_plugin_takes_steps(self, most: int) -> None:
        command = make_command(POOLS, self.stable, self.canary, self.desired, own=self.aborted)
        self.rollout()
        for _ in range(most):
            decision = plan(command, self.cluster, now=NOW, permissions=Permissions())
            if not decision.writes:
                if decision.reached:
                    again = plan(command, self.cluster, now=NOW, permissions=Permissions())
                    assert not again.writes
                    self.header_follows()
                return
            for write in decision.writes:
                run(self.cluster.write(write))
                self.weights_are_sound()

    def header_follows(self) -> None:
        """A header route goes to the canary's pool alone, and to none of a revision that is not."""
        for name in self.headed():
            assert aims_of(self.cluster)[name] == self.canary
            assert self.header
            assert not self.aborted
            assert self.canary != self.stable

    @invariant()
    def weights_are_sound(self) -> None:
        if "docs" not in getattr(self, "sent", {}):
            return
        weights = weights_of(self.cluster, "chat", rule=-1)
        assert weights["a"] + weights["b"] > 0
        assert Fraction(weights["docs"], sum(weights.values())) == self.docs


HashAddressed.TestCase.settings = settings(stateful_step_count=40, max_examples=60, deadline=None)
TestHashAddressed = HashAddressed.TestCase


@settings(deadline=None)
@given(
    start=st.lists(
        st.sampled_from(["v1", "v2", "fallback", "other"]), unique=True, min_size=1, max_size=4
    ),
    weighted=st.booleans(),
    steps=st.lists(st.tuples(st.sampled_from(["h1", "h2"]), st.integers(0, 100)), max_size=8),
)
def test_the_rules_of_the_inference_model_hold_after_every_write(
    start: list[str], weighted: bool, steps: list[tuple[str, int]]
) -> None:
    """CRD inferencemodels v0.5.1: weight 1 to 1,000,000, on all targets or none, at most 10."""
    cluster = MemoryCluster()
    targets = [
        {"name": name} | ({"weight": at + 1} if weighted else {}) for at, name in enumerate(start)
    ]
    cluster.put(INFERENCEMODEL, make_model("travel", *targets))
    cluster.put(INFERENCEPOOL, make_pool("lora-pool", {"app": "vllm"}))
    for one, name in (("h1", "v1"), ("h2", "v2")):
        cluster.put(REPLICASET, make_replica_set("chat", one, destination=name))
    for stable, desired in steps:
        canary = "h2" if stable == "h1" else "h1"
        command = make_command(MODEL, stable, canary, desired, own=False)
        try:
            decision = plan(command, cluster, now=NOW, permissions=Permissions())
        except PluginError:
            assert not {"v1", "v2"} & set(start)
            return
        for write in decision.writes:
            run(cluster.write(write))
        found = cluster.objects[INFERENCEMODEL, NAMESPACE, "travel"]["spec"]["targetModels"]
        assert 1 <= len(found) <= 10
        given_weights = [item["weight"] for item in found if "weight" in item]
        assert len(given_weights) in {0, len(found)}
        assert all(1 <= weight <= 1_000_000 for weight in given_weights)
        assert {"v1", "v2"} & {item["name"] for item in found}
        assert not plan(command, cluster, now=NOW, permissions=Permissions()).writes
