"""From one AnalysisRun to its end: puts the API server, the ledger and the loop together."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

import structlog

from inference_analysis.argo.advancing import Analysis
from inference_analysis.argo.endings import entry_of, plain_ending
from inference_analysis.argo.protocol import Outcome, exit_code
from inference_analysis.argo.quality import QualityProbes
from inference_analysis.argo.runs import (
    announce,
    canary_since,
    rollout_behind,
    run_of_job,
    settings_of,
    with_destinations,
)
from inference_analysis.argo.settings import tree
from inference_analysis.argo.store import Store
from inference_analysis.argo.subjects import subject
from inference_analysis.errors import InputError, LedgerError
from inference_common.errors import KubeError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from inference_analysis.argo.books import Entry
    from inference_analysis.argo.subjects import Subject
    from inference_common.kube import Kube

T = TypeVar("T")
SETTINGS: Final = "the analysis' settings"
_PATIENCE_S: Final = 120.0
_PAUSE_S: Final = 1.0
_SHOWN_REMEDY: Final = (
    "correct the template, its settings or rights, then resume or retry the Rollout"
)


async def analysis_of(
    kube: Kube,
    run: Mapping[str, Any],
    metric: str,
    *,
    canary_hash: str,
    stable_hash: str,
    config: Mapping[str, Any],
    probes: QualityProbes,
    pinned: Mapping[str, Any] | None = None,
) -> Analysis:
    """What is needed to advance one AnalysisRun. Raises InputError, KubeError."""
    rollout = await rollout_behind(kube, run)
    about = subject(run, rollout, metric, canary_hash=canary_hash, stable_hash=stable_hash)
    settings = await settings_of(kube, about.namespace, config, SETTINGS, pinned)
    if settings.arms.by == "adapters":
        about = await with_destinations(kube, about)

    return Analysis(
        subject=about,
        settings=settings,
        rollout=rollout,
        store=Store(kube, about.namespace, about.rollout, about.rollout_uid),
        canary_since_s=await canary_since(kube, about),
        told=lambda entry: _told(kube, about, entry),
        probes=probes,
    )


async def job_result(
    kube: Kube, namespace: str, job: str, *, canary_hash: str, stable_hash: str, config: str
) -> tuple[tuple[str, ...], int]:
    """Five lines and the Job's exit code; takes as long as the AnalysisRun's plan says.

    Settings that cannot be used, rights that are missing and a ledger that cannot be written make
    the AnalysisRun Inconclusive. Raises InputError for a Job without an AnalysisRun, KubeError when
    that cannot be read or the API server stays away.
    """
    run, metric = await _patiently(lambda: run_of_job(kube, namespace, job))
    rollout = await _patiently(lambda: rollout_behind(kube, run))
    about = subject(run, rollout, metric, canary_hash=canary_hash, stable_hash=stable_hash)
    probes = QualityProbes(kube)
    try:
        values = tree(config, SETTINGS)
        while True:
            # Read anew each time: pods come and go, and the Rollout moves on.
            analysis = await _patiently(
                lambda: analysis_of(
                    kube,
                    run,
                    metric,
                    canary_hash=canary_hash,
                    stable_hash=stable_hash,
                    config=values,
                    probes=probes,
                )
            )
            entry = await _patiently(lambda at=analysis: at.advance(time.time()))  # type: ignore[misc]
            if entry is not None:
                return tuple(entry.lines), exit_code(entry.outcome, about.measured)
            await asyncio.sleep(_pause(analysis, about, time.time()))
    except (InputError, LedgerError, KubeError) as error:
        if isinstance(error, KubeError) and error.retryable:
            raise
        ending = plain_ending(about, Outcome.INCONCLUSIVE, str(error), _SHOWN_REMEDY)
    except Exception as error:  # noqa: BLE001 - a fault of ours must not abort anybody's canary
        structlog.get_logger().exception("the analysis itself has failed")
        problem = f"the analysis itself has failed ({type(error).__name__}: {error})"
        ending = plain_ending(about, Outcome.INCONCLUSIVE, problem, "see the Job's log; report it")
    finally:
        await probes.close()
    if not about.measured:
        await _told(kube, about, entry_of(ending, about.run_uid, time.time()))
    return ending.lines, exit_code(ending.outcome, about.measured)


async def _told(kube: Kube, about: Subject, entry: Entry) -> None:
    """An Event; a verdict stands without it."""
    try:
        await announce(kube, about, entry)
    except KubeError as error:
        structlog.get_logger().warning("the Event was refused", problem=str(error))


def _pause(analysis: Analysis, about: Subject, now_s: float) -> float:
    """Until the next check, or the look where that comes first."""
    look = analysis.settings.look
    left = about.created_s + look.after - now_s
    return min(look.every, left) if left > 0 and not about.background else look.every


async def _patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask again for as long as the API server does not answer. Raises KubeError in the end."""
    end = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return await ask()
        except KubeError as error:
            if not error.retryable or time.monotonic() > end:
                raise
            structlog.get_logger().warning("the API server does not answer", problem=str(error))
            await asyncio.sleep(_PAUSE_S)
