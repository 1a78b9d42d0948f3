"""A whole comparison of answers: probe, judge, score."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inference_analysis.prompts import scores, scoring
from inference_analysis.prompts.endpoints import sessions
from inference_analysis.prompts.judging import judge
from inference_analysis.prompts.probing import probe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from inference_analysis.observations import Arm
    from inference_analysis.prompts.endpoints import Endpoint
    from inference_analysis.prompts.judging import JudgePlan
    from inference_analysis.prompts.probing import ProbePlan
    from inference_analysis.prompts.prompt_sets import PromptSet


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeRun:
    """What came out."""

    text: str
    """The scores file."""
    summary: str

    def prompts(self, *, canary_hash: str = "", stable_hash: str = "") -> list[dict[str, Any]]:
        """The ``prompts`` of a cells file."""
        found = scores.read(self.text.encode())
        return scores.prompt_documents(
            {"probe": found}, canary_hash=canary_hash, stable_hash=stable_hash
        )


async def probed(
    prompt_set: PromptSet,
    endpoints: Mapping[Arm, Endpoint],
    plan: ProbePlan,
    *,
    judging: tuple[Endpoint, JudgePlan] | None = None,
    hashes: Mapping[Arm, str],
    clock: Callable[[], float] = time.time,
    keep_answers: bool = True,
    ca_file: Path | None = None,
) -> ProbeRun:
    """Ask both versions, then the judge; every answer scored.

    Raises InputError for prompts that nothing scores or two arms that are one, EndpointError where
    an endpoint does not do its part.
    """
    scoring.require_scorable(prompt_set, judged=judging is not None)
    preferences = None
    started_s = clock()
    async with sessions(concurrency=plan.concurrency, ca_file=ca_file) as session:
        exchanges = await probe(session, prompt_set, endpoints, plan)
        ended_s = clock()
        if judging is not None:
            preferences = await judge(session, judging[0], exchanges, judging[1])
    first = scoring.header(
        prompt_set,
        endpoints,
        plan,
        started_s=started_s,
        ended_s=ended_s,
        hashes=hashes,
        judge_model=judging[0].model if judging else "",
        preferences=preferences,
    )
    rest = list(scoring.lines(exchanges, preferences, keep_answers=keep_answers))
    return ProbeRun(
        text=scoring.rendered(first, rest), summary=scoring.summary(exchanges, rest, preferences)
    )
