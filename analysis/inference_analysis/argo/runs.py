"""The edge to the API server: the AnalysisRun that asks, and the Rollout it is about."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from inference_analysis.argo.protocol import Outcome
from inference_analysis.argo.settings import (
    DEFAULTS_CONFIGMAP,
    DEFAULTS_KEY,
    analysis_document,
    merged,
    tree,
)
from inference_analysis.argo.subjects import (
    METRIC_ANNOTATION,
    RUN_NAME_ANNOTATION,
    rollout_of,
    seconds_of,
)
from inference_analysis.errors import InputError
from inference_common.errors import KubeError
from inference_common.kube import CONFIGMAP, EVENT, JOB, POD, REPLICASET, ROLLOUT, Resource
from inference_common.names import DESTINATION_ANNOTATION, HASH_LABEL
from inference_common.revisions import revision_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from inference_analysis.argo.books import Entry
    from inference_analysis.argo.settings import AnalysisDocument
    from inference_analysis.argo.subjects import Subject
    from inference_common.kube import Kube

Object = dict[str, Any]
ANALYSISRUN: Final = Resource("argoproj.io", "v1alpha1", "analysisruns", "AnalysisRun")
_LONGEST_MESSAGE: Final = 1024
"""What the API server takes as an Event's message."""


async def run_of_job(kube: Kube, namespace: str, job: str) -> tuple[Object, str]:
    """The AnalysisRun that made the Job, and the name of its metric.

    Raises InputError for a Job that Argo Rollouts did not make, KubeError.
    """
    try:
        found = await kube.get(JOB, job, namespace)
    except KubeError as error:
        if error.not_found:
            raise InputError(
                f"Job {namespace}/{job} does not exist. JOB_NAME comes from the pod's label "
                "job-name; see `analysis template`"
            ) from error
        raise
    notes = found["metadata"].get("annotations") or {}
    if RUN_NAME_ANNOTATION not in notes or METRIC_ANNOTATION not in notes:
        raise InputError(
            f"Job {namespace}/{job} was not made by an AnalysisRun of Argo Rollouts. Run it from "
            "an AnalysisTemplate (`analysis template`)"
        )
    run = await kube.get(ANALYSISRUN, notes[RUN_NAME_ANNOTATION], namespace)
    return run, notes[METRIC_ANNOTATION]


async def running_run(
    kube: Kube, namespace: str, rollout: str, canary_hash: str, metric: str
) -> Object:
    """The Rollout's newest AnalysisRun of that canary that measures the metric and has not ended.

    Argo's Web provider does not say which AnalysisRun asks. Raises InputError, KubeError.
    """
    found = await kube.list(ANALYSISRUN, namespace, f"{HASH_LABEL}={canary_hash}")
    asking = [run for run in found["items"] if _asks(run, rollout, metric)]
    if not asking:
        raise InputError(
            f"no running AnalysisRun of Rollout {namespace}/{rollout} with "
            f"{HASH_LABEL}={canary_hash or '(empty)'} measures {metric!r}. Check the arguments in "
            "the template's jsonBody"
        )
    return max(asking, key=lambda run: str(run["metadata"]["creationTimestamp"]))


def _asks(run: Mapping[str, Any], rollout: str, metric: str) -> bool:
    owners = run["metadata"].get("ownerReferences") or []
    of_rollout = any(o["kind"] == "Rollout" and o["name"] == rollout for o in owners)
    ended = run.get("status", {}).get("phase") in {"Successful", "Failed", "Error", "Inconclusive"}
    return of_rollout and not ended and any(m["name"] == metric for m in run["spec"]["metrics"])


async def rollout_behind(kube: Kube, run: Mapping[str, Any]) -> Object:
    """The Rollout that made the AnalysisRun. Raises InputError, KubeError."""
    name, _ = rollout_of(run)
    return await kube.get(ROLLOUT, name, run["metadata"]["namespace"])


async def settings_of(
    kube: Kube,
    namespace: str,
    values: Mapping[str, Any],
    where: str,
    pinned: Mapping[str, Any] | None = None,
) -> AnalysisDocument:
    """The analysis' settings over the team's defaults; ``pinned`` sections replace both.

    Raises InputError, KubeError.
    """
    try:
        team = await kube.get(CONFIGMAP, DEFAULTS_CONFIGMAP, namespace)
    except KubeError as error:
        if not error.not_found:
            raise
        team = {}
    shared = (team.get("data") or {}).get(DEFAULTS_KEY, "")
    defaults = tree(shared, f"ConfigMap {namespace}/{DEFAULTS_CONFIGMAP}, {DEFAULTS_KEY}")
    return analysis_document(merged(defaults, values) | dict(pinned or {}), where)


async def canary_since(kube: Kube, subject: Subject) -> float:
    """When the canary's oldest pod was made, 0 where it has none. Raises KubeError."""
    found = await kube.list(POD, subject.namespace, f"{HASH_LABEL}={subject.canary_hash}")
    owner = f"{subject.rollout}-{subject.canary_hash}"
    return min((_made(pod) for pod in found["items"] if _owned(pod, owner)), default=0.0)


def _made(obj: Mapping[str, Any]) -> float:
    return seconds_of(obj["metadata"]["creationTimestamp"])


def _owned(pod: Mapping[str, Any], name: str) -> bool:
    owners: Sequence[Mapping[str, Any]] = pod["metadata"].get("ownerReferences") or []
    return any(owner["name"] == name for owner in owners)


async def with_destinations(kube: Kube, subject: Subject) -> Subject:
    """The subject with the destinations that its revisions' pod templates name.

    Raises InputError for a revision that names none, KubeError.
    """
    named: dict[str, str] = {}
    for arm, pod_hash in (("canary", subject.canary_hash), ("stable", subject.stable_hash)):
        sets = await kube.list(REPLICASET, subject.namespace, f"{HASH_LABEL}={pod_hash}")
        revision = revision_of(subject.rollout_uid, pod_hash, sets["items"])
        if revision is None or not revision.destination:
            raise InputError(
                f"arms.by adapters: the {arm}'s pod template ({pod_hash}) has no annotation "
                f"{DESTINATION_ANNOTATION}. It names the LoRA adapter of a revision; set it, or "
                "compare pods"
            )
        named[arm] = revision.destination
    return replace(subject, canary_destination=named["canary"], stable_destination=named["stable"])


async def announce(kube: Kube, subject: Subject, entry: Entry) -> None:
    """Say the verdict as an Event, on the AnalysisRun and on the Rollout. Raises KubeError."""
    word = entry.outcome.value if entry.final else "Waiting"
    failed = entry.outcome is Outcome.FAILED
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    for resource, name, uid in (
        (ANALYSISRUN, subject.run, subject.run_uid),
        (ROLLOUT, subject.rollout, subject.rollout_uid),
    ):
        event = {
            "metadata": {"generateName": "analysis-"},
            "involvedObject": {
                "apiVersion": resource.api_version,
                "kind": resource.kind,
                "name": name,
                "namespace": subject.namespace,
                "uid": uid,
            },
            "type": "Warning" if failed or not entry.final else "Normal",
            "reason": f"Analysis{word}",
            "message": _short("\n".join(entry.lines)),
            "source": {"component": "inference-rollouts-analysis"},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        await kube.create(EVENT, event, subject.namespace)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_MESSAGE else text[: _LONGEST_MESSAGE - 1] + "…"
