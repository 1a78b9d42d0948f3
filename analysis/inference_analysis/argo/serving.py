"""The endpoint of Argo's Web provider: one POST a measurement, one JSON object back.

A measurement that must wait for its look is told ``wait``; the template counts that as a success.
The last one has nothing after it: while it, or any from the look's time on, waits for Prometheus,
answers or a person, it is an HTTP error (503), which Argo Rollouts asks again. So is an API server
that does not answer. What cannot be judged is ``pause``, so that no fault of ours aborts a Rollout.
"""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any, Final

import structlog
from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from inference_analysis.argo.protocol import Outcome, web_measurement
from inference_analysis.argo.quality import QualityProbes
from inference_analysis.argo.runs import running_run
from inference_analysis.argo.working import analysis_of
from inference_analysis.errors import AnalysisError, InputError
from inference_common.errors import KubeError
from inference_common.kube import Kube

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from inference_analysis.argo.books import Entry

PINNED: Final = ("prometheus", "quality")
"""Sections that only the server's own settings have: they name addresses and files."""
PATH: Final = "/v1/analysis"
_ACTIONS: Final = {
    Outcome.SUCCESSFUL: "proceed",
    Outcome.FAILED: "abort",
    Outcome.INCONCLUSIVE: "pause",
}
_KUBE: Final = web.AppKey("kube", Kube)
_PROBES: Final = web.AppKey("probes", QualityProbes)
_PINNED: Final = web.AppKey("pinned", dict[str, Any])
_LARGEST_BODY: Final = 256 * 1024


class Question(BaseModel):
    """What the template's jsonBody says."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, validate_by_name=False
    )

    namespace: str
    rollout: str
    canary_hash: str
    stable_hash: str
    metric: str
    config: dict[str, Any] = {}


def application(kube: Kube, pinned: Mapping[str, Any]) -> web.Application:
    """The server's application; ``pinned`` are the sections that no request may set."""
    app = web.Application(client_max_size=_LARGEST_BODY)
    app[_KUBE] = kube
    app[_PROBES] = QualityProbes(kube)
    app[_PINNED] = dict(pinned)
    app.on_cleanup.append(_stop_probes)
    app.router.add_post(PATH, _measure)
    app.router.add_get("/healthz", _healthy)
    app.router.add_get("/readyz", _healthy)
    return app


async def _stop_probes(app: web.Application) -> None:
    await app[_PROBES].close()


async def _healthy(_: web.Request) -> web.Response:
    return web.Response(text="ok\n")


async def _measure(request: web.Request) -> web.Response:
    kube, pinned = request.app[_KUBE], request.app[_PINNED]
    try:
        question = _question(await request.text())
        found = await _answer(kube, question, pinned, request.app[_PROBES])
        return web.json_response(found) if found else _not_yet()
    except (AnalysisError, KubeError) as error:
        if isinstance(error, KubeError) and error.retryable:
            structlog.get_logger().warning("the API server does not answer", problem=str(error))
            return web.json_response({"error": str(error)}, status=503)
        structlog.get_logger().warning("a measurement cannot be made", problem=str(error))
        return _unjudged(str(error))
    except Exception as error:  # noqa: BLE001 - a fault of ours must not abort anybody's canary
        structlog.get_logger().exception("the analysis itself has failed")
        return _unjudged(f"the analysis itself has failed ({type(error).__name__}: {error})")


def _not_yet() -> web.Response:
    return web.json_response(_said("wait", []), status=503)


def _unjudged(problem: str) -> web.Response:
    why = f"why: {' | '.join(problem.splitlines())}"
    return web.json_response(_said("pause", ["INCONCLUSIVE, pause", why]))


def _question(text: str) -> Question:
    try:
        question = Question.model_validate_json(text)
    except ValidationError as error:
        found = error.errors()[0]
        raise InputError(
            f"the request's {'.'.join(map(str, found['loc'])) or 'body'}: {found['msg']}. "
            "Generate the template with `analysis template --provider web`"
        ) from error
    for section in PINNED:
        if section in question.config:
            raise InputError(
                f"config.{section}: not taken from a request, it would send the server's "
                "credentials anywhere. Set it with `analysis serve --config`"
            )
    return question


async def _answer(
    kube: Kube, question: Question, pinned: Mapping[str, Any], probes: QualityProbes
) -> dict[str, Any]:
    """What the measurement is told; empty: nothing yet, and only an Error is asked again."""
    run = await running_run(
        kube, question.namespace, question.rollout, question.canary_hash, question.metric
    )
    analysis = await analysis_of(
        kube,
        run,
        question.metric,
        canary_hash=question.canary_hash,
        stable_hash=question.stable_hash,
        config=question.config,
        pinned=pinned,
        probes=probes,
    )
    now_s = time.time()
    measurement = web_measurement(run, question.metric)
    due = analysis.subject.created_s + analysis.settings.look.after
    # Argo may count by an older status than the one that was read here, and take a success for the
    # last one: from the look's time on there is none without a verdict.
    closing = not analysis.subject.background and (measurement.last or now_s >= due)
    if closing and not measurement.repeatable:
        settings = analysis.settings.model_copy(update={"max_wait": 0.0, "retry_for": 0.0})
        analysis = dataclasses.replace(analysis, settings=settings, asked_again=False)
    entry = await analysis.advance(now_s)
    if entry is not None:
        return _said(_ACTIONS[entry.outcome], entry.lines, entry)
    if not closing:
        return _said("wait", [])
    if measurement.repeatable:
        return {}
    raise InputError(
        "the last measurement came before the look. Is count x interval of the AnalysisTemplate "
        "shorter than look.after? Generate it with `analysis template --provider web`"
    )


def _said(action: str, lines: Sequence[str], entry: Entry | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"action": action}
    if lines:
        found["lines"] = list(lines)
    if entry is not None:
        found |= {"verdict": entry.verdict, "analysisRun": entry.run}
    return found
