"""Ready-made starting points of the scenarios: everything up to the first Healthy revision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from inference_common.kube import INFERENCEPOOL, INFERENCEPOOL_X, Resource
from support import manifests as m

if TYPE_CHECKING:
    from collections.abc import Sequence

    from support.scenario import Scenario

Object = dict[str, Any]
APP: Final = {"app": "chat"}
POOLS: Final = ("chat-a", "chat-b")


async def hash_addressed(
    scenario: Scenario,
    *,
    replicas: int = 1,
    weights: tuple[int | None, int | None] = (100, 0),
    resource: Resource = INFERENCEPOOL,
    config: Object | None = None,
    others: Sequence[Object] = (),
    routes: Sequence[str] = ("chat",),
    rules: Sequence[Object] = (),
    scale_down_delay: bool = True,
    **canary: Any,
) -> None:
    """Rollout ``chat`` that owns no-op pods, with pools chat-a and chat-b on route chat.

    No traffic flows: the pickers are pods without a process that are ready at once. ``config``
    adds to the plugin's configuration, ``others`` to the backendRefs of each of the routes, whose
    rules are ``rules`` if there are any.
    Without ``scale_down_delay`` none is set, as dynamicStableScale wants it.
    """
    pools = [m.pool(name, APP, picker="picker", resource=resource) for name in POOLS]
    refs = [m.pool_ref(name, weight, resource) for name, weight in zip(POOLS, weights, strict=True)]
    made = [m.route(name, *refs, *others) for name in routes]
    for route in made if rules else ():
        route["spec"]["rules"] = list(rules)
    await scenario.apply(
        m.gateway(),
        m.deployment("picker", m.noop(), labels={"app": "picker"}),
        m.service("picker", {"app": "picker"}, m.PICKER_PORT),
        *pools,
        *made,
    )
    await scenario.until_available("picker")
    named = [{"name": name} for name in routes]
    routing: Object = {"httpRoutes": named, "inferencePools": list(POOLS)}
    routing["poolGroup"] = resource.group
    template = m.pod_template(m.noop(), labels=APP)
    rollout = m.rollout("chat", template, routing | (config or {}), replicas=replicas, **canary)
    if not scale_down_delay:
        del rollout["spec"]["strategy"]["canary"]["scaleDownDelaySeconds"]
    await scenario.apply(rollout)
    await scenario.until_healthy("chat")


async def served(scenario: Scenario, version: str, *, replicas: int = 2, **canary: Any) -> None:
    """As hash_addressed, with simulated vLLM pods and real pickers, reachable at the Gateway."""
    objects: list[Object] = [m.gateway(), *m.picker_rights()]
    for name in POOLS:
        objects += [m.pool(name, APP, picker=f"picker-{name}"), *m.picker(f"picker-{name}", name)]
    await scenario.apply(
        *objects, m.route("chat", m.pool_ref("chat-a", 100), m.pool_ref("chat-b", 0))
    )
    for name in POOLS:
        await scenario.until_available(f"picker-{name}")
    template = m.pod_template(m.simulated_vllm(version), labels=APP)
    config = {"httpRoute": "chat", "inferencePools": list(POOLS)}
    await scenario.apply(m.rollout("chat", template, config, replicas=replicas, **canary))
    await scenario.until_healthy("chat", timeout_s=180)
    await scenario.until_accepted("chat")


async def lora(
    scenario: Scenario,
    *adapters: str,
    replicas: int = 2,
    extra: Sequence[str] = (),
    **canary: Any,
) -> None:
    """Simulated vLLM pods with the adapters in one pool, and the release Rollout of the first.

    The shape of the seeds: InferenceModel ``travelhelper`` of a v1alpha2 pool, target adapters by
    weight. The release Rollout ``travel-helper`` runs the adapter prober. ``extra`` are further
    arguments of the model servers.
    """
    labels = {"app": "custom-serving", "release": "qwen"}
    vllm = m.simulated_vllm("Qwen-2.5-7B-Instruct", *extra, adapters=adapters)
    await scenario.apply(
        m.gateway(),
        *m.picker_rights(),
        *m.prober_rights(),
        m.deployment("qwen", vllm, labels=labels, replicas=replicas),
        m.pool("mymodel-pool-v1", labels, picker="picker", resource=INFERENCEPOOL_X),
        *m.picker("picker", "mymodel-pool-v1", resource=INFERENCEPOOL_X),
        m.inference_model("loramodel", "travelhelper", "mymodel-pool-v1", **{adapters[0]: None}),
        m.route("llm", m.pool_ref("mymodel-pool-v1", resource=INFERENCEPOOL_X)),
    )
    await scenario.until_available("qwen")
    await scenario.until_available("picker")
    template, config = lora_release(adapters[0]), {"inferenceModel": "loramodel"}
    await scenario.apply(m.rollout("travel-helper", template, config, **canary))
    await scenario.until_healthy("travel-helper", timeout_s=180)


async def foreign(scenario: Scenario, *pools: str, identity: str | None = None) -> None:
    """Pools of Deployments run by somebody else, and the release Rollout of the first one.

    The release Rollout ``release`` names its pool by annotation on route ``chat``. With an identity
    the pools have simulated vLLM pods with the label ``content=first``, and the release's pod is
    the prober; without one all pods are no-ops.
    """
    container = m.noop() if identity is None else m.simulated_vllm("first")
    objects: list[Object] = [m.pool(name, {"app": name}) for name in pools]
    objects += [foreign_deployment(name, container, "first") for name in pools]
    refs = [m.pool_ref(name, 0 if at else 100) for at, name in enumerate(pools)]
    await scenario.apply(
        m.gateway(),
        *m.prober_rights(),
        m.deployment("picker", m.noop(), labels={"app": "picker"}),
        m.service("picker", {"app": "picker"}, m.PICKER_PORT),
        *objects,
        m.route("chat", *refs),
    )
    for name in ("picker", *pools):
        await scenario.until_available(name)
    config = {"httpRoute": "chat", "destinationKind": "InferencePool"}
    await scenario.apply(m.rollout("release", foreign_release(pools[0], identity), config))
    await scenario.until_healthy("release", timeout_s=180)


def foreign_deployment(name: str, container: Object, content: str) -> Object:
    """A Deployment whose pods carry the label ``content``, which it does not select by."""
    found = m.deployment(name, container, labels={"app": name})
    found["spec"]["template"]["metadata"]["labels"] = {"app": name, "content": content}
    return found


def foreign_release(pool: str, identity: str | None = None) -> Object:
    """Pod template of a release that stands for a pool; with an identity its pod probes it."""
    labels = {"app": "release"}
    if identity is None:
        return m.pod_template(m.noop(version=pool), labels=labels, annotations=m.destination(pool))
    extra = ("--identity", identity, "--load-grace-s", "1")
    return m.pod_template(
        m.prober(pool, "mymodel", "release", *extra),
        labels=labels,
        annotations=m.destination(pool, identity),
        service_account="prober",
    )


async def release_only(scenario: Scenario, adapter: str, **config: Any) -> None:
    """As ``lora`` without traffic: no-op pods stand for the model servers and the prober.

    Further keywords are added to the plugin's configuration.
    """
    labels = {"app": "custom-serving"}
    await scenario.apply(
        m.deployment("qwen", m.noop(), labels=labels),
        m.deployment("picker", m.noop(), labels={"app": "picker"}),
        m.service("picker", {"app": "picker"}, m.PICKER_PORT),
        m.pool("mymodel-pool-v1", labels, resource=INFERENCEPOOL_X),
        m.inference_model("loramodel", "travelhelper", "mymodel-pool-v1", **{adapter: None}),
    )
    await scenario.until_available("qwen")
    await scenario.until_available("picker")
    template = lora_release(adapter, noop=True)
    routing = {"inferenceModel": "loramodel", **config}
    await scenario.apply(m.rollout("travel-helper", template, routing))
    await scenario.until_healthy("travel-helper")


def lora_release(adapter: str, *, noop: bool = False) -> Object:
    """Pod template of a release that stands for an adapter of pool mymodel-pool-v1.

    With ``noop`` its pod is ready at once, whatever the model servers have loaded.
    """
    if noop:
        return m.pod_template(
            m.noop(version=adapter),
            labels={"app": "travel-helper"},
            annotations=m.destination(adapter),
        )
    container = m.prober(
        "mymodel-pool-v1",
        adapter,
        "travel-helper",
        *("--pool-group", INFERENCEPOOL_X.group),
        *("--load-grace-s", "5"),
    )
    return m.pod_template(
        container,
        labels={"app": "travel-helper"},
        annotations=m.destination(adapter),
        service_account="prober",
    )
