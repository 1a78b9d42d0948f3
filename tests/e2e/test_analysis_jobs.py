"""The analysis decides a Rollout's steps by Jobs: real controller, real Prometheus."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from inference_common.kube import POD, ROLLOUT
from support import analysed as a
from support.deployments import served
from support.traffic import Traffic

if TYPE_CHECKING:
    from support.scenario import Scenario

RATE = 20


async def test_a_good_version_is_promoted_a_slow_one_aborted_and_promoted_once_cured(
    scenario: Scenario,
) -> None:
    # One canary and three stable pods; at 25 per cent each pod gets the same.
    await a.install(scenario, a.values(scenario, policy=a.CALM))
    await served(scenario, "one", replicas=3, canary_steps=a.steps(25))
    address = await scenario.address()
    async with Traffic(address, model="mymodel", rate=RATE, max_tokens=a.MAX_TOKENS) as traffic:
        # A good version reaches 100 per cent with no hand on it.
        await scenario.revise("chat", a.release("two"))
        (good,) = await a.until_ended(scenario, 1)
        assert a.phases([good]) == ["Successful"], await a.said(scenario)
        # The same AnalysisRun never costs a second look: the second Job replays the first's.
        assert a.measurements(good) == ["Successful", "Successful"]
        await scenario.until_healthy("chat", timeout_s=180)
        (line,) = await a.said(scenario)
        assert "proceed: " in line.splitlines()[0]
        assert len(line.splitlines()) == 5
        # One that is three times as slow fails by the first look, long before it.
        canary = await a.begin(scenario, a.release("three"))
        await a.spoil(scenario, canary, slow_factor=3)
        _, bad = await a.until_ended(scenario, 2)
        assert a.phases([bad]) == ["Failed"], await a.said(scenario)
        assert a.measurements(bad) == ["Failed", "Failed"]
        await scenario.until_aborted("chat")
        assert any("FAIL, abort" in text for text in await a.said(scenario))
        # With the cause gone, the same version is tried again and judged on what is new.
        await scenario.until_no_pods(canary)
        await scenario.argo("retry", "rollout", "chat")
        *_, again = await a.until_ended(scenario, 3)
        assert a.phases([again]) == ["Successful"], await a.said(scenario)
        await scenario.until_healthy("chat", timeout_s=180)
    assert traffic.failures == []
    book = json.loads((await a.ledger(scenario))[f"{canary}.json"])
    assert [segment["epoch"] for segment in book["ledger"]["segments"]] == [1, 2]
    assert [entry["outcome"] for entry in book["entries"]] == ["Failed", "Successful"]


async def test_with_too_little_traffic_guard_goes_on_and_prove_waits_for_a_person_or_pauses(
    scenario: Scenario,
) -> None:
    quick = {"look": {"after": "9s"}, "windows": {"warmUp": "0s"}, "policy": a.CALM}
    proving = quick | {"policy": a.CALM | {"mode": "prove"}}
    await a.install(scenario, a.values(scenario, **quick), name="guard")
    await a.install(scenario, a.values(scenario, **proving, maxWait="10m"), name="attended")
    await a.install(scenario, a.values(scenario, **proving), name="prove")
    names = ("guard", "attended", "prove")
    await served(
        scenario,
        "one",
        replicas=3,
        canary_steps=[
            {"setWeight": 25},
            *({"analysis": a.analysis_of(name)} for name in names),
            {"pause": {}},
        ],
    )
    async with Traffic(await scenario.address(), model="mymodel", rate=1, max_tokens=4):
        await scenario.revise("chat", a.release("two"))
        (first,) = await a.until_ended(scenario, 1)
        assert a.phases([first]) == ["Successful"], await a.said(scenario)
        assert "evidence: weak" in (await a.said(scenario))[0]
        # The second verdict waits; losing its pod to a drained node changes nothing.
        await a.until_said(scenario, "INCONCLUSIVE, pause")
        waiting = (await a.until_runs(scenario, lambda runs: len(runs) == 2, what="a run"))[1]
        measurement = await a.until_measurement(scenario, waiting["metadata"]["uid"], 1)
        assert measurement is not None
        pod = await a.until_pod(scenario, a.job_of(measurement))
        name = pod["metadata"]["name"]
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
        await scenario.kube.create(POD, eviction, scenario.namespace, name, "eviction")
        await scenario.until(POD, name, lambda found: found is None, what="its end")
        code, text, problems = await a.analysis(
            *("acknowledge", "--namespace", scenario.namespace, "--rollout", "chat"),
            *("--by", "ann", "--reason", "a quiet night", "--decision", "proceed"),
            *("--kubeconfig", scenario.cluster.kubeconfig),
        )
        assert (code, problems) == (0, ""), text
        _, attended = await a.until_ended(scenario, 2)
        assert a.phases([attended]) == ["Successful"]
        assert a.measurements(attended) == ["Successful", "Successful"]
        assert "ann decided to proceed: a quiet night" in "\n".join(await a.said(scenario))
        *_, last = await a.until_ended(scenario, 3)
    assert a.phases([last]) == ["Inconclusive"]
    assert a.measurements(last) == ["Successful", "Failed", "Successful"]
    paused = await scenario.until(
        ROLLOUT,
        "chat",
        lambda obj: obj is not None and obj["status"].get("pauseConditions"),
        what="a pause",
    )
    (condition,) = paused["status"]["pauseConditions"]
    assert condition["reason"] == "InconclusiveAnalysisRun"
