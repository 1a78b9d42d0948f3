"""Rollouts whose steps the analysis decides, on simulated vLLM pods under traffic."""

from __future__ import annotations

import asyncio
import re
import sys
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import yaml

from inference_analysis.argo import templates
from inference_analysis.argo.settings import (
    DEFAULTS_CONFIGMAP,
    DEFAULTS_KEY,
    analysis_document,
    merged,
)
from inference_analysis.argo.store import ledger_name
from inference_common.kube import CONFIGMAP, EVENT, JOB, POD, ROLLOUT, PatchKind, Resource
from inference_common.watching import WatchCache
from support import manifests as m
from support.scenario import TIMEOUT_S, ScenarioTimeout, canary_weight, is_observed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from support.scenario import Scenario

Object = dict[str, Any]
ANALYSISRUN: Final = Resource("argoproj.io", "v1alpha1", "analysisruns", "AnalysisRun")
TEMPLATE: Final = "canary-analysis"
COMMAND: Final = Path(sys.executable).with_name("inference-rollouts")
WANTED: Final = templates.Wanted(name=TEMPLATE, image="inference-rollouts/analysis")
ENDED: Final = frozenset({"Successful", "Failed", "Error", "Inconclusive"})
CALM: Final[Object] = {
    "gates": [
        *(
            {"metric": metric, "statistic": "mean", "margin": 0.5, "harmMargin": 0.4}
            for metric in ("ttft", "tpot", "e2e")
        ),
        {"metric": "errors", "statistic": "rate"},
    ]
}
"""A policy by which equal versions never fail. By the defaults they do in up to one run of 25: that
is what an error budget of .04 means. Here a false FAIL needs a mean that is 40 % off; that of the
time to the first token of a pod's 100 requests, the least certain, has a standard error of 4 %.
One that is three times as slow is gross harm."""
MAX_TOKENS: Final = 8
"""Short answers: what the tests need is many requests, not many tokens."""


def values(scenario: Scenario, **over: Any) -> Object:
    """Settings for windows of seconds; ``over`` is merged on top."""
    quick = {
        "prometheus": {"url": scenario.cluster.prometheus, "timeout": "10s"},
        "windows": {"length": "3s", "warmUp": "3s", "lookback": "5m"},
        "look": {"after": "24s", "every": "3s", "recent": "60s"},
        # Of no effect where Prometheus answers; long enough for one that a busy machine starves.
        "retryFor": "120s",
    }
    return merged(quick, over)


async def install(
    scenario: Scenario,
    settings: Object,
    *,
    name: str = TEMPLATE,
    background: bool = False,
    gated: bool = False,
    service: str = "",
) -> None:
    """The AnalysisTemplate and the rights, as `analysis template` writes them.

    With ``gated`` the Jobs' pods wait for ``open_gate`` before they go to a node.
    """
    elsewhere = {"prometheus": {"url": scenario.cluster.prometheus}}
    document = analysis_document(elsewhere | settings)
    wanted = templates.Wanted(name=name, image=WANTED.image, service=service)
    body = (
        templates.web_template(wanted, settings, document, background=background)
        if service
        else templates.job_template(wanted, settings, background=background)
    )
    if gated:
        job = body["spec"]["metrics"][0]["provider"]["job"]["spec"]
        job["template"]["spec"]["schedulingGates"] = [{"name": "scenario/gate"}]
    await scenario.apply(*templates.rights(wanted), body)


async def defaults(scenario: Scenario, settings: Object) -> None:
    """The team's defaults of the namespace."""
    await scenario.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": DEFAULTS_CONFIGMAP},
            "data": {DEFAULTS_KEY: yaml.safe_dump(settings)},
        }
    )


def analysis_of(name: str = TEMPLATE, *, web: bool = False) -> Object:
    """What names a template in a Rollout, with its arguments."""
    return templates.step(templates.Wanted(name=name), "web" if web else "job")


def steps(*weights: int, web: bool = False) -> list[Object]:
    """Each weight followed by an analysis."""
    found: list[Object] = []
    for weight in weights:
        found += [{"setWeight": weight}, {"analysis": analysis_of(web=web)}]
    return found


async def until_runs(
    scenario: Scenario,
    predicate: Callable[[Sequence[Object]], Any],
    *,
    what: str,
    timeout_s: float = TIMEOUT_S,
) -> list[Object]:
    """All AnalysisRuns of the namespace, oldest first, once the predicate is true of them."""
    async with WatchCache(scenario.kube, ANALYSISRUN, scenario.namespace) as cache:
        await cache.synced()

        def found(cache: WatchCache) -> list[Object] | None:
            runs = in_order(list(cache.items()))
            return runs if predicate(runs) else None

        try:
            return await cache.until(found, timeout_s)
        except TimeoutError:
            seen = [(r["metadata"]["name"], r.get("status")) for r in in_order(list(cache.items()))]
            raise ScenarioTimeout(
                f"{what} did not come within {timeout_s:.0f} s. AnalysisRuns: {seen}\n"
                f"Said: {await said(scenario)}"
            ) from None


def in_order(runs: list[Object]) -> list[Object]:
    """By creation; those of the same second by revision and step, which their names end with."""
    return sorted(
        runs,
        key=lambda run: (
            run["metadata"]["creationTimestamp"],
            [
                int(number)
                for number in re.findall(r"(?<=[-.])\d+(?=[-.]|$)", run["metadata"]["name"])
            ],
        ),
    )


def phases(runs: Sequence[Object]) -> list[str]:
    """Phase of each AnalysisRun."""
    return [run.get("status", {}).get("phase", "") for run in runs]


def measurements(run: Object) -> list[str]:
    """Phases of the run's measurements in order, without those whose Job was lost.

    On a busy machine Argo itself may take a Job for lost that its cache has not seen yet; it then
    measures once more.
    """
    return [found["phase"] for found in all_measurements(run) if found["phase"] != "Error"]


def all_measurements(run: Object) -> list[Object]:
    """The run's measurements in order."""
    results = run.get("status", {}).get("metricResults") or [{}]
    found: list[Object] = results[0].get("measurements") or []
    return found


async def until_begun(scenario: Scenario, count: int) -> list[Object]:
    """The AnalysisRuns once there are that many."""
    return await until_runs(
        scenario, lambda runs: len(runs) >= count, what=f"{count} AnalysisRuns", timeout_s=180.0
    )


async def until_ended(scenario: Scenario, count: int = 1, timeout_s: float = 240.0) -> list[Object]:
    """The AnalysisRuns once that many have ended."""
    return await until_runs(
        scenario,
        lambda runs: sum(phase in ENDED for phase in phases(runs)) >= count,
        what=f"the end of {count} AnalysisRuns",
        timeout_s=timeout_s,
    )


async def ended(scenario: Scenario) -> list[Object]:
    """The AnalysisRuns that have ended, oldest first."""
    found = await scenario.kube.list(ANALYSISRUN, scenario.namespace)
    return [run for run in in_order(found["items"]) if phases([run])[0] in ENDED]


async def said(scenario: Scenario) -> list[str]:
    """Messages of the analysis' Events on Rollouts, in order."""
    events = (await scenario.kube.list(EVENT, scenario.namespace))["items"]
    events.sort(key=lambda event: int(event["metadata"]["resourceVersion"]))
    return [event["message"] for event in events if _is_ours(event)]


def _is_ours(event: Object) -> bool:
    about = (event.get("source", {}).get("component"), event["involvedObject"]["kind"])
    return about == ("inference-rollouts-analysis", ROLLOUT.kind)


async def until_said(scenario: Scenario, text: str) -> str:
    """The first Event of the analysis on a Rollout that has the text in it."""
    async with WatchCache(scenario.kube, EVENT, scenario.namespace) as cache:
        await cache.synced()
        return await cache.until(
            lambda found: next(
                (e["message"] for e in found.items() if _is_ours(e) and text in e["message"]), None
            ),
            TIMEOUT_S,
        )


async def until_measurement(
    scenario: Scenario, run_uid: str, number: int, *, followed: bool = False
) -> Object | None:
    """The n-th measurement of an AnalysisRun once it is there, None if the run ended without it.

    With ``followed`` only once losing its Job is certain to be noticed. Argo makes a Job anew if
    it is deleted while Argo's own cache has no measurement yet; only after that does it put off
    ``resumeAt`` (argo-rollouts v1.10, metricproviders/job/job.go: Run and Resume).
    """

    def wanted(run: Object) -> Object | None:
        found = all_measurements(run)
        if len(found) < number:
            return None
        measurement = found[number - 1]
        over = measurement["phase"] in ENDED
        ready = not followed or over or measurement["resumeAt"] > measurement["startedAt"]
        return measurement if ready else None

    runs = await until_runs(
        scenario,
        lambda runs: any(wanted(run) or phases([run])[0] in ENDED for run in _of(runs, run_uid)),
        what=f"measurement {number} of {run_uid}",
        timeout_s=180.0,
    )
    return wanted(*_of(runs, run_uid))


def _of(runs: Sequence[Object], uid: str) -> list[Object]:
    return [run for run in runs if run["metadata"]["uid"] == uid]


def job_of(measurement: Object) -> str:
    """Name of a measurement's Job."""
    return str(measurement["metadata"]["job-name"])


async def until_pod(scenario: Scenario, job: str, phase: str = "Running") -> Object:
    """The pod of a Job that is in the phase."""
    async with WatchCache(scenario.kube, POD, scenario.namespace, f"job-name={job}") as cache:
        await cache.synced()
        return await cache.until(
            lambda pods: next(
                (pod for pod in pods.items() if pod.get("status", {}).get("phase") == phase), None
            ),
            TIMEOUT_S,
        )


async def open_gate(scenario: Scenario, job: str) -> None:
    """Let the pod of a Job run whose template is ``gated``."""
    pod = await until_pod(scenario, job, "Pending")
    await scenario.kube.patch(
        POD,
        pod["metadata"]["name"],
        {"spec": {"schedulingGates": None}},
        scenario.namespace,
        kind=PatchKind.MERGE,
    )


async def spoil(scenario: Scenario, pod_template_hash: str, **faults: object) -> None:
    """Give all running pods of a revision faults; a pod made later has none."""
    pods = await scenario.pods_of(pod_template_hash)
    assert pods
    async with aiohttp.ClientSession() as session:
        for pod in pods:
            url = f"http://{pod['status']['podIP']}:{m.MODEL_PORT}/faults"
            async with session.post(url, json=faults) as response:
                assert response.status == HTTPStatus.OK


async def begin(scenario: Scenario, change: Object, rollout: str = "chat") -> str:
    """Change the Rollout's pods, and wait for the canary's first weight; its hash."""
    before = (await scenario.hashes(rollout)).values()
    await scenario.revise(rollout, change)
    found = await scenario.until(
        ROLLOUT,
        rollout,
        lambda obj: (
            obj is not None
            and is_observed(obj)
            and obj["status"].get("currentPodHash") not in before
            and obj["status"].get("currentStepIndex", 0) > 0
            and canary_weight(obj) > 0
        ),
        what="a canary with a weight",
        timeout_s=180,
    )
    return str(found["status"]["currentPodHash"])


async def ledger(scenario: Scenario, rollout: str = "chat") -> dict[str, str]:
    """Data of the ledger's ConfigMap."""
    found = await scenario.kube.get(CONFIGMAP, ledger_name(rollout), scenario.namespace)
    data: dict[str, str] = found.get("data") or {}
    return data


async def jobs(scenario: Scenario) -> list[Object]:
    """The analysis' Jobs."""
    found: list[Object] = (await scenario.kube.list(JOB, scenario.namespace))["items"]
    return found


async def analysis(*args: str, stdin: str = "") -> tuple[int, str, str]:
    """Exit code and output of ``inference-rollouts analysis ARGS``."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        COMMAND, "analysis", *args, stdin=pipe, stdout=pipe, stderr=pipe
    )
    out, err = await process.communicate(stdin.encode())
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def release(version: str, *extra: str) -> Object:
    """Change of a Rollout's pod template to another version of the simulated server."""
    return {"spec": {"containers": [m.simulated_vllm(version, *extra)]}}
