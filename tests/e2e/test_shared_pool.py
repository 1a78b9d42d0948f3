"""Versions inside one InferencePool: shares by annotation, enforced and acknowledged by pickers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from inference_common.kube import DEPLOYMENT, INFERENCEPOOL, POD, ROLLOUT, PatchKind
from inference_common.names import COMMANDED_ANNOTATION, SHARES_ANNOTATION
from inference_common.shares import PoolShares, decode
from support import manifests as m
from support.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.scenario import Scenario

Object = dict[str, Any]
APP = {"app": "chat"}
OLD = "Qwen-2.5-7B-Instruct"
NEW = "DeepSeek-R1-Distill-Qwen-7B"
RATE = 20


async def shared(scenario: Scenario, *, config: Object | None = None, **canary: Any) -> None:
    """Rollout ``chat`` of simulated vLLM pods in one pool with a real picker, and a route to it."""
    await scenario.apply(
        m.gateway(),
        *m.picker_rights(),
        m.pool("chat", APP),
        *m.picker("picker", "chat"),
        m.route("chat", m.pool_ref("chat")),
    )
    await scenario.until_available("picker")
    template = m.pod_template(m.simulated_vllm(OLD), labels=APP)
    routing = {"sharedPool": "chat"} | (config or {})
    await scenario.apply(m.rollout("chat", template, routing, replicas=2, **canary))
    await scenario.until_healthy("chat", timeout_s=180)
    await scenario.until_accepted("chat")


def revised(version: str) -> Object:
    return {"spec": {"containers": [m.simulated_vllm(version)]}}


def shares_of(pool: Object) -> PoolShares:
    return decode(pool["metadata"]["annotations"][SHARES_ANNOTATION])


async def until_shares(scenario: Scenario, expected: dict[str, int]) -> PoolShares:
    """The pool's shares once the versions with a weight are these."""

    def found(pool: Object | None) -> bool:
        text = ((pool or {}).get("metadata", {}).get("annotations") or {}).get(SHARES_ANNOTATION)
        if text is None or not text.startswith("{"):
            return False
        weights = decode(text).weights
        return {version: weight for version, weight in weights.items() if weight} == expected

    pool = await scenario.until(INFERENCEPOOL, "chat", found, what=f"shares {expected}")
    return shares_of(pool)


async def annotate(scenario: Scenario, value: str | None) -> None:
    change = {"metadata": {"annotations": {SHARES_ANNOTATION: value}}}
    await scenario.kube.patch(
        INFERENCEPOOL, "chat", change, scenario.namespace, kind=PatchKind.MERGE
    )


async def test_a_canary_inside_one_pool_gets_its_exact_share_to_the_end_and_undone(
    scenario: Scenario,
) -> None:
    await shared(scenario)
    first = (await scenario.hashes("chat"))["stable"]
    # Before any canary pod exists the pool is closed to versions that nobody has named.
    await until_shares(scenario, {first: 100})
    async with Traffic(await scenario.address(), model="mymodel", rate=RATE) as traffic:
        await traffic.until_answers(20)
        await scenario.revise("chat", revised(NEW))
        for weight in (10, 50):
            await scenario.until_paused("chat", weight, timeout_s=180)
            canary = (await scenario.hashes("chat"))["current"]
            await until_shares(scenario, {first: 100 - weight, canary: weight})
            window = await traffic.until_answers(300)
            # Drawn as evenly as can be; but the first and the last ones come in any order.
            assert window.shares()[NEW] == pytest.approx(weight / 100, abs=0.02)
            await scenario.argo("promote", "chat")
        await scenario.until_healthy("chat", timeout_s=180)
        await until_shares(scenario, {canary: 100})
        window = await traffic.until_answers(30)
        assert window.shares() == {NEW: 1.0}
        await scenario.argo("undo", "chat")
        await scenario.until_paused("chat", 10, timeout_s=180)
        await until_shares(scenario, {canary: 90, first: 10})
        await traffic.until_answers(30)
        await scenario.argo("promote", "chat", "--full")
        await scenario.until_healthy("chat", timeout_s=180)
        await until_shares(scenario, {first: 100})
    assert traffic.failures == []


async def test_an_abort_brings_every_answer_back_to_stable(scenario: Scenario) -> None:
    await shared(scenario)
    stable = (await scenario.hashes("chat"))["stable"]
    async with Traffic(await scenario.address(), model="mymodel", rate=RATE) as traffic:
        await scenario.revise("chat", revised(NEW))
        await scenario.until_paused("chat", 10, timeout_s=180)
        await traffic.until_answers(30)
        await scenario.argo("abort", "chat")
        await until_shares(scenario, {stable: 100})
        canary = (await scenario.hashes("chat"))["current"]
        await scenario.until_no_pods(canary)
        window = await traffic.until_answers(30)
        assert window.shares() == {OLD: 1.0}
    assert traffic.failures == []


def mangled(_: str) -> str:
    return '{"rollout":'


def overwritten(text: str) -> str:
    fields = json.loads(text)
    weights = {version: 100 - weight for version, weight in fields["shares"].items()}
    return json.dumps(fields | {"shares": weights, "counter": fields["counter"] + 1})


@pytest.mark.parametrize(
    "spoil", [lambda _: None, mangled, overwritten], ids=["removed", "mangled", "overwritten"]
)
async def test_whatever_becomes_of_the_annotation_the_canary_gets_no_more(
    scenario: Scenario, spoil: Callable[[str], str | None]
) -> None:
    await shared(scenario, config={"drift": "report"})
    async with Traffic(await scenario.address(), model="mymodel", rate=RATE) as traffic:
        await scenario.revise("chat", revised(NEW))
        await scenario.until_paused("chat", 10, timeout_s=180)
        pool = await scenario.get(INFERENCEPOOL, "chat")
        await annotate(scenario, spoil(pool["metadata"]["annotations"][SHARES_ANNOTATION]))
        await scenario.until_event("DriftReported")
        window = await traffic.until_answers(150)
        assert window.shares().get(NEW, 0) <= 0.12
        # The next command puts it right.
        await scenario.argo("promote", "chat")
        await scenario.until_paused("chat", 50)
        window = await traffic.until_answers(100)
        assert window.shares()[NEW] == pytest.approx(0.5, abs=0.05)
    assert traffic.failures == []


async def test_a_spoiled_annotation_is_put_back_within_seconds(scenario: Scenario) -> None:
    await shared(scenario)
    stable = (await scenario.hashes("chat"))["stable"]
    before = shares_of(await scenario.get(INFERENCEPOOL, "chat"))
    await annotate(scenario, None)
    await scenario.until_event("DriftRepaired", "is gone")
    after = await until_shares(scenario, {stable: 100})
    assert after.counter > before.counter


async def test_a_picker_that_starts_without_the_annotation_serves_stable_only(
    scenario: Scenario,
) -> None:
    await shared(scenario, config={"drift": "report"})
    await scenario.revise("chat", revised(NEW))
    await scenario.until_paused("chat", 10, timeout_s=180)
    await annotate(scenario, None)
    await scenario.until_event("DriftReported", "is gone")
    [old] = (await scenario.kube.list(POD, scenario.namespace, "app=picker"))["items"]
    await scenario.kube.delete(POD, old["metadata"]["name"], scenario.namespace)
    await scenario.until(POD, old["metadata"]["name"], lambda pod: pod is None, what="gone")
    async with Traffic(await scenario.address(), model="mymodel", rate=RATE) as traffic:
        # The next picker is there.
        await traffic.until_answered_by(OLD)
        window = await traffic.until_answers(60)
        assert window.shares() == {OLD: 1.0}


async def test_a_step_waits_for_the_pickers_acknowledgement(scenario: Scenario) -> None:
    await shared(scenario)
    scale = {"spec": {"replicas": 0}}
    await scenario.kube.patch(DEPLOYMENT, "picker", scale, scenario.namespace, kind=PatchKind.MERGE)
    # One that is on its way out acknowledges too.
    await scenario.until_gone("app=picker")
    await scenario.revise("chat", revised(NEW))
    await scenario.until_event("WaitingForPicker", "picker")
    rollout = await scenario.get(ROLLOUT, "chat")
    assert not rollout["status"].get("pauseConditions")
    stable = (await scenario.hashes("chat"))["stable"]
    assert shares_of(await scenario.get(INFERENCEPOOL, "chat")).share(stable) == 1.0
    scale = {"spec": {"replicas": 1}}
    await scenario.kube.patch(DEPLOYMENT, "picker", scale, scenario.namespace, kind=PatchKind.MERGE)
    await scenario.until_paused("chat", 10, timeout_s=180)


async def test_a_pool_that_fails_open_is_refused_and_nothing_is_written(scenario: Scenario) -> None:
    pool = m.pool("chat", APP)
    pool["spec"]["endpointPickerRef"]["failureMode"] = "FailOpen"
    await scenario.apply(
        pool,
        m.deployment("picker", m.noop(), labels={"app": "picker"}),
        m.service("picker", {"app": "picker"}, m.PICKER_PORT),
    )
    template = m.pod_template(m.noop(), labels=APP)
    await scenario.apply(m.rollout("chat", template, {"sharedPool": "chat"}))
    await scenario.until_event("InvalidConfig", "FailOpen")
    found = await scenario.get(INFERENCEPOOL, "chat")
    assert SHARES_ANNOTATION not in (found["metadata"].get("annotations") or {})


async def test_at_the_end_of_its_rollout_the_pool_is_nobodys_again(scenario: Scenario) -> None:
    await shared(scenario)
    await scenario.kube.delete(ROLLOUT, "chat", scenario.namespace)
    await scenario.until(
        INFERENCEPOOL,
        "chat",
        lambda pool: (
            pool is not None
            and not {SHARES_ANNOTATION, COMMANDED_ANNOTATION}
            & (pool["metadata"].get("annotations") or {}).keys()
        ),
        what="no shares",
    )
