"""From exchanges to the lines of a scores file."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from inference_analysis.errors import InputError
from inference_analysis.observations import JUDGE, QUALITY, Arm
from inference_analysis.prompts.checks import checked
from inference_analysis.prompts.judge import DIGEST, VERSION, Preference, Tally, scored
from inference_analysis.prompts.measures import drift
from inference_analysis.prompts.scores import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from inference_analysis.prompts.answers import Answer
    from inference_analysis.prompts.check_scores import Score
    from inference_analysis.prompts.endpoints import Endpoint, Reply
    from inference_analysis.prompts.probing import Exchange, ProbePlan
    from inference_analysis.prompts.prompt_sets import PromptSet, Question


def _checked(answer: Answer, question: Question) -> Score:
    """The score of all checks. Raises InputError, with the prompt's id."""
    try:
        return checked(answer, question.checks, question.reference)
    except InputError as error:
        raise InputError(f"prompt {question.id}: {error}") from error


def require_scorable(prompt_set: PromptSet, *, judged: bool) -> None:
    """Raise InputError when there are prompts that nothing would score."""
    bare = [question.id for question in prompt_set.questions if not question.checks]
    if bare and not judged:
        raise InputError(
            f"{len(bare)} prompts have no checks ({', '.join(bare[:5])}), and no judge is given. "
            "Add checks, or --judge"
        )


def header(
    prompt_set: PromptSet,
    endpoints: Mapping[Arm, Endpoint],
    plan: ProbePlan,
    *,
    started_s: float,
    ended_s: float,
    hashes: Mapping[Arm, str],
    judge_model: str = "",
    preferences: Sequence[Preference] | None = None,
) -> dict[str, Any]:
    """The first line."""
    found: dict[str, Any] = {
        "schema": SCHEMA,
        "promptSet": {
            "name": prompt_set.name,
            "version": prompt_set.version,
            "sha256": prompt_set.digest,
        },
        "canaryHash": hashes[Arm.CANARY],
        "stableHash": hashes[Arm.STABLE],
        "started": round(started_s, 3),
        "ended": round(ended_s, 3),
        "seed": plan.seed,
        "repeats": plan.repeats,
        "arms": {
            arm.value: {"urls": list(endpoint.urls), "model": endpoint.model}
            for arm, endpoint in endpoints.items()
        },
    }
    if preferences is not None:
        tally = Tally.of(preferences)
        found["judge"] = {
            "model": judge_model,
            "promptVersion": VERSION,
            "promptSha256": DIGEST,
            "pairs": tally.pairs,
            "nonsense": tally.nonsense,
            "inconsistent": tally.inconsistent,
        }
    return found


def lines(
    exchanges: Sequence[Exchange],
    preferences: Sequence[Preference] | None = None,
    *,
    keep_answers: bool = True,
) -> Iterator[dict[str, Any]]:
    """One line for each answer: its scores on all measures, why, and how it came."""
    verdicts: Sequence[Preference | None] = preferences or (None,) * len(exchanges)
    for exchange, preferred in zip(exchanges, verdicts, strict=True):
        canary, stable = exchange.canary, exchange.stable
        measured = drift(canary.answer, stable.answer)
        judged = None if preferred is None else scored(preferred)
        if judged is not None:
            measured[JUDGE] = judged
        for arm, reply in ((Arm.CANARY, canary), (Arm.STABLE, stable)):
            scores = {name: getattr(pair, arm.value) for name, pair in measured.items()}
            reasons = []
            if exchange.question.checks:
                score = _checked(reply.answer, exchange.question)
                scores[QUALITY] = score.value
                reasons.append(score.reason)
            if preferred is not None and arm is Arm.CANARY:
                reasons.append(f"judge: {preferred.value}")
            if not scores:
                continue
            yield {
                "id": exchange.question.id,
                "arm": arm.value,
                "repeat": exchange.repeat,
                "topic": exchange.question.topic,
                "weight": exchange.question.weight,
                "scores": scores,
                "reason": "; ".join(reasons),
                **_told(reply, exchange.question.text, keep=keep_answers),
            }


def _told(reply: Reply, text: str, *, keep: bool) -> dict[str, Any]:
    answer = _written(reply.answer)
    found: dict[str, Any] = {
        "finishReason": reply.answer.finish_reason,
        "tokens": reply.answer.tokens,
        "attempts": reply.attempts,
        "firstTokenSeconds": reply.first_token_s,
        "seconds": round(reply.seconds, 6),
        "version": reply.version,
    }
    if keep:
        return found | {"text": text, "answer": answer}
    return found | {"answerSha256": hashlib.sha256(answer.encode()).hexdigest()}


def _written(answer: Answer) -> str:
    calls = [{"name": c.name, "arguments": c.arguments} for c in answer.tool_calls]
    return answer.text + (json.dumps(calls, ensure_ascii=False) if calls else "")


def rendered(first: Mapping[str, Any], rest: Sequence[Mapping[str, Any]]) -> str:
    """The whole file."""
    return "".join(
        json.dumps(line, ensure_ascii=False, allow_nan=False, separators=(",", ":")) + "\n"
        for line in (first, *rest)
    )


def summary(
    exchanges: Sequence[Exchange],
    rest: Sequence[Mapping[str, Any]],
    preferences: Sequence[Preference] | None = None,
) -> str:
    """What came out, in one line."""
    parts = [f"{len(exchanges)} pairs of answers"]
    for measure in (QUALITY, JUDGE):
        means = []
        for arm in Arm:
            found = [
                line["scores"][measure]
                for line in rest
                if line["arm"] == arm.value and measure in line["scores"]
            ]
            if found:
                means.append(f"{arm.value} {sum(found) / len(found):.3f}")
        if means:
            parts.append(f"{measure}: {', '.join(means)}")
    missing = [
        f"{count} of {arm.value}"
        for arm in Arm
        if (count := sum(bool(getattr(e, arm.value).answer.problem) for e in exchanges))
    ]
    if missing:
        parts.append("missing answers: " + " and ".join(missing))
    if preferences is not None:
        tally = Tally.of(preferences)
        parts.append(
            f"judge: {tally.inconsistent} of {tally.pairs} verdicts turned with the order, "
            f"{tally.nonsense} were none"
        )
    again = sum(e.canary.attempts + e.stable.attempts - 2 for e in exchanges)
    if again:
        parts.append(f"{again} repeated attempts after connection errors")
    return "; ".join(parts)
