"""Ready-made starting points of the scenarios: everything up to the first Healthy revision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from inference_common.kube import INFERENCEPOOL, INFERENCEPOOL_X, Resource
from support import manifests as m

if TYPE_CHECKING:
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
    **canary: Any,
) -> None:
    """Rollout ``chat`` that owns no-op pods, with pools chat-a and chat-b on route chat.

    No traffic flows: the pickers are pods without a process that are ready at once.
    """
    pools = [m.pool(name, APP, picker="picker", resource=resource) for name in POOLS]
    refs = [m.pool_ref(name, weight, resource) for name, weight in zip(POOLS, weights, strict=True)]
    await scenario.apply(
        m.gateway(),
        m.deployment("picker", m.noop(), labels={"app": "picker"}),
        m.service("picker", {"app": "picker"}, m.PICKER_PORT),
        *pools,
        m.route("chat", *refs),
    )
    await scenario.until_available("picker")
    config = {"httpRoute": "chat", "inferencePools": list(POOLS), "poolGroup": resource.group}
    template = m.pod_template(m.noop(), labels=APP)
    await scenario.apply(m.rollout("chat", template, config, replicas=replicas, **canary))
    await scenario.until_healthy("chat")


async def served(scenario: Scenario, version: str, *, replicas: int = 2) -> None:
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
    await scenario.apply(m.rollout("chat", template, config, replicas=replicas))
    await scenario.until_healthy("chat", timeout_s=180)
    await scenario.until_accepted("chat")


async def lora(scenario: Scenario, *adapters: str) -> None:
    """Two simulated vLLM pods with the adapters in one pool, and the release Rollout of the first.

    The shape of the seeds: InferenceModel ``travelhelper`` of a v1alpha2 pool, target adapters by
    weight. The release Rollout ``travel-helper`` runs the adapter prober.
    """
    labels = {"app": "custom-serving", "release": "qwen"}
    vllm = m.simulated_vllm("Qwen-2.5-7B-Instruct", adapters=adapters)
    await scenario.apply(
        m.gateway(),
        *m.picker_rights(),
        *m.prober_rights(),
        m.deployment("qwen", vllm, labels=labels, replicas=2),
        m.pool("mymodel-pool-v1", labels, picker="picker", resource=INFERENCEPOOL_X),
        *m.picker("picker", "mymodel-pool-v1", resource=INFERENCEPOOL_X),
        m.inference_model("loramodel", "travelhelper", "mymodel-pool-v1", **{adapters[0]: None}),
        m.route("llm", m.pool_ref("mymodel-pool-v1", resource=INFERENCEPOOL_X)),
    )
    await scenario.until_available("qwen")
    await scenario.until_available("picker")
    await scenario.apply(
        m.rollout("travel-helper", lora_release(adapters[0]), {"inferenceModel": "loramodel"})
    )
    await scenario.until_healthy("travel-helper", timeout_s=180)


def lora_release(adapter: str) -> Object:
    """Pod template of a release that stands for an adapter of pool mymodel-pool-v1."""
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
