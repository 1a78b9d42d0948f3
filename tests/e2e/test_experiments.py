"""An Experiment with weights, Services that take turns, and weights out of a thousand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inference_common.kube import HTTPROUTE, ROLLOUT, PatchKind, Resource
from support import manifests as m
from support.deployments import hash_addressed
from support.scenario import weights

if TYPE_CHECKING:
    from support.scenario import Scenario

Object = dict[str, Any]
EXPERIMENT = Resource("argoproj.io", "v1alpha1", "experiments", "Experiment")
LABELS = {"app": "chat"}
HASH = "podTemplateHash"


def with_port(version: str) -> Object:
    """A no-op container that declares a port: only then an Experiment's template gets a Service."""
    return m.noop(version=version) | {"ports": [{"containerPort": m.MODEL_PORT}]}


async def services(scenario: Scenario, *names: str, **canary: Any) -> None:
    await scenario.apply(
        m.gateway(),
        *[m.service(name, LABELS) for name in names],
        m.route("chat", m.service_ref(names[0], 100), m.service_ref(names[1], 0)),
        m.rollout(
            "chat",
            m.pod_template(with_port("1"), labels=LABELS),
            {"httpRoute": "chat"},
            **canary,
        ),
    )
    await scenario.until_healthy("chat")


def has_nameless_weights(rollout: Object | None) -> bool:
    """Whether the controller's last weights are for two templates that have no names."""
    weighted = ((rollout or {}).get("status", {}).get("canary") or {}).get("weights") or {}
    return [(each["weight"], each.get(HASH)) for each in weighted.get("additional") or []] == [
        (5, None),
        (15, None),
    ]


async def test_an_experiments_templates_have_exact_weights_and_are_gone_afterwards(
    scenario: Scenario,
) -> None:
    templates = [
        {"name": "baseline", "specRef": "stable", "weight": 5},
        {"name": "treatment", "specRef": "canary", "weight": 15},
    ]
    steps: list[Object] = [
        {"setWeight": 10},
        {"experiment": {"templates": templates}},
        {"pause": {}},
    ]
    await services(
        scenario,
        "chat-stable",
        "chat-canary",
        canary_steps=steps,
        stableService="chat-stable",
        canaryService="chat-canary",
    )
    await scenario.revise("chat", {"spec": {"containers": [with_port("2") | {"name": "noop"}]}})

    route = await scenario.until(
        HTTPROUTE,
        "chat",
        lambda obj: obj is not None and len(weights(obj)) == 4,
        what="four backendRefs",
    )
    found = weights(route)
    assert found.pop("chat-stable") == 70
    assert found.pop("chat-canary") == 10
    assert {name.rsplit("-", 1)[1]: weight for name, weight in found.items()} == {
        "baseline": 5,
        "treatment": 15,
    }
    # On a busy machine Argo Rollouts loses the names of its templates, and never writes them again:
    # it overwrites the status with one that it computed before it made the Services.
    [experiment] = (await scenario.kube.list(EXPERIMENT, scenario.namespace))["items"]
    nameless = [
        {key: value for key, value in status.items() if key not in {"serviceName", HASH}}
        for status in experiment["status"]["templateStatuses"]
    ]
    await scenario.kube.patch(
        EXPERIMENT,
        experiment["metadata"]["name"],
        {"status": {"templateStatuses": nameless}},
        scenario.namespace,
        kind=PatchKind.MERGE,
    )
    # The controller writes this once SetWeight has succeeded without the names.
    await scenario.until(ROLLOUT, "chat", has_nameless_weights, what="nameless weights")
    assert weights(await scenario.get(HTTPROUTE, "chat")) == weights(route)
    # It ends when it is told to: one that ends by itself may do so before the weights are there.
    await scenario.argo("terminate", "experiment", experiment["metadata"]["name"])
    await scenario.until_paused("chat", 10)
    await scenario.until_weights("chat", {"chat-stable": 90, "chat-canary": 10})
    await scenario.until_accepted("chat")


async def test_an_abort_ends_the_weights_of_an_experiment(scenario: Scenario) -> None:
    templates = [{"name": "treatment", "specRef": "canary", "weight": 20}]
    steps: list[Object] = [{"experiment": {"templates": templates}}, {"pause": {}}]
    await services(
        scenario,
        "chat-stable",
        "chat-canary",
        canary_steps=steps,
        stableService="chat-stable",
        canaryService="chat-canary",
    )
    await scenario.revise("chat", {"spec": {"containers": [with_port("2")]}})
    await scenario.until(
        HTTPROUTE,
        "chat",
        lambda obj: obj is not None and sorted(weights(obj).values(), key=str) == [0, 20, 80],
        what="80, 0 and 20",
    )
    await scenario.argo("abort", "chat")
    await scenario.until_weights("chat", {"chat-stable": 100, "chat-canary": 0})


async def test_ping_and_pong_take_turns_and_no_weight_moves_at_promotion(
    scenario: Scenario,
) -> None:
    await services(
        scenario, "ping", "pong", pingPong={"pingService": "ping", "pongService": "pong"}
    )
    await scenario.until_weights("chat", {"ping": 100, "pong": 0})
    await scenario.revise("chat", "2")
    await scenario.until_paused("chat", 10)
    await scenario.until_weights("chat", {"ping": 90, "pong": 10})
    await scenario.argo("promote", "chat")
    await scenario.until_paused("chat", 50)
    await scenario.argo("promote", "chat")
    await scenario.until_healthy("chat")
    await scenario.until_weights("chat", {"ping": 0, "pong": 100})
    await scenario.revise("chat", "3")
    await scenario.until_paused("chat", 10)
    await scenario.until_weights("chat", {"ping": 10, "pong": 90})
    await scenario.argo("abort", "chat")
    await scenario.until_weights("chat", {"ping": 0, "pong": 100})


async def test_weights_are_out_of_a_thousand(scenario: Scenario) -> None:
    routing = {"maxTrafficWeight": 1000}
    steps = m.steps(1, 500)
    await hash_addressed(scenario, replicas=2, canary_steps=steps, routing=routing)
    await scenario.revise("chat", "2")
    await scenario.until_paused("chat", 1)
    await scenario.until_weights("chat", {"chat-a": 999, "chat-b": 1})
    await scenario.argo("promote", "chat")
    await scenario.until_paused("chat", 500)
    await scenario.until_weights("chat", {"chat-a": 500, "chat-b": 500})
    await scenario.argo("promote", "chat")
    await scenario.until_healthy("chat")
    await scenario.until_weights("chat", {"chat-a": 0, "chat-b": 1000})
