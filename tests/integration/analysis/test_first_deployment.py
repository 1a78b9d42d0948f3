"""An AnalysisRun with nothing older to compare with: `analysis run` on the real API server.

Argo Rollouts itself asks for no analysis in a first deployment, and ends one that somebody makes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inference_analysis.argo import templates
from inference_common.kube import JOB, ROLLOUT
from inference_common.names import HASH_LABEL
from support import analysed as a
from support import manifests as m

if TYPE_CHECKING:
    from support.scenario import Scenario

NAME = "asked-by-hand"
SETTINGS = "{prometheus: {url: 'http://127.0.0.1:1'}}"


async def asked(scenario: Scenario, rollout: dict[str, Any], template: dict[str, Any]) -> None:
    """An AnalysisRun of the Rollout, and the Job of its first measurement."""
    owner = {
        "apiVersion": ROLLOUT.api_version,
        "kind": ROLLOUT.kind,
        "name": "chat",
        "uid": rollout["metadata"]["uid"],
        "controller": True,
    }
    (metric,) = template["spec"]["metrics"]
    hashes = [{"name": name, "value": "x"} for name in ("canary-hash", "stable-hash")]
    run = {
        "apiVersion": a.ANALYSISRUN.api_version,
        "kind": a.ANALYSISRUN.kind,
        # Without the label the controller would delete it.
        "metadata": {
            "name": NAME,
            "ownerReferences": [owner],
            "labels": {HASH_LABEL: rollout["status"]["currentPodHash"]},
        },
        "spec": {"metrics": [metric], "args": hashes, "terminate": True},
    }
    await scenario.kube.create(a.ANALYSISRUN, run, scenario.namespace)
    prefix = "analysisrun.argoproj.io"
    notes = {f"{prefix}/name": NAME, f"{prefix}/metric-name": metric["name"]}
    spec = metric["provider"]["job"]["spec"] | {"suspend": True}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": NAME, "annotations": notes},
        "spec": spec,
    }
    await scenario.kube.create(JOB, job, scenario.namespace)


async def test_in_a_first_deployment_the_outcome_is_successful_with_the_reason(
    scenario: Scenario,
) -> None:
    made = m.rollout("chat", m.pod_template(m.noop(), labels={"app": "chat"}), {})
    made["spec"]["strategy"] = {"canary": {}}
    await scenario.apply(made)
    # Argo calls the only version stable at once, whether its pods are there or not.
    rollout = await scenario.until(
        ROLLOUT, "chat", lambda obj: bool((obj or {}).get("status", {}).get("stableRS"))
    )
    await asked(scenario, rollout, templates.job_template(a.WANTED, {}, background=False))
    version = rollout["status"]["currentPodHash"]
    code, text, problems = await a.analysis(
        *("run", "--namespace", scenario.namespace, "--job", NAME, "--config", SETTINGS),
        *("--canary-hash", version, "--stable-hash", version),
        *("--kubeconfig", scenario.cluster.kubeconfig),
    )
    assert code == 0, (text, problems)
    first, why, *_ = text.splitlines()
    assert first == f"NOTHING TO COMPARE, proceed: {scenario.namespace}/chat canary {version}"
    assert why == f"why: the Rollout's current version {version} is its stable one"
    assert why in await a.until_said(scenario, "NOTHING TO COMPARE")
