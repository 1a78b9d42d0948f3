"""Settings of a Rollout that the API server takes and that hurt canaries of language models.

Defaults are Argo Rollouts' (v1.10.2, utils/defaults/defaults.go).
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final

from inference_plugin.config import DestinationMode
from inference_plugin.lint.findings import Finding, Severity, finding
from inference_plugin.lint.subject import ROUTING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inference_plugin.lint.subject import Subject

Object = dict[str, Any]
_CANARY: Final = ("spec", "strategy", "canary")
_DELAY_S: Final = 30
_PROGRESS_S: Final = 600
_MAXIMUM: Final = 100
_ROUTE_STEPS: Final = ("setHeaderRoute", "setMirrorRoute")
_LOOKS: Final = ("pause", "analysis", "experiment", "plugin")
"""Steps that give somebody, or something, the time to see the canary fail."""


def settings(
    subject: Subject, *, longest_generation_s: float, model_load_s: float
) -> Iterator[Finding]:
    """Times, and the ways in which Argo Rollouts scales."""
    document, canary = subject.document, subject.canary
    dynamic = bool(canary.get("dynamicStableScale"))
    if subject.serves:
        yield from _delays(subject, longest_generation_s)
        yield from _readiness(subject)
    deadline = document.obj["spec"].get("progressDeadlineSeconds", _PROGRESS_S)
    if subject.config.mode is not DestinationMode.MODEL and deadline < model_load_s:
        yield finding(
            Severity.WARNING,
            "progress-deadline",
            document,
            *("spec", "progressDeadlineSeconds"),
            what=f"progressDeadlineSeconds is {deadline}, a model load takes up to "
            f"{model_load_s:g} s",
            why="a version that is still loading counts as failed, and with "
            "progressDeadlineAbort it is rolled back",
            remedy="set it to twice the longest model load (--model-load)",
        )
    if dynamic:
        falls = any(after < before for before, after in _pairs(_weights(canary)))
        yield finding(
            Severity.ERROR if falls else Severity.WARNING,
            "dynamic-stable-scale",
            document,
            *(*_CANARY, "dynamicStableScale"),
            what="dynamicStableScale is on"
            + (", and the weights of the steps fall" if falls else ""),
            why="stable pods are ended as the canary grows, so that an abort has to load the old "
            "model again before it can take its traffic back"
            + (
                "; at a falling step the canary shrinks before stable has grown, and the plugin "
                "can't move the traffic first"
                if falls
                else ""
            ),
            remedy="leave dynamicStableScale out" + (", or let no step fall" if falls else ""),
        )
    if subject.serves and subject.replicas > 1 and not canary.get("replicaProgressThreshold"):
        yield finding(
            Severity.ADVICE,
            "replica-progress-threshold",
            document,
            *_CANARY,
            what=f"there is no replicaProgressThreshold, with {subject.replicas} replicas",
            why="while a single stable pod is not available, the controller asks for no weights at "
            "all (an abort is carried out by the plugin all the same)",
            remedy="if steps should go on with, say, 90 % of the pods: replicaProgressThreshold: "
            "{type: Percentage, value: 90}; canary steps are then complete with that many too",
        )


def _delays(subject: Subject, longest_s: float) -> Iterator[Finding]:
    canary = subject.canary
    if not canary.get("dynamicStableScale"):
        delay = canary.get("scaleDownDelaySeconds", _DELAY_S)
        if delay < longest_s:
            yield finding(
                Severity.WARNING,
                "scale-down-delay",
                subject.document,
                *(*_CANARY, "scaleDownDelaySeconds"),
                what=f"scaleDownDelaySeconds is {delay}, an answer takes up to {longest_s:g} s",
                why="the old version's pods are ended that long after the promotion, with the "
                "answers that they are still generating",
                remedy="set it above the longest generation (--longest-generation)",
            )
    delay = canary.get("abortScaleDownDelaySeconds", _DELAY_S)
    # 0 means that an aborted canary is never scaled down.
    if delay and delay < longest_s:
        yield finding(
            Severity.WARNING,
            "abort-scale-down-delay",
            subject.document,
            *(*_CANARY, "abortScaleDownDelaySeconds"),
            what=f"abortScaleDownDelaySeconds is {delay}, an answer takes up to {longest_s:g} s",
            why="the canary's pods are ended that long after an abort, with the answers that they "
            "are still generating",
            remedy="set it above the longest generation (--longest-generation)",
        )


def _readiness(subject: Subject) -> Iterator[Finding]:
    if subject.template is None:
        return
    document, place, template = subject.template
    containers = (template.get("spec") or {}).get("containers") or []
    if containers and not any(each.get("readinessProbe") for each in containers):
        yield finding(
            Severity.WARNING,
            "readiness-probe",
            document,
            *place,
            *("spec", "containers", 0),
            what="no container has a readinessProbe",
            why="a pod without one is ready at once, and gets requests before its model is loaded",
            remedy="add one, for vLLM httpGet of /health on the served port",
        )


def steps(subject: Subject) -> Iterator[Finding]:
    """The steps: a canary has to stand somewhere before it gets everything."""
    document, canary = subject.document, subject.canary
    found = canary.get("steps") or []
    routing = canary.get("trafficRouting") or {}
    maximum = routing.get("maxTrafficWeight") or _MAXIMUM
    known = [str(each.get("name")) for each in routing.get("managedRoutes") or []]
    for index, step in enumerate(found):
        for kind in _ROUTE_STEPS:
            name = str((step.get(kind) or {}).get("name"))
            if kind in step and name not in known:
                yield finding(
                    Severity.ERROR,
                    "managed-route",
                    document,
                    *(*_CANARY, "steps", index),
                    what=f"{kind} {name!r} is not among managedRoutes "
                    f"({', '.join(known) or 'none'})",
                    why="Argo Rollouts refuses the Rollout (InvalidSpec)",
                    remedy=f"add {{name: {name}}} to {'.'.join(ROUTING)}.managedRoutes",
                )
        if step.get("setWeight", 0) > maximum:
            yield finding(
                Severity.ERROR,
                "step-weight",
                document,
                *(*_CANARY, "steps", index),
                what=f"setWeight {step['setWeight']} is above maxTrafficWeight {maximum}",
                why="it is out of maxTrafficWeight, not per cent",
                remedy=f"choose a weight up to {maximum}, or raise "
                f"{'.'.join(ROUTING)}.maxTrafficWeight",
            )
    if not _looks_before_everything(found, maximum):
        yield finding(
            Severity.WARNING,
            "no-pause",
            document,
            *(*_CANARY, "steps"),
            what="the canary gets all traffic without a stop at a smaller share"
            if found
            else "there are no steps",
            why="nobody sees a bad version before everybody has it",
            remedy="put a pause or an analysis after a setWeight below "
            f"{maximum}, for example [{{setWeight: 10}}, {{pause: {{}}}}]",
        )


def _looks_before_everything(found: list[Object], maximum: int) -> bool:
    """Whether there is a look at a share between nothing and everything."""
    weight = 0
    for step in found:
        weight = int(step.get("setWeight", weight))
        if 0 < weight < maximum and any(kind in step for kind in _LOOKS):
            return True
    return False


def _weights(canary: Object) -> list[int]:
    return [int(each["setWeight"]) for each in canary.get("steps") or [] if "setWeight" in each]


def _pairs(values: list[int]) -> list[tuple[int, int]]:
    return list(itertools.pairwise(values))
