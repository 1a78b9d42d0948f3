"""What one AnalysisRun is about: read from the AnalysisRun and its Rollout. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from inference_analysis.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Object = dict[str, Any]
TYPE_LABEL: Final = "rollout-type"
STEP_LABEL: Final = "step-index"
RUN_UID_LABEL: Final = "analysisrun.argoproj.io/uid"
RUN_NAME_ANNOTATION: Final = "analysisrun.argoproj.io/name"
METRIC_ANNOTATION: Final = "analysisrun.argoproj.io/metric-name"
_BACKGROUND: Final = "Background"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One AnalysisRun of one Rollout."""

    namespace: str
    rollout: str
    rollout_uid: str
    run: str
    run_uid: str
    created_s: float
    measured: int
    """Measurements so far that did not end in an Error."""
    background: bool
    canary_hash: str
    stable_hash: str
    fraction: float
    """Share of the planned canary pod-time that has passed at this step's look."""
    canary_destination: str = ""
    """What the revision's pod template names, where adapters are compared: the LoRA adapter."""
    stable_destination: str = ""


def seconds_of(timestamp: str) -> float:
    """Seconds since the epoch of an RFC 3339 time."""
    return datetime.fromisoformat(timestamp).timestamp()


def rollout_of(run: Mapping[str, Any]) -> tuple[str, str]:
    """Name and uid of the Rollout that made the AnalysisRun.

    Raises InputError for an AnalysisRun of an Experiment, or of nobody.
    """
    for owner in run["metadata"].get("ownerReferences") or []:
        if owner.get("controller") and owner["kind"] == "Rollout":
            return owner["name"], owner["uid"]
    raise InputError(
        f"AnalysisRun {run['metadata']['name']} does not belong to a Rollout, so there is no "
        "canary to compare. Use the template in a Rollout's steps or background analysis"
    )


def subject(
    run: Mapping[str, Any],
    rollout: Mapping[str, Any],
    metric: str,
    *,
    canary_hash: str,
    stable_hash: str,
) -> Subject:
    """The AnalysisRun's facts; the hashes are what its template got as arguments."""
    metadata = run["metadata"]
    labels = metadata.get("labels") or {}
    results = run.get("status", {}).get("metricResults") or []
    measured = next((int(r.get("count", 0)) for r in results if r["name"] == metric), 0)
    name, uid = rollout_of(run)
    return Subject(
        namespace=metadata["namespace"],
        rollout=name,
        rollout_uid=uid,
        run=metadata["name"],
        run_uid=metadata["uid"],
        created_s=seconds_of(metadata["creationTimestamp"]),
        measured=measured,
        background=labels.get(TYPE_LABEL) == _BACKGROUND,
        canary_hash=canary_hash,
        stable_hash=stable_hash,
        fraction=planned_fraction(_steps(rollout), _step(labels, rollout)),
    )


def nothing_to_compare(subject: Subject, rollout: Mapping[str, Any]) -> str:
    """Why there is no older version to compare with, or nothing.

    Raises InputError for hashes that do not fit the Rollout: a template with wrong arguments must
    never pass as a first deployment.
    """
    status = rollout.get("status") or {}
    stable, current = status.get("stableRS", ""), status.get("currentPodHash", "")
    if not stable:
        return "the Rollout has no stable version yet: this is its first deployment"
    if current == stable:
        return f"the Rollout's current version {current} is its stable one"
    problems = []
    for option, got, source in (
        ("canary-hash", subject.canary_hash, "Latest"),
        ("stable-hash", subject.stable_hash, "Stable"),
    ):
        wanted = current if source == "Latest" else stable
        if got != wanted:
            problems.append(
                f"{option} is {got!r}, the Rollout has {wanted!r}. Set the step's or the "
                f"background analysis' arg {option} with valueFrom.podTemplateHashValue: {source}"
            )
    if problems:
        raise InputError(*problems)
    return ""


def planned_fraction(steps: Sequence[Mapping[str, Any]], index: int | None) -> float:
    """Share of the planned canary pod-time up to the analysis in step ``index``, in (0, 1].

    All looks of one plan last equally long, so pod-time goes by the weights: of two analyses at
    10 and 50 per cent the first has seen 10/60. Every analysis counts, whatever its template:
    they share one ledger. Without an index: 1.
    """
    if index is None or not 0 <= index < len(steps):
        return 1.0
    weight, passed, total = 0.0, 0.0, 0.0
    for position, step in enumerate(steps):
        weight = float(step.get("setWeight", weight))
        if "analysis" in step:
            # An analysis of the canary's pods before any weight still takes its time.
            total += max(weight, 1.0)
            if position <= index:
                passed = total
    return passed / total if passed and total else 1.0


def _steps(rollout: Mapping[str, Any]) -> list[Object]:
    strategy = rollout["spec"].get("strategy") or {}
    steps: list[Object] = (strategy.get("canary") or {}).get("steps") or []
    return steps


def _step(labels: Mapping[str, str], rollout: Mapping[str, Any]) -> int | None:
    text = labels.get(STEP_LABEL)
    if text is not None and text.isdigit():
        return int(text)
    if labels.get(TYPE_LABEL) == _BACKGROUND:
        return None
    index = (rollout.get("status") or {}).get("currentStepIndex")
    return None if index is None else int(index)
