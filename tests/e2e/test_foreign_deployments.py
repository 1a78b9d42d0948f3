"""The seeds' shape: two Deployments run by somebody else, a static pool each, one route.

A release Rollout names the pool of each revision by annotation; one backendRef carries a port
(ignored for pools), the other none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from inference_common.kube import INFERENCEPOOL_X
from support import manifests as m
from support.traffic import Traffic

if TYPE_CHECKING:
    from support.scenario import Scenario

QWEN = "Qwen-2.5-7B-Instruct"
DEEPSEEK = "DeepSeek-R1-Distill-Qwen-7B"
POOLS = {"mymodel-pool-v1": ("qwen", QWEN), "mymodel-pool-v2": ("deepseek-r1", DEEPSEEK)}


def release(pool: str) -> m.Object:
    container = m.prober(
        pool, "mymodel", "mymodel", "--pool-group", INFERENCEPOOL_X.group, "--load-grace-s", "5"
    )
    return m.pod_template(
        container,
        labels={"app": "mymodel-release"},
        annotations=m.destination(pool),
        service_account="prober",
    )


async def test_two_foreign_deployments_are_shifted_by_a_release_rollout(
    scenario: Scenario,
) -> None:
    x = INFERENCEPOOL_X
    objects = [m.gateway(), *m.picker_rights(), *m.prober_rights()]
    for pool, (name, version) in POOLS.items():
        labels = {"app": "custom-serving", "release": name}
        objects += [
            m.deployment(name, m.simulated_vllm(version), labels=labels),
            m.pool(pool, labels, picker=f"{pool}-ext-proc", resource=x),
            *m.picker(f"{pool}-ext-proc", pool, resource=x),
        ]
    refs = (
        m.pool_ref("mymodel-pool-v1", 1, x),
        m.pool_ref("mymodel-pool-v2", 0, x, port=m.MODEL_PORT),
    )
    await scenario.apply(*objects, m.route("inference-route", *refs))
    for pool, (name, _) in POOLS.items():
        await scenario.until_available(name)
        await scenario.until_available(f"{pool}-ext-proc")
    config = {
        "httpRoute": "inference-route",
        "destinationKind": "InferencePool",
        "poolGroup": x.group,
    }
    await scenario.apply(m.rollout("mymodel", release("mymodel-pool-v1"), config))
    await scenario.until_healthy("mymodel", timeout_s=180)
    async with Traffic(await scenario.address(), model="mymodel", rate=20) as traffic:
        await scenario.revise("mymodel", release("mymodel-pool-v2"))
        await scenario.until_paused("mymodel", 10, timeout_s=180)
        await scenario.until_accepted("inference-route")
        window = await traffic.until_answers(300)
        assert window.fits(DEEPSEEK, 0.1), window.counts()
        await scenario.argo("promote", "mymodel", "--full")
        await scenario.until_healthy("mymodel")
        await scenario.until_accepted("inference-route")
        window = await traffic.until_answers(20)
        assert window.shares() == {DEEPSEEK: 1.0}
    assert traffic.failures == []
    route = await scenario.until_accepted("inference-route")
    assert [ref.get("port") for ref in route["spec"]["rules"][0]["backendRefs"]] == [
        None,
        m.MODEL_PORT,
    ]
